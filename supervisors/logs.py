"""
Logs: what members have said, read from the logbooks of a run directory.

Lines of all processes of an app, those that have ended too, in the order of their times. No
process is asked, so logs can be read while the stage is away. Standard library only.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from actors.errors import InvalidArgument
from supervisors.settings import StageRecord

# Those of `logbook`, which the command line need not load.
_MARK = b"\x1e"
_FILE = re.compile(r"host-[0-9]+\.log")

_POLL = 0.1
_UNTIMED_LIMIT = 2.0
"""Seconds after which nobody will say any more when lines without a time were written."""
_AWAY_LIMIT = 35.0
"""Seconds without a stage after which nobody brings it back."""

_SECONDS_BY_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing said; its text may have several lines."""

    time: float
    service: str | None
    member: str | None
    actor: str | None
    """The member, or a child of it."""
    incarnation: int | None
    pid: int | None
    level: str | None
    source: str
    """`log`, `stdout`, `stderr`; `raw` for what was written past Python."""
    text: str
    fields: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_of(self, name: str) -> bool:
        """True when *name* is its service, its member or its actor."""
        if name in (self.service, self.member, self.actor):
            return True
        return self.actor is not None and "/" in name and self.actor.startswith(f"{name}/")


class Book:
    """One process's file, read as far as it goes and then further."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = -1
        self._rest = b""
        self._service: str | None = None
        self._pid: int | None = None
        self._sole: tuple[str | None, int | None] = (None, None)
        self._untimed: list[str] = []

    def read(self, *, to_the_end: bool) -> Iterator[Line]:
        """What has been written since the last time; with *to_the_end* also what has no time yet."""
        try:
            new = self._new_bytes()
            modified_at = os.stat(self.path).st_mtime
        except OSError:
            return
        *lines, self._rest = (self._rest + new).split(b"\n")
        if to_the_end and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            raw, mark, entry = line.partition(_MARK)
            if raw.strip():
                self._untimed.append(raw.decode(errors="replace").rstrip("\r"))
            if mark:
                yield from self._take(entry)
        if self._untimed and (to_the_end or time.time() - modified_at > _UNTIMED_LIMIT):
            yield from self._timed(modified_at)

    def _new_bytes(self) -> bytes:
        new = b""
        size = os.stat(self.path).st_size
        if self._offset < 0 or size < self._offset:
            # It was cut since, or before we came: the older half goes first.
            new = _bytes_of(f"{self.path}.1", max(0, self._offset))
            self._offset = 0
        now = _bytes_of(self.path, self._offset)
        self._offset += len(now)
        return new + now

    def _take(self, text: bytes) -> Iterator[Line]:
        try:
            entry = json.loads(text)
        except ValueError:
            return  # torn by the end of its process
        yield from self._timed(entry["time"])
        if "service" in entry:
            self._service, self._pid = entry["service"], entry["pid"]
            self._sole = tuple(entry["sole"]) if entry["sole"] else (None, None)
        elif "text" in entry:
            who = entry["actor"], entry["incarnation"]
            yield self._line(
                entry["time"], who, entry["level"], entry["source"], entry["text"], entry.get("fields", {})
            )

    def _timed(self, at: float) -> Iterator[Line]:
        untimed, self._untimed = self._untimed, []
        for text in untimed:
            yield self._line(at, self._sole, None, "raw", text, {})

    def _line(
        self,
        at: float,
        who: tuple[str | None, int | None],
        level: str | None,
        source: str,
        text: str,
        fields: dict[str, Any],
    ) -> Line:
        actor, incarnation = who
        path = actor.split("/") if actor is not None else []
        member = "/".join(path[:2]) if len(path) > 1 and path[0] == self._service else None
        return Line(at, self._service, member, actor, incarnation, self._pid, level, source, text, fields)


def _bytes_of(path: str, offset: int) -> bytes:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(offset)
        return file.read()
    return b""


class Library:
    """All books of one run directory."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._book_by_name: dict[str, Book] = {}

    def read(self, *, to_the_end: bool) -> Iterator[Line]:
        """What has been written since the last time, in the order of time."""
        with contextlib.suppress(OSError):
            for name in filter(_FILE.fullmatch, os.listdir(self._run_dir)):
                if name not in self._book_by_name:
                    self._book_by_name[name] = Book(f"{self._run_dir}/{name}")
        books = [book.read(to_the_end=to_the_end) for book in self._book_by_name.values()]
        return heapq.merge(*books, key=lambda line: line.time)

    def follow(self, is_over: Callable[[], bool]) -> Iterator[Line]:
        """What comes, until *is_over* and all is told."""
        while True:
            ends = is_over()
            yield from self.read(to_the_end=ends)
            if ends:
                return
            time.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines are wanted."""

    name: str | None = None
    """Of a service, a member or an actor."""
    since: float = 0.0
    pattern: re.Pattern[str] | None = None
    """Somewhere in the text or the fields."""

    def has(self, line: Line) -> bool:
        if line.time < self.since or not (self.name is None or line.is_of(self.name)):
            return False
        return self.pattern is None or self.pattern.search(_said(line)) is not None


def read_lines(
    run_dir: str, choice: Choice, last: int | None = None, until: Callable[[], bool] | None = None
) -> Iterator[Line]:
    """The *last* of what was said so far, all by default; with *until* what comes before it is true, too."""
    library = Library(run_dir)
    so_far = filter(choice.has, library.read(to_the_end=until is None))
    yield from so_far if last is None else deque(so_far, maxlen=last)
    if until is not None:
        yield from filter(choice.has, library.follow(until))


def ending(record: StageRecord) -> Callable[[], bool]:
    """Whether the app has ended. A stage that merely died comes back."""
    last_seen_at = time.monotonic()

    def is_over() -> bool:
        nonlocal last_seen_at
        try:
            if StageRecord.read(f"{record.run_dir}/stage.json").is_alive():
                last_seen_at = time.monotonic()
        except OSError:
            return True  # taken away: it has ended in order
        except InvalidArgument:
            pass
        return time.monotonic() - last_seen_at > _AWAY_LIMIT

    return is_over


def parse_duration(text: str) -> float:
    """Seconds of `90`, `30s`, `5m`, `2h`, `1d`; `InvalidArgument`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise InvalidArgument(f"{text!r} is no time; use 30s, 5m, 2h or 1d")
    return float(found[1]) * _SECONDS_BY_UNIT[found[2] or "s"]


_BELOW = ("traceback", "exception", "stack")
"""Fields of many lines: they stand below the text."""


def line_text(line: Line, now: float) -> str:
    """When, who in which life, and what: one line, and more where more was said."""
    is_today = time.localtime(now)[:3] == time.localtime(line.time)[:3]
    when = time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", time.localtime(line.time))
    who = line.actor or line.service or "?"
    life = f" life {line.incarnation}" if line.incarnation is not None else ""
    level = f"{line.level}: " if line.level not in (None, "info", "debug") else ""
    return f"{when}  {who}{life}  {level}{_said(line)}"


def _said(line: Line) -> str:
    beside = "".join(f"  {key}={value}" for key, value in line.fields.items() if key not in _BELOW)
    below = [str(line.fields[key]).strip("\n") for key in _BELOW if line.fields.get(key)]
    return "\n".join([line.text + beside, *below])

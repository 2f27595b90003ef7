"""
The logbook: what the members of one process say, in a file of the run directory.

Log lines, `print` and what goes to standard error become entries that name the actor and its
life. What is written past Python (C code, child processes) lands in the same file as plain
lines. A file is cut at 4 MiB and keeps one older half, so whoever talks without end loses its
own past and nothing else. `logs` reads it, from another process and after this one has ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from actors import events
from actors.context import current_actor

MARK = b"\x1e"
"""Begins every entry (RFC 7464): an entry is found even behind half a line of somebody else."""

FILE = re.compile(r"(host-[0-9]+)\.log(\.1)?")

LONGEST_FILE = 4 * 1024 * 1024
KEPT_BYTES = 32 * 1024 * 1024
KEPT_FILES = 100
"""Of processes that have ended, the newest."""

_LONGEST_TEXT = 64 * 1024
_LONGEST_PART = 8 * 1024
"""Characters without the end of a line that are kept waiting for it."""
_MOST_PARTS = 1000
_LOOK = 1.0
"""Seconds between two looks at what others have written."""


def open_logbook(
    run_dir: str, name: str, on_failure: Callable[[str], object] = lambda reason: None
) -> Logbook:
    """
    From now on all that this process says goes into its file; called once, on the main thread.

    *on_failure* hears, on any thread, why nothing can be written, once until it can again.
    """
    book = Logbook(f"{run_dir}/{name}.log", on_failure)
    book.take_over()
    return book


def prune(run_dir: str, living: Collection[str]) -> None:
    """Of processes other than *living* keep what was said last."""
    found = []
    with contextlib.suppress(OSError), os.scandir(run_dir) as entries:
        for entry in entries:
            match = FILE.fullmatch(entry.name)
            if match is not None and match[1] not in living:
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    found.sort(reverse=True)
    kept = kept_bytes = 0
    for _, size, path in found:
        if size and kept < KEPT_FILES and kept_bytes + size <= KEPT_BYTES:
            kept, kept_bytes = kept + 1, kept_bytes + size
            continue
        with contextlib.suppress(OSError):
            os.unlink(path)


class Logbook:
    """One process's file. Any thread; it never raises, for a full disk is no reason to crash an actor."""

    def __init__(self, path: str, on_failure: Callable[[str], object] = lambda reason: None) -> None:
        self.path = path
        self._on_failure = on_failure
        self._lost = 0
        """Entries that could not be written since the last one that could."""
        self._complaint = ""
        """Why not, until that has been told."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            self._file, self._complaint = os.open(os.devnull, flags), error.strerror or str(error)
        # Reentrant: a destructor that prints may run while this thread writes.
        self._lock = threading.RLock()
        self._size = 0
        """After our own last write: what is beyond came from somebody else."""
        self._service = ""
        self._sole: tuple[str, int] | None = None
        """The member of this process and its life, where there is only one."""

    def take_over(self) -> None:
        """Become standard output and error, and the way of all log lines that go nowhere else."""
        for descriptor in (1, 2):
            os.dup2(self._file, descriptor)
        sys.stdout = _Stream(self, "stdout", sys.stdout)
        sys.stderr = _Stream(self, "stderr", sys.stderr)
        # Not a handler of the root logger: `logging.basicConfig` would then do nothing.
        logging.lastResort = _LogHandler(self)
        events.log_to(self._take_fields)
        threading.Thread(target=self._watch, name="logbook", daemon=True).start()

    def attribute(self, service: str, members: Mapping[str, int]) -> None:
        """Whose process this is from now on: *members* of *service*, with their lives."""
        self._service = service
        self._sole = next(iter(members.items())) if len(members) == 1 else None
        with self._lock:
            self._write_head()
        self._complain()

    def say(
        self,
        source: str,
        text: str,
        level: str | None = None,
        fields: Mapping[str, Any] | None = None,
        actor: tuple[str, int] | None = None,
    ) -> None:
        """One entry, under the name of the actor whose code runs here unless another is given."""
        name, incarnation = actor or current_actor() or self._sole or (None, None)
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]}… ({len(text) - _LONGEST_TEXT} characters more)"
        entry = {"actor": name, "incarnation": incarnation, "level": level, "source": source, "text": text}
        with self._lock:
            self._write({**entry, "fields": fields} if fields else entry)
        self._complain()

    def _complain(self) -> None:
        """Outside the lock: what hears of it may have something to say."""
        complaint, self._complaint = self._complaint, ""
        if complaint:
            self._on_failure(complaint)

    def _take_fields(self, fields: dict[str, Any]) -> None:
        """A structlog line."""
        text, level = str(fields.pop("event", "")), fields.pop("level", None)
        name, incarnation = fields.pop("actor", None), fields.pop("incarnation", None)
        self.say("log", text, level, fields, (name, incarnation) if name else None)

    # -- the file: all of this under the lock ----------------------------------------------

    def _write_head(self) -> None:
        self._write({"service": self._service, "pid": os.getpid(), "sole": self._sole})

    def _write(self, entry: dict[str, Any]) -> None:
        now = round(time.time(), 3)
        try:
            if self._lost:
                name, incarnation = self._sole or (None, None)
                words = f"({self._lost} entries before this one could not be written)"
                lost = {"level": "warning", "source": "log", "text": words}
                self._append({"time": now, "actor": name, "incarnation": incarnation, **lost})
            self._append({"time": now, **entry})
        except OSError as error:
            self._complaint = self._complaint if self._lost else error.strerror or str(error)
            self._lost += 1
            return
        self._lost = 0
        with contextlib.suppress(OSError):
            self._size = os.fstat(self._file).st_size
            if self._size > LONGEST_FILE:
                self._turn_over()

    def _append(self, entry: dict[str, Any]) -> None:
        line = MARK + _json(entry) + b"\n"
        if os.write(self._file, line) < len(line):
            os.write(self._file, b"\n")  # says why: half of it was all that there was room for

    def _turn_over(self) -> None:
        # A copy and not a rename: child processes hold the same file, and go on writing to it.
        with contextlib.suppress(OSError):
            shutil.copyfile(self.path, f"{self.path}.1")
            os.chmod(f"{self.path}.1", 0o600)
        os.ftruncate(self._file, 0)
        self._write_head()

    def _watch(self) -> None:
        """Say until when others have written, and keep them within bounds too."""
        while True:
            time.sleep(_LOOK)
            with self._lock, contextlib.suppress(OSError):
                if os.fstat(self._file).st_size != self._size:
                    self._write({})


class _Stream(io.TextIOBase):
    """Standard output or error: what ends with a line's end becomes an entry, so prints stay whole."""

    def __init__(self, book: Logbook, source: str, original: Any) -> None:
        self._book = book
        self._source = source
        self._original = original
        self._part_by_speaker: dict[Any, str] = {}
        """What waits for the end of its line; threads and actors do not mix."""

    def write(self, text: str) -> int:
        speaker = threading.get_ident(), current_actor()
        said = self._part_by_speaker.pop(speaker, "") + text
        if said.endswith("\n"):
            self._book.say(self._source, said[:-1])
        elif len(said) > _LONGEST_PART or len(self._part_by_speaker) > _MOST_PARTS:
            self._book.say(self._source, said)
        elif said:
            self._part_by_speaker[speaker] = said
        return len(text)

    def flush(self) -> None:
        part = self._part_by_speaker.pop((threading.get_ident(), current_actor()), "")
        if part:
            self._book.say(self._source, part)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1 if self._source == "stdout" else 2

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        """For bytes: they are written past the entries."""
        return self._original.buffer


class _LogHandler(logging.Handler):
    """Records of `logging` for which the program has set up nothing: warnings and above."""

    def __init__(self, book: Logbook) -> None:
        super().__init__(logging.WARNING)
        self._book = book

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._book.say("log", self.format(record), record.levelname.lower(), {"logger": record.name})
        except Exception:
            self.handleError(record)


def _json(entry: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(entry, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):  # keys that JSON has not, circles
        text = json.dumps({**entry, "fields": {"fields": repr(entry.get("fields"))}}, default=repr)
    return text.encode(errors="backslashreplace")

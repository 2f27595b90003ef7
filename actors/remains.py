"""
Remains: what a process leaves behind of the calls it was handling when it died.

A process that handles calls which can come again notes them in a small file beside its socket,
through shared memory, so it costs 0.3 µs and outlives SIGKILL. Whoever sent one of
them can see whether it was in a handler at the end, and not merely in a mailbox: a message that was,
twice, is poison. Calls that are never sent again are not noted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from actors.clock import Timer

POISONOUS = 2
"""Processes that died with a call in a handler, after which it is not sent again."""

_MAGIC = b"US-hand1"
_HEADER = struct.Struct("<8sIIQ")
_CRASH_AT = 64
_CRASH_SIZE = 448
_SLOT = struct.Struct("<QQII")
_SLOTS_AT = 512
_SLOTS = 1024
_SIZE = _SLOTS_AT + _SLOTS * _SLOT.size
_FREE = struct.pack("<I", 0)
_LONGEST = 16_000
"""Characters of a crash file that are shown."""


class Tag(NamedTuple):
    """What a call carries that can come again."""

    origin: int
    """The system that made it; of a reliable tell its channel."""
    number: int
    """Of the message there; all attempts have the same."""
    key: str | None = None
    """What its caller has named it by."""
    attempt: int = 1
    """Which time it is sent; those before may have run."""
    deaths: int = 0
    """Processes that have died with it in a handler."""

    def again(self) -> Tag:
        """For the next attempt."""
        return Tag(self.origin, self.number, self.key, self.attempt + 1, self.deaths)

    def after_death(self) -> Tag:
        """Once another process has died with it in a handler."""
        return Tag(self.origin, self.number, self.key, self.attempt, self.deaths + 1)


class InHand:
    """The calls in the handlers of this process that can come again. Loop thread only."""

    def __init__(self, address: str, crash_file: str = "") -> None:
        self._path = _path_of(address)
        self._crash_file = crash_file
        self._map: mmap.mmap | None = None
        self._free: list[int] = []

    def hold(self, tag: Tag) -> int:
        """Note that a handler begins; what this returns ends the note. 0 where there is no room for one."""
        if self._map is None:
            self._open()
        if not self._free:
            return 0
        assert self._map is not None
        place = self._free.pop()
        _SLOT.pack_into(self._map, place, tag.origin, tag.number, tag.deaths, 1)
        return place

    def let_go(self, place: int) -> None:
        """The handler has ended."""
        if place and self._map is not None:
            self._map[place + 20 : place + 24] = _FREE
            self._free.append(place)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            os.ftruncate(file, _SIZE)
            self._map = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)
        pid = os.getpid()
        crash = os.fsencode(self._crash_file)[:_CRASH_SIZE]
        _HEADER.pack_into(self._map, 0, _MAGIC, pid, len(crash), _start_time(pid))
        self._map[_CRASH_AT : _CRASH_AT + len(crash)] = crash
        self._free = [_SLOTS_AT + number * _SLOT.size for number in reversed(range(_SLOTS))]

    def close(self) -> None:
        """This process ends in order: nothing is left behind."""
        if self._map is not None:
            self._map.close()
            self._map, self._free = None, []
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class Held:
    """The note of one message while it is handled; ends with its timer, if there is one (`clock.Timer`)."""

    __slots__ = ("_in_hand", "_place", "_timer")

    def __init__(self, in_hand: InHand, tag: Tag, timer: Timer | None) -> None:
        self._in_hand = in_hand
        self._place = in_hand.hold(tag)
        self._timer = timer

    def cancel(self) -> None:
        self._in_hand.let_go(self._place)
        if self._timer is not None:
            self._timer.cancel()


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead process was handling."""

    deaths_by_call: Mapping[tuple[int, int], int]
    """By `Tag.origin` and `Tag.number`: how many processes had died with that call in a handler before."""
    crash_file: str

    @property
    def has_poison(self) -> bool:
        """True when a call was among them that had been in a handler at an earlier death."""
        return any(deaths >= POISONOUS - 1 for deaths in self.deaths_by_call.values())

    def crash(self) -> str:
        """What the process wrote when it crashed; empty when it did not, or when that is gone."""
        try:
            return Path(self.crash_file).read_text(errors="replace")[:_LONGEST] if self.crash_file else ""
        except OSError:
            return ""


NOTHING = Remains({}, "")


def remains_of(address: str) -> Remains | None:
    """What the process that listened at *address* was handling when it died; None while it lives."""
    if not has_remains(address):
        return NOTHING
    try:
        with open(_path_of(address), "rb") as file:
            magic, pid, crash_size, started_at = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error):
        return NOTHING
    if magic != _MAGIC:
        return NOTHING
    if _start_time(pid) == started_at:
        return None
    return _read(_path_of(address), crash_size)


@lru_cache(maxsize=16)
def _read(path: str, crash_size: int) -> Remains:
    # Once for all calls that a process took with it; an address belongs to one process life.
    try:
        content = Path(path).read_bytes()
    except OSError:
        return NOTHING
    deaths_by_call = {
        (origin, number): deaths
        for origin, number, deaths, is_held in _SLOT.iter_unpack(content[_SLOTS_AT:_SIZE])
        if is_held
    }
    return Remains(deaths_by_call, os.fsdecode(content[_CRASH_AT : _CRASH_AT + crash_size]))


def has_remains(address: str) -> bool:
    """True for addresses of processes whose notes this machine could have."""
    return address.startswith("ipc://")


def _path_of(address: str) -> str:
    return address.removeprefix("ipc://").removesuffix(".ipc") + ".hand"


def _start_time(pid: int) -> int:
    """When a living process started, in ticks; 0 when it is dead, also before anybody has asked why."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    state, *rest = stat[stat.rindex(b")") + 1 :].split()
    return 0 if state in (b"Z", b"X") else int(rest[18])

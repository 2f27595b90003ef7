"""
Windows: the two ends of reliable tells from one sender to one receiver, as pure state machines.

The sender numbers its messages, keeps each until the receiver says that its handler has ended, and
sends again what did not arrive. The receiver hands them on in order and once, asks once for each
gap, and reports what arrived and what has ended. No clock, no sockets: instants come in as
arguments, and what is to be done comes out.

    arrived   is in the receiver's mailbox, or was; lost with the receiver's memory
    ended     its handler has ended, however: acknowledged for good
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

WINDOW = 256
"""Messages of one sender to one receiver that are not acknowledged."""

WINDOW_BYTES = 16 * 1024 * 1024
"""Their bytes; one alone may have more."""

FIRST_WAIT = 0.2
"""Seconds until what did not arrive is sent again. They double each time up to `LAST_WAIT`."""

LAST_WAIT = 5.0

AT_ONCE = 64
"""Messages that are sent again at one time."""


class WindowFull(Exception):
    """Too much is not acknowledged yet; the text says how much."""


class Report(NamedTuple):
    """What a receiver knows of one sender's messages."""

    arrived: int
    """All up to this one have arrived."""
    ended: int
    """All up to this one have ended."""
    beyond: tuple[int, ...] = ()
    """Those behind it that have ended too."""
    failures: tuple[tuple[int, Any], ...] = ()
    """Those that will never be handled, and why."""


class Settled(NamedTuple, Generic[T]):
    """A message whose fate is known."""

    item: T
    failure: Any
    """Why it will never be handled; None once it has been."""


class _Kept(Generic[T]):
    __slots__ = ("arrived", "item", "sent", "size", "suspect")

    def __init__(self, item: T, size: int) -> None:
        self.item: T | None = item
        """None once it is settled: only its number must still arrive, or the next life waits for it."""
        self.size = size
        self.sent = 0
        self.arrived = False
        self.suspect = False
        """True once it may have run at a receiver that has forgotten it."""


class Due(NamedTuple):
    """What a sender should do now."""

    numbers: tuple[int, ...]
    """Send these."""
    inquires: bool
    """Ask the receiver what it knows."""


_NOTHING = Due((), False)


class SenderWindow(Generic[T]):
    """The sender's end."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept[T]] = {}
        self._last = 0
        self._bytes = 0
        self._wait = FIRST_WAIT
        self.due_at = math.inf
        """The instant at which `due` has something to say."""

    def __len__(self) -> int:
        """Messages that are not settled."""
        return sum(kept.item is not None for kept in self._kept.values())

    def __contains__(self, number: int) -> bool:
        """Whether the receiver must still hear of that number."""
        return number in self._kept

    @property
    def base(self) -> int:
        """The oldest message that is not settled; the receiver need not remember any before it."""
        return next(iter(self._kept), self._last + 1)

    def item(self, number: int) -> T | None:
        """A message; None when it is settled, and an empty one is to be sent in its place."""
        return self._kept[number].item

    def numbers(self) -> tuple[int, ...]:
        """Those that are not settled."""
        return tuple(number for number, kept in self._kept.items() if kept.item is not None)

    def is_suspect(self, number: int) -> bool:
        """Whether it may have run at a receiver that has forgotten it."""
        return self._kept[number].suspect

    def was_sent(self, number: int) -> bool:
        """Whether it was given to the transport and not given back; else it certainly never ran."""
        return self._kept[number].sent > 0

    def offer(self, item: T, size: int) -> int:
        """Take a message and give it its number. `WindowFull` when there is no room."""
        if len(self._kept) >= WINDOW:
            raise WindowFull(f"{WINDOW} reliable tells are not acknowledged, the limit")
        if self._kept and self._bytes + size > WINDOW_BYTES:
            raise WindowFull(f"reliable tells of {self._bytes} bytes are not acknowledged")
        self._last += 1
        self._bytes += size
        self._kept[self._last] = _Kept(item, size)
        return self._last

    def abandon(self, number: int) -> None:
        """Nobody wants this message to be handled any more."""
        if number in self._kept:
            self._settle(self._kept[number])
            self._forget_settled()

    def sent(self, numbers: Iterable[int], now: float) -> None:
        """These were given to the transport."""
        for number in numbers:
            self._kept[number].sent += 1
        self.due_at = min(self.due_at, now + self._wait)

    def on_missing(self, first: int, last: int) -> tuple[int, ...]:
        """The receiver lacks *first* to *last*: which to send again."""
        return tuple(number for number in self._kept if first <= number <= last)

    def on_report(self, report: Report, now: float) -> list[Settled[T]]:
        """What the receiver's report settles."""
        settled: list[Settled[T]] = []
        beyond, failures = set(report.beyond), dict(report.failures)
        has_forgotten = False
        progress = False
        for number, kept in list(self._kept.items()):
            if number in failures or number <= report.ended or number in beyond:
                kept.arrived = True
                if kept.item is not None:
                    settled.append(Settled(kept.item, failures.get(number)))
                    self._settle(kept)
            elif number <= report.arrived:
                progress = progress or not kept.arrived
                kept.arrived = True
            elif kept.arrived:
                has_forgotten = True
        self._forget_settled()
        if has_forgotten:
            self.forgotten(now)
        elif settled or progress:
            self._wait = FIRST_WAIT
            self.due_at = now + self._wait if self._kept else math.inf
        return settled

    def returned(self, numbers: Iterable[int]) -> None:
        """The receiver gives these back: they were never handled there."""
        for number in numbers:
            if number in self._kept and not self._kept[number].suspect:
                self._kept[number].sent = 0

    def forgotten(self, now: float) -> None:
        """The receiver does not know us any more: all that is not settled goes to its next life."""
        for kept in self._kept.values():
            kept.suspect = kept.suspect or (kept.sent > 0 and kept.item is not None)
            kept.arrived = False
        self._wait = FIRST_WAIT
        self.due_at = now + self._wait if self._kept else math.inf

    def due(self, now: float) -> Due:
        """What to do at *now*; moves `due_at` on."""
        if now < self.due_at:
            return _NOTHING
        if not self._kept:
            self.due_at = math.inf
            return _NOTHING
        self._wait = min(LAST_WAIT, 2 * self._wait)
        self.due_at = now + self._wait
        lacking = [number for number, kept in self._kept.items() if not kept.arrived]
        return Due(tuple(lacking[:AT_ONCE]), not lacking)

    def drain(self) -> list[T]:
        """Give up on all; what was not settled."""
        kept, self._kept = self._kept, {}
        self._bytes = 0
        self.due_at = math.inf
        return [one.item for one in kept.values() if one.item is not None]

    def _settle(self, kept: _Kept[T]) -> None:
        kept.item = None
        self._bytes -= kept.size
        kept.size = 0

    def _forget_settled(self) -> None:
        while self._kept:
            number = next(iter(self._kept))
            if self._kept[number].item is not None:
                return
            del self._kept[number]


class ReceiverWindow(Generic[T]):
    """The receiver's end. It begins where the sender was when the two first met."""

    __slots__ = ("_arrived", "_asked", "_beyond", "_early", "_ended", "_failures", "base", "is_original")

    def __init__(self, base: int, is_original: bool) -> None:
        self.base = base
        """All before this one are settled."""
        self.is_original = is_original
        """True when it knows this sender from the start: what is new here has run nowhere else."""
        self._arrived = self._ended = self._asked = base - 1
        self._beyond: set[int] = set()
        self._early: dict[int, T] = {}
        self._failures: dict[int, Any] = {}

    def on_message(self, number: int, base: int, item: T) -> list[tuple[int, T]]:
        """What can be handed on now, in order. A duplicate is dropped, an early one kept."""
        if base > self.base:
            self._forget_before(base)
        if self._arrived < number <= self._arrived + WINDOW:
            self._early.setdefault(number, item)
        # Also with a duplicate: its base may have closed the gap before what lies here.
        ready = []
        while self._arrived + 1 in self._early:
            self._arrived += 1
            ready.append((self._arrived, self._early.pop(self._arrived)))
        return ready

    def missing(self) -> tuple[int, int] | None:
        """The first gap that was not asked for yet; it is now."""
        first = max(self._arrived, self._asked) + 1
        beyond = [number for number in self._early if number > first]
        if not self._early or not beyond:
            return None
        while first in self._early:
            first += 1
        later = [number for number in self._early if number > first]
        if not later:
            return None
        last = min(later) - 1
        self._asked = last
        return first, last

    def on_ended(self, number: int) -> None:
        """The handler of a message has ended."""
        if number > self._ended and number not in self._failures:
            self._beyond.add(number)
            self._advance()

    def on_failed(self, number: int, failure: Any) -> None:
        """A message will never be handled; its sender hears it until it has moved on."""
        if number > self._ended:
            self._failures[number] = failure

    def report(self) -> Report:
        """What the sender should know."""
        failures = tuple(sorted(self._failures.items()))
        return Report(self._arrived, self._ended, tuple(sorted(self._beyond)), failures)

    def _advance(self) -> None:
        while self._ended + 1 in self._beyond:
            self._ended += 1
            self._beyond.discard(self._ended)

    def _forget_before(self, base: int) -> None:
        """The sender has settled all before *base*."""
        self.base = base
        self._arrived = max(self._arrived, base - 1)
        self._ended = max(self._ended, base - 1)
        self._beyond = {number for number in self._beyond if number > self._ended}
        self._failures = {number: why for number, why in self._failures.items() if number >= base}
        self._early = {number: item for number, item in self._early.items() if number >= base}
        self._advance()

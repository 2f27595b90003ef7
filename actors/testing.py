"""
Testing: what makes tests of actors short and deterministic.

    ManualClock       time that stands still until the test moves it
    Probe             what happened, in order, and waiting for the n-th of it
    wait_until        waiting for a condition instead of sleeping for luck
    memory_system     a system whose messages travel in memory; two of them can talk
    FaultyTransport   a transport that loses, delays, doubles and breaks on cue

No process is started and no socket opened.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from actors._memory import MemoryTransport
from actors.clock import Timer
from actors.system import ActorSystem
from actors.transport import Link, LinkLost, Transport

_PAUSE = 0.001  # seconds between two looks at a condition
_TURNS = 60  # of the loop, after which what was ready has had its consequences


class ManualClock:
    """A clock for `ActorSystem(clock=…)`. Move it on the thread of the system's loop: timers run there."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """The instant at which the clock stands, seconds."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run *callback* once the clock has been moved *delay* seconds on."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._now + max(0.0, delay), next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on by *seconds*; what falls due runs in order, and the loop gets no turn in between."""
        until = self._now + max(0.0, seconds)
        while self._run_next(until):
            pass
        self._now = until

    async def elapse(self, seconds: float) -> None:
        """Like `advance`, and what each timer causes on the loop happens before the next one runs."""
        until = self._now + max(0.0, seconds)
        runs = True
        while runs:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            runs = self._run_next(until)
        self._now = until

    def _run_next(self, until: float) -> bool:
        if not self._timers or self._timers[0][0] > until:
            return False
        at, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, at)
        if not timer.is_cancelled:
            timer.callback()
        return True


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Seen(NamedTuple):
    """One thing that a `Probe` was told."""

    event: Any
    incarnation: int
    at: float


class Probe:
    """
    Records what happened; any thread.

    Actors call `probe.record("started", self.context.incarnation)`; a system takes it as a sink.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.seen: list[Seen] = []
        self._now = now

    def record(self, event: Any, incarnation: int = 0) -> None:
        """Remember *event*."""
        self.seen.append(Seen(event, incarnation, self._now()))

    def __call__(self, event: Any) -> None:
        self.record(event, getattr(event, "incarnation", 0))

    @property
    def events(self) -> list[Any]:
        """The events alone, in order."""
        return [one.event for one in self.seen]

    async def wait_for(self, n: int, timeout: float = 5.0) -> list[Seen]:
        """All that was seen, once that is at least *n*. `TimeoutError` says what there was instead."""
        try:
            await wait_until(lambda: len(self.seen) >= n, timeout)
        except TimeoutError:
            raise TimeoutError(f"saw {len(self.seen)} of {n} within {timeout:g} s: {self.events}") from None
        return list(self.seen)


async def wait_until(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    """
    Wait until *condition()* is true, and return that; `TimeoutError` after *timeout* real seconds.

    Awaitables are awaited: `await wait_until(ref.is_alive)`.
    """
    give_up_at = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= give_up_at:
            raise TimeoutError(f"the condition did not hold within {timeout:g} s")
        await asyncio.sleep(_PAUSE)


def wait_until_sync(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    """`wait_until` for sync code: *condition* gives plain values."""
    give_up_at = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= give_up_at:
            raise TimeoutError(f"the condition did not hold within {timeout:g} s")
        time.sleep(_PAUSE)
    return value


def memory_system(**options: Any) -> ActorSystem:
    """An `ActorSystem(**options)` that talks to others of its kind in this process, in pickles and frames."""
    return ActorSystem(**{"transport": MemoryTransport(), **options})


Fault = Literal["pass", "drop", "delay", "duplicate", "fail"]
"""What befalls an outgoing frame; `fail` breaks its link before the frame has left."""


class FaultyTransport:
    """
    A transport whose outgoing frames suffer faults: those of the script, then by chance, from *seed*.

    A frame holds what one process had for another at one time. A delayed one holds up those behind it.

        faults = FaultyTransport(odds={"drop": 0.1})
        faults.script("pass", "duplicate")            # what befalls the next two frames
        async with memory_system(transport=faults) as system: ...
    """

    def __init__(
        self,
        transport: Transport | None = None,
        *,
        odds: Mapping[Fault, float] | None = None,
        seed: int = 0,
        delay: float | tuple[float, float] = 0.05,
    ) -> None:
        self.suffered: list[Fault] = []  # by each frame so far
        self.delay = delay  # seconds, or the least and the most of them
        self._transport = transport = transport or MemoryTransport()
        self.listen = transport.listen
        self.close = transport.close
        self._odds = dict(odds or {})
        self._chance = random.Random(seed)
        self._script: list[Fault] = []
        self._lock = threading.Lock()

    def script(self, *faults: Fault) -> None:
        """Say what befalls the next frames; added to what the script has already."""
        self._script.extend(faults)

    @property
    def address(self) -> str:
        return self._transport.address

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        return _FaultyLink(self, self._transport.link(address, on_lost), on_lost)

    def next_fault(self) -> Fault:
        """What befalls the frame that is about to leave."""
        odds = {**self._odds, "pass": max(0.0, 1.0 - sum(self._odds.values()))}
        with self._lock:
            drawn = self._chance.choices(list(odds), list(odds.values()))[0]
            self.suffered.append(self._script.pop(0) if self._script else drawn)
            return self.suffered[-1]

    def next_delay(self) -> float:
        """Seconds by which the frame at hand is late."""
        if not isinstance(self.delay, tuple):
            return self.delay
        with self._lock:
            return self._chance.uniform(*self.delay)


class _FaultyLink:
    def __init__(self, faults: FaultyTransport, link: Link, on_lost: Callable[[], None]) -> None:
        self._faults = faults
        self._link = link
        self._on_lost = on_lost
        # Of the frame at hand: what befalls it, until when it is late, and copies sent.
        self._fault: Fault | None = None
        self._late_until: float | None = None
        self._sent = 0
        self._closed = threading.Event()
        self.open = link.open

    def send_nowait(self, frame: bytes) -> bool:
        fault = self._drawn()
        if fault == "delay" and self._late_until is None:
            self._late_until = time.monotonic() + self._faults.next_delay()
        if self._seconds_left() > 0:
            return False
        copies = {"drop": 0, "duplicate": 2}.get(fault, 1)
        while self._sent < copies:
            if not self._link.send_nowait(frame):
                return False
            self._sent += 1
        self._fault, self._late_until, self._sent = None, None, 0
        return True

    def send(self, frame: bytes) -> None:
        while not self.send_nowait(frame):
            self.wait_writable()

    def wait_writable(self) -> None:
        if self._seconds_left() > 0:
            self._closed.wait(self._seconds_left())
        else:
            self._link.wait_writable()

    def _seconds_left(self) -> float:
        return 0.0 if self._late_until is None else self._late_until - time.monotonic()

    def close(self) -> None:
        self._closed.set()
        self._link.close()

    def _drawn(self) -> Fault:
        if self._closed.is_set():
            raise LinkLost("the link was closed")
        self._fault = self._fault or self._faults.next_fault()
        if self._fault == "fail":
            self.close()
            self._on_lost()
            raise LinkLost("the link broke, as it should")
        return self._fault

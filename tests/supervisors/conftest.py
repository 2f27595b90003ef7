"""What tests of supervisors share: a clock moved by hand, and waiting for a condition."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from actors.events import Event
from actors.system import ActorSystem

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


class HandMovedClock:
    """A clock that stands still until `advance`; timers run in the order in which they fall due."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[tuple[float, int, _HandMovedTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> _HandMovedTimer:
        timer = _HandMovedTimer(callback)
        heapq.heappush(self._timers, (self._now + max(0.0, delay), next(self._numbers), timer))
        return timer

    def waiting(self) -> list[float]:
        """Seconds until each timer that has not been cancelled."""
        return sorted(at - self._now for at, _, timer in self._timers if not timer.is_cancelled)

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and let what falls due in them have its consequences."""
        until = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= until:
            at, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, at)
            if not timer.is_cancelled:
                timer.callback()
            await settle()
        self._now = until


class _HandMovedTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


async def settle(turns: int = 60) -> None:
    """Let everything that is ready on the loop run; for consequences that need neither time nor threads."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def _wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def wait_until() -> WaitUntil:
    """`await wait_until(lambda: …)`: until it is true, at most 10 s."""
    return _wait_until


@pytest.fixture
def clock() -> HandMovedClock:
    return HandMovedClock()


@pytest.fixture
def events() -> list[Event]:
    """All events of `system`."""
    return []


@pytest.fixture
async def system(clock: HandMovedClock, events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, and which has no actor left at the end."""
    async with ActorSystem(clock=clock, sinks=(events.append,)) as system:
        yield system
        stopped: Any = system.stop()
        for _ in range(100):
            if stopped.done:
                break
            await clock.advance(1000)
        await stopped
    assert system.statistics().actors == 0

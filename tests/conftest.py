"""What all tests share: systems in memory, their events, a clock moved by hand."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest

from actors import ActorSystem
from actors.events import Event
from actors.testing import ManualClock, memory_system


@pytest.fixture
def events() -> list[Event]:
    """All events of `system` and `other`."""
    return []


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
async def system(events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system on the test's loop, with an inbox in memory."""
    async with memory_system(sinks=(events.append,)) as system:
        yield system


@pytest.fixture
async def other(events: list[Event]) -> AsyncIterator[ActorSystem]:
    """Another process, as far as actors can tell."""
    async with memory_system(sinks=(events.append,)) as other:
        yield other


@pytest.fixture
async def timed(events: list[Event], clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time is `clock`."""
    async with memory_system(sinks=(events.append,), clock=clock) as system:
        yield system


# Who runs the tests in the background has them ignore SIGINT, and every process they start:
# Ctrl-C is part of what is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

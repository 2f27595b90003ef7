"""What all tests share: systems in memory, a record of their events, a clock moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors import ActorSystem
from actors.testing import ManualClock, Probe, memory_system


@pytest.fixture
def probe() -> Probe:
    """Records the events of `system`, and whatever actors tell it."""
    return Probe()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
async def system(probe: Probe) -> AsyncIterator[ActorSystem]:
    """A system on the test's loop, with an inbox in memory."""
    async with memory_system(sinks=(probe,)) as system:
        yield system


@pytest.fixture
async def other(probe: Probe) -> AsyncIterator[ActorSystem]:
    """Another process, as far as actors can tell."""
    async with memory_system(sinks=(probe,)) as other:
        yield other


@pytest.fixture
async def timed(probe: Probe, clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time is `clock`."""
    async with memory_system(sinks=(probe,), clock=clock) as system:
        yield system

"""What tests of supervisors share: a system whose clock is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.events import Event
from actors.system import ActorSystem
from actors.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def events() -> list[Event]:
    """All events of `system`, in order."""
    return []


@pytest.fixture
async def system(clock: ManualClock, events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, and which has no actor left at the end."""
    async with ActorSystem(clock=clock, sinks=(events.append,)) as system:
        yield system
        stopped: Any = system.stop()
        for _ in range(100):
            if stopped.done:
                break
            await clock.elapse(1000)
        await stopped
    assert system.statistics().actors == 0

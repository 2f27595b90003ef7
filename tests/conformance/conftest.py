"""
The rule book: every case of the conformance list that a supervisor in one process can show.

`test_c18_…` is case C18. Time is moved by hand; nothing here opens a socket or starts a process.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.events import Event
from actors.system import ActorSystem
from actors.testing import ManualClock
from supervisors.spec import ChildSpec

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cast import Child, Notes, Spec


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def events() -> list[Event]:
    """All events of `system`, in order."""
    return []


@pytest.fixture
async def system(clock: ManualClock, events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still; at the end it stops, and nothing may be left of it."""
    async with ActorSystem(clock=clock, sinks=(events.append,)) as system:
        yield system
        stopped: Any = system.stop()
        for _ in range(100):
            if stopped.done:
                break
            await clock.elapse(1000)
        await stopped
    left = system.statistics()
    assert (left.actors, left.pending_asks, left.in_mailbox, left.in_progress) == (0, 0, 0, 0)


@pytest.fixture
def notes() -> Notes:
    return []


@pytest.fixture
def spec(notes: Notes) -> Spec:
    """`spec("a", restart="transient")`: a well-behaved child, or one of *cls* with more arguments."""

    def make(id: str, cls: type = Child, *args: Any, **options: Any) -> ChildSpec:
        return ChildSpec(id, cls, args=(notes, *args), **options)

    return make

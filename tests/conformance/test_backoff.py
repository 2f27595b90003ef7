"""
C52: waits between restarts.
"""

from __future__ import annotations

import pytest
from cast import Notes, Spec, child, crash, infos, inits, up

from actors.errors import (
    Refusal,
)
from actors.events import Event
from actors.system import ActorSystem
from actors.testing import ManualClock
from supervisors.backoff import Backoff
from supervisors.events import ChildReported


async def test_c52_waits_between_restarts_grow_and_are_reset(
    system: ActorSystem, spec: Spec, clock: ManualClock, events: list[Event]
) -> None:
    backoff = Backoff(initial=0.1, factor=2, maximum=0.8, jitter=0)
    sup = await up(system, spec("a"), intensity=100, backoff=backoff)
    ref = await child(sup, "a")

    for gap in (0.1, 0.2, 0.4, 0.8, 0.8):
        await crash(ref)
        await clock.elapse(gap - 0.01)
        assert (await infos(sup))["a"].state == "restarting"
        await clock.elapse(0.02)
        assert (await infos(sup))["a"].state == "running"
    await clock.elapse(backoff.reset_after)
    await crash(ref)
    await clock.elapse(0)

    waits = [
        event.delay for event in events if isinstance(event, ChildReported) and event.context == "backing_off"
    ]
    assert waits == [0.1, 0.2, 0.4, 0.8, 0.8, 0.1]


async def test_who_waits_for_its_restart_can_be_given_up_but_not_restarted_twice(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    sup = await up(system, spec("a"), backoff=Backoff(initial=1, jitter=0))
    await crash(await child(sup, "a"))
    await clock.elapse(0.5)

    with pytest.raises(Refusal, match="backing_off"):
        await sup.restart_child("a")
    with pytest.raises(Refusal):
        await sup.delete_child("a")
    await sup.terminate_child("a")
    await clock.elapse(5)

    assert (await infos(sup))["a"].state == "stopped"
    assert inits(notes, "a") == 1


async def test_callers_of_a_child_that_backs_off_wait_in_its_mailbox(
    system: ActorSystem, spec: Spec, clock: ManualClock
) -> None:
    sup = await up(system, spec("a"), backoff=Backoff(initial=1, jitter=0))
    ref = await child(sup, "a")
    await crash(ref)
    await clock.elapse(0.5)
    waiting = ref.life()

    await clock.elapse(0.6)

    assert await waiting == 2

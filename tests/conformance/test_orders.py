"""
C11: what a supervisor is asked to do with its children.
"""

from __future__ import annotations

import asyncio

import pytest
from cast import Notes, Spec, Tidy, Whim, child, infos, up

from actors.errors import (
    ActorStopped,
    AlreadyPresent,
    AlreadyStarted,
    NotFound,
    Refusal,
    StartFailed,
    Unavailable,
)
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.spec import ChildCounts


async def test_c11_the_administration_of_one_child(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a"))
    running = await child(sup, "a")

    with pytest.raises(AlreadyStarted) as already:
        await sup.start_child(spec("a"))
    assert already.value.ref == running
    with pytest.raises(NotFound):
        await sup.terminate_child("b")
    await sup.terminate_child("a")
    assert notes[-1] == ("stop shutdown", "a")
    assert (await infos(sup))["a"].state == "stopped"
    assert await sup.count_children() == ChildCounts(1, 0, 0, 1)
    await sup.terminate_child("a")
    with pytest.raises(AlreadyPresent):
        await sup.start_child(spec("a"))
    again = await sup.restart_child("a")
    assert await again.life() == 1  # a new registration: the old refs have ended
    with pytest.raises(ActorStopped):
        await running.life()
    with pytest.raises(AlreadyStarted) as already:
        await sup.restart_child("a")
    assert already.value.ref == again
    with pytest.raises(Refusal, match="terminate it first"):
        await sup.delete_child("a")
    await sup.terminate_child("a")
    await sup.delete_child("a")
    with pytest.raises(NotFound):
        await sup.restart_child("a")
    assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
    assert await (await sup.start_child(spec("a"))).life() == 1
    await sup.stop()
    with pytest.raises(ActorStopped):
        await sup.which_children()


async def test_a_started_child_is_the_last_one(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a"), spec("b"))
    await sup.start_child(spec("0"))
    notes.clear()

    await sup.stop()

    assert notes == [("stop shutdown", "0"), ("stop shutdown", "b"), ("stop shutdown", "a")]


async def test_orders_are_carried_out_whatever_becomes_of_the_caller(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    cleaned = asyncio.Event()
    sup = await up(system, spec("a", Tidy, cleaned))
    order = sup.terminate_child("a")
    await wait_until(lambda: ("cleaning", "a") in notes)

    order.cancel()
    cleaned.set()

    await wait_until(lambda: ("stop shutdown", "a") in notes)
    assert (await infos(sup))["a"].state == "stopped"


async def test_an_order_while_a_child_starts_waits_for_its_turn(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    sup = await up(system, spec("a"))
    slow = sup.start_child(spec("b", Whim, "hang", start_timeout=7))
    await wait_until(lambda: ("hang", "b") in notes)
    terminated = sup.terminate_child("a")

    await clock.elapse(1)
    assert not terminated.done
    await clock.elapse(7)

    await terminated
    with pytest.raises(StartFailed):
        await slow


async def test_waiting_messages_of_a_terminated_child_are_refused(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")
    running, queued = (
        ref.options(timeout=None).wait_for(asyncio.Event()),
        ref.options(timeout=None).life(),
    )
    await wait_until(lambda: ("wait", "a") in notes)
    order = sup.terminate_child("a")
    await clock.elapse(5)
    await order

    with pytest.raises(Unavailable) as cut:
        await running
    assert cut.value.may_have_run
    with pytest.raises(ActorStopped):
        await queued

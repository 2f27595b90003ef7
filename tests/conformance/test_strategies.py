"""
C18-C20: who restarts along with whom.
"""

from __future__ import annotations

import asyncio

import pytest
from cast import Notes, Spec, child, crash, infos, lives, up

from actors.errors import (
    Unavailable,
)
from actors.exit import Exit
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.spec import ChildCounts


async def test_c18_one_for_one_restarts_the_one_that_failed(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = await up(system, spec("a"), spec("b"))
    notes.clear()

    await crash(await child(sup, "a"))

    assert await lives(system, "a", "b") == [2, 1]
    assert notes == [("init", "a"), ("start", "a")]


async def test_c19_one_for_all_restarts_all(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a"), spec("b"), strategy="one_for_all")
    notes.clear()

    await crash(await child(sup, "a"))

    assert await lives(system, "a", "b") == [2, 2]
    assert notes == [("stop shutdown", "b"), ("init", "a"), ("start", "a"), ("init", "b"), ("start", "b")]
    assert await sup.count_children() == ChildCounts(2, 2, 0, 2)


async def test_c20_rest_for_one_restarts_it_and_those_after_it(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = await up(system, *map(spec, "abc"), strategy="rest_for_one")
    notes.clear()

    await crash(await child(sup, "b"))

    assert await lives(system, "a", "b", "c") == [1, 2, 2]
    assert notes == [("stop shutdown", "c"), ("init", "b"), ("start", "b"), ("init", "c"), ("start", "c")]
    assert await sup.count_children() == ChildCounts(3, 3, 0, 3)


async def test_a_mailbox_survives_the_restart_of_a_sibling(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    """Only the message in the handler is gone, of who crashed and of who was stopped."""
    sup = await up(system, spec("a"), spec("b"), strategy="one_for_all")
    patient = (await child(sup, "b")).options(timeout=None)
    running = patient.wait_for(asyncio.Event())
    await wait_until(lambda: ("wait", "b") in notes)
    queued = [patient.life() for _ in range(3)]

    await crash(await child(sup, "a"))
    await clock.elapse(5)

    with pytest.raises(Unavailable):
        await running
    assert [await reply for reply in queued] == [2, 2, 2]


async def test_a_group_restart_revives_what_was_stopped_by_hand(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, *map(spec, "abc"), strategy="one_for_all")
    await sup.terminate_child("b")
    await sup.terminate_child("c")
    await sup.delete_child("c")

    await crash(await child(sup, "a"))

    assert await lives(system, "a") == [2]
    await system.find("top/b").wait_started()
    assert [info.id for info in await sup.which_children()] == ["a", "b"]


async def test_a_group_restart_removes_temporary_siblings(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"), spec("b", restart="temporary"), strategy="one_for_all")
    other = await child(sup, "b")

    await crash(await child(sup, "a"))

    assert await other.wait_stopped() == Exit("shutdown")
    assert await lives(system, "a") == [2]
    assert list(await infos(sup)) == ["a"]

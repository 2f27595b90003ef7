"""
C14-C17: which ends are followed by a new life.
"""

from __future__ import annotations

import asyncio

import pytest
from cast import ABNORMAL, CLEAN, Spec, _outcome, child, end_life, infos, up

from actors.system import ActorSystem
from supervisors.spec import ChildCounts


@pytest.mark.parametrize("how", [*ABNORMAL, *CLEAN])
async def test_c14_a_permanent_child_always_comes_back(system: ActorSystem, spec: Spec, how: str) -> None:
    sup = await up(system, spec("a"), intensity=100)
    ref = await child(sup, "a")

    await end_life(ref, how)

    assert await ref.life() == 2
    assert str((await infos(sup))["a"].last_exit) == {**ABNORMAL, **CLEAN}[how]
    assert await sup.count_children() == ChildCounts(1, 1, 0, 1)


@pytest.mark.parametrize("how", ABNORMAL)
async def test_c15_a_transient_child_comes_back_from_abnormal_ends(
    system: ActorSystem, spec: Spec, how: str
) -> None:
    sup = await up(system, spec("a", restart="transient"))
    ref = await child(sup, "a")

    await end_life(ref, how)

    assert await ref.life() == 2


@pytest.mark.parametrize("how", CLEAN)
async def test_c15_a_transient_child_rests_after_clean_ends(
    system: ActorSystem, spec: Spec, how: str
) -> None:
    sup = await up(system, spec("a", restart="transient"))
    ref = await child(sup, "a")

    await end_life(ref, how)

    assert str(await ref.wait_stopped()) == CLEAN[how]
    assert (await infos(sup))["a"].state == "stopped"
    assert await sup.count_children() == ChildCounts(1, 0, 0, 1)
    assert await (await sup.restart_child("a")).life() == 1


@pytest.mark.parametrize("how", [*ABNORMAL, *CLEAN])
async def test_c16_a_temporary_child_never_comes_back(system: ActorSystem, spec: Spec, how: str) -> None:
    sup = await up(system, spec("a", restart="temporary"))
    ref = await child(sup, "a")

    await end_life(ref, how)

    await ref.wait_stopped()
    assert await sup.which_children() == []
    assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
    assert await (await sup.start_child(spec("a"))).life() == 1


async def test_c17_a_restarted_child_has_its_address_and_fresh_state(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")

    counted = [(await asyncio.wait_for(_outcome(ref.add()), 5)) for _ in range(200)]

    assert counted == [*range(1, 100), "Boom", *range(1, 100), "Boom"]

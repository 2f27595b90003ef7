"""
C33-C35: significant children, whose end is their supervisor's.
"""

from __future__ import annotations

from typing import Any

import pytest
from cast import ABNORMAL, CLEAN, Notes, Spec, Whim, child, crash, end_life, infos, lives, up

from actors.actor import Actor
from actors.errors import InvalidArgument, StartFailed
from actors.exit import Exit
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.backoff import Backoff
from supervisors.dynamic import DynamicSupervisor
from supervisors.spec import ChildSpec
from supervisors.supervisor import Supervisor

MODES = ["never", "any_significant", "all_significant"]


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_c33_any_significant_child_that_ends_ends_them_all(
    system: ActorSystem, spec: Spec, notes: Notes, restart: str
) -> None:
    significant = [spec(id, restart=restart, significant=True) for id in ("s1", "s2")]
    sup = await up(system, *significant, spec("n"), auto_shutdown="any_significant")
    notes.clear()

    await (await child(sup, "s1")).end("normal")

    assert await sup.wait_stopped() == Exit("shutdown")
    assert notes == [("stop normal", "s1"), ("stop shutdown", "n"), ("stop shutdown", "s2")]
    assert system.statistics().actors == 0


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_c33_the_last_significant_child_that_ends_ends_them_all(
    system: ActorSystem, spec: Spec, restart: str
) -> None:
    significant = [spec(id, restart=restart, significant=True) for id in ("s1", "s2")]
    sup = await up(system, *significant, spec("n"), auto_shutdown="all_significant")
    first, second = await child(sup, "s1"), await child(sup, "s2")

    await first.end("normal")
    await first.wait_stopped()
    assert await lives(system, "s2", "n") == [1, 1]
    await second.end("normal")

    assert await sup.wait_stopped() == Exit("shutdown")


@pytest.mark.parametrize("how", ABNORMAL)
async def test_c33_a_significant_temporary_child_may_end_as_it_likes(
    system: ActorSystem, spec: Spec, how: str
) -> None:
    only = spec("s", restart="temporary", significant=True)
    sup = await up(system, only, auto_shutdown="any_significant")

    await end_life(await child(sup, "s"), how)

    assert await sup.wait_stopped() == Exit("shutdown")


@pytest.mark.parametrize("mode", MODES[1:])
async def test_c34_one_that_is_restarted_has_not_ended(system: ActorSystem, spec: Spec, mode: str) -> None:
    sup = await up(system, spec("s", restart="transient", significant=True), spec("n"), auto_shutdown=mode)

    await (await child(sup, "s")).kill()

    assert await lives(system, "s", "n") == [2, 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("how", [*ABNORMAL, *CLEAN])
async def test_c34_the_others_never_end_anybody(
    system: ActorSystem, spec: Spec, mode: str, restart: str, how: str
) -> None:
    significant = [spec("s", restart="transient", significant=True)] if mode != "never" else []
    sup = await up(system, *significant, spec("n", restart=restart), auto_shutdown=mode)
    ref = await child(sup, "n")

    await end_life(ref, how)

    await (ref.life() if restart == "permanent" else sup.count_children())
    assert await sup.is_alive()
    if significant:
        assert await lives(system, "s") == [1]


def test_c35_significant_and_permanent_do_not_go_together() -> None:
    with pytest.raises(
        InvalidArgument, match="ChildSpec significant=True does not go with restart='permanent'"
    ):
        ChildSpec("a", Actor, significant=True)


async def test_c35_significant_children_need_an_auto_shutdown(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    complaint = "ChildSpec 's' significant=True does not go with auto_shutdown='never'"
    significant = spec("s", restart="transient", significant=True)
    refused = system.spawn(Supervisor, [spec("a"), significant])
    with pytest.raises(StartFailed) as failure:
        await refused.wait_started()
    with pytest.raises(InvalidArgument, match=complaint):
        raise failure.value.__cause__  # type: ignore[misc]
    assert notes == []

    sup = await up(system)

    with pytest.raises(InvalidArgument, match=complaint):
        await sup.start_child(significant)
    assert await sup.which_children() == []


@pytest.mark.parametrize("flags", [{"auto_shutdown": "any_significant"}, {"significant": True}])
async def test_c35_dynamic_supervisors_have_no_significant_children(
    system: ActorSystem, flags: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match=f"unexpected keyword argument '{next(iter(flags))}'"):
        system.spawn(DynamicSupervisor, Actor, **flags)


async def test_c35_a_word_that_is_no_mode_is_refused(system: ActorSystem) -> None:
    refused = system.spawn(Supervisor, auto_shutdown="any")

    with pytest.raises(StartFailed) as failure:
        await refused.wait_started()
    with pytest.raises(InvalidArgument, match="Supervisor auto_shutdown='any' is not one of never, any_sig"):
        raise failure.value.__cause__  # type: ignore[misc]


@pytest.mark.parametrize("mode", MODES[1:])
async def test_what_the_supervisor_stops_ends_nobody(system: ActorSystem, spec: Spec, mode: str) -> None:
    """By order, and along with a sibling."""
    kinds = [("a", "transient"), ("b", "temporary")]
    significant = [spec(id, restart=restart, significant=True) for id, restart in kinds]
    sup = await up(system, spec("n"), *significant, spec("z"), strategy="one_for_all", auto_shutdown=mode)

    await crash(await child(sup, "n"))
    assert await lives(system, "n", "a", "z") == [2, 2, 2]
    await sup.terminate_child("a")

    assert (await infos(sup))["a"].state == "stopped"
    assert await lives(system, "n", "z") == [2, 2]


async def test_a_significant_child_that_declines_or_fails_to_start_ends_nobody(
    system: ActorSystem, spec: Spec
) -> None:
    sup = await up(
        system,
        spec("a", Whim, "ignore", restart="transient", significant=True),
        spec("n"),
        auto_shutdown="any_significant",
    )

    with pytest.raises(StartFailed):
        await sup.start_child(spec("b", Whim, "fail", restart="transient", significant=True))

    assert await lives(system, "n") == [1]


async def test_a_significant_child_that_waits_for_its_restart_has_not_ended(
    system: ActorSystem, spec: Spec, clock: ManualClock
) -> None:
    ids = ("s1", "s2")
    sup = await up(
        system,
        *(spec(id, restart="transient", significant=True) for id in ids),
        auto_shutdown="all_significant",
        backoff=Backoff(initial=1, jitter=0),
    )
    first = await child(sup, "s1")
    await crash(await child(sup, "s2"))
    await clock.elapse(0.5)

    await first.end("normal")
    await first.wait_stopped()

    await clock.elapse(1)
    assert await lives(system, "s2") == [2]


@pytest.mark.parametrize(("restart", "comes_back"), [("permanent", True), ("transient", False)])
async def test_a_parent_takes_it_for_a_clean_end(
    system: ActorSystem, spec: Spec, restart: str, comes_back: bool
) -> None:
    leaf = spec("leaf", restart="temporary", significant=True)
    middle = ChildSpec(
        "middle", Supervisor, args=([leaf],), kwargs={"auto_shutdown": "any_significant"}, restart=restart
    )
    sup = await up(system, middle)

    await system.find("top/middle/leaf").end("normal")

    if comes_back:
        await wait_until(lambda: _restarts(sup, "middle"))
        assert await system.find("top/middle/leaf").life() == 1
    else:
        await system.find("top/middle").wait_stopped()
        assert (await infos(sup))["middle"].last_exit == Exit("shutdown")


async def _restarts(sup: Any, id: str) -> int:
    return (await infos(sup))[id].restarts

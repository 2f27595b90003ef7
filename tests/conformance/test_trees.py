"""
C21, C26, C31: supervisors under supervisors.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cast import (
    GAVE_UP,
    Child,
    Notes,
    Spec,
    Tidy,
    Whim,
    child,
    crash,
    infos,
    inits,
    lives,
    up,
)

from actors.errors import ActorStopped
from actors.ref import Ref
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.backoff import Backoff
from supervisors.dynamic import DynamicSupervisor
from supervisors.spec import ChildCounts, ChildSpec
from supervisors.supervisor import Supervisor


async def test_c21_a_crash_stays_inside_its_branch(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    left = ChildSpec("left", Supervisor, args=([spec("c1"), spec("c2")],))
    sup = await up(system, left, ChildSpec("right", DynamicSupervisor, args=(Child,)), strategy="one_for_all")
    c3, c4 = [await system.find("top/right").start_child(notes) for _ in range(2)]

    await crash(c4)

    assert await lives(system, "left/c1", "left/c2") == [1, 1]
    assert [await c3.life(), await c4.life()] == [1, 2]
    assert {id: info.restarts for id, info in (await infos(sup)).items()} == {"left": 0, "right": 0}
    assert await sup.count_children() == ChildCounts(2, 2, 2, 0)


async def test_c26_each_level_multiplies_the_attempts(
    system: ActorSystem, notes: Notes, clock: ManualClock
) -> None:
    class Doomed(Child):
        async def on_start(self) -> None:
            self.context.after(0.05, self.crash)

    middle = ChildSpec(
        "middle",
        Supervisor,
        args=([ChildSpec("doomed", Doomed, args=(notes,))], "one_for_one", 1, 3600.0),
    )
    top = await up(system, middle, intensity=1)
    ended = top.wait_stopped()
    for _ in range(50):
        await clock.elapse(0.05)

    await wait_until(lambda: ended.done)
    assert await ended == GAVE_UP
    assert inits(notes, "doomed") == 4
    assert system.statistics().actors == 0


async def test_c31_who_supervises_a_supervisor_brings_back_both(system: ActorSystem, spec: Spec) -> None:
    middle = ChildSpec("middle", Supervisor, args=([spec("server")],))
    sup = await up(system, middle)
    server = system.find("top/middle/server")

    await server.kill()
    assert await server.life() == 2
    await (await child(sup, "middle")).kill()

    await system.find("top/middle").wait_started()
    assert (await infos(sup))["middle"].restarts == 1
    assert await system.find("top/middle/server").life() == 1
    with pytest.raises(ActorStopped):
        await server.life()


async def test_a_killed_supervisor_leaves_no_child(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"), spec("b"))
    ref = await child(sup, "a")

    await sup.kill()

    await sup.wait_stopped()
    with pytest.raises(ActorStopped):
        await ref.life()
    assert system.statistics().actors == 0


async def test_counts_tell_supervisors_from_workers(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"), ChildSpec("inner", Supervisor, args=([spec("b")],)))

    assert await sup.count_children() == ChildCounts(2, 2, 1, 1)
    assert (await infos(sup))["inner"].kind == "supervisor"
    assert [info.id for info in await (await child(sup, "inner")).which_children()] == ["b"]


async def test_a_restarted_subtree_counts_from_zero(system: ActorSystem, spec: Spec) -> None:
    middle = ChildSpec("middle", Supervisor, args=([spec("leaf")], "one_for_one", 1, 3600.0))
    sup = await up(system, middle, intensity=2)

    for restarts in (1, 2):
        for life in (1, 2):
            leaf = system.find("top/middle/leaf")
            assert await leaf.life() == life
            await crash(leaf)
        await wait_until(lambda wanted=restarts: _has_restarted(sup, "middle", wanted))

    assert await system.find("top/middle/leaf").life() == 1


async def _has_restarted(sup: Ref[Any], id: str, times: int) -> bool:
    info = (await infos(sup))[id]
    return (info.restarts, info.state) == (times, "running")


async def test_a_subtree_has_all_the_time_it_needs_to_stop(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    """Supervisors have infinity: their children keep the shutdown times of their own."""
    cleaned = asyncio.Event()
    leaves = [
        spec("slow", Tidy, cleaned, shutdown=float("inf")),
        spec("quick", Tidy, asyncio.Event(), shutdown=2),
    ]
    sup = await up(system, ChildSpec("middle", Supervisor, args=(leaves,)))

    stopped = sup.stop()
    await wait_until(lambda: ("cleaning", "quick") in notes)
    await clock.elapse(2.1)
    await wait_until(lambda: ("cleaning", "slow") in notes)
    await clock.elapse(10_000)
    assert not stopped.done
    cleaned.set()
    await stopped

    assert [what for what, id in notes if id == "slow"][-1] == "stop shutdown"


async def test_a_group_restart_takes_whole_subtrees_along(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    branches = [ChildSpec(name, Supervisor, args=([spec(f"{name}1")],)) for name in ("left", "right")]
    sup = await up(system, *branches, spec("a"), strategy="one_for_all")
    notes.clear()

    await crash(await child(sup, "a"))

    assert await lives(system, "a") == [2]
    assert notes == [
        *(("stop shutdown", "right1"), ("stop shutdown", "left1")),
        *((what, id) for id in ("left1", "right1", "a") for what in ("init", "start")),
    ]
    assert await lives(system, "left/left1", "right/right1") == [1, 1]


@pytest.mark.parametrize(("restart", "comes_back"), [("permanent", True), ("transient", False)])
async def test_a_supervisor_that_gave_up_has_ended_cleanly(
    system: ActorSystem, spec: Spec, restart: str, comes_back: bool
) -> None:
    middle = ChildSpec("middle", Supervisor, args=([spec("leaf")],), kwargs={"intensity": 0}, restart=restart)
    sup = await up(system, middle)

    await crash(system.find("top/middle/leaf"))

    if comes_back:
        await wait_until(lambda: _has_restarted(sup, "middle", 1))
    else:
        await system.find("top/middle").wait_stopped()
        assert (await infos(sup))["middle"].state == "stopped"
    assert (await infos(sup))["middle"].last_exit == GAVE_UP


async def test_children_started_by_message_are_lost_when_their_supervisor_restarts(
    system: ActorSystem, spec: Spec
) -> None:
    await up(system, ChildSpec("middle", Supervisor, args=([spec("given")],)))
    middle = system.find("top/middle")
    await middle.start_child(spec("added"))
    await middle.terminate_child("given")
    await middle.delete_child("given")

    await middle.kill()

    assert [info.id for info in await middle.which_children()] == ["given"]
    assert await lives(system, "middle/given") == [1]


class Host(Child):
    """An actor with a supervisor of its own."""

    def __init__(self, notes: Notes, spec: ChildSpec) -> None:
        super().__init__(notes)
        self.staff = self.context.options(name="staff").spawn(Supervisor, [spec])

    async def help(self) -> int:
        return len(await self.staff.which_children())


async def test_an_actor_may_have_a_supervisor_of_its_own(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = await up(system, spec("host", Host, spec("helper")))
    host = await child(sup, "host")
    assert await host.help() == 1

    await crash(system.find("top/host/staff/helper"))
    assert await lives(system, "host", "host/staff/helper") == [1, 2]
    await crash(host)

    assert await host.help() == 1
    assert await lives(system, "host", "host/staff/helper") == [2, 1]
    assert notes.index(("stop shutdown", "helper")) < len(notes) - 1 - notes[::-1].index(("init", "host"))


async def test_it_ends_with_the_actor_that_spawned_it(system: ActorSystem, spec: Spec) -> None:
    host = system.options(name="host").spawn(Host, [], spec("helper"))
    await host.help()
    helper = system.find("host/staff/helper")

    await host.stop()

    assert (await helper.wait_stopped()).is_clean
    assert system.statistics().actors == 0


@pytest.mark.parametrize("backoff", [None, Backoff(initial=1, jitter=0)])
async def test_a_supervisor_answers_while_a_child_keeps_failing(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock, backoff: Backoff | None
) -> None:
    specs = (spec("good"), spec("bad", Whim, "ok", "fail"))
    sup = await up(system, *specs, intensity=10**6, backoff=backoff)
    await crash(await child(sup, "bad"))

    for tries in (10, 20, 30):
        while inits(notes, "bad") < tries:
            await clock.elapse(60)
        assert await sup.count_children() == ChildCounts(2, 1, 0, 2)
        assert await (await sup.start_child(spec(f"new{tries}"))).life() == 1
        await sup.terminate_child(f"new{tries}")
        await sup.delete_child(f"new{tries}")
    await sup.terminate_child("bad")
    tries = inits(notes, "bad")
    await clock.elapse(1000)

    assert inits(notes, "bad") == tries
    assert (await infos(sup))["bad"].state == "stopped"

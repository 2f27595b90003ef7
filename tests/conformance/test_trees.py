"""
C21, C26, C31: supervisors under supervisors.
"""

from __future__ import annotations

import pytest
from cast import GAVE_UP, Child, Notes, Spec, child, crash, infos, inits, lives, up

from actors.errors import (
    ActorStopped,
)
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.spec import ChildCounts, ChildSpec
from supervisors.supervisor import Supervisor


async def test_c21_a_crash_stays_inside_its_branch(system: ActorSystem, spec: Spec) -> None:
    branches = [
        ChildSpec(name, Supervisor, args=([spec(f"{name}1"), spec(f"{name}2")],))
        for name in ("left", "right")
    ]
    sup = await up(system, *branches, strategy="one_for_all")

    await crash(system.find("top/right/right2"))

    assert await lives(system, "left/left1", "left/left2", "right/right1", "right/right2") == [1, 1, 1, 2]
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

"""
A watcher of a supervised child (C48 for actors in general: `tests/actors/test_watching.py`).
"""

from __future__ import annotations

from cast import Spec, Watcher, child, crash, up

from actors.exit import Exit, Terminated
from actors.system import ActorSystem
from actors.testing import wait_until


async def test_a_watcher_hears_of_a_child_once_at_its_final_end(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")
    seen: list[Terminated] = []
    watcher = system.spawn(Watcher, ref, seen)
    await watcher.is_there()
    await crash(ref)
    assert await ref.life() == 2
    assert seen == []

    await sup.terminate_child("a")

    await wait_until(lambda: seen)
    assert [terminated.exit for terminated in seen] == [Exit("shutdown")]

"""
C29, C30: how a supervisor and its children stop.
"""

from __future__ import annotations

import asyncio

import pytest
from cast import Child, Notes, Spec, Tidy, Whim, child, crash, inits, up

from actors.errors import (
    ActorStopped,
    Unavailable,
)
from actors.events import ActorExited, Event
from actors.exit import Exit
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.events import ChildReported
from supervisors.supervisor import Supervisor


async def test_c29_everyone_has_its_own_shutdown_time(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock, events: list[Event]
) -> None:
    cleaned = asyncio.Event()
    sup = await up(
        system,
        spec("d", Tidy, cleaned, shutdown=float("inf")),
        spec("c", shutdown="brutal_kill"),
        spec("b", shutdown=1),
        spec("a", shutdown=1),
    )
    busy = (await child(sup, "b")).options(timeout=None).wait_for(asyncio.Event())
    await wait_until(lambda: ("wait", "b") in notes)
    notes.clear()

    stopped = sup.stop()
    await wait_until(lambda: ("stop shutdown", "a") in notes)
    await clock.elapse(0.99)
    assert not busy.done
    await clock.elapse(0.02)
    with pytest.raises(Unavailable):
        await busy
    await wait_until(lambda: ("cleaning", "d") in notes)
    await clock.elapse(1000)
    assert not stopped.done
    cleaned.set()
    await stopped

    assert [note for note in notes if note[1] != "b"] == [
        ("stop shutdown", "a"),
        ("cleaning", "d"),
        ("stop shutdown", "d"),
    ]
    exits = {event.actor: event.exit for event in events if isinstance(event, ActorExited)}
    assert exits["top/a"] == exits["top/d"] == Exit("shutdown")
    assert exits["top/c"] == Exit("killed", "brutal_kill")


async def test_c29_who_overruns_its_shutdown_time_is_killed(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock, events: list[Event]
) -> None:
    sup = await up(system, spec("a", shutdown=1))
    busy = (await child(sup, "a")).options(timeout=None).wait_for(asyncio.Event())
    await wait_until(lambda: ("wait", "a") in notes)
    stopped = sup.terminate_child("a")

    await clock.elapse(1.01)
    await stopped

    with pytest.raises(Unavailable):
        await busy
    assert [event.exit.kind for event in events if isinstance(event, ActorExited)] == ["killed"]
    assert [event.context for event in events if isinstance(event, ChildReported)] == ["shutdown_overrun"]
    assert ("stop shutdown", "a") not in notes


async def test_c30_the_hook_hears_why_and_a_running_handler_may_finish(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = await up(system, spec("a", restart="temporary"))
    ref = await child(sup, "a")
    gate = asyncio.Event()
    running = ref.wait_for(gate)
    await wait_until(lambda: ("wait", "a") in notes)

    stopped = ref.stop("normal")
    gate.set()
    await stopped

    assert await running == "waited"
    assert notes[-1] == ("stop normal", "a")
    with pytest.raises(ActorStopped):
        await ref.stop()


async def test_no_hook_runs_after_a_crash_or_a_kill(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")

    await crash(ref)
    assert await ref.life() == 2
    await ref.kill()

    assert await ref.life() == 3
    assert not [what for what, _ in notes if what.startswith("stop")]


async def test_a_stop_during_the_start_stops_what_has_started(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "hang"), spec("c")])
    await wait_until(lambda: ("hang", "b") in notes)

    await sup.stop()

    assert inits(notes, "c") == 0
    assert system.statistics().actors == 0


async def test_a_stop_is_served_while_an_order_is_carried_out(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    """Orders end with it; else a start that hangs could keep a program from ending."""

    class Late(Child):
        async def on_start(self) -> None:
            self._note("hang")
            await gate.wait()

    gate = asyncio.Event()
    sup = await up(system, spec("a"))
    order = sup.start_child(spec("b", Late, start_timeout=float("inf")))
    await wait_until(lambda: ("hang", "b") in notes)

    stopped = sup.stop()

    try:
        await wait_until(lambda: stopped.done, timeout=1)
        with pytest.raises(ActorStopped):
            await order
    finally:
        gate.set()


async def test_what_happens_to_a_child_is_an_event(
    system: ActorSystem, spec: Spec, events: list[Event]
) -> None:
    sup = await up(system, spec("a"), intensity=1)
    ref = await child(sup, "a")
    await crash(ref)
    await ref.life()
    await crash(ref)
    await sup.wait_stopped()

    told = [
        (event.context, event.child, event.restarts) for event in events if isinstance(event, ChildReported)
    ]
    assert told == [
        ("child_exited", "a", 0),
        ("restarting", "a", 1),
        ("child_exited", "a", 1),
        ("gave_up", "a", 1),
    ]
    assert all(event.supervisor == "top" for event in events if isinstance(event, ChildReported))

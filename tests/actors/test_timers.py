"""
Timers: messages to oneself, later or again and again, for as long as this life lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import Actor, ActorStopped, ActorSystem, Context, InvalidArgument
from actors.events import Event
from actors.testing import ManualClock, wait_until
from supervisors import ChildSpec, Supervisor

Ticks = list[tuple[str, int]]
"""(what, which incarnation), in the order in which they were handled."""


class Bell(Actor):
    """Rings when its timers say so."""

    def __init__(self, ticks: Ticks) -> None:
        self.ticks = ticks
        self.handles: list[Any] = []
        self.gate = asyncio.Event()

    async def ring(self, tune: str = "ring") -> None:
        self.ticks.append((tune, self.context.incarnation))

    async def _ring_softly(self) -> None:
        self.ticks.append(("soft", self.context.incarnation))

    def ring_on_thread(self) -> None:
        self.ticks.append(("thread", self.context.incarnation))

    async def what_it_sees(self) -> None:
        self.ticks.append((f"{self.context.sender} {self.context.deadline}", self.context.incarnation))

    async def after(self, delay: float, method: str, *args: Any) -> None:
        self.handles.append(self.context.after(delay, method, *args))

    async def after_bound(self, delay: float) -> None:
        self.context.after(delay, self.ring)

    async def every(self, period: float, method: str, *args: Any) -> None:
        self.handles.append(self.context.every(period, method, *args))

    def every_from_thread(self, period: float) -> None:
        self.context.every(period, "ring")

    async def keyed(self, key: str, delay: float, tune: str) -> None:
        self.context.options(key=key).after(delay, "ring", tune)

    async def keyed_every(self, key: str, period: float, tune: str) -> None:
        self.context.options(key=key).every(period, "ring", tune)

    async def cancel(self) -> None:
        for handle in self.handles:
            handle.cancel()

    async def wrong(self, *args: Any) -> None:
        try:
            self.context.after(*args)
        except InvalidArgument as error:
            self.ticks.append((str(error), 0))

    async def hold(self) -> None:
        await self.gate.wait()

    async def crash(self) -> None:
        raise ValueError("boom")

    async def idle(self) -> None: ...

    async def context_of(self) -> Context:
        return self.context


class EarlyBell(Bell):
    """Begins in `on_start`, like those that must tick in every life."""

    async def on_start(self) -> None:
        self.context.every(1, self.ring, "early")


@pytest.fixture
def ticks() -> Ticks:
    return []


@pytest.fixture
async def system(clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, until it stops."""
    async with ActorSystem(sinks=(), clock=clock) as system:
        yield system
        stopped = system.stop()
        while not stopped.done:
            clock.advance(10)
            await asyncio.sleep(0.001)


async def pass_time(clock: ManualClock, bell: Any, *steps: float) -> None:
    """Let time pass in *steps*, and *bell* handle what each brought."""
    for step in steps:
        clock.advance(step)
        await bell.idle()


async def test_after_sends_once_when_its_time_has_come(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.after(2, "ring", "ding")
    await pass_time(clock, bell, 1.9)
    assert ticks == []
    await pass_time(clock, bell, 0.2, 10, 10)
    assert ticks == [("ding", 1)]


async def test_every_sends_again_and_again(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.every(2, "ring")
    await pass_time(clock, bell, 1.9)
    assert ticks == []
    await pass_time(clock, bell, 0.2, 2, 2)
    assert ticks == [("ring", 1)] * 3


async def test_a_method_is_bound_or_named_private_ones_and_threads_too(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.after_bound(1)
    await pass_time(clock, bell, 1)
    await bell.after(1, "_ring_softly")
    await pass_time(clock, bell, 1)
    await bell.after(1, "ring_on_thread")
    await pass_time(clock, bell, 1)
    assert ticks == [("ring", 1), ("soft", 1), ("thread", 1)]


async def test_a_delay_of_nothing_comes_after_what_waits_already(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.after(0, "ring")
    await pass_time(clock, bell, 0)
    assert ticks == [("ring", 1)]


async def test_a_timer_may_begin_on_a_thread(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.every_from_thread(1)
    await pass_time(clock, bell, 1, 1)
    assert ticks == [("ring", 1)] * 2


async def test_a_cancelled_timer_sends_no_more(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.every(1, "ring", "again")
    await bell.after(2, "ring", "once")
    await pass_time(clock, bell, 1)
    await bell.cancel()
    await bell.cancel()
    await pass_time(clock, bell, 1, 1, 1)
    assert ticks == [("again", 1)]


async def test_the_same_key_replaces_a_timer(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.keyed("table-1", 2, "first")
    await bell.keyed("table-2", 2, "other")
    await pass_time(clock, bell, 1)
    await bell.keyed("table-1", 2, "second")
    await pass_time(clock, bell, 1)
    assert ticks == [("other", 1)]
    await pass_time(clock, bell, 1, 5)
    assert ticks == [("other", 1), ("second", 1)]
    await bell.keyed_every("table-3", 1, "old")
    await bell.keyed_every("table-3", 1, "new")
    await pass_time(clock, bell, 1)
    assert ticks[2:] == [("new", 1)]


async def test_timers_without_a_key_are_timers_of_their_own(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    for tune in ("one", "two"):
        await bell.after(1, "ring", tune)
    await pass_time(clock, bell, 1)
    assert ticks == [("one", 1), ("two", 1)]


async def test_late_ticks_coalesce(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    """An actor that was busy for ten periods finds one tick, not ten."""
    bell = system.spawn(Bell, ticks)
    await bell.every(1, "ring")
    held = bell.options(timeout=None).hold()
    await wait_until(lambda: system.statistics().in_progress == 1)
    for _ in range(10):
        clock.advance(1)
    assert system.statistics().in_mailbox == 1
    held.cancel()
    await bell.idle()
    assert ticks == [("ring", 1)]
    await pass_time(clock, bell, 1)
    assert ticks == [("ring", 1)] * 2


async def test_a_tick_that_found_the_mailbox_full_is_followed_by_others(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.options(mailbox=1).spawn(Bell, ticks)
    await bell.every(1, "ring")
    held = bell.options(timeout=None).hold()
    await wait_until(lambda: system.statistics().in_progress == 1)
    queued = bell.options(timeout=None).idle()
    clock.advance(1)
    assert system.statistics().refused == 1
    held.cancel()
    await queued
    clock.advance(1)
    await wait_until(lambda: ticks == [("ring", 1)])


async def test_a_timer_has_no_sender_and_no_deadline(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.after(1, "what_it_sees")
    await pass_time(clock, bell, 1)
    assert ticks == [("None None", 1)]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((1, "rung"), "Bell has no method 'rung' for a timer; did you mean 'ring'?"),
        ((1, "on_stop"), "no method 'on_stop'"),
        ((1, "__init__"), "no method '__init__'"),
        ((1, 42), "method=42"),
        ((-1, "ring"), "delay=-1"),
        (("soon", "ring"), "delay='soon'"),
        ((float("nan"), "ring"), "delay=nan"),
    ],
)
async def test_a_wrong_timer_is_refused_where_it_is_written(
    system: ActorSystem, ticks: Ticks, args: tuple[Any, ...], problem: str
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.wrong(*args)
    ((said, _),) = ticks
    assert problem in said


async def test_an_error_of_a_timer_crashes_like_any_other(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    bell = system.spawn(Bell, ticks)
    await bell.after(1, "crash")
    clock.advance(1)
    exit = await bell.wait_stopped()
    assert (exit.kind, str(exit.detail)) == ("error", "boom")


async def test_timers_end_with_their_actor(system: ActorSystem, clock: ManualClock, ticks: Ticks) -> None:
    events: list[Event] = []
    bell = system.spawn(Bell, ticks)
    await bell.every(1, "ring")
    await bell.after(2, "ring")
    context: Context = await bell.context_of()
    await bell.stop()
    unsubscribe = system.subscribe(events.append)
    for _ in range(5):
        clock.advance(1)
        await asyncio.sleep(0)
    unsubscribe()
    assert (ticks, events) == ([], [])
    with pytest.raises(ActorStopped):
        context.after(1, "ring")


async def test_timers_die_with_the_life_that_began_them(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    """Also a tick that waits in the mailbox, which itself survives the restart."""
    supervisor = system.options(name="sup").spawn(Supervisor, [ChildSpec("bell", Bell, args=(ticks,))])
    await supervisor.wait_started()
    bell = system.find("sup/bell")
    await bell.every(1, "ring", "again")
    await bell.after(2, "ring", "once")
    held = bell.options(timeout=None).hold()
    await wait_until(lambda: system.statistics().in_progress >= 1)
    crashing, following = bell.options(timeout=None).crash(), bell.options(timeout=None).idle()
    clock.advance(1)
    held.cancel()
    with pytest.raises(ValueError, match="boom"):
        await crashing
    await following
    await pass_time(clock, bell, 1, 1, 1)
    assert ticks == []
    assert (await bell.context_of()).incarnation == 2


async def test_what_begins_in_on_start_ticks_in_every_life(
    system: ActorSystem, clock: ManualClock, ticks: Ticks
) -> None:
    supervisor = system.options(name="sup").spawn(Supervisor, [ChildSpec("bell", EarlyBell, args=(ticks,))])
    await supervisor.wait_started()
    bell = system.find("sup/bell")
    await pass_time(clock, bell, 1)
    with pytest.raises(ValueError, match="boom"):
        await bell.crash()
    await bell.idle()
    await pass_time(clock, bell, 1, 1)
    assert ticks == [("early", 1), ("early", 2), ("early", 2)]

"""What `actors.testing` gives to tests, and what faults on the way do to messages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import Actor, ActorSystem, DeadlineExceeded, Unavailable
from actors.events import Event, PeerLost
from actors.testing import (
    FaultyTransport,
    ManualClock,
    Probe,
    memory_system,
    wait_until,
    wait_until_sync,
)


class Counter(Actor):
    """Counts how often it is called, by anybody."""

    concurrency = 2

    def __init__(self) -> None:
        self.calls = 0
        self.heard: list[Any] = []

    async def count(self) -> int:
        self.calls += 1
        return self.calls

    async def hear(self, word: Any) -> None:
        self.heard.append(word)

    async def all_heard(self) -> list[Any]:
        return self.heard

    async def wait_for_ever(self) -> None:
        await asyncio.Event().wait()

    async def remaining(self) -> float:
        assert self.context.deadline is not None
        return self.context.deadline.remaining()


# -- the clock ----------------------------------------------------------------------------------


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(start=7.0)

    assert clock.now() == 7.0
    clock.advance(2.5)
    assert clock.now() == 9.5


def test_timers_run_in_the_order_in_which_they_fall_due() -> None:
    clock = ManualClock()
    ran: list[tuple[str, float]] = []
    for name, delay in (("late", 3.0), ("early", 1.0), ("same time, set later", 3.0)):
        clock.call_later(delay, lambda name=name: ran.append((name, clock.now())))

    clock.advance(2.9)
    assert ran == [("early", 1.0)]

    clock.advance(0.1)
    assert ran == [("early", 1.0), ("late", 3.0), ("same time, set later", 3.0)]


def test_a_timer_set_by_a_timer_runs_in_the_same_move_when_it_is_due() -> None:
    clock = ManualClock()
    ran: list[float] = []

    def tick() -> None:
        ran.append(clock.now())
        clock.call_later(1.0, tick)

    clock.call_later(1.0, tick)
    clock.advance(3.5)

    assert ran == [1.0, 2.0, 3.0]
    assert clock.now() == 3.5


def test_a_cancelled_timer_does_not_run() -> None:
    clock = ManualClock()
    ran: list[str] = []
    timer = clock.call_later(1.0, lambda: ran.append("cancelled"))
    clock.call_later(1.0, lambda: ran.append("kept"))

    timer.cancel()
    clock.advance(5)

    assert ran == ["kept"]


async def test_an_ask_runs_out_of_time_when_the_clock_says_so() -> None:
    clock = ManualClock()
    async with ActorSystem(clock=clock, sinks=()) as system:
        counter = system.spawn(Counter)
        reply = counter.options(timeout=3600).wait_for_ever()
        await wait_until(lambda: system.statistics().in_progress)

        clock.advance(3599)
        await counter.count()
        assert not reply.done

        clock.advance(1)
        with pytest.raises(DeadlineExceeded, match="3600 s"):
            await reply


async def test_the_deadline_that_a_handler_sees_is_of_its_systems_clock() -> None:
    async with ActorSystem(clock=ManualClock(start=1e9)) as system:
        assert await system.spawn(Counter).options(timeout=40).remaining() == 40


class Ticking(Actor):
    """Ticks once a minute, each tick takes a turn of the loop."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    async def on_start(self) -> None:
        self.context.every(60, self._tick)

    async def _tick(self) -> None:
        await asyncio.sleep(0)
        self.probe.record("tick", self.context.incarnation)


async def test_elapse_lets_every_tick_be_handled_before_the_next_one() -> None:
    clock = ManualClock()
    probe = Probe(now=clock.now)
    async with ActorSystem(clock=clock) as system:
        await system.spawn(Ticking, probe).wait_started()

        await clock.elapse(185)

    assert probe.seen == [("tick", 1, 60), ("tick", 1, 120), ("tick", 1, 180)]


async def test_advance_gives_the_loop_no_turn_so_late_ticks_coalesce() -> None:
    clock = ManualClock()
    probe = Probe(now=clock.now)
    async with ActorSystem(clock=clock) as system:
        await system.spawn(Ticking, probe).wait_started()

        clock.advance(185)
        await probe.wait_for(1)
        await clock.elapse(0)

        assert probe.seen == [("tick", 1, 185)]


# -- waiting ------------------------------------------------------------------------------------


async def test_wait_until_returns_what_the_condition_gave() -> None:
    values = iter([0, "", None, "there"])

    assert await wait_until(lambda: next(values)) == "there"


async def test_wait_until_awaits_what_is_awaitable(system: ActorSystem) -> None:
    counter = system.spawn(Counter)

    async def three_calls() -> bool:
        return await counter.count() >= 3

    await wait_until(three_calls)
    assert await wait_until(counter.is_alive) is True


async def test_wait_until_gives_up_after_its_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        await wait_until(lambda: False, timeout=0.01)


def test_wait_until_sync_waits_for_other_threads_and_gives_up() -> None:
    done = threading.Event()
    threading.Timer(0.01, done.set).start()

    assert wait_until_sync(done.is_set) is True
    with pytest.raises(TimeoutError):
        wait_until_sync(lambda: False, timeout=0.01)


async def test_a_probe_keeps_events_with_incarnation_and_time() -> None:
    clock = ManualClock()
    probe = Probe(now=clock.now)

    probe.record("started", 1)
    clock.advance(2)
    probe.record("started", 2)

    assert await probe.wait_for(2) == [("started", 1, 0.0), ("started", 2, 2.0)]
    assert probe.events == ["started", "started"]
    with pytest.raises(TimeoutError, match="saw 2 of 3"):
        await probe.wait_for(3, timeout=0.01)


async def test_a_probe_is_a_sink() -> None:
    probe = Probe()
    async with ActorSystem(sinks=(probe,)) as system:
        counter = system.options(name="counter").spawn(Counter)
        await counter.wait_started()
        await counter.stop()

    assert [(one.event.kind, one.event.actor, one.incarnation) for one in probe.seen] == [
        ("actor.started", "counter", 1),
        ("actor.exited", "counter", 1),
    ]


# -- systems in memory, with faults on the way ---------------------------------------------------


async def test_two_memory_systems_talk() -> None:
    async with memory_system() as one, memory_system() as other:
        counter = one.options(name="counter").spawn(Counter)
        far = other.ref(f"{one.address}#counter")

        assert [await counter.count(), await far.count(), await counter.count()] == [1, 2, 3]


class Pair:
    """Two systems in memory with a counter in the second, and faults on both ways."""

    def __init__(self) -> None:
        self.to_far = FaultyTransport(delay=0.05)
        self.back = FaultyTransport(delay=0.05)
        self.events: list[Event] = []
        self.near = memory_system(transport=self.to_far, sinks=(self.events.append,))
        self.far = memory_system(transport=self.back, sinks=())

    async def __aenter__(self) -> Pair:
        await self.near.__aenter__()
        await self.far.__aenter__()
        self.at_home = self.far.options(name="counter").spawn(Counter)
        self.counter = self.near.ref(f"{self.far.address}#counter")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.near.__aexit__(*exc)
        await self.far.__aexit__(*exc)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Pair() as pair:
        yield pair


async def test_an_ask_that_is_lost_on_the_way_runs_out_of_time(pair: Pair) -> None:
    pair.to_far.script("drop")

    with pytest.raises(DeadlineExceeded):
        await pair.counter.options(timeout=0.05).count()

    assert await pair.counter.count() == 1, "the lost one never ran"
    assert pair.to_far.suffered[0] == "drop"


async def test_an_answer_that_is_lost_on_the_way_back_runs_out_of_time(pair: Pair) -> None:
    pair.back.script("drop")

    with pytest.raises(DeadlineExceeded):
        await pair.counter.options(timeout=0.05).count()

    assert await pair.counter.count() == 2, "the first one ran"


async def test_a_tell_whose_confirmation_is_lost_is_confirmed_by_the_next_one(pair: Pair) -> None:
    pair.back.script("drop")
    first = pair.counter.tell("hear", "first")
    await wait_until(lambda: pair.back.suffered)
    assert not first.done

    await pair.counter.tell("hear", "second")

    await first
    assert await pair.at_home.all_heard() == ["first", "second"]


async def test_a_doubled_frame_runs_its_calls_once(pair: Pair) -> None:
    pair.to_far.script("duplicate")
    await pair.counter.count()

    await wait_until(lambda: pair.far.statistics().accepted >= 1)
    assert await pair.counter.count() == 2


async def test_a_doubled_answer_is_dropped_before_it_reaches_anyone(pair: Pair) -> None:
    pair.back.script("duplicate", "duplicate")

    assert [await pair.counter.count(), await pair.counter.count()] == [1, 2]
    assert pair.near.statistics().pending_asks == 0


async def test_a_delayed_frame_arrives_late_and_before_those_sent_after_it(pair: Pair) -> None:
    pair.to_far.script("pass", "delay")
    await pair.counter.count()
    loop = asyncio.get_running_loop()
    sent_at = loop.time()

    pair.counter.tell("hear", "delayed")
    await asyncio.sleep(0)
    second = pair.counter.tell("hear", "behind it")
    await second

    assert loop.time() - sent_at >= 0.05
    assert await pair.at_home.all_heard() == ["delayed", "behind it"]


async def test_a_link_that_breaks_fails_what_had_not_left_and_the_next_ask_takes_a_new_one(
    pair: Pair,
) -> None:
    pair.to_far.script("pass", "fail")
    await pair.counter.count()

    with pytest.raises(Unavailable) as caught:
        await pair.counter.count()

    assert caught.value.may_have_run is False
    assert await pair.counter.count() == 2
    assert [event for event in pair.events if isinstance(event, PeerLost)] != []


async def test_closing_a_link_ends_a_delay() -> None:
    pair = Pair()
    pair.to_far.delay = 30.0
    async with pair:
        pair.to_far.script("delay")
        reply = pair.counter.count()
        await wait_until(lambda: pair.to_far.suffered)
        async with asyncio.timeout(5):
            await pair.far.stop()
            with pytest.raises(Unavailable):
                await reply


def test_the_same_seed_gives_the_same_faults() -> None:
    def faults(seed: int) -> list[str]:
        transport = FaultyTransport(odds={"drop": 0.3, "duplicate": 0.3}, seed=seed)
        return [transport.next_fault() for _ in range(100)]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)
    assert set(faults(1)) == {"drop", "duplicate", "pass"}


def test_without_odds_and_script_nothing_befalls_a_frame() -> None:
    transport = FaultyTransport()

    assert {transport.next_fault() for _ in range(100)} == {"pass"}


def test_the_script_comes_before_chance() -> None:
    transport = FaultyTransport(odds={"drop": 1.0})
    transport.script("pass", "delay")
    transport.script("duplicate")

    assert [transport.next_fault() for _ in range(4)] == ["pass", "delay", "duplicate", "drop"]


async def test_asks_over_a_bad_line_have_one_outcome_each() -> None:
    """With a third of all frames lost or doubled, nobody hangs and nobody gets somebody else's answer."""
    line = FaultyTransport(odds={"drop": 0.2, "duplicate": 0.1}, seed=3)
    async with memory_system(sinks=()) as far, memory_system(transport=line, sinks=()) as near:
        far.options(name="counter", concurrency=10).spawn(Echoing)
        ref = near.ref(f"{far.address}#counter").options(timeout=0.2)

        outcomes = []
        for number in range(0, 100, 10):
            # One burst travels in one frame; ten frames give both fates a chance.
            replies = [ref.same(number + i) for i in range(10)]
            outcomes += await asyncio.gather(*replies, return_exceptions=True)

    answered = [(n, got) for n, got in enumerate(outcomes) if not isinstance(got, DeadlineExceeded)]
    assert all(n == got for n, got in answered)
    assert 0 < len(answered) < 100
    assert near.statistics().pending_asks == 0


class Echoing(Actor):
    async def same(self, value: Any) -> Any:
        return value

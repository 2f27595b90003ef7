"""
Counters: whatever happens, each message accepted is handled, in hand, waiting or a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, ActorStopped, ActorSystem, MailboxFull, Ref, Refusal, Reply, Terminated
from actors.events import DeadLettered, Event
from actors.statistics import SystemStatistics
from actors.testing import ManualClock, wait_until
from supervisors import ChildSpec, Supervisor


class Worker(Actor):
    """Does whatever it is told, and can be held up."""

    mailbox = 4
    concurrency = 2

    def __init__(self, gates: list[asyncio.Event]) -> None:
        self.gates = gates

    async def work(self) -> None: ...

    async def wait(self) -> None:
        await asyncio.sleep(0)

    async def hold(self) -> None:
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()

    async def refuse(self) -> None:
        raise Refusal("no")

    async def crash(self) -> None:
        raise ValueError("boom")

    async def leave(self) -> None:
        self.context.stop()

    async def cancelled(self) -> None:
        raise asyncio.CancelledError

    async def items(self) -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(0)

    async def tick(self) -> None:
        self.context.every(1, "work")

    async def watch(self, ref: Ref[Any]) -> None:
        self.context.watch(ref)

    async def unwatch(self, ref: Ref[Any]) -> None:
        self.context.unwatch(ref)

    async def on_terminated(self, terminated: Terminated) -> None:
        await asyncio.sleep(0)


class World:
    """A system, a supervised worker and one that is not, and everything that was asked of them."""

    def __init__(self, system: ActorSystem, clock: ManualClock, events: list[Event]) -> None:
        self.system = system
        self.clock = clock
        self.events = events
        self.gates: list[asyncio.Event] = []
        self.replies: list[Reply[Any]] = []
        self.readers: list[Any] = []

    async def open(self) -> None:
        specs = [ChildSpec("worker", Worker, args=(self.gates,))]
        supervisor = self.system.options(name="sup").spawn(Supervisor, specs, "one_for_one", 10_000)
        await supervisor.wait_started()
        self.permanent = self.system.find("sup/worker")
        self.pinned = self.permanent.pinned()
        self.respawn()

    def respawn(self) -> None:
        self.temporary = self.system.spawn(Worker, self.gates)

    def ask(self, which: str, method: str, *args: Any) -> None:
        self.replies.append(getattr(self, which).ask(method, *args))

    def tell(self, which: str, method: str, *args: Any) -> None:
        self.replies.append(getattr(self, which).tell(method, *args))

    def stream(self, which: str) -> None:
        self.readers.append(aiter(getattr(self, which).stream("items")))

    def watch(self, watcher: str, watched: str, verb: str) -> None:
        getattr(self, watcher).tell(verb, getattr(self, watched))

    def end(self, which: str, verb: str) -> None:
        self.replies.append(getattr(getattr(self, which), verb)())

    def drop_stream(self) -> None:
        if self.readers:
            self.readers.pop(0)

    def cancel(self, position: int) -> None:
        if self.replies:
            self.replies[position % len(self.replies)].cancel()

    def open_gates(self) -> None:
        for gate in self.gates:
            gate.set()

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    def check(self) -> SystemStatistics:
        now = self.system.statistics()
        assert now.accepted == now.handled + now.in_progress + now.in_mailbox + now.dead_lettered, now
        letters = [event for event in self.events if isinstance(event, DeadLettered)]
        assert len(letters) == now.dead_lettered + now.refused
        return now


Step = Callable[[World], Any]

WORKERS = st.sampled_from(["permanent", "temporary", "pinned"])
METHODS = st.sampled_from(
    ["work", "wait", "hold", "hold", "refuse", "crash", "leave", "cancelled", "items", "tick", "nothing"]
)


def step(name: str, *arguments: Any) -> st.SearchStrategy[Any]:
    """One step: the name of a method of `World`, and its arguments; shown like that when it fails."""
    return st.tuples(st.just(name), *arguments)


STEPS = st.one_of(
    step("ask", WORKERS, METHODS),
    step("tell", WORKERS, METHODS),
    step("ask", WORKERS, METHODS, st.just("misfit")),
    step("stream", WORKERS),
    step("drop_stream"),
    step("watch", WORKERS, WORKERS, st.sampled_from(["watch", "unwatch"])),
    step("end", WORKERS, st.sampled_from(["stop", "kill"])),
    step("cancel", st.integers(0, 20)),
    step("open_gates"),
    step("respawn"),
    step("advance", st.sampled_from([0.5, 1.0, 6.0])),
    step("settle"),
)


async def run(steps: list[tuple[Any, ...]]) -> None:
    clock, events = ManualClock(), list[Event]()
    async with ActorSystem(clock=clock, sinks=(events.append,)) as system:
        world = World(system, clock, events)
        await world.open()
        for name, *arguments in steps:
            if name == "advance":
                clock.advance(*arguments)
            else:
                done = getattr(world, name)(*arguments)
                if asyncio.iscoroutine(done):
                    await done
            world.check()
        world.open_gates()
        world.readers.clear()
        stopped = system.stop()
        while not stopped.done:
            clock.advance(10)
            await world.settle()
            world.open_gates()
            world.check()
    now = world.check()
    assert (now.in_progress, now.in_mailbox, now.pending_asks, now.actors) == (0, 0, 0, 0)
    outcomes = await asyncio.gather(*world.replies, return_exceptions=True)
    assert len(outcomes) == len(world.replies)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_the_counters_balance_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    """And in the end every ask has its outcome, and each loss is one dead letter."""
    asyncio.run(run(steps))


async def test_each_counter_counts_what_its_name_says(system: ActorSystem) -> None:
    gates: list[asyncio.Event] = []
    worker = system.options(mailbox=2, concurrency=1).spawn(Worker, gates)
    running = worker.hold()
    await wait_until(lambda: gates)
    queued = [worker.work(), worker.work()]
    with pytest.raises(MailboxFull):
        await worker.work()
    queued[1].cancel()

    now = system.statistics()
    assert (now.accepted, now.handled, now.in_progress, now.in_mailbox) == (3, 0, 1, 1)
    assert (now.dead_lettered, now.refused, now.pending_asks, now.actors) == (1, 1, 2, 1)

    gates[0].set()
    await asyncio.gather(running, queued[0])
    await worker.stop()
    with pytest.raises(ActorStopped):
        await worker.work()
    now = system.statistics()
    assert (now.accepted, now.handled, now.in_progress, now.in_mailbox) == (3, 2, 0, 0)
    assert (now.dead_lettered, now.refused, now.pending_asks, now.actors) == (1, 2, 0, 0)


async def test_handled_counts_what_ended_however_it_ended(system: ActorSystem) -> None:
    gates: list[asyncio.Event] = []
    worker = system.spawn(Worker, gates)
    replies = [worker.ask(method) for method in ("work", "refuse", "cancelled", "crash")]
    await asyncio.gather(*replies, return_exceptions=True)
    await worker.wait_stopped()
    now = system.statistics()
    assert (now.accepted, now.handled, now.dead_lettered) == (4, 4, 0)


async def test_c50_a_dead_letter_names_target_sender_method_and_reason(
    system: ActorSystem, events: list[Event]
) -> None:
    class Teller(Actor):
        async def send(self, ref: Ref[Any]) -> None:
            ref.tell("cook", "a secret")

    worker = system.options(name="worker").spawn(Worker, [])
    await worker.stop()
    await system.options(name="teller").spawn(Teller).send(worker)
    letters = [event for event in events if isinstance(event, DeadLettered)]
    assert letters == [DeadLettered("worker", "teller", "cook", "stopped")]
    assert letters[0].fields() == {
        "target": "worker",
        "sender": "teller",
        "method": "cook",
        "reason": "stopped",
    }
    assert letters[0].kind == "message.dead_lettered"


async def test_a_sink_hears_events_until_it_is_unsubscribed(system: ActorSystem, events: list[Event]) -> None:
    heard: list[Event] = []
    unsubscribe = system.subscribe(heard.append)
    worker = system.spawn(Worker, [])
    await worker.wait_started()
    unsubscribe()
    unsubscribe()
    await worker.stop()
    assert [event.kind for event in heard] == ["actor.started"]
    assert [event.kind for event in events] == ["actor.started", "actor.exited"]


async def test_a_sink_that_fails_disturbs_nobody(system: ActorSystem, events: list[Event]) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: problems.append(context["exception"])
    )

    def broken(event: Event) -> None:
        raise KeyError("sink")

    system.subscribe(broken)
    heard: list[Event] = []
    system.subscribe(heard.append)
    worker = system.spawn(Worker, [])
    await worker.work()
    assert [event.kind for event in heard] == ["actor.started"]
    assert [type(problem) for problem in problems] == [KeyError]

"""
Handlers: where they run, how many at a time, and what they see around them.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from actors import Actor, ActorSystem, Ref
from actors.testing import wait_until, wait_until_sync

flavour: contextvars.ContextVar[str] = contextvars.ContextVar("flavour", default="plain")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open at the end, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


def handler_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "understudy-handler"}


class Blocking(Actor):
    """`def` handlers."""

    def block(self, gate: threading.Event) -> str:
        assert gate.wait(10)
        return "done"

    def thread(self) -> int:
        return threading.get_ident()

    def call(self, ref: Any) -> Any:
        return ref.thread().result()

    def later(self) -> Any:
        return self._later()

    async def _later(self) -> tuple[bool, str]:
        await asyncio.sleep(0)
        return threading.current_thread().name == "understudy-handler", "later"

    def numbers(self, count: int) -> Iterator[tuple[int, int]]:
        for number in range(count):
            yield number, threading.get_ident()

    def stop_iteration(self) -> None:
        raise StopIteration


# -- threads ---------------------------------------------------------------------------


async def test_def_handlers_run_on_threads_and_may_block(system: ActorSystem, gate: threading.Event) -> None:
    blocked = system.spawn(Blocking).block(gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    assert await system.spawn(Blocking).thread() != threading.get_ident()
    assert not blocked.done
    gate.set()
    assert await blocked == "done"


async def test_a_def_handler_may_wait_for_the_answers_of_others(system: ActorSystem) -> None:
    first, second = system.spawn(Blocking), system.spawn(Blocking)
    assert await first.call(second) != await first.thread()


class Link(Actor):
    """One of a row: asks the next one and waits for it on its thread."""

    def count(self, row: list[Ref[Any]]) -> int:
        if not row:
            return 1
        return 1 + row[0].options(timeout=None).count(row[1:]).result()  # type: ignore[no-any-return]


async def test_def_handlers_that_wait_for_each_other_never_use_up_the_threads(system: ActorSystem) -> None:
    """300 of them, and at most 256 threads that do not wait."""
    row = [system.spawn(Link) for _ in range(300)]
    assert await row[0].options(timeout=None).count(row[1:]) == 300
    assert system.statistics().threads >= 300


async def test_threads_are_bounded_and_the_others_wait_for_one(
    system: ActorSystem, gate: threading.Event
) -> None:
    replies = [system.spawn(Blocking).options(timeout=None).block(gate) for _ in range(300)]
    await wait_until(lambda: system.statistics().threads == 256)
    assert await system.spawn(Listener).hear() == "heard"
    assert system.statistics().threads == 256
    gate.set()
    assert await asyncio.gather(*replies) == ["done"] * 300
    assert system.statistics().threads <= 256


async def test_work_that_expires_while_it_waits_for_a_thread_is_never_started(
    system: ActorSystem, gate: threading.Event
) -> None:
    class Counter(Actor):
        counted: list[str] = []

        def count(self) -> None:
            self.counted.append("counted")

    replies = [system.spawn(Blocking).options(timeout=None).block(gate) for _ in range(256)]
    await wait_until(lambda: system.statistics().threads == 256)
    with pytest.raises(TimeoutError):
        await system.spawn(Counter).options(timeout=0.01).count()
    gate.set()
    await asyncio.gather(*replies)
    await wait_until(lambda: system.statistics().in_progress == 0)
    assert Counter.counted == []


async def test_an_idle_actor_holds_no_thread(system: ActorSystem) -> None:
    """Threads are leased: one is enough for actors that work one after the other."""
    for _ in range(20):
        await system.spawn(Blocking).thread()
    assert system.statistics().threads < 5


def test_no_thread_is_left_when_the_system_has_stopped() -> None:
    before = handler_threads()
    with ActorSystem(sinks=()) as system:
        for _ in range(5):
            system.spawn(Blocking).thread().result()
        system.spawn(Pinned).threads().result()
        assert handler_threads() - before
    wait_until_sync(lambda: not handler_threads() - before)


async def test_a_busy_def_handler_does_not_hold_up_the_loop_with_its_construction(
    system: ActorSystem, gate: threading.Event
) -> None:
    """`__init__` of a class with `def` handlers may load for a minute."""

    class Heavy(Blocking):
        def __init__(self) -> None:
            assert gate.wait(10)
            self.built_on = threading.get_ident()

        async def where(self) -> int:
            return self.built_on

    heavy = system.spawn(Heavy)
    assert await system.spawn(Listener).hear() == "heard"
    gate.set()
    assert await heavy.where() != threading.get_ident()


class Listener(Actor):
    """Async alone: everything on the loop."""

    def __init__(self) -> None:
        self.built_on = threading.get_ident()

    async def hear(self) -> str:
        return "heard"

    async def threads(self) -> set[int]:
        return {self.built_on, threading.get_ident()}


async def test_an_actor_without_def_handlers_lives_on_the_loop(system: ActorSystem) -> None:
    assert await system.spawn(Listener).threads() == {threading.get_ident()}
    assert system.statistics().threads == 0


class Pinned(Actor):
    """Writes down on which threads its code runs."""

    own_thread = True

    def __init__(self) -> None:
        self.seen = {threading.get_ident()}

    def on_start(self) -> None:  # type: ignore[override]
        self.seen.add(threading.get_ident())

    def note(self) -> None:
        self.seen.add(threading.get_ident())

    def numbers(self) -> Iterator[int]:
        for number in range(3):
            self.seen.add(threading.get_ident())
            yield number

    def threads(self) -> set[int]:
        return self.seen

    async def hear(self) -> int:
        return threading.get_ident()


async def test_own_thread_pins_one_for_init_and_all_handlers(system: ActorSystem) -> None:
    pinned, other = system.spawn(Pinned), system.spawn(Pinned)
    others = [system.spawn(Blocking) for _ in range(5)]
    for _ in range(10):
        await asyncio.gather(pinned.note(), other.note(), *(actor.thread() for actor in others))
    assert [number async for number in pinned.numbers()] == [0, 1, 2]

    (one,), (two,) = await pinned.threads(), await other.threads()
    assert one != two
    assert {await actor.thread() for actor in others}.isdisjoint({one, two})
    assert await pinned.hear() == threading.get_ident()


async def test_an_own_thread_is_given_back_with_its_life(system: ActorSystem) -> None:
    for _ in range(10):
        pinned = system.spawn(Pinned)
        await pinned.note()
        await pinned.stop()
    assert system.statistics().threads == 1


async def test_a_def_handler_may_return_a_coroutine_for_the_loop(system: ActorSystem) -> None:
    assert await system.spawn(Blocking).later() == (False, "later")


async def test_a_sync_generator_is_a_stream_on_one_thread(system: ActorSystem) -> None:
    items = [item async for item in system.spawn(Blocking).numbers(5)]
    assert [number for number, _ in items] == [0, 1, 2, 3, 4]
    assert len({thread for _, thread in items}) == 1
    assert threading.get_ident() not in {thread for _, thread in items}


async def test_stop_iteration_from_a_def_handler_is_a_crash_and_no_hang(system: ActorSystem) -> None:
    blocking = system.spawn(Blocking)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await blocking.stop_iteration()
    assert (await blocking.wait_stopped()).kind == "error"


# -- how many at a time ------------------------------------------------------------------


class Counting(Actor):
    """Knows how many of its handlers run at once."""

    def __init__(self) -> None:
        self.active = 0
        self.most = 0
        self.lock = threading.Lock()

    def _enter(self, change: int) -> None:
        with self.lock:
            self.active += change
            self.most = max(self.most, self.active)

    async def work(self, gate: asyncio.Event) -> None:
        self._enter(1)
        await gate.wait()
        await asyncio.sleep(0)
        self._enter(-1)

    def work_on_thread(self, company: threading.Barrier) -> None:
        self._enter(1)
        company.wait(10)
        self._enter(-1)

    async def most_at_once(self) -> int:
        return self.most


async def test_one_message_at_a_time_also_while_the_handler_waits(system: ActorSystem) -> None:
    counting, open_gate = system.spawn(Counting), asyncio.Event()
    open_gate.set()
    await asyncio.gather(*(counting.work(open_gate) for _ in range(20)))
    assert await counting.most_at_once() == 1


async def test_concurrency_says_how_many_at_a_time(system: ActorSystem) -> None:
    class Three(Counting):
        concurrency = 3

    for counting, most in ((system.spawn(Three), 3), (system.options(concurrency=2).spawn(Three), 2)):
        gate = asyncio.Event()
        replies = [counting.work(gate) for _ in range(10)]
        await wait_until(lambda most=most: system.statistics().in_progress == most)
        assert system.statistics().in_mailbox == 10 - most
        gate.set()
        await asyncio.gather(*replies)
        assert await counting.most_at_once() == most


async def test_concurrency_counts_for_threads_too(system: ActorSystem) -> None:
    """Each of them goes on only when three have met."""
    counting, company = system.options(concurrency=3).spawn(Counting), threading.Barrier(3)
    await asyncio.gather(*(counting.work_on_thread(company) for _ in range(9)))
    assert await counting.most_at_once() == 3


async def test_a_busy_actor_lets_others_have_their_turn(system: ActorSystem) -> None:
    """A handler that never waits ends its turn between messages."""

    class Busy(Actor):
        mailbox = 10_000
        done = 0

        async def work(self) -> None:
            Busy.done += 1

    busy, listener = system.spawn(Busy), system.spawn(Listener)
    await asyncio.gather(busy.wait_started(), listener.wait_started())
    for _ in range(5000):
        busy.tell("work")
    assert await listener.hear() == "heard"
    assert Busy.done < 5000
    await wait_until(lambda: Busy.done == 5000)


async def test_asyncio_s_own_tools_work_inside_a_handler(system: ActorSystem) -> None:
    class Modern(Actor):
        async def work(self) -> list[Any]:
            async def one(number: int) -> int:
                await asyncio.sleep(0)
                return number

            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number)) for number in range(3)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.001)
            return [*(task.result() for task in tasks), await asyncio.to_thread(int, "3")]

    modern = system.spawn(Modern)
    assert await asyncio.gather(modern.work(), modern.work()) == [[0, 1, 2, 3]] * 2


# -- what they see -----------------------------------------------------------------------


class Tasting(Actor):
    """Reads and sets a context variable."""

    def __init__(self) -> None:
        self.at_birth = flavour.get()

    async def on_start(self) -> None:
        self.at_start = flavour.get()
        flavour.set("started")

    async def begin(self) -> tuple[str, str]:
        return self.at_birth, self.at_start

    async def salt(self) -> tuple[str, str]:
        before = flavour.get()
        flavour.set("salty")
        await asyncio.sleep(0)
        return before, flavour.get()

    def salt_on_thread(self) -> tuple[str, str]:
        before = flavour.get()
        flavour.set("salty")
        return before, flavour.get()

    async def salt_task(self) -> str:
        flavour.set("salty")
        return await asyncio.create_task(self.taste())

    async def taste(self) -> str:
        return flavour.get()

    def taste_on_thread(self) -> str:
        return flavour.get()

    async def courses(self) -> AsyncIterator[str]:
        flavour.set("salty")
        for _ in range(2):
            yield flavour.get()


async def test_a_context_variable_ends_with_its_message(system: ActorSystem) -> None:
    tasting = system.spawn(Tasting)
    for _ in range(2):
        assert await tasting.salt() == ("plain", "salty")
        assert await tasting.salt_on_thread() == ("plain", "salty")
        assert await tasting.salt_task() == "salty"
        assert [course async for course in tasting.courses()] == ["salty", "salty"]
        assert await tasting.taste() == "plain"
        assert await tasting.taste_on_thread() == "plain"
    assert flavour.get() == "plain"


async def test_handlers_that_run_side_by_side_have_each_their_own_variables(system: ActorSystem) -> None:
    tasting = system.options(concurrency=10).spawn(Tasting)
    assert await asyncio.gather(*(tasting.salt() for _ in range(10))) == [("plain", "salty")] * 10


async def test_the_programs_own_variables_reach_init_hooks_and_handlers() -> None:
    token = flavour.set("sweet")
    try:
        async with ActorSystem(sinks=()) as system:
            flavour.set("of the caller")
            tasting = system.spawn(Tasting)
            assert await tasting.begin() == ("sweet", "sweet")
            assert await tasting.taste() == "sweet"
            assert await tasting.taste_on_thread() == "sweet"
    finally:
        flavour.reset(token)


class Curious(Actor):
    """Tells what its context says."""

    async def sender(self) -> Ref[Any] | None:
        return self.context.sender

    def sender_on_thread(self) -> Ref[Any] | None:
        return self.context.sender

    async def after_a_while(self, gate: asyncio.Event) -> tuple[Any, Any]:
        before = self.context.sender
        await gate.wait()
        deadline = self.context.deadline
        assert await asyncio.to_thread(lambda: self.context.sender) == before == self.context.sender
        return before, None if deadline is None else round(deadline.remaining())

    async def has_deadline(self) -> bool:
        deadline = self.context.deadline
        return deadline is not None and not deadline.expired and 0 < deadline.remaining() <= 5

    def has_deadline_on_thread(self) -> bool:
        return self.context.deadline is not None

    async def ask_for_me(self, ref: Any, method: str, *args: Any) -> Any:
        return await ref.ask(method, *args)

    async def myself(self) -> tuple[Ref[Any], str, int, Ref[Any] | None]:
        return self.context.ref, self.context.name, self.context.incarnation, self.context.parent


async def test_the_sender_is_the_actor_that_asked_pinned_to_its_life(system: ActorSystem) -> None:
    first, second = system.spawn(Curious), system.spawn(Curious)
    assert await first.ask_for_me(second, "sender") == first.pinned()
    assert await first.ask_for_me(second, "sender_on_thread") == first.pinned()
    assert await second.sender() is None
    assert await second.sender_on_thread() is None


async def test_sender_and_deadline_belong_to_the_message_also_when_several_run(system: ActorSystem) -> None:
    target, gate = system.options(concurrency=3).spawn(Curious), asyncio.Event()
    one, two = system.spawn(Curious), system.spawn(Curious)
    replies = [
        one.options(timeout=100).ask_for_me(target.options(timeout=50), "after_a_while", gate),
        two.options(timeout=None).ask_for_me(target.options(timeout=None), "after_a_while", gate),
        target.options(timeout=70).after_a_while(gate),
    ]
    await wait_until(lambda: system.statistics().in_progress == 5)
    gate.set()
    assert await asyncio.gather(*replies) == [(one.pinned(), 50), (two.pinned(), None), (None, 70)]


async def test_a_message_without_a_deadline_has_none(system: ActorSystem) -> None:
    curious = system.spawn(Curious)
    assert await curious.has_deadline()
    assert await curious.has_deadline_on_thread()
    assert not await curious.options(timeout=None).has_deadline()
    assert not await curious.options(timeout=None).has_deadline_on_thread()


async def test_an_actor_knows_itself(system: ActorSystem) -> None:
    curious = system.options(name="cat").spawn(Curious)
    assert await curious.myself() == (curious, "cat", 1, None)


async def test_the_context_is_there_before_init_runs(system: ActorSystem) -> None:
    class Early(Actor):
        def __init__(self) -> None:
            self.early = (
                self.context.name,
                self.context.incarnation,
                self.context.sender,
                self.context.deadline,
            )

        async def tell_it(self) -> Any:
            return self.early

    assert await system.options(name="early").spawn(Early).tell_it() == ("early", 1, None, None)

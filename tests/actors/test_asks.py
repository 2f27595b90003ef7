"""
Asks and tells: one outcome each, by the deadline; who is refused, with what, and what was never run.
"""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors import (
    Actor,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    DeadlockError,
    InvalidArgument,
    MailboxFull,
    Ref,
    Reply,
    UnknownMethod,
)
from actors.events import DeadLettered, Event
from actors.exit import Exit
from actors.ref import decoding
from actors.testing import ManualClock, wait_until


class Burnt(Exception):
    """An answer."""


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write them: takes anything, passes it on."""

    @functools.wraps(function)
    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.logged += 1
        return await function(self, *args, **kwargs)

    return wrapper


def with_knife(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds an argument of its own."""

    @functools.wraps(function)
    async def wrapper(self: Any, dish: str) -> Any:
        return await function(self, dish, "knife")

    return wrapper


class Chef(Actor):
    """Cooks, waits at gates, and writes down what it was told."""

    expected = (Burnt,)
    recipe = functools.partial(str.upper)

    def __init__(self, station: str = "grill") -> None:
        self.station = station
        self.cooked: list[Any] = []
        self.cancelled = 0
        self.logged = 0

    async def cook(self, dish: Any) -> str:
        self.cooked.append(dish)
        return f"{dish} from the {self.station}"

    def chop(self, dish: Any) -> str:
        self.cooked.append(dish)
        return f"{dish} chopped"

    @logged
    async def fry(self, dish: str, *, oil: str = "olive") -> str:
        return f"{dish} in {oil}"

    @with_knife
    async def slice(self, dish: str, tool: str) -> str:
        return dish + len(tool)  # type: ignore[operator,no-any-return]

    async def courses(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            yield dish

    async def hold(self, gate: asyncio.Event, dish: Any = None) -> Any:
        self.cooked.append(dish)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return dish

    async def season(self, **spices: str) -> dict[str, str]:
        return spices

    async def remaining(self) -> float | None:
        deadline = self.context.deadline
        return None if deadline is None else deadline.remaining()

    async def stumble(self) -> None:
        len(5)  # type: ignore[arg-type]

    async def notes(self) -> list[Any]:
        return self.cooked

    async def cancellations(self) -> int:
        return self.cancelled

    async def logs(self) -> int:
        return self.logged

    @property
    def menu(self) -> str:
        return "soup"

    @staticmethod
    def wash() -> None: ...

    @classmethod
    def hire(cls) -> None: ...

    async def _secret(self) -> str:
        return "sauce"


class Waiter(Actor):
    """Asks others from inside a handler."""

    async def relay(self, ref: Any, method: str, *args: Any, timeout: Any = "own") -> Any:
        ref = ref if timeout == "own" else ref.options(timeout=timeout)
        return await ref.ask(method, *args)

    async def dismiss(self, ref: Any) -> None:
        await ref.stop()

    async def send(self, ref: Any, count: int) -> None:
        for number in range(count):
            ref.tell("cook", (self.context.name, number))


@pytest.fixture
async def system(events: list[Event], clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, until it stops."""
    async with ActorSystem(sinks=(events.append,), clock=clock) as system:
        yield system
        stopped = system.stop()
        while not stopped.done:
            clock.advance(10)
            await asyncio.sleep(0.001)


def letters(events: list[Event]) -> list[tuple[str, str]]:
    """Method and reason of all dead letters."""
    return [(event.method, event.reason) for event in events if isinstance(event, DeadLettered)]


async def held(system: ActorSystem, chef: Ref[Any], gate: asyncio.Event, dish: Any = None) -> Reply[Any]:
    """A call without deadline that keeps *chef* busy from now on."""
    busy = system.statistics().in_progress
    reply = chef.options(timeout=None).hold(gate, dish)
    await wait_until(lambda: system.statistics().in_progress == busy + 1)
    return reply


# -- one outcome -----------------------------------------------------------------------


async def test_every_ask_has_exactly_one_outcome() -> None:
    """Answers, deadlines and cancels race; each reply is settled once and nothing is left waiting."""

    class Slow(Actor):
        concurrency = 20

        async def work(self, number: int) -> int:
            await asyncio.sleep(0.001 * (number % 5))
            return number

    async with ActorSystem(sinks=()) as system:
        slow = system.spawn(Slow)
        settled: list[int] = []
        replies = []
        for number in range(300):
            reply = slow.options(timeout=0.002 if number % 2 else 2.0).work(number)
            reply.add_done_callback(lambda _, number=number: settled.append(number))
            replies.append(reply)
        for reply in replies[::7]:
            reply.cancel()
        outcomes = await asyncio.gather(*replies, return_exceptions=True)

        assert sorted(settled) == list(range(300))
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, DeadlineExceeded):
                assert number % 2
            elif isinstance(outcome, Cancelled):
                assert number % 7 == 0
            else:
                assert outcome == number
        await wait_until(lambda: system.statistics().in_progress == 0)
        assert system.statistics().pending_asks == 0


async def test_c38_replies_come_in_the_order_of_their_work(system: ActorSystem) -> None:
    """A call that is held up does not hold up the answer to a later one."""
    chef = system.options(concurrency=2).spawn(Chef)
    gate = asyncio.Event()
    first = await held(system, chef, gate, "first")
    assert await chef.cook("second") == "second from the grill"
    assert not first.done
    gate.set()
    assert await first == "first"


# -- deadlines -------------------------------------------------------------------------


async def test_an_ask_has_five_seconds_by_default(system: ActorSystem, clock: ManualClock) -> None:
    chef = system.options(name="chef").spawn(Chef)
    reply = chef.hold(asyncio.Event())
    await wait_until(lambda: system.statistics().in_progress == 1)

    clock.advance(4.9)
    assert await system.spawn(Chef).cook("soup") == "soup from the grill"
    assert not reply.done
    clock.advance(0.2)

    with pytest.raises(DeadlineExceeded, match=r"chef did not answer hold\(\) within 5 s"):
        await reply
    assert await chef.cancellations() == 1


async def test_the_class_may_say_otherwise(system: ActorSystem, clock: ManualClock) -> None:
    class Hasty(Chef):
        ask_timeout = 1.0

    class Patient(Chef):
        ask_timeout = None

    hasty, patient = (
        system.spawn(Hasty).hold(asyncio.Event()),
        system.spawn(Patient).hold(gate := asyncio.Event()),
    )
    await wait_until(lambda: system.statistics().in_progress == 2)
    clock.advance(1.1)
    with pytest.raises(DeadlineExceeded, match="within 1 s"):
        await hasty
    clock.advance(1e6)
    assert not patient.done
    gate.set()
    await patient


async def test_a_ref_may_say_otherwise_and_the_first_ref_stays_as_it_was(
    system: ActorSystem, clock: ManualClock
) -> None:
    chef = system.spawn(Chef)
    hasty = chef.options(timeout=0.5)
    assert hasty == chef
    assert hash(hasty) == hash(chef)
    assert (await hasty.remaining(), await chef.remaining()) == (0.5, 5.0)


async def test_no_deadline_must_be_written(system: ActorSystem, clock: ManualClock) -> None:
    chef, gate = system.spawn(Chef), asyncio.Event()
    reply = await held(system, chef, gate, "stock")
    clock.advance(1e6)
    assert not reply.done
    gate.set()
    assert await reply == "stock"
    assert await chef.options(timeout=None).remaining() is None


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), True, "5"])
async def test_a_wrong_timeout_is_refused_where_it_is_written(system: ActorSystem, timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout="):
        system.spawn(Chef).options(timeout=timeout)


async def test_a_nested_ask_gets_the_smaller_of_its_own_time_and_what_is_left(
    system: ActorSystem, clock: ManualClock
) -> None:
    chef, waiter = system.spawn(Chef), system.spawn(Waiter)
    asked = waiter.options(timeout=3)
    assert await asked.relay(chef, "remaining") == 3
    assert await asked.relay(chef, "remaining", timeout=100) == 3
    assert await asked.relay(chef, "remaining", timeout=None) == 3
    assert await asked.relay(chef, "remaining", timeout=2) == 2
    second = system.spawn(Waiter)
    assert await asked.relay(second, "relay", chef, "remaining") == 3
    assert await waiter.options(timeout=None).relay(chef, "remaining") == 5


async def test_a_nested_ask_ends_with_the_deadline_of_the_first(
    system: ActorSystem, clock: ManualClock
) -> None:
    chef, waiter = system.spawn(Chef), system.spawn(Waiter)
    reply = waiter.options(timeout=3).relay(chef, "hold", asyncio.Event(), timeout=100)
    await wait_until(lambda: system.statistics().in_progress == 2)
    clock.advance(3.1)
    with pytest.raises(DeadlineExceeded):
        await reply
    assert await chef.cancellations() == 1


async def test_an_order_is_carried_out_whatever_becomes_of_the_caller(
    system: ActorSystem, clock: ManualClock
) -> None:
    """Orders have no deadline and inherit none."""
    chef, waiter, gate = system.spawn(Chef), system.spawn(Waiter), asyncio.Event()
    running = await held(system, chef, gate, "roast")
    asked = waiter.options(timeout=1).dismiss(chef)
    await wait_until(lambda: system.statistics().in_progress == 2)
    clock.advance(1.5)
    with pytest.raises(DeadlineExceeded):
        await asked
    gate.set()
    assert await running == "roast"
    assert await chef.wait_stopped() == Exit("shutdown")


async def test_work_that_expired_while_it_waited_is_never_started(
    system: ActorSystem, clock: ManualClock, events: list[Event]
) -> None:
    chef, gate = system.spawn(Chef), asyncio.Event()
    running = await held(system, chef, gate, "first")
    queued = chef.options(timeout=1).cook("second")
    clock.advance(1.5)
    with pytest.raises(DeadlineExceeded):
        await queued
    gate.set()
    await running
    assert await chef.notes() == ["first"]
    assert [method for method, _ in letters(events)] == ["cook"]


async def test_expired_work_is_a_dead_letter_that_says_so(
    system: ActorSystem, clock: ManualClock, events: list[Event]
) -> None:
    chef = system.spawn(Chef)
    await held(system, chef, asyncio.Event())
    queued = chef.options(timeout=1).cook("second")
    clock.advance(1.5)
    with pytest.raises(DeadlineExceeded):
        await queued
    assert letters(events) == [("cook", "expired")]


async def test_c39_a_late_answer_reaches_nobody() -> None:
    """The next call gets its own value; a `def` handler past its deadline runs to its end for nothing."""
    begun, go = threading.Event(), threading.Event()

    class Slow(Actor):
        finished = 0

        def nap(self) -> str:
            begun.set()
            go.wait(10)
            self.finished += 1
            return "late"

        async def count(self) -> int:
            return self.finished

    async with ActorSystem(sinks=()) as system:
        slow = system.spawn(Slow)
        await slow.count()  # the actor runs: what comes next begins at once
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await slow.options(timeout=0.03).nap()
        assert 0.03 <= time.monotonic() - began < 0.3
        assert begun.is_set()
        following = slow.count()
        go.set()
        assert await following == 1


async def test_c46_a_deadline_of_a_millisecond_is_kept() -> None:
    async with ActorSystem(sinks=()) as system:
        chef = system.spawn(Chef)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await chef.options(timeout=0.001).hold(asyncio.Event())
        assert time.monotonic() - began < 0.5
        await wait_until(lambda: system.statistics().in_progress == 0)


# -- cancelling ------------------------------------------------------------------------


async def test_c46_cancel_reaches_the_handler_at_its_next_await(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    running = await held(system, chef, asyncio.Event())
    running.cancel()
    with pytest.raises(Cancelled):
        await running
    assert await chef.cancellations() == 1


async def test_c46_a_queued_ask_that_is_cancelled_never_runs(
    system: ActorSystem, events: list[Event]
) -> None:
    chef, gate = system.spawn(Chef), asyncio.Event()
    running = await held(system, chef, gate, "first")
    queued = chef.cook("second")
    queued.cancel()
    gate.set()
    await running
    assert await chef.notes() == ["first"]
    assert letters(events) == [("cook", "cancelled")]


async def test_cancelling_the_first_of_a_chain_cancels_them_all(system: ActorSystem) -> None:
    chef, waiter = system.spawn(Chef), system.spawn(Waiter)
    reply = waiter.relay(chef, "hold", asyncio.Event())
    await wait_until(lambda: system.statistics().in_progress == 2)
    reply.cancel()
    await wait_until(lambda: system.statistics().in_progress == 0)
    assert await chef.cancellations() == 1
    assert await waiter.relay(chef, "cook", "soup") == "soup from the grill"


async def test_a_cancel_that_a_handler_ignores_does_not_reach_the_next_message(system: ActorSystem) -> None:
    """`timeout` and `TaskGroup` count the cancels of their task: none may be left over."""

    class Stubborn(Actor):
        async def hold(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

        async def cancels(self) -> int:
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

    stubborn = system.spawn(Stubborn)
    running, following = stubborn.hold(), stubborn.cancels()
    await wait_until(lambda: system.statistics().in_progress == 1)
    running.cancel()
    assert await following == 0


# -- who may be called, and with what ------------------------------------------------------


async def test_c43_an_unknown_method_is_refused_with_the_nearest_name(
    system: ActorSystem, events: list[Event]
) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(UnknownMethod, match=r"Chef has no method 'cok'; did you mean 'cook'\?"):
        await chef.cok("steak")
    assert await chef.cook("steak") == "steak from the grill"
    assert letters(events) == [("cok", "unknown method")]


@pytest.mark.parametrize(
    "name",
    [
        *("_secret", "__init__", "__class__", "on_start", "on_stop", "on_terminated"),
        *("context", "expected", "menu", "wash", "hire", "recipe", "station", ""),
    ],
)
async def test_c43_only_public_functions_below_actor_are_messages(system: ActorSystem, name: str) -> None:
    """No private or dunder methods, hooks, properties, stored callables or attributes."""
    chef = system.spawn(Chef)
    with pytest.raises(UnknownMethod):
        await chef.ask(name)
    assert await chef.cook("steak") == "steak from the grill"


async def test_c43_an_unknown_tell_is_a_dead_letter_and_no_crash(
    system: ActorSystem, events: list[Event]
) -> None:
    chef = system.spawn(Chef)
    await chef.tell("cok", "steak")
    assert await chef.cook("fish") == "fish from the grill"
    assert letters(events) == [("cok", "unknown method")]


async def test_private_names_are_no_attributes_of_a_ref(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(AttributeError):
        chef._secret  # noqa: B018
    with pytest.raises(AttributeError, match="remote method"):
        chef.cook.station  # noqa: B018


@pytest.mark.parametrize(
    "call",
    [
        lambda chef: chef.cook(),
        lambda chef: chef.cook("steak", "rare"),
        lambda chef: chef.cook(course="steak"),
        lambda chef: chef.chop(),
        lambda chef: chef.chop("steak", dish="steak"),
        lambda chef: chef.fry(),
        lambda chef: chef.fry("fish", butter="yes"),
        lambda chef: chef.slice(),
    ],
)
async def test_a_misfit_is_an_answer_that_names_the_method(
    system: ActorSystem, call: Callable[[Any], Reply[Any]]
) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(InvalidArgument, match=r"Chef\.(cook|chop|fry|slice)\(\): ") as caught:
        await call(chef)
    assert isinstance(caught.value, ValueError)
    assert await chef.notes() == []
    assert await chef.is_alive()


async def test_a_misfit_for_a_stream_is_an_answer_too(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(InvalidArgument, match="courses"):
        _ = [course async for course in chef.courses()]
    assert [course async for course in chef.courses(["soup"])] == ["soup"]


async def test_arguments_are_bound_before_a_decorated_handler_starts(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    assert await chef.fry("fish", oil="nut") == "fish in nut"
    with pytest.raises(InvalidArgument):
        await chef.fry()
    assert await chef.logs() == 1


async def test_a_type_error_of_the_handlers_own_is_a_crash(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(TypeError, match="has no len"):
        await chef.stumble()
    exit = await chef.wait_stopped()
    assert (exit.kind, type(exit.detail)) == ("error", TypeError)


async def test_a_type_error_behind_a_decorator_that_adds_arguments_is_a_crash_too(
    system: ActorSystem,
) -> None:
    chef = system.spawn(Chef)
    with pytest.raises(TypeError, match="str"):
        await chef.slice("bread")
    assert (await chef.wait_stopped()).kind == "error"


async def test_all_words_after_a_method_belong_to_the_user(system: ActorSystem) -> None:
    """None of ours stands beside them."""
    chef = system.spawn(Chef)
    spices = {"timeout": "a", "method": "b", "self": "c", "key": "d", "name": "e", "args": "f"}
    spices.pop("self")  # Python's own
    assert await chef.season(**spices) == spices
    assert await chef.ask(Chef.season, **spices) == spices


# -- mailboxes -------------------------------------------------------------------------


async def test_c51_a_full_mailbox_refuses_the_sender(system: ActorSystem, events: list[Event]) -> None:
    chef, gate = system.options(name="chef", mailbox=3).spawn(Chef), asyncio.Event()
    running = await held(system, chef, gate)
    queued = [chef.cook(number) for number in range(3)]

    with pytest.raises(MailboxFull, match="chef has 3 messages waiting, its limit"):
        await chef.cook("too much")
    with pytest.raises(MailboxFull):
        await chef.tell("cook", "too much")
    assert system.statistics().refused == 2
    assert letters(events) == [("cook", "mailbox full")] * 2
    gate.set()
    await asyncio.gather(running, *queued)

    assert await chef.notes() == [None, 0, 1, 2]
    assert await chef.cook("again") == "again from the grill"


async def test_the_limit_of_a_mailbox_is_its_class_s_unless_options_say_otherwise(
    system: ActorSystem,
) -> None:
    class Small(Chef):
        mailbox = 1

    for chef, room in ((system.spawn(Small), 1), (system.options(mailbox=2).spawn(Small), 2)):
        gate = asyncio.Event()
        running = await held(system, chef, gate)
        replies = [chef.cook(number) for number in range(4)]
        gate.set()
        await running
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        assert [isinstance(outcome, MailboxFull) for outcome in outcomes] == [False] * room + [True] * (
            4 - room
        )


@pytest.mark.parametrize("option", ["mailbox", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
async def test_a_wrong_limit_is_refused(system: ActorSystem, option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=option):
        system.options(**{option: value}).spawn(Chef)
    with pytest.raises(InvalidArgument, match=option):
        type("Wrong", (Chef,), {option: value})
    assert system.statistics().actors == 0


# -- order -----------------------------------------------------------------------------


async def test_messages_keep_the_order_of_their_sender(system: ActorSystem) -> None:
    """Actors on the loop, threads and tells mixed with asks: each sender's own order is kept."""
    chef = system.options(mailbox=10_000).spawn(Chef)
    waiters = [system.options(name=f"waiter-{number}").spawn(Waiter) for number in range(3)]

    def send(name: str) -> None:
        for number in range(200):
            (chef.tell if number % 3 else chef.ask)("cook", (name, number))

    threads = [asyncio.to_thread(send, f"thread-{number}") for number in range(3)]
    await asyncio.gather(*(waiter.send(chef, 200) for waiter in waiters), *threads)
    await wait_until(lambda: system.statistics().in_mailbox == 0 and system.statistics().in_progress == 0)

    notes = await chef.notes()
    assert len(notes) == 1200
    for sender in {name for name, _ in notes}:
        assert [number for name, number in notes if name == sender] == list(range(200))


# -- forms -----------------------------------------------------------------------------


async def test_a_method_is_named_by_function_or_by_word(system: ActorSystem) -> None:
    chef: Ref[Chef] = system.spawn(Chef, "oven")
    assert await chef.ask(Chef.cook, "soup") == "soup from the oven"
    assert await chef.ask("cook", dish="soup") == "soup from the oven"
    assert await chef.ask(Chef.chop, "leek") == "leek chopped"
    assert await chef.tell(Chef.cook, "stock") is None
    assert await chef.tell("cook", "stock") is None
    assert [course async for course in chef.stream(Chef.courses, ["a", "b"])] == ["a", "b"]
    assert [course async for course in chef.stream("courses", ["c"])] == ["c"]
    assert await chef.notes() == ["soup", "soup", "leek", "stock", "stock"]


@pytest.mark.parametrize("method", [42, None, ["cook"]])
async def test_anything_else_is_no_method(system: ActorSystem, method: Any) -> None:
    chef = system.spawn(Chef)
    for form in (chef.ask, chef.tell, chef.stream):
        with pytest.raises(InvalidArgument, match="method="):
            form(method)


async def test_a_tell_resolves_when_the_mailbox_took_it(system: ActorSystem) -> None:
    chef, gate = system.spawn(Chef), asyncio.Event()
    running = await held(system, chef, gate, "first")
    assert await chef.tell("cook", "second") is None
    gate.set()
    await running
    assert await chef.notes() == ["first", "second"]


async def test_refs_are_equal_by_name_registration_and_pin(system: ActorSystem) -> None:
    chef = system.options(name="chef").spawn(Chef)
    assert chef == system.find("chef")
    assert {chef, system.find("chef")} == {chef}
    assert chef != chef.pinned()
    assert chef.pinned() == chef.pinned()
    assert chef != "chef"
    await chef.stop()
    assert system.options(name="chef").spawn(Chef) != chef


async def test_a_ref_may_be_pickled_and_sent_in_messages(system: ActorSystem) -> None:
    chef, waiter = system.spawn(Chef), system.spawn(Waiter)
    copy = pickle.loads(pickle.dumps(chef.options(timeout=2)))
    assert copy == chef
    assert await copy.cook("soup") == "soup from the grill"
    assert await copy.remaining() == 2
    assert await waiter.relay(copy.pinned(), "cook", "fish") == "fish from the grill"


async def test_a_ref_that_is_unpickled_where_a_system_has_ended_belongs_to_one_that_is_open(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    chef = system.spawn(Chef)
    async with ActorSystem(sinks=()) as gone:
        pass
    monkeypatch.setattr(decoding, "system", gone, raising=False)  # it read what came on this thread

    copy = pickle.loads(pickle.dumps(chef))

    assert await copy.cook("soup") == "soup from the grill"


@pytest.mark.parametrize("name", ["ask", "tell", "stream", "options", "stop", "kill", "pinned", "is_alive"])
def test_a_message_named_like_a_method_of_refs_is_refused_with_its_class(name: str) -> None:
    async def method(self: Any) -> None: ...

    with pytest.raises(InvalidArgument, match=f"Wrong.{name}"):
        type("Wrong", (Actor,), {name: method})


# -- deadlocks -------------------------------------------------------------------------


class Caller(Actor):
    """Asks a chain of others, itself at the end."""

    async def call(self, *path: Any) -> str:
        if not path:
            return "end"
        return await path[0].options(timeout=None).call(*path[1:])  # type: ignore[no-any-return]

    def call_sync(self, *path: Any) -> str:
        return path[0].options(timeout=None).call_sync(*path[1:]).result() if path else "end"  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["call", "call_sync"])
async def test_a_chain_of_asks_that_closes_fails_at_once_and_shows_the_chain(
    system: ActorSystem, method: str
) -> None:
    one, two = (system.options(name=name).spawn(Caller) for name in ("one", "two"))
    with pytest.raises(DeadlockError, match=r"two\.call.* → one\.call.*would wait for itself"):
        await asyncio.wait_for(one.options(timeout=None).ask(method, two, one), 2)
    assert await one.ask(method, two) == "end"


@pytest.mark.parametrize("method", ["call", "call_sync"])
async def test_an_actor_that_asks_itself_is_told_at_once(system: ActorSystem, method: str) -> None:
    one = system.options(name="one").spawn(Caller)
    with pytest.raises(DeadlockError, match="one"):
        await asyncio.wait_for(one.options(timeout=None).ask(method, one), 1)
    assert await one.ask(method) == "end"


async def test_a_chain_that_closes_where_there_is_room_is_no_deadlock(system: ActorSystem) -> None:
    one, two = system.options(concurrency=2).spawn(Caller), system.spawn(Caller)
    assert await one.call(two, one) == "end"

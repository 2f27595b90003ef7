"""
Errors: the tree, what is an answer and what is a crash, and what passes through unharmed.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from typing import Any

import pytest

import actors
from actors import (
    Actor,
    ActorError,
    ActorStopped,
    ActorSystem,
    AlreadyPresent,
    AlreadyStarted,
    Cancelled,
    DeadlineExceeded,
    DeadlockError,
    Exit,
    InvalidArgument,
    MailboxFull,
    NotFound,
    Refusal,
    SerializationError,
    ServiceFailed,
    StartFailed,
    Unauthenticated,
    Unavailable,
    UnknownMethod,
)
from actors.events import ActorExited, ErrorUnanswered, Event, ThreadAbandoned
from actors.testing import wait_until

TREE: list[tuple[ActorError, str, tuple[type[BaseException], ...]]] = [
    (ActorError("e"), "UNKNOWN", ()),
    (DeadlineExceeded("e"), "DEADLINE_EXCEEDED", (TimeoutError,)),
    (Unavailable("e", may_have_run=False, reason="r"), "UNAVAILABLE", ()),
    (ServiceFailed("e", reason="r"), "UNAVAILABLE", (Unavailable,)),
    (ActorStopped("e"), "FAILED_PRECONDITION", ()),
    (NotFound("e"), "NOT_FOUND", (LookupError,)),
    (UnknownMethod("e"), "UNIMPLEMENTED", ()),
    (InvalidArgument("e"), "INVALID_ARGUMENT", (ValueError,)),
    (AlreadyStarted("e", "somebody"), "ALREADY_EXISTS", ()),
    (AlreadyPresent("e"), "ALREADY_EXISTS", ()),
    (MailboxFull("e"), "RESOURCE_EXHAUSTED", ()),
    (Cancelled("e"), "CANCELLED", ()),
    (SerializationError("e"), "INTERNAL", ()),
    (Unauthenticated("e"), "UNAUTHENTICATED", ()),
    (Refusal("e"), "FAILED_PRECONDITION", ()),
    (DeadlockError("e"), "ABORTED", ()),
    (StartFailed("e"), "FAILED_PRECONDITION", ()),
]


class Expected(Exception):
    """Declared: an answer."""


class Special(Expected):
    """One of its kind."""


class OutOfStock(Refusal):
    """A refusal with a constructor of its own."""

    def __init__(self, dish: str, left: int) -> None:
        super().__init__(f"no {dish} left")
        self.dish = dish
        self.left = left


class Cook(Actor):
    """Fails in every way there is, and counts what it has done."""

    expected = (Expected,)

    def __init__(self) -> None:
        self.count = 0

    async def work(self) -> int:
        self.count += 1
        return self.count

    async def fail(self, error: BaseException) -> None:
        self.count += 1
        raise error

    def fail_in_thread(self, error: BaseException) -> None:
        self.count += 1
        raise error

    async def hold(self, gate: asyncio.Event) -> None:
        await gate.wait()

    async def fail_when(self, gate: asyncio.Event, error: BaseException) -> None:
        await gate.wait()
        raise error


class Relay(Actor):
    """Stands in front of others."""

    async def ping(self) -> str:
        return "pong"

    async def pass_on(self, ref: Any, method: str, *args: Any) -> Any:
        return await ref.ask(method, *args)

    def pass_on_in_thread(self, ref: Any, method: str, *args: Any) -> Any:
        return ref.ask(method, *args).result()

    async def catch_and_raise(self, ref: Any, error: BaseException) -> Any:
        try:
            await ref.fail(error)
        except Exception as caught:
            problem = caught
        await asyncio.sleep(0)
        raise problem

    async def unwrap(self, ref: Any, error: BaseException) -> Any:
        reply = ref.fail(error)
        await asyncio.wait([asyncio.ensure_future(self._settled(reply))])
        return reply.outcome().unwrap()

    async def _settled(self, reply: Any) -> None:
        try:
            await reply
        except Exception:
            pass

    async def translate(self, ref: Any, error: BaseException) -> Any:
        try:
            await ref.fail(error)
        except Exception as caught:
            raise KeyError("translated") from caught

    async def gather(self, *calls: Any, own: BaseException | None = None) -> Any:
        replies = [ref.fail(error) for ref, error in calls]
        errors = await asyncio.gather(*replies, return_exceptions=True)
        raise BaseExceptionGroup("all of it", errors if own is None else [*errors, own])

    async def group(self, ref: Any, error: BaseException) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pass_on(ref, "fail", error))

    async def tick(self, ref: Any, error: BaseException) -> None:
        self.context.after(0, self.pass_on, ref, "fail", error)


class Dependent(Actor):
    """Cannot start without another."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    async def on_start(self) -> None:
        await self.ref.fail(Expected("not today"))


def unanswered(events: list[Event]) -> list[tuple[str, str, type]]:
    return [(e.actor, e.method, type(e.error)) for e in events if isinstance(e, ErrorUnanswered)]


# -- the tree --------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "status", "bases"), TREE, ids=[type(row[0]).__name__ for row in TREE])
def test_an_error_has_a_status_and_survives_pickling(
    error: ActorError, status: str, bases: tuple[type[BaseException], ...]
) -> None:
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)
    assert copy.status == status
    assert isinstance(copy, (ActorError, *bases))
    assert all(isinstance(copy, base) for base in bases)


def test_the_table_above_has_every_error_of_the_package() -> None:
    public = {
        value
        for value in map(actors.__dict__.get, actors.__all__)
        if isinstance(value, type) and issubclass(value, ActorError)
    }
    assert public == {type(error) for error, _, _ in TREE}


def test_unavailable_says_whether_the_call_may_have_run() -> None:
    assert Unavailable("gone").may_have_run
    assert Unavailable("gone").reason == "gone"
    assert not ServiceFailed("failed", reason="intensity").may_have_run
    assert ServiceFailed("failed", reason="intensity").reason == "intensity"


def test_an_error_of_the_users_own_kind_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(OutOfStock("soup", 0)))
    assert (str(copy), copy.dish, copy.left) == ("no soup left", "soup", 0)


# -- crashes ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fail", "fail_in_thread"])
async def test_an_exception_goes_to_the_caller_and_ends_the_actor(
    system: ActorSystem, events: list[Event], method: str
) -> None:
    cook = system.options(name="cook").spawn(Cook)
    error = ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        await cook.ask(method, error)

    assert "raise error" in "".join(traceback.format_exception(caught.value))
    exit = await cook.wait_stopped()
    assert exit.kind == "error"
    assert exit.detail is error
    assert [event.exit for event in events if isinstance(event, ActorExited)] == [exit]
    with pytest.raises(ActorStopped, match=r"cook has ended \(error \(ValueError: boom\)\)"):
        await cook.work()


async def test_what_waits_behind_a_crash_is_told_at_once(system: ActorSystem) -> None:
    cook, gate = system.spawn(Cook), asyncio.Event()
    crashing = cook.options(timeout=None).fail_when(gate, ValueError("boom"))
    waiting = [cook.options(timeout=None).work() for _ in range(3)]
    gate.set()
    outcomes = await asyncio.gather(crashing, *waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] + [ActorStopped] * 3


async def test_a_crash_cuts_the_handlers_beside_it_short(system: ActorSystem) -> None:
    cook = system.options(concurrency=2).spawn(Cook)
    beside = cook.options(timeout=None).hold(asyncio.Event())
    await wait_until(lambda: system.statistics().in_progress == 1)
    with pytest.raises(ValueError, match="boom"):
        await cook.fail(ValueError("boom"))
    with pytest.raises(Unavailable, match="stopped while it ran") as caught:
        await beside
    assert caught.value.may_have_run


async def test_an_actors_errors_of_its_own_making_are_crashes_whatever_their_type(
    system: ActorSystem,
) -> None:
    """Only what came out of an ask passes through."""
    for error in (NotFound("no such dish"), Unavailable("closed"), DeadlineExceeded("late")):
        cook = system.spawn(Cook)
        with pytest.raises(type(error)):
            await cook.fail(error)
        assert (await cook.wait_stopped()).detail is error


# -- answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Expected, Special, Refusal, OutOfStock])
@pytest.mark.parametrize("method", ["fail", "fail_in_thread"])
async def test_expected_errors_and_refusals_are_answers_and_the_state_stays(
    system: ActorSystem, events: list[Event], cls: type[Exception], method: str
) -> None:
    cook = system.spawn(Cook)
    error = OutOfStock("soup", 0) if cls is OutOfStock else cls("x")
    with pytest.raises(cls) as caught:
        await cook.ask(method, error)
    assert caught.value is error
    assert await cook.work() == 2
    assert not [event for event in events if isinstance(event, ActorExited)]


async def test_expected_is_the_classs_own(system: ActorSystem) -> None:
    class Strict(Cook):
        expected = (KeyError,)

    cook = system.spawn(Strict)
    with pytest.raises(KeyError):
        await cook.fail(KeyError("x"))
    assert await cook.work() == 2
    with pytest.raises(Expected):
        await cook.fail(Expected("x"))
    assert (await cook.wait_stopped()).kind == "error"


@pytest.mark.parametrize("expected", [ValueError, [ValueError], (42,), ("ValueError",)])
def test_a_wrong_expected_is_refused_with_its_class(expected: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"Wrong\.expected"):
        type("Wrong", (Actor,), {"expected": expected})


# -- what passes through -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["pass_on", "pass_on_in_thread"])
async def test_an_error_that_came_out_of_an_ask_passes_through(system: ActorSystem, method: str) -> None:
    cook, relay = system.spawn(Cook), system.spawn(Relay)
    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        await relay.ask(method, cook, "fail", error)
    assert caught.value is error
    assert (await cook.wait_stopped()).kind == "error"
    assert await relay.ping() == "pong"


async def test_errors_of_the_runtime_pass_through_too(system: ActorSystem) -> None:
    """One service's outage must not crash every service in front of it."""
    cook, relay = system.spawn(Cook), system.spawn(Relay)
    with pytest.raises(UnknownMethod):
        await relay.pass_on(cook, "wrok")
    with pytest.raises(InvalidArgument):
        await relay.pass_on(cook, "work", 1, 2)
    with pytest.raises(DeadlineExceeded):
        await relay.pass_on(cook.options(timeout=0.01), "hold", asyncio.Event())
    await cook.stop()
    with pytest.raises(ActorStopped):
        await relay.pass_on(cook, "work")
    assert await relay.ping() == "pong"


@pytest.mark.parametrize("method", ["catch_and_raise", "unwrap"])
async def test_the_same_object_raised_later_passes_through(system: ActorSystem, method: str) -> None:
    cook, relay = system.spawn(Cook), system.spawn(Relay)
    with pytest.raises(ValueError, match="boom"):
        await relay.ask(method, cook, ValueError("boom"))
    assert await relay.ping() == "pong"


async def test_an_error_passes_through_a_chain_of_actors(system: ActorSystem) -> None:
    cook = system.spawn(Cook)
    relays = [system.spawn(Relay) for _ in range(3)]
    with pytest.raises(ValueError, match="boom"):
        await relays[0].pass_on(relays[1], "pass_on", relays[2], "pass_on", cook, "fail", ValueError("boom"))
    assert await asyncio.gather(*(relay.ping() for relay in relays)) == ["pong"] * 3


async def test_a_group_of_only_such_errors_passes_through(system: ActorSystem) -> None:
    relay = system.spawn(Relay)
    errors = [ValueError("one"), Expected("two")]
    with pytest.raises(ExceptionGroup) as caught:
        await relay.gather(*((system.spawn(Cook), error) for error in errors))
    assert list(caught.value.exceptions) == errors
    with pytest.raises(ExceptionGroup) as caught:
        await relay.group(system.spawn(Cook), errors[0])
    assert list(caught.value.exceptions) == errors[:1]
    assert await relay.ping() == "pong"


async def test_a_group_with_an_error_of_the_actors_own_is_a_crash(system: ActorSystem) -> None:
    relay = system.spawn(Relay)
    with pytest.raises(ExceptionGroup):
        await relay.gather((system.spawn(Cook), Expected("one")), own=KeyError("mine"))
    assert (await relay.wait_stopped()).kind == "error"


async def test_an_error_raised_from_one_that_came_out_of_an_ask_is_a_crash(system: ActorSystem) -> None:
    cook, relay = system.spawn(Cook), system.spawn(Relay)
    error = Expected("first")
    with pytest.raises(KeyError, match="translated") as caught:
        await relay.translate(cook, error)
    assert caught.value.__cause__ is error
    assert (await relay.wait_stopped()).kind == "error"


async def test_an_error_that_passes_through_a_tell_or_a_timer_is_reported(
    system: ActorSystem, events: list[Event]
) -> None:
    cook, relay = system.spawn(Cook), system.options(name="relay").spawn(Relay)
    await relay.tell("pass_on", cook, "fail", Expected("one"))
    await relay.tick(cook, Expected("two"))
    await wait_until(lambda: len(unanswered(events)) == 2)
    assert unanswered(events) == [("relay", "pass_on", Expected)] * 2
    assert await relay.ping() == "pong"


async def test_an_error_that_passes_through_on_start_is_a_failed_start(system: ActorSystem) -> None:
    dependent = system.spawn(Dependent, system.spawn(Cook))
    with pytest.raises(StartFailed) as caught:
        await dependent.wait_started()
    assert isinstance(caught.value.__cause__, Expected)
    assert (await dependent.wait_stopped()).kind == "start_failed"


# -- exits by exception ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fail", "fail_in_thread"])
@pytest.mark.parametrize(("code", "kind"), [(0, "normal"), (None, "normal"), (3, "error"), ("bad", "error")])
async def test_system_exit_ends_the_actor_and_not_the_process(
    system: ActorSystem, method: str, code: Any, kind: str
) -> None:
    cook, other = system.spawn(Cook), system.spawn(Cook)
    with pytest.raises(Unavailable, match="ended itself") as caught:
        await cook.ask(method, SystemExit(code))
    assert caught.value.may_have_run
    exit = await cook.wait_stopped()
    assert exit.kind == kind
    if kind == "error":
        assert exit.detail.code == code
    assert await other.work() == 1


def test_system_exit_in_on_stop_and_on_start_leaves_the_process_alone() -> None:
    """On a loop in a thread of its own: where it fails, it takes that loop with it."""

    class Leaving(Actor):
        async def on_stop(self, exit: Exit) -> None:
            raise SystemExit(3)

    class NeverHere(Actor):
        async def on_start(self) -> None:
            raise SystemExit(3)

    events: list[Event] = []
    ends: list[Any] = []

    async def main() -> None:
        async with ActorSystem(sinks=(events.append,)) as system:
            with pytest.raises(StartFailed):
                await system.spawn(NeverHere).wait_started()
            leaving = system.spawn(Leaving)
            await leaving.wait_started()
            await leaving.stop()
            ends.append(await leaving.wait_stopped())

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(5)
    assert ends == [Exit("shutdown")]
    assert [error for _, method, error in unanswered(events) if method == "on_stop"] == [SystemExit]


async def test_a_handler_that_raises_cancelled_error_is_no_crash(system: ActorSystem) -> None:
    cook = system.spawn(Cook)
    with pytest.raises(Cancelled):
        await cook.fail(asyncio.CancelledError())
    assert await cook.work() == 2


async def test_a_thread_handler_that_raises_cancelled_error_is_no_crash(system: ActorSystem) -> None:
    cook = system.spawn(Cook)
    with pytest.raises(Cancelled):
        await cook.fail_in_thread(asyncio.CancelledError())
    assert await cook.work() == 2


async def test_a_thread_handler_that_raises_cancelled_error_keeps_its_thread(
    system: ActorSystem, events: list[Event]
) -> None:
    """It has ended: nothing was abandoned, and an actor with a thread of its own stays there."""

    class Pinned(Cook):
        own_thread = True

        def thread(self) -> int:
            return threading.get_ident()

    pinned = system.spawn(Pinned)
    thread = await pinned.thread()
    with pytest.raises(Cancelled):
        await pinned.fail_in_thread(asyncio.CancelledError())
    assert await pinned.thread() == thread
    assert not [event for event in events if isinstance(event, ThreadAbandoned)]


# -- errors nobody asked for ---------------------------------------------------------------


async def test_the_crash_of_a_tell_is_reported(system: ActorSystem, events: list[Event]) -> None:
    cook, error = system.options(name="cook").spawn(Cook), ValueError("boom")
    assert await cook.tell("fail", error) is None
    await cook.wait_stopped()
    (exited,) = [event for event in events if isinstance(event, ActorExited)]
    assert (exited.actor, exited.incarnation, exited.exit) == ("cook", 1, Exit("error", error))


async def test_an_expected_error_of_a_tell_is_reported(system: ActorSystem, events: list[Event]) -> None:
    cook = system.options(name="cook").spawn(Cook)
    await cook.tell("fail", Expected("x"))
    await cook.tell("fail_in_thread", Refusal("x"))
    await cook.tell("work", "misfit")
    assert await cook.work() == 3
    assert unanswered(events) == [
        ("cook", "fail", Expected),
        ("cook", "fail_in_thread", Refusal),
        ("cook", "work", InvalidArgument),
    ]

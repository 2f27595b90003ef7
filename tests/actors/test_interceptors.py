"""Interceptors: around every send, every handler and every spawn, and never in anybody's way by mistake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from distant import Far, Guest

from actors import (
    Actor,
    ActorError,
    ActorSystem,
    DeadlineExceeded,
    InvalidArgument,
    Ref,
    Refusal,
    StartFailed,
    idempotent,
)
from actors.events import DeadLettered, ErrorUnanswered, Event
from actors.interceptors import Ended, Interception, Interceptor
from actors.retry import RetryBudget
from actors.routed import Routed
from actors.testing import FaultyTransport, ManualClock, memory_system, wait_until
from actors.traces import Trace
from actors.tracing import carrying, current_baggage, current_trace
from supervisors import ChildSpec, Supervisor

user: ContextVar[str] = ContextVar("user", default="nobody")


class Note(Interceptor):
    """Writes down what passes, and how it ended."""

    def __init__(self, notes: list[Any], name: str = "") -> None:
        self.notes = notes
        self.name = name

    def _note(self, hook: str, call: Interception) -> Ended:
        self.notes.append((self.name + hook, call.what, call.target, call.method, call.args, call.sender))
        return lambda error: self.notes.append(
            (f"{self.name}{hook} ended", call.method, type(error).__name__)
        )

    def on_send(self, call: Interception) -> Ended:
        return self._note("send", call)

    def on_handle(self, call: Interception) -> Ended:
        return self._note("handle", call)

    def on_spawn(self, call: Interception) -> Ended:
        return self._note("spawn", call)


class Chef(Actor):
    expected = (LookupError,)

    async def cook(self, dish: str = "soup", *, salt: int = 0) -> str:
        if dish == "unknown":
            raise LookupError(dish)
        if dish == "burnt":
            raise RuntimeError(dish)
        return f"{dish} for {user.get()}"

    def cook_on_thread(self, dish: str) -> str:
        return f"{dish} for {user.get()} on {threading.current_thread() is not threading.main_thread()}"

    def cook_later(self, dish: str) -> Any:
        return self.cook(dish)

    @idempotent
    async def cook_once(self, dish: str) -> str:
        return await self.cook(dish)

    async def courses(self, *dishes: str) -> AsyncIterator[str]:
        for dish in dishes:
            yield await self.cook(dish)

    def courses_on_thread(self, *dishes: str) -> Iterator[str]:
        for dish in dishes:
            yield self.cook_on_thread(dish)

    async def nap(self) -> None:
        await asyncio.sleep(3600)

    async def hand_on(self, chef: Ref[Any], how: str = "ask") -> Any:
        return await getattr(chef, how)(Chef.cook, "fish")

    async def tick(self) -> None:
        self.context.after(0, self.cook, "timer")


@pytest.fixture
def notes() -> list[Any]:
    return []


@pytest.fixture
async def kitchen(notes: list[Any], events: list[Event]) -> AsyncIterator[ActorSystem]:
    async with memory_system(sinks=(events.append,), interceptors=[Note(notes)]) as system:
        yield system


@pytest.fixture
async def chef(kitchen: ActorSystem, notes: list[Any]) -> Ref[Any]:
    chef = kitchen.options(name="chef").spawn(Chef)
    await chef.wait_started()
    notes.clear()
    return chef


# -- what passes -------------------------------------------------------------------------------------


async def test_an_ask_passes_where_it_is_sent_and_where_it_is_handled(
    chef: Ref[Any], notes: list[Any]
) -> None:
    assert await chef.cook("soup", salt=1) == "soup for nobody"

    assert notes == [
        ("send", "ask", "chef", "cook", ("soup",), None),
        ("handle", "ask", "chef", "cook", ("soup",), None),
        ("handle ended", "cook", "NoneType"),
        ("send ended", "cook", "NoneType"),
    ]


@pytest.mark.parametrize(("dish", "error"), [("unknown", "LookupError"), ("burnt", "RuntimeError")])
async def test_both_sides_are_told_the_error(chef: Ref[Any], notes: list[Any], dish: str, error: str) -> None:
    with pytest.raises((LookupError, RuntimeError)):
        await chef.cook(dish)

    assert notes[2:] == [("handle ended", "cook", error), ("send ended", "cook", error)]


async def test_a_tell_passes_and_its_outcome_is_that_it_was_taken(
    chef: Ref[Any], notes: list[Any], kitchen: ActorSystem
) -> None:
    await chef.tell("cook", "soup")

    await wait_until(lambda: len(notes) == 4)
    assert sorted(note[:2] for note in notes) == [
        ("handle", "tell"),
        ("handle ended", "cook"),
        ("send", "tell"),
        ("send ended", "cook"),
    ]


async def test_a_reliable_tell_passes_once_however_often_it_is_sent(
    notes: list[Any], frames_of_tells: list[int]
) -> None:
    """Its outcome is that its handler has ended."""
    faults = FaultyTransport()
    async with (
        memory_system(transport=faults, interceptors=[Note(notes, "near ")], sinks=()) as near,
        memory_system(interceptors=[Note(notes, "far ")], sinks=()) as far,
    ):
        far.options(name="chef").spawn(Chef)
        chef = near.ref(f"{far.address}#chef")
        await chef.cook()
        # Made beside whoever awaits it, on the thread that receives.
        await wait_until(lambda: ("near send ended", "cook", "NoneType") in notes)
        notes.clear()
        faults.script("drop", "duplicate")

        await chef.options(reliable=True).tell("cook", "soup")

    assert len(frames_of_tells) > 1
    assert notes == [
        ("near send", "tell", "chef", "cook", ("soup",), None),
        ("far handle", "tell", "chef", "cook", ("soup",), None),
        ("far handle ended", "cook", "NoneType"),
        ("near send ended", "cook", "NoneType"),
    ]


@pytest.mark.parametrize("is_far", [False, True])
async def test_what_a_reliable_tell_carries_can_be_seen_and_set_where_it_passes(is_far: bool) -> None:
    carried, seen = Trace.new(), []

    class Pack(Interceptor):
        def on_send(self, call: Interception) -> None:
            call.trace, call.baggage = carried, {"tenant": "7"}

        def on_handle(self, call: Interception) -> None:
            seen.append((call.trace, dict(call.baggage)))

    async with (
        memory_system(interceptors=[Pack()], sinks=()) as near,
        memory_system(interceptors=[Pack()], sinks=()) as far,
    ):
        (far if is_far else near).options(name="chef").spawn(Chef)
        chef = near.ref(f"{far.address}#chef") if is_far else near.find("chef")

        await chef.options(reliable=True).tell("cook", "soup")

    assert seen == [(carried, {"tenant": "7"})]


async def test_the_next_life_gets_a_reliable_tell_as_its_sender_gave_it() -> None:
    """The handler was killed: what was made of it around that one is over."""
    carried, seen, spans, gate = Trace.new(), [], [], asyncio.Event()

    class Count(Interceptor):
        def on_handle(self, call: Interception) -> None:
            seen.append((call.trace, dict(call.baggage)))
            call.baggage = {**call.baggage, "lives": "one more"}

    class Held(Actor):
        async def hold(self) -> None:
            spans.append(current_trace())
            await gate.wait()

    async with memory_system(interceptors=[Count()], sinks=()) as system:
        sup = system.options(name="sup").spawn(Supervisor, [ChildSpec("held", Held)])
        await sup.wait_started()
        held = system.find("sup/held")
        with carrying(carried, baggage={"tenant": "7"}):
            tell = held.options(reliable=True).tell("hold")
        await wait_until(lambda: len(spans) == 1)
        await held.kill()
        await wait_until(lambda: len(spans) == 2)
        gate.set()
        await tell

    assert seen == [(carried, {"tenant": "7"})] * 2
    assert len({*spans, carried}) == 3
    assert {span.trace_id for span in spans} == {carried.trace_id}


async def test_streams_pass_once_and_end_with_their_end(chef: Ref[Any], notes: list[Any]) -> None:
    for method in (Chef.courses, Chef.courses_on_thread):
        notes.clear()
        assert len([dish async for dish in chef.stream(method, "soup", "fish")]) == 2

        await wait_until(lambda: len(notes) == 4)
        assert [note[0] for note in notes[:2]] == ["send", "handle"]
        assert {(note[0], note[2]) for note in notes[2:]} == {
            ("handle ended", "NoneType"),
            ("send ended", "NoneType"),
        }


async def test_leaving_a_stream_is_no_error_of_its_handler(chef: Ref[Any], notes: list[Any]) -> None:
    async for _ in chef.courses(*["soup"] * 1000):
        break

    await wait_until(lambda: any(note[0] == "handle ended" for note in notes))
    ended = [note[2] for note in notes if note[0] == "handle ended"]
    assert ended in (["NoneType"], ["CancelledError"])


@pytest.mark.parametrize("method", ["cook_on_thread", "cook_later", "cook_once", "cook"])
async def test_every_kind_of_method_passes(chef: Ref[Any], notes: list[Any], method: str) -> None:
    assert (await chef.ask(method, "soup")).startswith("soup")

    assert [note[0] for note in notes] == ["send", "handle", "handle ended", "send ended"]


class OneMember:
    """The router of a service with one member."""

    idempotent = frozenset({"cook_once"})
    retries = RetryBudget()

    def __init__(self, member: Ref[Any]) -> None:
        self.member = member

    def pick(self, key: Any, refused: Any, *, is_followed: bool = False) -> Ref[Any]:
        return self.member

    def begun(self, member: str) -> int:
        return 0

    def ended(self, member: str, known: int, error: BaseException | None) -> None: ...

    changes = 0

    def when_changed(self, callback: Any, since: int) -> bool:
        return True


@pytest.mark.parametrize("method", ["cook", "cook_once"])
async def test_a_call_of_a_service_passes_once_under_its_name(
    chef: Ref[Any], kitchen: ActorSystem, notes: list[Any], method: str
) -> None:
    service: Routed[Any] = Routed(kitchen, OneMember(chef), timeout=5.0)

    with carrying(Trace.new()):
        assert await service.ask(method, "soup") == "soup for nobody"

    assert [note[:3] for note in notes if len(note) > 3] == [
        ("send", "ask", repr(service)),
        ("handle", "ask", "chef"),
    ]
    assert notes[2:] == [("handle ended", method, "NoneType"), ("send ended", method, "NoneType")]


async def test_what_a_handler_sends_names_it_as_the_sender(
    chef: Ref[Any], kitchen: ActorSystem, notes: list[Any]
) -> None:
    second = kitchen.options(name="second").spawn(Chef)
    await second.wait_started()
    notes.clear()

    for how in ("ask", "tell"):
        await chef.hand_on(second, how)

    await wait_until(lambda: len(notes) == 16)
    sent = [note for note in notes if note[0] in ("send", "handle") and note[2] == "second"]
    assert {note[-1] for note in sent} == {"chef"}
    assert {note[1] for note in sent} == {"ask", "tell"}


async def test_the_first_stands_outside_of_the_others(events: list[Event]) -> None:
    notes: list[Any] = []

    class Cook(Chef):
        interceptors = (Note(notes, "class "),)

    async with ActorSystem(interceptors=[Note(notes, "1 "), Note(notes, "2 ")]) as system:
        cook = system.spawn(Cook)
        await cook.wait_started()
        assert [note[0] for note in notes] == [
            *("1 spawn", "2 spawn", "class spawn", "class spawn ended", "2 spawn ended", "1 spawn ended")
        ]
        notes.clear()
        await cook.cook()

    assert [note[0] for note in notes if "handle" in note[0]] == [
        *("1 handle", "2 handle", "class handle"),
        *("class handle ended", "2 handle ended", "1 handle ended"),
    ]
    assert [note[0] for note in notes if "send" in note[0]] == [
        *("1 send", "2 send", "2 send ended", "1 send ended")
    ]


async def test_timers_hooks_and_controls_pass_none(
    chef: Ref[Any], notes: list[Any], kitchen: ActorSystem
) -> None:
    await chef.tick()
    await wait_until(lambda: kitchen.statistics().handled == 2)
    assert await chef.is_alive()
    await chef.stop()

    assert {note[3] for note in notes if note[0] in ("send", "handle")} == {"tick"}


async def test_what_an_interceptor_sends_passes_none(kitchen: ActorSystem, chef: Ref[Any]) -> None:
    class Auditor(Interceptor):
        def on_send(self, call: Interception) -> None:
            chef.tell("cook", "for the audit")

        def on_handle(self, call: Interception) -> None:
            chef.tell("cook", "for the audit")

    async with ActorSystem(interceptors=[Auditor()], sinks=()) as system:
        before = kitchen.statistics().handled
        await system.spawn(Chef).cook()

        await wait_until(lambda: kitchen.statistics().handled == before + 2)


# -- changing what is carried ------------------------------------------------------------------------


class Identify(Interceptor):
    """Who asks travels as baggage, and is a context variable at the handler."""

    def on_send(self, call: Interception) -> None:
        if user.get() != "nobody":
            call.baggage = {**call.baggage, "user": user.get()}

    def on_handle(self, call: Interception) -> None:
        if "user" in call.baggage:
            user.set(call.baggage["user"])


@pytest.fixture
async def identified() -> AsyncIterator[tuple[ActorSystem, Ref[Any]]]:
    async with memory_system(interceptors=[Identify()], sinks=()) as system:
        yield system, system.options(name="chef").spawn(Chef)
    user.set("nobody")


@pytest.mark.parametrize("method", ["cook", "cook_on_thread", "cook_later", "cook_once"])
async def test_what_is_set_around_a_handler_is_seen_in_it_and_only_there(
    identified: tuple[ActorSystem, Ref[Any]], method: str
) -> None:
    _, chef = identified
    user.set("Ada")
    assert (await chef.ask(method, "soup")).startswith("soup for Ada")
    user.set("nobody")

    assert (await chef.ask(method, "fish")).startswith("fish for nobody")


async def test_streams_see_it_too(identified: tuple[ActorSystem, Ref[Any]]) -> None:
    _, chef = identified
    user.set("Ada")

    for method in ("courses", "courses_on_thread"):
        items = [item async for item in chef.stream(method, "soup", "fish")]
        assert all("for Ada" in item for item in items)
        assert len(items) == 2


async def test_it_goes_on_to_whom_the_handler_asks_in_any_process(
    identified: tuple[ActorSystem, Ref[Any]],
) -> None:
    system, _ = identified
    async with memory_system(interceptors=[Identify()], sinks=()) as other:
        far = other.ref(f"{system.address}#chef")
        second = other.spawn(Chef)
        user.set("Ada")

        assert await far.hand_on(second) == "fish for Ada"
        assert await second.hand_on(far) == "fish for Ada"


class Trim(Interceptor):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_send(self, call: Interception) -> None:
        call.limit(self.seconds)


async def test_an_interceptor_may_bring_the_deadline_nearer_and_never_away(clock: ManualClock) -> None:
    seen: list[float] = []

    class Look(Interceptor):
        def on_handle(self, call: Interception) -> None:
            assert call.deadline is not None
            seen.append(call.deadline.remaining())

    async with ActorSystem(interceptors=[Trim(3.0), Look()], clock=clock, sinks=()) as system:
        chef = system.spawn(Chef)
        await chef.cook()
        await chef.options(timeout=1.0).cook()
        await chef.options(timeout=None).cook()
        assert seen == [3.0, 1.0, 3.0]

        late = chef.options(timeout=None).nap()
        await wait_until(lambda: system.statistics().in_progress == 1)
        await clock.elapse(3.0)

        with pytest.raises(DeadlineExceeded, match="within 3 s"):
            await late
        with pytest.raises(InvalidArgument, match="limit"):
            await chef.tell("cook")


async def test_an_interceptor_may_begin_a_trace() -> None:
    begun = Trace.new()
    seen: list[Any] = []

    class Begin(Interceptor):
        def on_send(self, call: Interception) -> None:
            if call.trace is None:
                call.trace = begun

        def on_handle(self, call: Interception) -> None:
            seen.append((call.trace, current_trace(), dict(current_baggage())))

    async with ActorSystem(interceptors=[Begin()], sinks=()) as system:
        await system.spawn(Chef).hand_on(system.spawn(Chef))

    (first, own, _), (second, _, _) = seen
    assert first == begun
    assert second == own
    assert own.trace_id == begun.trace_id
    assert own.span_id != begun.span_id


async def test_baggage_beyond_its_limits_is_refused_where_it_is_packed() -> None:
    class Pack(Interceptor):
        def on_send(self, call: Interception) -> None:
            call.baggage = {"k": "v" * 9000}

    async with ActorSystem(interceptors=[Pack()], sinks=()) as system:
        with pytest.raises(InvalidArgument, match="8192"):
            await system.spawn(Chef).cook()


# -- refusing ----------------------------------------------------------------------------------------


class Refuse(Interceptor):
    """Refuses at one of the places."""

    def __init__(self, hook: str, error: BaseException, notes: list[Any]) -> None:
        def refuse(call: Interception) -> None:
            raise error

        setattr(self, hook, refuse)
        self.notes = notes


async def test_what_is_refused_at_its_sender_is_never_sent(events: list[Event], notes: list[Any]) -> None:
    refuse = Refuse("on_send", Refusal("not today"), notes)
    async with ActorSystem(interceptors=[Note(notes), refuse], sinks=(events.append,)) as system:
        chef = system.options(name="chef").spawn(Chef)
        await chef.wait_started()
        notes.clear()
        for call in (chef.cook(), chef.cook_once("soup"), chef.stream("courses"), chef.tell("cook")):
            with pytest.raises(Refusal, match="not today"):
                _ = [item async for item in call] if call._items is not None else await call

        assert [note[0] for note in notes] == ["send", "send ended"] * 4
        assert {note[2] for note in notes[1::2]} == {"Refusal"}
        assert system.statistics().accepted == 0
        assert system.statistics().pending_asks == 0
        assert [event.method for event in events if isinstance(event, DeadLettered)] == ["cook"]


@pytest.mark.parametrize("error", [Refusal("not you"), ActorError("not you"), KeyError("not you")])
async def test_what_is_refused_at_its_handler_is_an_answer_and_no_crash(
    events: list[Event], notes: list[Any], error: Exception
) -> None:
    refuse = Refuse("on_handle", error, notes)
    async with ActorSystem(interceptors=[Note(notes), refuse], sinks=(events.append,)) as system:
        chef = system.spawn(Chef)
        for method in ("cook", "cook_on_thread", "cook_later"):
            with pytest.raises(type(error), match="not you"):
                await chef.ask(method, "soup")
        with pytest.raises(type(error), match="not you"):
            _ = [item async for item in chef.courses("soup")]
        await chef.tell("cook")

        await wait_until(lambda: any(isinstance(event, ErrorUnanswered) for event in events))
        assert await chef.is_alive()
        assert chef.pinned()._pin == 1, "the same life"
    assert {note[2] for note in notes if note[0] == "handle ended"} == {type(error).__name__}


async def test_a_spawn_that_is_refused_raises_and_leaves_the_name_free(notes: list[Any]) -> None:
    async with ActorSystem(interceptors=[Refuse("on_spawn", Refusal("no room"), notes)], sinks=()) as system:
        for _ in range(2):
            with pytest.raises(Refusal, match="no room"):
                system.options(name="chef").spawn(Chef)
    async with ActorSystem(interceptors=[Refuse("on_spawn", KeyError("room"), notes)], sinks=()) as system:
        with pytest.raises(Refusal, match="chef was not started: KeyError: 'room'"):
            system.options(name="chef").spawn(Chef)


async def test_a_spawn_passes_and_is_told_how_the_start_went(kitchen: ActorSystem, notes: list[Any]) -> None:
    class Broken(Chef):
        async def on_start(self) -> None:
            raise RuntimeError("no gas")

    class Head(Chef):
        async def hire(self, cls: type[Chef]) -> None:
            self.context.options(name="helper").spawn(cls)

    head = kitchen.options(name="head").spawn(Head)
    await head.hire(Chef)
    await wait_until(lambda: len([note for note in notes if note[0] == "spawn ended"]) == 2)
    with pytest.raises(StartFailed):
        await kitchen.options(name="broken").spawn(Broken).wait_started()

    await wait_until(lambda: len([note for note in notes if note[0] == "spawn ended"]) == 3)
    spawned = [(note[2], note[3], note[-1]) for note in notes if note[0] == "spawn"]
    assert spawned == [("head", "Head", None), ("head/helper", "Chef", "head"), ("broken", "Broken", None)]
    assert [note[1:] for note in notes if note[0] == "spawn ended"] == [
        ("Head", "NoneType"),
        ("Chef", "NoneType"),
        ("Broken", "StartFailed"),
    ]


async def test_an_outcome_that_an_interceptor_cannot_bear_harms_nobody(
    notes: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Weak(Interceptor):
        def on_handle(self, call: Interception) -> Ended:
            return self.fail

        on_send = on_spawn = on_handle

        def fail(self, error: BaseException | None) -> None:
            raise RuntimeError("too much")

    async with ActorSystem(interceptors=[Note(notes), Weak()], sinks=()) as system:
        assert await system.spawn(Chef).cook() == "soup for nobody"

    assert [note[0] for note in notes].count("send ended") == 1
    assert caplog.text.count("too much") >= 3


# -- where they stand --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [[Interceptor()], (Interceptor,), ("tracing",), Interceptor()])
def test_what_is_no_tuple_of_interceptors_is_refused_with_its_class(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="interceptors="):
        type("Wrong", (Actor,), {"interceptors": value})


def test_what_is_no_interceptor_is_refused_by_a_system() -> None:
    with pytest.raises(InvalidArgument, match="interceptors="):
        ActorSystem(interceptors=["tracing"])  # type: ignore[list-item]


async def test_a_class_takes_its_interceptors_into_any_process(lasting: Far, run_root: Any) -> None:
    """What its actors send, handle and spawn there; nothing of it is known here."""
    async with ActorSystem(listen=True, sinks=()) as near:
        guest = await lasting.actor(near, "stagehand").start(Guest, "guest")
        echo = lasting.actor(near, "echo")
        await guest.visit(echo)
        seen = await guest.seen()

    assert seen == [
        "spawn stagehand/guest.Guest",
        "handle stagehand/guest.visit",
        "send echo.same",
        "ended None",
        "ended None",
        "handle stagehand/guest.seen",
    ]

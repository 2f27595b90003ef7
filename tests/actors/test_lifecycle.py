"""
Lives: how actors start, stop, are named, found, restarted and forgotten.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorStopped,
    ActorSystem,
    AlreadyStarted,
    Context,
    Exit,
    Ignore,
    InvalidArgument,
    NotFound,
    Ref,
    StartFailed,
    Unavailable,
)
from actors.events import ActorExited, ActorStarted, DeadLettered, ErrorUnanswered, Event, ThreadAbandoned
from actors.testing import ManualClock, memory_system, wait_until, wait_until_sync
from supervisors import ChildSpec, Supervisor

Notes = list[str]
"""What happened, in order."""


class Chef(Actor):
    """Writes down its life."""

    def __init__(self, notes: Notes | None = None, word: str = "") -> None:
        self.notes = notes if notes is not None else []
        self.word = word or self.context.name

    async def on_start(self) -> None:
        self.notes.append(f"start {self.word}")

    async def on_stop(self, exit: Exit) -> None:
        self.notes.append(f"stop {self.word} {exit}")

    async def cook(self, dish: Any = None) -> str:
        self.notes.append(f"cook {dish}")
        return f"{dish} cooked"

    async def hold(self, gate: asyncio.Event) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise
        return "held"

    async def crash(self, error: BaseException | None = None) -> None:
        raise error or ValueError("boom")

    async def leave(self, kind: str = "normal", detail: Any = None) -> str:
        self.context.stop(kind, detail)
        self.context.stop(kind, detail)
        return "last words"

    async def hire(self, cls: type, *args: Any) -> Ref[Any]:
        return self.context.spawn(cls, *args)

    async def hire_named(self, name: str, cls: type, *args: Any) -> Ref[Any]:
        return self.context.options(name=name).spawn(cls, *args)

    async def parent(self) -> Ref[Any] | None:
        return self.context.parent

    async def incarnation(self) -> int:
        return self.context.incarnation

    async def context_of(self) -> Context:
        return self.context

    async def history(self) -> Notes:
        return self.notes


class Blocking(Actor):
    """Blocks a thread."""

    def block(self, gate: threading.Event) -> str:
        gate.wait(10)
        return "done"

    async def hear(self) -> str:
        return "heard"


class Slow(Chef):
    """Starts when it is let."""

    def __init__(self, gate: asyncio.Event, notes: Notes | None = None) -> None:
        super().__init__(notes)
        self.gate = gate

    async def on_start(self) -> None:
        await self.gate.wait()
        await super().on_start()


class Failing(Actor):
    """Fails where it is told: in `__init__`, in `on_start`, on a thread."""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where = where
        self.error = error
        if where == "init":
            raise error

    async def on_start(self) -> None:
        if self.where == "on_start":
            raise self.error

    async def cook(self) -> None: ...


class FailingOnThread(Failing):
    """The same where `__init__` runs on a thread."""

    def on_start(self) -> None:  # type: ignore[override]
        if self.where == "on_start":
            raise self.error

    def chop(self) -> None: ...


@pytest.fixture
def notes() -> Notes:
    return []


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open at the end, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
async def system(clock: ManualClock, events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, until it stops."""
    async with ActorSystem(sinks=(events.append,), clock=clock) as system:
        yield system
        stopped = system.stop()
        while not stopped.done:
            clock.advance(10)
            await asyncio.sleep(0.001)


async def busy(system: ActorSystem, ref: Ref[Any], gate: asyncio.Event) -> Any:
    """A call without deadline that keeps the actor busy from now on."""
    running = system.statistics().in_progress
    reply = ref.options(timeout=None).hold(gate)
    await wait_until(lambda: system.statistics().in_progress == running + 1)
    return reply


async def supervised(system: ActorSystem, cls: type, *args: Any, **spec: Any) -> Ref[Any]:
    """A permanent child of a supervisor."""
    supervisor = system.options(name="sup").spawn(Supervisor, [ChildSpec("child", cls, args=args, **spec)])
    await supervisor.wait_started()
    return system.find("sup/child")


# -- starting --------------------------------------------------------------------------


async def test_asks_wait_for_on_start_and_come_in_order(system: ActorSystem, notes: Notes) -> None:
    gate = asyncio.Event()
    slow = system.options(name="slow").spawn(Slow, gate, notes)
    started, asked = slow.wait_started(), [slow.cook(number) for number in range(3)]
    assert await slow.is_alive()
    await wait_until(lambda: system.statistics().in_mailbox == 3)
    assert not started.done
    gate.set()
    assert await started is True
    await asyncio.gather(*asked)
    assert notes == ["start slow", "cook 0", "cook 1", "cook 2"]
    assert await slow.wait_started() is True


@pytest.mark.parametrize("where", ["init", "on_start"])
@pytest.mark.parametrize("cls", [Failing, FailingOnThread])
async def test_a_failed_start_has_the_users_error_as_its_cause(
    system: ActorSystem, events: list[Event], cls: type, where: str
) -> None:
    error = ValueError("no gas")
    failing = system.options(name="chef").spawn(cls, where, error)
    started, asked = failing.wait_started(), failing.cook()

    for reply in (started, asked):
        with pytest.raises(StartFailed, match=r"chef failed to start: ValueError: no gas") as caught:
            await reply
        assert caught.value.__cause__ is error
    assert await failing.wait_stopped() == Exit("start_failed", error)
    assert await failing.is_alive() is False
    assert not [event for event in events if isinstance(event, ActorStarted)]
    assert [event.exit.kind for event in events if isinstance(event, ActorExited)] == ["start_failed"]
    with pytest.raises(NotFound):
        system.find("chef")


@pytest.mark.parametrize("where", ["init", "on_start"])
@pytest.mark.parametrize("cls", [Failing, FailingOnThread])
async def test_ignore_is_no_start_and_no_error(
    system: ActorSystem, events: list[Event], cls: type, where: str
) -> None:
    ignored = system.options(name="chef").spawn(cls, where, Ignore())
    started, asked = ignored.wait_started(), ignored.cook()
    assert await started is False
    with pytest.raises(ActorStopped):
        await asked
    assert (await ignored.wait_stopped()).is_clean
    assert not [event for event in events if isinstance(event, (ActorStarted, ActorExited))]
    with pytest.raises(NotFound):
        system.find("chef")


async def test_how_a_start_ended_is_still_known_afterwards(system: ActorSystem) -> None:
    """`wait_started` does not depend on who is faster: in sync code nobody could know."""
    ignored = system.spawn(Failing, "on_start", Ignore())
    failed = system.spawn(Failing, "on_start", error := ValueError("no gas"))
    await asyncio.gather(ignored.wait_stopped(), failed.wait_stopped())

    assert await ignored.wait_started() is False
    with pytest.raises(StartFailed) as caught:
        await failed.wait_started()
    assert caught.value.__cause__ is error


async def test_c37_a_name_whose_start_failed_is_nobodys(system: ActorSystem) -> None:
    for error in (Ignore(), ValueError("no gas")):
        for where in ("init", "on_start"):
            for _ in range(50):
                ref = system.options(name="chef").spawn(Failing, where, error)
                await asyncio.gather(ref.wait_started(), return_exceptions=True)
                with pytest.raises(NotFound):
                    system.find("chef")


@pytest.mark.parametrize("ending", ["ignore", "fail", "stop", "kill"])
async def test_a_name_is_free_the_moment_somebody_knows_that_it_is(system: ActorSystem, ending: str) -> None:
    """A thread that waits is woken at once: what it finds then must be final."""
    error = Ignore() if ending == "ignore" else ValueError("no gas")
    starts = ending in ("stop", "kill")
    ref: Ref[Any] = system.options(name="chef").spawn(*((Chef,) if starts else (Failing, "init", error)))
    if starts:
        await ref.wait_started()
    found: list[Any] = []

    def look(_: Any) -> None:
        try:
            found.append(system.find("chef"))
        except NotFound:
            found.append(None)

    reply = getattr(ref, ending)() if starts else ref.wait_started()
    reply.add_done_callback(look)
    await asyncio.gather(reply, return_exceptions=True)

    assert found == [None]


async def test_wrong_constructor_arguments_are_refused_where_they_are_written(system: ActorSystem) -> None:
    with pytest.raises(InvalidArgument, match="Failing"):
        system.spawn(Failing, "init")
    with pytest.raises(InvalidArgument, match="Chef"):
        system.spawn(Chef, words="")
    for cls in (object, "Chef", None):
        with pytest.raises(InvalidArgument, match="Actor"):
            system.spawn(cls)  # type: ignore[arg-type]
    assert system.statistics().actors == 0


async def test_a_stop_cuts_a_start_short(system: ActorSystem, notes: Notes) -> None:
    slow = system.spawn(Slow, asyncio.Event(), notes)
    started, asked = slow.wait_started(), slow.cook()
    await asyncio.sleep(0)
    await slow.stop()
    for reply in (started, asked):
        with pytest.raises(ActorStopped):
            await reply
    assert notes == []


# -- names -----------------------------------------------------------------------------


async def test_c36_a_name_is_taken_until_its_actor_has_ended(system: ActorSystem) -> None:
    first = system.options(name="chef").spawn(Chef)
    with pytest.raises(AlreadyStarted, match="chef is running already") as caught:
        system.options(name="chef").spawn(Chef)
    assert caught.value.ref == first
    assert await caught.value.ref.cook("soup") == "soup cooked"

    await first.stop()
    second = system.options(name="chef").spawn(Chef)
    assert await second.cook("fish") == "fish cooked"
    assert second != first


async def test_a_ref_means_its_registration_whoever_has_the_name_now(system: ActorSystem) -> None:
    first = system.options(name="chef").spawn(Chef)
    await first.stop()
    second = system.options(name="chef").spawn(Chef)
    with pytest.raises(ActorStopped, match="chef has ended"):
        await first.cook("soup")
    assert await first.is_alive() is False
    assert await first.wait_stopped() == Exit("shutdown")
    assert await second.history() == ["start chef"]


async def test_names_are_made_from_the_class_and_never_collide(system: ActorSystem) -> None:
    given = system.options(name="chef-2").spawn(Chef)
    made = [system.spawn(Chef) for _ in range(3)]
    assert system.find("chef-1") == made[0]
    assert system.find("chef-2") == given
    assert len({*made, given}) == 4


async def test_c37_find_gives_the_ref_or_names_the_nearest(system: ActorSystem) -> None:
    chef = system.options(name="chef").spawn(Chef)
    assert system.find("chef") == chef
    with pytest.raises(NotFound, match=r"no actor is named 'chief'; did you mean 'chef'\?") as caught:
        system.find("chief")
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("name", ["", 42])
async def test_a_name_is_a_word(system: ActorSystem, name: Any) -> None:
    with pytest.raises(InvalidArgument, match="name="):
        system.options(name=name).spawn(Chef)


async def test_a_lookup_by_name_tells_the_ended_from_the_unknown() -> None:
    async with memory_system(sinks=()) as system:
        chef = system.options(name="chef").spawn(Chef)
        by_name = system.ref(f"{system.address}#chef")
        assert await by_name.cook("soup") == "soup cooked"
        await chef.stop()
        with pytest.raises(ActorStopped, match="chef has ended"):
            await by_name.cook("soup")
        with pytest.raises(NotFound, match="nobody"):
            await system.ref(f"{system.address}#nobody").cook("soup")
        with pytest.raises(NotFound):
            await system.ref(f"{system.address}#nobody").tell("cook", "soup")
        system.options(name="chef").spawn(Chef)
        assert await by_name.cook("fish") == "fish cooked"


async def test_c40_c50_an_ended_actor_says_so_at_once(system: ActorSystem, events: list[Event]) -> None:
    """And a tell to it is one dead letter, without its payload."""
    chef = system.options(name="chef").spawn(Chef)
    await chef.stop()
    for reply in (
        chef.options(timeout=10).cook("soup"),
        chef.tell("cook", "secret"),
        chef.stop(),
        chef.kill(),
    ):
        assert reply.done
        with pytest.raises(ActorStopped, match=r"chef has ended \(shutdown\)"):
            await reply
    letters = [event for event in events if isinstance(event, DeadLettered)]
    assert letters == [DeadLettered("chef", None, "cook", "stopped")] * 2
    assert "secret" not in str(letters)


# -- stopping --------------------------------------------------------------------------


async def test_stop_lets_the_running_handler_finish_and_refuses_the_rest(
    system: ActorSystem, notes: Notes, events: list[Event]
) -> None:
    chef, gate = system.options(name="chef").spawn(Chef, notes), asyncio.Event()
    running = await busy(system, chef, gate)
    queued = [chef.options(timeout=None).cook(number) for number in range(2)]
    stopped = chef.stop()
    late = chef.cook("late")

    for reply in (*queued, late):
        with pytest.raises(ActorStopped, match="chef is stopping"):
            await reply
    assert not running.done
    assert not stopped.done
    gate.set()

    assert await running == "held"
    await stopped
    assert notes == ["start chef", "stop chef shutdown"]
    reasons = [(event.method, event.reason) for event in events if isinstance(event, DeadLettered)]
    assert reasons == [("cook", "stopped")] * 3


async def test_the_shutdown_time_cuts_a_handler_short(
    system: ActorSystem, clock: ManualClock, notes: Notes
) -> None:
    chef = system.options(name="chef").spawn(Chef, notes)
    running = await busy(system, chef, asyncio.Event())
    stopped = chef.stop()
    await clock.elapse(4.9)
    assert not stopped.done
    await clock.elapse(0.2)
    await stopped
    with pytest.raises(Unavailable, match=r"chef was stopped while it ran hold\(\)") as caught:
        await running
    assert caught.value.may_have_run
    assert "cancelled" in notes


async def test_kill_ends_an_actor_at_once_without_on_stop(system: ActorSystem, notes: Notes) -> None:
    chef = system.options(name="chef").spawn(Chef, notes)
    running = await busy(system, chef, asyncio.Event())
    queued = chef.cook("soup")
    await chef.kill()
    with pytest.raises(Unavailable) as caught:
        await running
    assert caught.value.may_have_run
    with pytest.raises(ActorStopped):
        await queued
    assert await chef.wait_stopped() == Exit("killed")
    assert notes == ["start chef", "cancelled"]


async def test_kill_hurries_a_stop(system: ActorSystem, notes: Notes) -> None:
    chef = system.spawn(Chef, notes)
    running = await busy(system, chef, asyncio.Event())
    stopped = chef.stop()
    await asyncio.sleep(0)
    killed = chef.kill()
    await asyncio.gather(stopped, killed)
    with pytest.raises(Unavailable):
        await running


async def test_a_stop_overtakes_a_full_mailbox(system: ActorSystem) -> None:
    chef, gate = system.options(mailbox=1).spawn(Chef), asyncio.Event()
    running, queued = await busy(system, chef, gate), chef.cook("soup")
    stopped = chef.stop()
    gate.set()
    await asyncio.gather(running, stopped)
    with pytest.raises(ActorStopped):
        await queued


async def test_a_second_stop_joins_the_first_and_a_third_comes_too_late(system: ActorSystem) -> None:
    chef, gate = system.spawn(Chef), asyncio.Event()
    running = await busy(system, chef, gate)
    replies = [chef.stop(), chef.stop()]
    gate.set()
    await asyncio.gather(running, *replies)
    with pytest.raises(ActorStopped):
        await chef.stop()


async def test_stop_says_which_clean_end_it_is(system: ActorSystem, notes: Notes) -> None:
    chef = system.spawn(Chef, notes, "it")
    await chef.wait_started()
    await chef.stop("normal")
    assert await chef.wait_stopped() == Exit("normal")
    assert notes == ["start it", "stop it normal"]
    with pytest.raises(InvalidArgument, match="kind='shutdwon' is unknown; did you mean 'shutdown'"):
        system.spawn(Chef).stop("shutdwon")


async def test_a_thread_that_does_not_return_is_left_behind(
    system: ActorSystem, clock: ManualClock, events: list[Event], gate: threading.Event
) -> None:
    """It is counted out and reported; the actor ends without it."""
    blocking = system.options(name="blocking").spawn(Blocking)
    running = blocking.options(timeout=None).block(gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    await blocking.kill()
    with pytest.raises(Unavailable):
        await running
    assert [event.actor for event in events if isinstance(event, ThreadAbandoned)] == ["blocking"]
    assert system.statistics().threads == 0


async def test_wait_stopped_gives_the_exit_to_all_who_wait(system: ActorSystem) -> None:
    chef = system.spawn(Chef)
    waiting = [chef.wait_stopped() for _ in range(3)]
    assert await chef.is_alive() is True
    await chef.leave("shutdown", "tired")
    assert await asyncio.gather(*waiting, chef.wait_stopped()) == [Exit("shutdown", "tired")] * 4
    assert await chef.is_alive() is False


# -- from inside -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "shutdown", "error"])
async def test_an_actor_stops_itself_once_its_answer_is_sent(
    system: ActorSystem, notes: Notes, kind: str
) -> None:
    chef = system.spawn(Chef, notes, "it")
    last, following = chef.leave(kind, "tired"), chef.cook("soup")
    assert await last == "last words"
    with pytest.raises(ActorStopped):
        await following
    assert await chef.wait_stopped() == Exit(kind, "tired")  # type: ignore[arg-type]
    assert notes == ["start it"] + ([] if kind == "error" else [f"stop it {kind} (tired)"])


async def test_a_stop_from_inside_waits_for_the_handlers_beside_it(system: ActorSystem) -> None:
    chef, gate = system.options(concurrency=2).spawn(Chef), asyncio.Event()
    running = await busy(system, chef, gate)
    assert await chef.leave() == "last words"
    assert await chef.is_alive()
    gate.set()
    assert await running == "held"
    assert await chef.wait_stopped() == Exit("normal")


async def test_a_def_handler_stops_its_actor_too(system: ActorSystem) -> None:
    class Leaving(Actor):
        def leave(self) -> str:
            self.context.stop("shutdown")
            return "last words"

    leaving = system.spawn(Leaving)
    assert await leaving.leave() == "last words"
    assert await leaving.wait_stopped() == Exit("shutdown")


# -- on_stop -----------------------------------------------------------------------------


async def test_on_stop_does_not_run_after_a_crash_or_a_failed_start(
    system: ActorSystem, notes: Notes
) -> None:
    class Unlucky(Chef):
        async def on_start(self) -> None:
            raise ValueError("no gas")

    chef, unlucky = system.spawn(Chef, notes, "it"), system.spawn(Unlucky, notes)
    with pytest.raises(ValueError, match="boom"):
        await chef.crash()
    await asyncio.gather(chef.wait_stopped(), unlucky.wait_stopped())
    assert notes == ["start it"]


async def test_on_stop_runs_after_system_exit_zero(system: ActorSystem, notes: Notes) -> None:
    chef = system.spawn(Chef, notes, "it")
    with pytest.raises(Unavailable):
        await chef.crash(SystemExit(0))
    await chef.wait_stopped()
    assert notes == ["start it", "stop it normal"]


async def test_an_error_in_on_stop_is_reported_and_changes_nothing(
    system: ActorSystem, events: list[Event]
) -> None:
    class Clumsy(Chef):
        async def on_stop(self, exit: Exit) -> None:
            raise KeyError("keys")

    clumsy = system.options(name="clumsy").spawn(Clumsy)
    await clumsy.wait_started()
    await clumsy.stop()
    assert await clumsy.wait_stopped() == Exit("shutdown")
    (report,) = [event for event in events if isinstance(event, ErrorUnanswered)]
    assert (report.actor, report.method, type(report.error)) == ("clumsy", "on_stop", KeyError)


async def test_on_stop_has_what_is_left_of_the_shutdown_time(
    system: ActorSystem, clock: ManualClock, events: list[Event]
) -> None:
    class Lingering(Chef):
        async def on_stop(self, exit: Exit) -> None:
            await asyncio.Event().wait()

    lingering, gate = system.options(name="lingering").spawn(Lingering), asyncio.Event()
    running = await busy(system, lingering, gate)
    stopped = lingering.stop()
    await clock.elapse(3)
    gate.set()
    await running
    await clock.elapse(1.9)
    assert not stopped.done
    await clock.elapse(0.2)
    await stopped
    (report,) = [event for event in events if isinstance(event, ErrorUnanswered)]
    assert (report.actor, report.method, report.error) == ("lingering", "on_stop", None)
    assert "shutdown time (2 s were left)" in report.reason


async def test_on_stop_may_be_a_def(system: ActorSystem, notes: Notes) -> None:
    class Plain(Actor):
        def on_stop(self, exit: Exit) -> None:  # type: ignore[override]
            notes.append(f"{exit} {threading.current_thread().name}")

    plain = system.spawn(Plain)
    await plain.wait_started()
    await plain.stop()
    assert notes == ["shutdown understudy-handler"]


async def test_on_stop_may_still_ask_others(system: ActorSystem, notes: Notes) -> None:
    class Polite(Chef):
        async def on_stop(self, exit: Exit) -> None:
            await self.colleague.cook("goodbye")

        async def meet(self, colleague: Ref[Any]) -> None:
            self.colleague = colleague

    colleague, polite = system.spawn(Chef, notes), system.spawn(Polite)
    await polite.meet(colleague)
    await polite.stop()
    assert notes[-1] == "cook goodbye"


# -- children ----------------------------------------------------------------------------


async def test_children_are_named_below_their_parent(system: ActorSystem) -> None:
    head = system.options(name="head").spawn(Chef)
    made, given = await head.hire(Chef), await head.hire_named("sous", Chef)
    assert system.find("head/chef-1") == made
    assert system.find("head/sous") == given
    assert await made.parent() == head
    assert await head.parent() is None
    with pytest.raises(AlreadyStarted):
        await head.hire_named("sous", Chef)


async def test_children_end_in_reverse_order_before_their_parent_has_ended(
    system: ActorSystem, notes: Notes
) -> None:
    head = system.options(name="head").spawn(Chef, notes, "head")
    children = [await head.hire(Chef, notes, word) for word in ("one", "two", "three")]
    await children[0].hire(Chef, notes, "grandchild")
    await asyncio.gather(*(child.wait_started() for child in children), children[0].history())
    await wait_until(lambda: "start grandchild" in notes)
    await head.stop()
    assert system.statistics().actors == 0
    words = [note.split()[1] for note in notes if note.startswith("stop")]
    assert words == ["head", "three", "two", "one", "grandchild"]
    assert await children[0].wait_stopped() == Exit("shutdown")


async def test_the_children_of_a_crashed_parent_end_in_order(system: ActorSystem, notes: Notes) -> None:
    head = system.spawn(Chef)
    child = await head.hire(Chef, notes, "child")
    await child.wait_started()
    with pytest.raises(ValueError, match="boom"):
        await head.crash()
    assert await child.wait_stopped() == Exit("shutdown", "parent")
    assert notes == ["start child", "stop child shutdown (parent)"]


async def test_a_child_that_ends_leaves_its_parent_alone(system: ActorSystem) -> None:
    head = system.options(name="head").spawn(Chef)
    child = await head.hire_named("sous", Chef)
    with pytest.raises(ValueError, match="boom"):
        await child.crash()
    assert (await child.wait_stopped()).kind == "error"
    assert await (await head.hire_named("sous", Chef)).cook("soup") == "soup cooked"


async def test_the_children_of_a_failed_start_end_with_it(system: ActorSystem, notes: Notes) -> None:
    class Hopeless(Chef):
        async def on_start(self) -> None:
            await self.context.spawn(Chef, notes, "child").wait_started()
            raise ValueError("no gas")

    with pytest.raises(StartFailed):
        await system.spawn(Hopeless).wait_started()
    assert system.statistics().actors == 0
    assert notes == ["start child", "stop child shutdown (parent)"]


async def test_an_actor_that_has_ended_starts_no_children(system: ActorSystem) -> None:
    head = system.spawn(Chef)
    context: Context = await head.context_of()
    await head.stop()
    with pytest.raises(ActorStopped, match="no children"):
        context.spawn(Chef)
    assert system.statistics().actors == 0


async def test_an_unknown_option_is_refused_by_name(system: ActorSystem) -> None:
    context: Context = await system.spawn(Chef).context_of()
    with pytest.raises(InvalidArgument, match=r"nmae=…\) is unknown; did you mean 'name'"):
        context.options(nmae="sous")


# -- systems -----------------------------------------------------------------------------


async def test_a_system_stops_its_actors_in_reverse_order(notes: Notes) -> None:
    async with ActorSystem(sinks=()) as system:
        for word in ("one", "two", "three"):
            await system.spawn(Chef, notes, word).wait_started()
    assert [note.split()[1] for note in notes[3:]] == ["three", "two", "one"]
    assert system.statistics().actors == 0


async def test_a_system_gives_running_handlers_their_time(notes: Notes) -> None:
    gate = asyncio.Event()
    async with ActorSystem(sinks=()) as system:
        running = await busy(system, system.spawn(Chef, notes, "it"), gate)
        asyncio.get_running_loop().call_later(0.02, gate.set)
    assert running.result() == "held"
    assert notes[-1] == "stop it shutdown"


async def test_a_stopped_system_refuses(notes: Notes) -> None:
    async with ActorSystem(sinks=()) as system:
        chef = system.spawn(Chef, notes)
        await chef.wait_started()
    with pytest.raises(ActorStopped, match="not open"):
        system.spawn(Chef)
    for reply in (chef.cook("soup"), chef.tell("cook", "soup"), chef.stop()):
        with pytest.raises(ActorStopped):
            await reply
    assert await chef.is_alive() is False
    await system.stop()


def test_a_system_that_is_not_open_yet_refuses() -> None:
    with pytest.raises(ActorStopped, match="not open"):
        ActorSystem(sinks=()).spawn(Chef)


async def test_stopping_takes_no_new_actors() -> None:
    """Else an actor whose end starts another would keep the system open for ever."""
    refused: list[BaseException] = []

    class Undying(Actor):
        async def on_stop(self, exit: Exit) -> None:
            try:
                system.spawn(Undying)
            except ActorStopped as error:
                refused.append(error)

    async with ActorSystem(sinks=()) as system:
        await system.spawn(Undying).wait_started()
    assert len(refused) == 1


def test_a_system_may_be_stopped_by_hand_before_with_ends_it() -> None:
    with ActorSystem(sinks=()) as system:
        chef = system.spawn(Chef)
        assert chef.cook("soup").result() == "soup cooked"
        system.stop().result(5)
        assert chef.is_alive().result(5) is False
        wait_until_sync(lambda: system.statistics().actors == 0)


# -- incarnations ------------------------------------------------------------------------


async def test_a_ref_survives_a_restart_and_a_pinned_one_does_not(system: ActorSystem) -> None:
    chef = await supervised(system, Chef)
    pinned = chef.pinned()
    assert [await chef.incarnation(), await pinned.incarnation()] == [1, 1]
    with pytest.raises(ValueError, match="boom"):
        await chef.crash()
    assert await chef.incarnation() == 2
    for reply in (pinned.incarnation(), pinned.tell("cook", "soup"), pinned.stop()):
        with pytest.raises(ActorStopped, match="incarnation 1 of sup/child is over"):
            await reply
    assert await pinned.is_alive() is False
    assert await chef.pinned().incarnation() == 2
    assert await chef.history() == ["start sup/child"]


async def test_the_mailbox_survives_a_restart_in_its_order(system: ActorSystem) -> None:
    """Only the message in the handler is gone; what was meant for the old life alone is refused."""
    notes: Notes = []
    chef, gate = await supervised(system, Chef, notes, "it"), asyncio.Event()
    pinned = chef.pinned()
    running = await busy(system, chef, gate)
    crashing = chef.options(timeout=None).crash()
    waiting = [chef.options(timeout=None).cook(number) for number in range(3)]
    meant_for_the_first = pinned.options(timeout=None).cook("never")
    gate.set()
    outcomes = await asyncio.gather(running, crashing, *waiting, meant_for_the_first, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes[:5]] == [
        "held",
        "boom",
        "0 cooked",
        "1 cooked",
        "2 cooked",
    ]
    assert isinstance(outcomes[5], ActorStopped)
    assert notes == ["start it", "start it", "cook 0", "cook 1", "cook 2"]


async def test_asks_to_an_actor_that_restarts_wait_for_its_next_life(system: ActorSystem) -> None:
    notes: Notes = []

    class Reluctant(Chef):
        async def on_start(self) -> None:
            if self.notes:
                await gate.wait()
            await super().on_start()

    gate = asyncio.Event()
    chef = await supervised(system, Reluctant, notes, "it")
    with pytest.raises(ValueError, match="boom"):
        await chef.crash()
    asked = chef.options(timeout=None).cook("soup")
    assert await chef.is_alive() is True
    await wait_until(lambda: system.statistics().in_mailbox == 1)
    assert not asked.done
    gate.set()
    assert await asked == "soup cooked"
    assert notes == ["start it", "start it", "cook soup"]


async def test_children_end_before_their_parent_restarts(system: ActorSystem, notes: Notes) -> None:
    class Head(Chef):
        async def on_start(self) -> None:
            self.notes.append("start head")
            await self.context.options(name="sous").spawn(Chef, notes, "sous").wait_started()

    head = await supervised(system, Head, notes, "head")
    with pytest.raises(ValueError, match="boom"):
        await head.crash()
    assert await head.incarnation() == 2
    assert notes == ["start head", "start sous", "stop sous shutdown (parent)", "start head", "start sous"]


async def test_stop_and_kill_of_a_supervised_actor_resolve_with_its_life(system: ActorSystem) -> None:
    """They are exits like any other: the supervisor decides."""
    chef = await supervised(system, Chef)
    await chef.stop()
    assert await chef.incarnation() == 2
    await chef.kill()
    assert await chef.incarnation() == 3


async def test_a_pin_taken_before_the_first_life_begins_is_a_pin() -> None:
    """From another thread, while the loop has other things to do."""
    go, reached = threading.Event(), threading.Event()

    class Hog(Actor):
        async def hog(self) -> None:
            reached.set()
            go.wait(5)

    with ActorSystem(sinks=()) as system:
        hog = system.spawn(Hog)
        hogging = hog.hog()
        assert await asyncio.to_thread(reached.wait, 5)
        chef = system.spawn(Chef)
        try:
            pinned = chef.pinned()
        finally:
            go.set()
        assert pinned != chef
        await hogging
        assert await pinned.incarnation() == 1
        assert pinned == chef.pinned()

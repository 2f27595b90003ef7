"""
`Supervisor` with real actors in one process: OTP's rules as its users see them.

Names that begin with a case (`c18`) are that case of the conformance list. Time is moved by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import (
    ActorStopped,
    AlreadyPresent,
    AlreadyStarted,
    InvalidArgument,
    NotFound,
    Refusal,
    StartFailed,
    Unavailable,
)
from actors.events import ActorExited, Event
from actors.exit import Exit, Ignore, Terminated
from actors.ref import Ref
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.backoff import Backoff
from supervisors.events import ChildReported
from supervisors.spec import ChildCounts, ChildInfo, ChildSpec
from supervisors.supervisor import Supervisor

Notes = list[tuple[str, str]]
"""(what, which child), in the order in which it happened."""

GAVE_UP = Exit("shutdown", "intensity")


class Boom(RuntimeError):
    """What children crash with."""


class Child(Actor):
    """Writes down its life, and ends it in whatever way it is told."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.count = 0
        self._note("init")

    def _note(self, what: str) -> None:
        self.notes.append((what, self.context.name.rpartition("/")[2]))

    async def on_start(self) -> None:
        await asyncio.sleep(0)
        self._note("start")

    async def on_stop(self, exit: Exit) -> None:
        await asyncio.sleep(0)
        self._note(f"stop {exit}")

    async def life(self) -> int:
        return self.context.incarnation

    async def add(self) -> int:
        self.count += 1
        if self.count == 100:
            raise Boom("at 100")
        return self.count

    async def crash(self) -> None:
        raise Boom("on request")

    async def end(self, kind: str, detail: Any = None) -> None:
        self.context.stop(kind, detail)

    async def leave(self) -> None:
        raise SystemExit(0)

    async def wait_for(self, gate: asyncio.Event) -> str:
        self._note("wait")
        await gate.wait()
        return "waited"


class Whim(Child):
    """Starts as *moods* say, one entry a start: "ok", "ignore", "fail" or "hang"; then like the last."""

    def __init__(self, notes: Notes, *moods: str) -> None:
        super().__init__(notes)
        self.moods = moods

    async def on_start(self) -> None:
        starts = self.notes.count(("init", self.context.name.rpartition("/")[2]))
        mood = self.moods[min(starts, len(self.moods)) - 1]
        if mood == "ignore":
            raise Ignore
        if mood == "fail":
            raise Boom("at the start")
        if mood == "hang":
            self._note("hang")
            await asyncio.Event().wait()
        await super().on_start()


class Tidy(Child):
    """Needs time for its cleanup."""

    def __init__(self, notes: Notes, cleaned: asyncio.Event) -> None:
        super().__init__(notes)
        self.cleaned = cleaned

    async def on_stop(self, exit: Exit) -> None:
        self._note("cleaning")
        await self.cleaned.wait()
        await super().on_stop(exit)


class Watcher(Actor):
    """Watches one actor."""

    def __init__(self, target: Ref[Any], seen: list[Terminated]) -> None:
        self.seen = seen
        self.context.watch(target)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.seen.append(terminated)

    async def is_there(self) -> bool:
        return True


@pytest.fixture
def notes() -> Notes:
    return []


@pytest.fixture
def spec(notes: Notes) -> Callable[..., ChildSpec]:
    """`spec("a", restart="transient")`: a well-behaved child, or one of *cls* with more arguments."""

    def make(id: str, cls: type = Child, *args: Any, **options: Any) -> ChildSpec:
        return ChildSpec(id, cls, args=(notes, *args), **options)

    return make


Spec = Callable[..., ChildSpec]


async def up(
    system: ActorSystem, *specs: ChildSpec, strategy: str = "one_for_one", intensity: int = 3, **flags: Any
) -> Ref[Any]:
    """A supervisor named `top` that has started."""
    ref = system.options(name="top").spawn(Supervisor, specs, strategy, intensity, 3600.0, **flags)
    assert await ref.wait_started()
    return ref


async def infos(sup: Ref[Any]) -> dict[str, ChildInfo]:
    return {info.id: info for info in await sup.which_children()}


async def child(sup: Ref[Any], id: str) -> Ref[Any]:
    return (await infos(sup))[id].ref


async def lives(system: ActorSystem, *ids: str) -> list[int]:
    """Which life each child of `top` is in; waits for those that are being restarted."""
    return [await system.find(f"top/{id}").life() for id in ids]


async def crash(ref: Ref[Any]) -> None:
    with pytest.raises(Boom):
        await ref.crash()


def inits(notes: Notes, id: str) -> int:
    return notes.count(("init", id))


class TestStarting:
    async def test_c01_a_supervisor_starts_and_stops(self, system: ActorSystem) -> None:
        sup = await up(system)

        await sup.stop()

        assert await sup.wait_stopped() == Exit("shutdown")
        with pytest.raises(ActorStopped):
            await sup.count_children()
        with pytest.raises(ActorStopped):
            await sup.stop()

    async def test_c02_one_that_ignores_is_not_an_error(
        self, system: ActorSystem, events: list[Event]
    ) -> None:
        class Reluctant(Supervisor):
            async def on_start(self) -> None:
                raise Ignore

        sup = system.options(name="top").spawn(Reluctant)

        assert await sup.wait_started() is False
        with pytest.raises(NotFound):
            system.find("top")
        assert [event.kind for event in events] == []

    async def test_c03_a_child_that_ignores_keeps_its_spec(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system)

        assert await sup.start_child(spec("a", Whim, "ignore")) is None
        running = await sup.start_child(spec("b"))

        assert await running.life() == 1
        assert [(info.id, info.state) for info in await sup.which_children()] == [
            ("a", "stopped"),
            ("b", "running"),
        ]
        assert await sup.count_children() == ChildCounts(2, 1, 0, 2)

    async def test_c04_what_init_raises_is_what_the_starter_gets(self, system: ActorSystem) -> None:
        class Broken(Supervisor):
            def __init__(self) -> None:
                raise Boom("no stage")

        sup = system.options(name="top").spawn(Broken)

        with pytest.raises(StartFailed) as failure:
            await sup.wait_started()
        assert isinstance(failure.value.__cause__, Boom)
        with pytest.raises(NotFound):
            system.find("top")

    async def test_c05_a_child_that_fails_to_start_is_not_kept(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system)

        with pytest.raises(StartFailed, match="'a' did not start") as failure:
            await sup.start_child(spec("a", Whim, "fail"))

        assert isinstance(failure.value.__cause__, Boom)
        assert await sup.which_children() == []

    async def test_c06_a_restart_by_hand_that_fails_keeps_the_spec(
        self, system: ActorSystem, spec: Spec
    ) -> None:
        sup = await up(system, spec("a", Whim, "ok", "fail"))
        await sup.terminate_child("a")

        with pytest.raises(StartFailed) as failure:
            await sup.restart_child("a")

        assert isinstance(failure.value.__cause__, Boom)
        assert (await infos(sup))["a"].state == "stopped"
        assert await sup.count_children() == ChildCounts(1, 0, 0, 1)

    async def test_c07_a_first_start_that_fails_fails_the_supervisor(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "fail"), spec("c")])

        with pytest.raises(StartFailed) as failure:
            await sup.wait_started()

        reason = failure.value.__cause__
        assert isinstance(reason, StartFailed)
        assert "'b'" in str(reason)
        assert isinstance(reason.__cause__, Boom)
        assert notes == [("init", "a"), ("start", "a"), ("init", "b"), ("stop shutdown", "a")]
        with pytest.raises(NotFound):
            system.find("top/a")

    async def test_c08_specs_are_read_back_as_they_were_given(self, system: ActorSystem, spec: Spec) -> None:
        given = spec("a", shutdown="brutal_kill", restart="transient")
        sup = await up(system, given)

        assert await sup.get_childspec("a") == given
        with pytest.raises(NotFound, match="no child 'z'"):
            await sup.get_childspec("z")

    @pytest.mark.parametrize(
        ("flags", "complaint"),
        [
            (([], "none_for_one"), "strategy='none_for_one' is not one of one_for_one, .*did you mean"),
            (([], "one_for_one", float("inf")), "intensity=inf"),
            (([], "one_for_one", -1), "intensity=-1"),
            (([], "one_for_one", 1, 0), "period=0"),
            ((["a"],), "children='a' is not a ChildSpec"),
        ],
    )
    async def test_c09_wrong_flags_are_refused_before_anything_starts(
        self, system: ActorSystem, flags: tuple[Any, ...], complaint: str
    ) -> None:
        sup = system.spawn(Supervisor, *flags)

        with pytest.raises(StartFailed) as failure:
            await sup.wait_started()
        with pytest.raises(InvalidArgument, match=complaint):
            raise failure.value.__cause__  # type: ignore[misc]

    async def test_c09_two_children_of_one_id_are_refused_before_anything_starts(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = system.spawn(Supervisor, [spec("a"), spec("b"), spec("a")])

        with pytest.raises(StartFailed) as failure:
            await sup.wait_started()
        with pytest.raises(InvalidArgument, match="the id 'a' stands twice"):
            raise failure.value.__cause__  # type: ignore[misc]
        assert notes == []

    async def test_a_wrong_argument_of_a_message_is_an_answer(self, system: ActorSystem) -> None:
        """A caller's mistake must not cost anybody else the supervisor."""
        sup = await up(system)

        with pytest.raises(InvalidArgument, match="is not a ChildSpec"):
            await sup.start_child("a")

        assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
        assert await sup.is_alive()

    async def test_c10_children_start_in_order_and_stop_in_reverse(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        ids = ["ch7", "ch3", "ch10", "ch2", "ch5"]
        sup = await up(system, *map(spec, ids))

        assert notes == [(what, id) for id in ids for what in ("init", "start")]
        notes.clear()
        await sup.stop()

        assert notes == [("stop shutdown", id) for id in reversed(ids)]

    async def test_a_start_that_takes_too_long_has_failed(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await up(system)
        started = sup.start_child(spec("a", Whim, "hang", start_timeout=7))
        await wait_until(lambda: ("hang", "a") in notes)

        await clock.elapse(6.9)
        assert not started.done
        await clock.elapse(0.2)

        with pytest.raises(StartFailed, match="within 7 s"):
            await started
        assert await sup.which_children() == []

    async def test_questions_are_answered_while_a_child_starts(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "hang")])
        await wait_until(lambda: ("hang", "b") in notes)

        assert [(info.id, info.state) for info in await sup.which_children()] == [
            ("a", "running"),
            ("b", "pending"),
        ]
        assert await sup.count_children() == ChildCounts(2, 1, 0, 2)
        assert (await sup.get_childspec("b")).id == "b"
        assert not sup.wait_started().done

    async def test_c32_a_name_that_somebody_else_has_fails_the_start(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        stranger = system.options(name="top/a").spawn(Child, notes)
        sup = await up(system)

        with pytest.raises(StartFailed) as failure:
            await sup.start_child(spec("a"))

        taken = failure.value.__cause__
        assert isinstance(taken, AlreadyStarted)
        assert taken.ref == stranger
        assert await stranger.life() == 1
        assert await sup.which_children() == []


class TestOrders:
    async def test_c11_the_administration_of_one_child(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a"))
        running = await child(sup, "a")

        with pytest.raises(AlreadyStarted) as already:
            await sup.start_child(spec("a"))
        assert already.value.ref == running
        with pytest.raises(NotFound):
            await sup.terminate_child("b")
        await sup.terminate_child("a")
        assert notes[-1] == ("stop shutdown", "a")
        assert (await infos(sup))["a"].state == "stopped"
        assert await sup.count_children() == ChildCounts(1, 0, 0, 1)
        await sup.terminate_child("a")
        with pytest.raises(AlreadyPresent):
            await sup.start_child(spec("a"))
        again = await sup.restart_child("a")
        assert await again.life() == 1  # a new registration: the old refs have ended
        with pytest.raises(ActorStopped):
            await running.life()
        with pytest.raises(AlreadyStarted) as already:
            await sup.restart_child("a")
        assert already.value.ref == again
        with pytest.raises(Refusal, match="terminate it first"):
            await sup.delete_child("a")
        await sup.terminate_child("a")
        await sup.delete_child("a")
        with pytest.raises(NotFound):
            await sup.restart_child("a")
        assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
        assert await (await sup.start_child(spec("a"))).life() == 1
        await sup.stop()
        with pytest.raises(ActorStopped):
            await sup.which_children()

    async def test_counts_tell_supervisors_from_workers(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system, spec("a"), ChildSpec("inner", Supervisor, args=([spec("b")],)))

        assert await sup.count_children() == ChildCounts(2, 2, 1, 1)
        assert (await infos(sup))["inner"].kind == "supervisor"
        assert [info.id for info in await (await child(sup, "inner")).which_children()] == ["b"]

    async def test_a_started_child_is_the_last_one(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a"), spec("b"))
        await sup.start_child(spec("0"))
        notes.clear()

        await sup.stop()

        assert notes == [("stop shutdown", "0"), ("stop shutdown", "b"), ("stop shutdown", "a")]

    async def test_orders_are_carried_out_whatever_becomes_of_the_caller(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        cleaned = asyncio.Event()
        sup = await up(system, spec("a", Tidy, cleaned))
        order = sup.terminate_child("a")
        await wait_until(lambda: ("cleaning", "a") in notes)

        order.cancel()
        cleaned.set()

        await wait_until(lambda: ("stop shutdown", "a") in notes)
        assert (await infos(sup))["a"].state == "stopped"

    async def test_an_order_while_a_child_starts_waits_for_its_turn(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await up(system, spec("a"))
        slow = sup.start_child(spec("b", Whim, "hang", start_timeout=7))
        await wait_until(lambda: ("hang", "b") in notes)
        terminated = sup.terminate_child("a")

        await clock.elapse(1)
        assert not terminated.done
        await clock.elapse(7)

        await terminated
        with pytest.raises(StartFailed):
            await slow

    async def test_waiting_messages_of_a_terminated_child_are_refused(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await up(system, spec("a"))
        ref = await child(sup, "a")
        running, queued = (
            ref.options(timeout=None).wait_for(asyncio.Event()),
            ref.options(timeout=None).life(),
        )
        await wait_until(lambda: ("wait", "a") in notes)
        order = sup.terminate_child("a")
        await clock.elapse(5)
        await order

        with pytest.raises(Unavailable) as cut:
            await running
        assert cut.value.may_have_run
        with pytest.raises(ActorStopped):
            await queued


ABNORMAL = {"crash": "error (Boom: on request)", "kill": "killed"}
CLEAN = {
    "normal": "normal",
    "shutdown": "shutdown",
    "shutdown with detail": "shutdown (x)",
    "leave": "normal",
}


async def end_life(ref: Ref[Any], how: str) -> None:
    match how:
        case "crash":
            await crash(ref)
        case "kill":
            await ref.kill()
        case "leave":
            with pytest.raises(Unavailable):
                await ref.leave()
        case "shutdown with detail":
            await ref.end("shutdown", "x")
        case _:
            await ref.end(how)


class TestRestartTypes:
    @pytest.mark.parametrize("how", [*ABNORMAL, *CLEAN])
    async def test_c14_a_permanent_child_always_comes_back(
        self, system: ActorSystem, spec: Spec, how: str
    ) -> None:
        sup = await up(system, spec("a"), intensity=100)
        ref = await child(sup, "a")

        await end_life(ref, how)

        assert await ref.life() == 2
        assert str((await infos(sup))["a"].last_exit) == {**ABNORMAL, **CLEAN}[how]
        assert await sup.count_children() == ChildCounts(1, 1, 0, 1)

    @pytest.mark.parametrize("how", ABNORMAL)
    async def test_c15_a_transient_child_comes_back_from_abnormal_ends(
        self, system: ActorSystem, spec: Spec, how: str
    ) -> None:
        sup = await up(system, spec("a", restart="transient"))
        ref = await child(sup, "a")

        await end_life(ref, how)

        assert await ref.life() == 2

    @pytest.mark.parametrize("how", CLEAN)
    async def test_c15_a_transient_child_rests_after_clean_ends(
        self, system: ActorSystem, spec: Spec, how: str
    ) -> None:
        sup = await up(system, spec("a", restart="transient"))
        ref = await child(sup, "a")

        await end_life(ref, how)

        assert str(await ref.wait_stopped()) == CLEAN[how]
        assert (await infos(sup))["a"].state == "stopped"
        assert await sup.count_children() == ChildCounts(1, 0, 0, 1)
        assert await (await sup.restart_child("a")).life() == 1

    @pytest.mark.parametrize("how", [*ABNORMAL, *CLEAN])
    async def test_c16_a_temporary_child_never_comes_back(
        self, system: ActorSystem, spec: Spec, how: str
    ) -> None:
        sup = await up(system, spec("a", restart="temporary"))
        ref = await child(sup, "a")

        await end_life(ref, how)

        await ref.wait_stopped()
        assert await sup.which_children() == []
        assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
        assert await (await sup.start_child(spec("a"))).life() == 1

    async def test_c17_a_restarted_child_has_its_address_and_fresh_state(
        self, system: ActorSystem, spec: Spec
    ) -> None:
        sup = await up(system, spec("a"))
        ref = await child(sup, "a")

        counted = [(await asyncio.wait_for(_outcome(ref.add()), 5)) for _ in range(200)]

        assert counted == [*range(1, 100), "Boom", *range(1, 100), "Boom"]


async def _outcome(reply: Any) -> Any:
    try:
        return await reply
    except Boom:
        return "Boom"


class TestStrategies:
    async def test_c18_one_for_one_restarts_the_one_that_failed(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a"), spec("b"))
        notes.clear()

        await crash(await child(sup, "a"))

        assert await lives(system, "a", "b") == [2, 1]
        assert notes == [("init", "a"), ("start", "a")]

    async def test_c19_one_for_all_restarts_all(self, system: ActorSystem, spec: Spec, notes: Notes) -> None:
        sup = await up(system, spec("a"), spec("b"), strategy="one_for_all")
        notes.clear()

        await crash(await child(sup, "a"))

        assert await lives(system, "a", "b") == [2, 2]
        assert notes == [("stop shutdown", "b"), ("init", "a"), ("start", "a"), ("init", "b"), ("start", "b")]
        assert await sup.count_children() == ChildCounts(2, 2, 0, 2)

    async def test_c20_rest_for_one_restarts_it_and_those_after_it(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, *map(spec, "abc"), strategy="rest_for_one")
        notes.clear()

        await crash(await child(sup, "b"))

        assert await lives(system, "a", "b", "c") == [1, 2, 2]
        assert notes == [("stop shutdown", "c"), ("init", "b"), ("start", "b"), ("init", "c"), ("start", "c")]
        assert await sup.count_children() == ChildCounts(3, 3, 0, 3)

    async def test_c21_a_crash_stays_inside_its_branch(self, system: ActorSystem, spec: Spec) -> None:
        branches = [
            ChildSpec(name, Supervisor, args=([spec(f"{name}1"), spec(f"{name}2")],))
            for name in ("left", "right")
        ]
        sup = await up(system, *branches, strategy="one_for_all")

        await crash(system.find("top/right/right2"))

        assert await lives(system, "left/left1", "left/left2", "right/right1", "right/right2") == [1, 1, 1, 2]
        assert {id: info.restarts for id, info in (await infos(sup)).items()} == {"left": 0, "right": 0}
        assert await sup.count_children() == ChildCounts(2, 2, 2, 0)

    async def test_a_mailbox_survives_the_restart_of_a_sibling(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        """Only the message in the handler is gone, of who crashed and of who was stopped."""
        sup = await up(system, spec("a"), spec("b"), strategy="one_for_all")
        patient = (await child(sup, "b")).options(timeout=None)
        running = patient.wait_for(asyncio.Event())
        await wait_until(lambda: ("wait", "b") in notes)
        queued = [patient.life() for _ in range(3)]

        await crash(await child(sup, "a"))
        await clock.elapse(5)

        with pytest.raises(Unavailable):
            await running
        assert [await reply for reply in queued] == [2, 2, 2]

    async def test_a_group_restart_revives_what_was_stopped_by_hand(
        self, system: ActorSystem, spec: Spec
    ) -> None:
        sup = await up(system, *map(spec, "abc"), strategy="one_for_all")
        await sup.terminate_child("b")
        await sup.terminate_child("c")
        await sup.delete_child("c")

        await crash(await child(sup, "a"))

        assert await lives(system, "a") == [2]
        await system.find("top/b").wait_started()
        assert [info.id for info in await sup.which_children()] == ["a", "b"]

    async def test_a_group_restart_removes_temporary_siblings(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system, spec("a"), spec("b", restart="temporary"), strategy="one_for_all")
        other = await child(sup, "b")

        await crash(await child(sup, "a"))

        assert await other.wait_stopped() == Exit("shutdown")
        assert await lives(system, "a") == [2]
        assert list(await infos(sup)) == ["a"]


class TestIntensity:
    async def test_c23_one_restart_too_many_ends_them_all(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, *map(spec, "abc"), intensity=2)
        for id in "ab":
            await crash(await child(sup, id))
        assert await lives(system, "a", "b", "c") == [2, 2, 1]
        notes.clear()

        await crash(await child(sup, "c"))

        assert await sup.wait_stopped() == GAVE_UP
        assert notes == [("stop shutdown", "b"), ("stop shutdown", "a")]
        assert system.statistics().actors == 0

    async def test_c24_what_is_older_than_the_period_does_not_count(
        self, system: ActorSystem, spec: Spec, clock: ManualClock
    ) -> None:
        sup = system.options(name="top").spawn(Supervisor, [spec("a")], "one_for_one", 1, 1.0)
        await sup.wait_started()

        for life in range(1, 5):
            assert await lives(system, "a") == [life]
            await crash(await child(sup, "a"))
            await clock.elapse(2.1)

        assert await lives(system, "a") == [5]
        await crash(await child(sup, "a"))
        await lives(system, "a")
        await crash(await child(sup, "a"))
        assert await sup.wait_stopped() == GAVE_UP

    async def test_c25_intensity_0_restarts_nothing(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a"), intensity=0)

        await crash(await child(sup, "a"))

        assert await sup.wait_stopped() == GAVE_UP
        assert inits(notes, "a") == 1

    async def test_c26_each_level_multiplies_the_attempts(
        self, system: ActorSystem, notes: Notes, clock: ManualClock
    ) -> None:
        class Doomed(Child):
            async def on_start(self) -> None:
                self.context.after(0.05, self.crash)

        middle = ChildSpec(
            "middle",
            Supervisor,
            args=([ChildSpec("doomed", Doomed, args=(notes,))], "one_for_one", 1, 3600.0),
        )
        top = await up(system, middle, intensity=1)
        ended = top.wait_stopped()
        for _ in range(50):
            await clock.elapse(0.05)

        await wait_until(lambda: ended.done)
        assert await ended == GAVE_UP
        assert inits(notes, "doomed") == 4
        assert system.statistics().actors == 0

    async def test_c27_a_stop_is_served_between_failing_restarts(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await up(system, spec("a", Whim, "ok", "hang", start_timeout=2), intensity=8)
        await crash(await child(sup, "a"))
        await wait_until(lambda: notes.count(("hang", "a")) == 1)
        await clock.elapse(2)
        await wait_until(lambda: notes.count(("hang", "a")) == 2)

        await sup.stop()

        assert await sup.wait_stopped() == Exit("shutdown")
        assert inits(notes, "a") == 3

    async def test_c28_a_restart_that_fails_is_tried_again(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a", Whim, "ok", "fail", "ok"), intensity=3)

        await crash(await child(sup, "a"))

        assert await lives(system, "a") == [3]
        assert inits(notes, "a") == 3
        assert (await infos(sup))["a"].restarts == 2

    async def test_restarts_that_keep_failing_use_the_budget_up(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a", Whim, "ok", "fail"), intensity=3)

        await crash(await child(sup, "a"))

        assert await sup.wait_stopped() == GAVE_UP
        assert inits(notes, "a") == 4

    async def test_a_permanent_child_that_ends_normally_counts_too(
        self, system: ActorSystem, spec: Spec
    ) -> None:
        sup = await up(system, spec("a"), intensity=1)
        ref = await child(sup, "a")
        await ref.end("normal")
        assert await ref.life() == 2

        await ref.end("normal")

        assert await sup.wait_stopped() == GAVE_UP

    async def test_c31_who_supervises_a_supervisor_brings_back_both(
        self, system: ActorSystem, spec: Spec
    ) -> None:
        middle = ChildSpec("middle", Supervisor, args=([spec("server")],))
        sup = await up(system, middle)
        server = system.find("top/middle/server")

        await server.kill()
        assert await server.life() == 2
        await (await child(sup, "middle")).kill()

        await system.find("top/middle").wait_started()
        assert (await infos(sup))["middle"].restarts == 1
        assert await system.find("top/middle/server").life() == 1
        with pytest.raises(ActorStopped):
            await server.life()

    async def test_c52_waits_between_restarts_grow_and_are_reset(
        self, system: ActorSystem, spec: Spec, clock: ManualClock, events: list[Event]
    ) -> None:
        backoff = Backoff(initial=0.1, factor=2, maximum=0.8, jitter=0)
        sup = await up(system, spec("a"), intensity=100, backoff=backoff)
        ref = await child(sup, "a")

        for gap in (0.1, 0.2, 0.4, 0.8, 0.8):
            await crash(ref)
            await clock.elapse(gap - 0.01)
            assert (await infos(sup))["a"].state == "restarting"
            await clock.elapse(0.02)
            assert (await infos(sup))["a"].state == "running"
        await clock.elapse(backoff.reset_after)
        await crash(ref)
        await clock.elapse(0)

        waits = [
            event.delay
            for event in events
            if isinstance(event, ChildReported) and event.context == "backing_off"
        ]
        assert waits == [0.1, 0.2, 0.4, 0.8, 0.8, 0.1]

    async def test_who_waits_for_its_restart_can_be_given_up_but_not_restarted_twice(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await up(system, spec("a"), backoff=Backoff(initial=1, jitter=0))
        await crash(await child(sup, "a"))
        await clock.elapse(0.5)

        with pytest.raises(Refusal, match="backing_off"):
            await sup.restart_child("a")
        with pytest.raises(Refusal):
            await sup.delete_child("a")
        await sup.terminate_child("a")
        await clock.elapse(5)

        assert (await infos(sup))["a"].state == "stopped"
        assert inits(notes, "a") == 1

    async def test_callers_of_a_child_that_backs_off_wait_in_its_mailbox(
        self, system: ActorSystem, spec: Spec, clock: ManualClock
    ) -> None:
        sup = await up(system, spec("a"), backoff=Backoff(initial=1, jitter=0))
        ref = await child(sup, "a")
        await crash(ref)
        await clock.elapse(0.5)
        waiting = ref.life()

        await clock.elapse(0.6)

        assert await waiting == 2


class TestStopping:
    async def test_c29_everyone_has_its_own_shutdown_time(
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock, events: list[Event]
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
        self, system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock, events: list[Event]
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
        self, system: ActorSystem, spec: Spec, notes: Notes
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

    async def test_no_hook_runs_after_a_crash_or_a_kill(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(system, spec("a"))
        ref = await child(sup, "a")

        await crash(ref)
        assert await ref.life() == 2
        await ref.kill()

        assert await ref.life() == 3
        assert not [what for what, _ in notes if what.startswith("stop")]

    async def test_a_killed_supervisor_leaves_no_child(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system, spec("a"), spec("b"))
        ref = await child(sup, "a")

        await sup.kill()

        await sup.wait_stopped()
        with pytest.raises(ActorStopped):
            await ref.life()
        assert system.statistics().actors == 0

    async def test_a_stop_during_the_start_stops_what_has_started(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "hang"), spec("c")])
        await wait_until(lambda: ("hang", "b") in notes)

        await sup.stop()

        assert inits(notes, "c") == 0
        assert system.statistics().actors == 0

    async def test_a_stop_is_served_while_an_order_is_carried_out(
        self, system: ActorSystem, spec: Spec, notes: Notes
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

    async def test_a_watcher_hears_of_a_child_once_at_its_final_end(
        self, system: ActorSystem, spec: Spec
    ) -> None:
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

    async def test_what_happens_to_a_child_is_an_event(
        self, system: ActorSystem, spec: Spec, events: list[Event]
    ) -> None:
        sup = await up(system, spec("a"), intensity=1)
        ref = await child(sup, "a")
        await crash(ref)
        await ref.life()
        await crash(ref)
        await sup.wait_stopped()

        told = [
            (event.context, event.child, event.restarts)
            for event in events
            if isinstance(event, ChildReported)
        ]
        assert told == [
            ("child_exited", "a", 0),
            ("restarting", "a", 1),
            ("child_exited", "a", 1),
            ("gave_up", "a", 1),
        ]
        assert all(event.supervisor == "top" for event in events if isinstance(event, ChildReported))

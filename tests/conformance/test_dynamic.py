"""
C12, C13, C22: any number of children of one class, and the rules of OTP's simple_one_for_one.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from cast import GAVE_UP, Boom, Child, Notes, Tidy, Watcher, Whim, crash

from actors.errors import ActorStopped, InvalidArgument, NotFound, Refusal, StartFailed
from actors.events import ActorExited, Event
from actors.exit import Exit, Ignore, Terminated
from actors.ref import Ref
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.backoff import Backoff
from supervisors.dynamic import DynamicSupervisor
from supervisors.spec import ChildCounts, ChildSpec
from supervisors.supervisor import Supervisor


class Session(Child):
    """A child with something of its own."""

    def __init__(self, notes: Notes, guest: str, *, table: int = 0) -> None:
        super().__init__(notes)
        self.guest, self.table = guest, table

    async def who(self) -> tuple[str, int, int]:
        return self.guest, self.table, self.context.incarnation


async def pool(system: ActorSystem, cls: type = Session, **flags: Any) -> Ref[Any]:
    """A dynamic supervisor named `pool` that has started."""
    flags = {"period": 3600.0, **flags}
    ref = system.options(name="pool").spawn(DynamicSupervisor, cls, **flags)
    assert await ref.wait_started()
    return ref


async def test_c12_children_have_no_ids_and_counts_agree_with_the_list(
    system: ActorSystem, notes: Notes
) -> None:
    sup = await pool(system, restart="temporary")
    assert await sup.count_children() == ChildCounts(1, 0, 0, 0)

    refs = []
    for number in range(1, 201):
        refs.append(await sup.start_child(notes, f"guest {number}"))
        if number in (1, 2, 50, 200):
            infos = await sup.which_children()
            assert [info.ref for info in infos] == refs
            assert {(info.id, info.state, info.kind) for info in infos} == {(None, "running", "worker")}
            assert await sup.count_children() == ChildCounts(1, number, 0, number)
    await asyncio.gather(*(ref.kill() for ref in refs))

    await asyncio.gather(*(ref.wait_stopped() for ref in refs))
    assert await sup.which_children() == []
    assert await sup.count_children() == ChildCounts(1, 0, 0, 0)


async def test_c13_beyond_max_children_a_start_is_refused(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system, max_children=2)
    first = await sup.start_child(notes, "a")
    await sup.start_child(notes, "b")

    with pytest.raises(Refusal, match="2 children, its max_children"):
        await sup.start_child(notes, "c")
    await sup.terminate_child(first)

    assert await (await sup.start_child(notes, "c")).who() == ("c", 0, 1)


async def test_c13_none_at_all(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system, max_children=0)

    with pytest.raises(Refusal, match="max_children"):
        await sup.start_child(notes, "a")
    assert notes == []


async def test_c13_starts_that_cross_do_not_slip_in(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system, max_children=3)

    replies = [sup.start_child(notes, str(number)) for number in range(10)]
    outcomes = await asyncio.gather(*replies, return_exceptions=True)

    assert [isinstance(outcome, Refusal) for outcome in outcomes] == [False] * 3 + [True] * 7


async def test_c22_a_child_comes_back_with_its_own_arguments(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system)
    ada = await sup.start_child(notes, "Ada", table=7)
    alan = await sup.start_child(notes, "Alan")

    await crash(ada)

    assert await ada.who() == ("Ada", 7, 2)
    assert await alan.who() == ("Alan", 0, 1)
    assert await sup.count_children() == ChildCounts(1, 2, 0, 2)


@pytest.mark.parametrize(
    ("restart", "how", "stays"),
    [
        ("permanent", "normal", True),
        ("transient", "normal", False),
        ("transient", "error", True),
        ("temporary", "error", False),
    ],
)
async def test_who_is_not_restarted_is_gone(
    system: ActorSystem, notes: Notes, restart: str, how: str, stays: bool
) -> None:
    sup = await pool(system, restart=restart)
    ref = await sup.start_child(notes, "Ada")

    await ref.end(how)

    if stays:
        assert await ref.who() == ("Ada", 0, 2)
    else:
        await ref.wait_stopped()
    assert await sup.count_children() == ChildCounts(1, int(stays), 0, int(stays))


async def test_all_children_share_one_window(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system, intensity=1)
    ada, alan = [await sup.start_child(notes, name) for name in ("Ada", "Alan")]

    await crash(ada)
    await crash(alan)

    assert await sup.wait_stopped() == GAVE_UP
    assert system.statistics().actors == 0


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("n", "Ada", 7), {}), (("n", "Ada"), {"chair": 1}), ((), {"table": 1})]
)
async def test_arguments_are_bound_before_anything_starts(
    system: ActorSystem, notes: Notes, args: Any, kwargs: Any
) -> None:
    sup = await pool(system, max_children=1)

    with pytest.raises(InvalidArgument, match="do not fit Session"):
        await sup.start_child(*args, **kwargs)

    assert notes == []
    assert await (await sup.start_child(notes, "Ada")).who() == ("Ada", 0, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor_class", "Session"),
        ("actor_class", int),
        ("max_children", -1),
        ("max_children", 1.5),
        ("restart", "always"),
        ("shutdown", -1),
        ("intensity", -1),
        ("intensity", math.inf),
        ("intensity", None),
        ("intensity", {"eror": 1}),
        ("period", 0),
        ("start_timeout", 0),
        ("mailbox", 0),
        ("concurrency", 0),
    ],
)
async def test_wrong_flags_are_refused_by_field_and_value(
    system: ActorSystem, field: str, value: Any
) -> None:
    flags = {"actor_class": Session, field: value}

    with pytest.raises(StartFailed) as failure:
        await system.spawn(DynamicSupervisor, flags.pop("actor_class"), **flags).wait_started()

    assert isinstance(failure.value.__cause__, InvalidArgument)
    assert f"DynamicSupervisor {field}={value!r}" in str(failure.value.__cause__)


async def test_a_start_that_fails_or_declines_leaves_nothing(system: ActorSystem, notes: Notes) -> None:
    sup = await pool(system, Whim, max_children=1)

    with pytest.raises(StartFailed) as failure:
        await sup.start_child(notes, "fail")
    assert isinstance(failure.value.__cause__, Boom)
    assert await sup.start_child(notes, "ignore") is None

    assert await sup.count_children() == ChildCounts(1, 0, 0, 0)
    assert await (await sup.start_child(notes, "ok")).life() == 1


async def test_a_restart_that_declines_is_the_end_of_it(system: ActorSystem, notes: Notes) -> None:
    class Fickle(Child):
        async def on_start(self) -> None:
            if self.context.incarnation > 1:
                raise Ignore

    sup = await pool(system, Fickle)
    ref = await sup.start_child(notes)

    await crash(ref)

    await ref.wait_stopped()
    assert await sup.count_children() == ChildCounts(1, 0, 0, 0)


class TestTerminating:
    async def test_a_child_is_terminated_by_its_ref_and_is_gone(
        self, system: ActorSystem, notes: Notes
    ) -> None:
        sup = await pool(system, intensity=0)
        ref = await sup.start_child(notes, "Ada")

        assert await sup.terminate_child(ref) is None

        assert notes[-1][0] == "stop shutdown"
        assert await sup.which_children() == []
        with pytest.raises(ActorStopped):
            await ref.who()

    async def test_one_that_is_dead_already_is_no_error(self, system: ActorSystem, notes: Notes) -> None:
        sup = await pool(system, restart="temporary")
        ref = await sup.start_child(notes, "Ada")
        await ref.end("normal")
        await ref.wait_stopped()

        assert await sup.terminate_child(ref) is None

    async def test_somebody_elses_actor_is_not_found_and_not_harmed(
        self, system: ActorSystem, notes: Notes
    ) -> None:
        sup = await pool(system)
        stranger = system.spawn(Session, notes, "Alan")

        with pytest.raises(NotFound, match="is no child of pool"):
            await sup.terminate_child(stranger)

        assert await stranger.who() == ("Alan", 0, 1)

    async def test_an_id_is_not_a_ref(self, system: ActorSystem) -> None:
        sup = await pool(system)

        with pytest.raises(InvalidArgument, match="ref='session-1' is not a Ref"):
            await sup.terminate_child("session-1")

    async def test_a_life_that_is_over_is_dead_and_the_next_one_goes_on(
        self, system: ActorSystem, notes: Notes
    ) -> None:
        sup = await pool(system)
        ref = await sup.start_child(notes, "Ada")
        first = ref.pinned()
        await crash(ref)
        assert await ref.who() == ("Ada", 0, 2)

        assert await sup.terminate_child(first) is None

        assert await ref.who() == ("Ada", 0, 2)
        await sup.terminate_child(ref.pinned())
        assert await sup.which_children() == []

    async def test_a_restart_that_is_to_come_is_cancelled(
        self, system: ActorSystem, notes: Notes, clock: ManualClock
    ) -> None:
        sup = await pool(system, backoff=Backoff(initial=1, jitter=0), max_children=1)
        ref = await sup.start_child(notes, "Ada")
        await crash(ref)
        await clock.elapse(0.5)
        assert [info.state for info in await sup.which_children()] == ["restarting"]
        with pytest.raises(Refusal, match="max_children"):
            await sup.start_child(notes, "Alan")

        await sup.terminate_child(ref)
        await clock.elapse(5)

        assert await sup.which_children() == []
        assert [what for what, _ in notes].count("init") == 1

    async def test_one_that_ends_before_its_turn_comes_is_dead(
        self, system: ActorSystem, notes: Notes
    ) -> None:
        sup = await pool(system, restart="temporary")
        refs = [await sup.start_child(notes, name) for name in "ab"]
        orders = [sup.terminate_child(ref) for ref in (refs[0], refs[1], refs[1])]
        await refs[1].kill()

        assert [await order for order in orders] == [None, None, None]


class TestStopping:
    async def test_all_stop_at_once_under_one_timer(
        self, system: ActorSystem, notes: Notes, clock: ManualClock, events: list[Event]
    ) -> None:
        sup = await pool(system, Tidy, shutdown=3)
        never = asyncio.Event()
        for _ in range(5):
            await sup.start_child(notes, never)

        stopped = sup.stop()
        await wait_until(lambda: len([what for what, _ in notes if what == "cleaning"]) == 5)
        await clock.elapse(2.9)
        assert not stopped.done
        await clock.elapse(0.2)
        await stopped

        exits = [event.exit.kind for event in events if isinstance(event, ActorExited)]
        assert exits == ["killed"] * 5 + ["shutdown"]

    async def test_who_stops_quickly_need_not_wait_for_the_others(
        self, system: ActorSystem, notes: Notes
    ) -> None:
        sup = await pool(system, Tidy, shutdown=math.inf)
        gates = [asyncio.Event() for _ in range(3)]
        refs = [await sup.start_child(notes, gate) for gate in gates]
        seen: list[Terminated] = []
        watcher = system.spawn(Watcher, refs[1], seen)
        await watcher.is_there()

        stopped = sup.stop()
        gates[1].set()

        await wait_until(lambda: seen)
        assert not stopped.done
        for gate in gates:
            gate.set()
        await stopped

    async def test_brutal_kill_runs_no_hook(self, system: ActorSystem, notes: Notes) -> None:
        sup = await pool(system, shutdown="brutal_kill")
        for number in range(3):
            await sup.start_child(notes, str(number))

        await sup.stop()

        assert not [what for what, _ in notes if what.startswith("stop")]

    async def test_children_are_lost_when_it_restarts(self, system: ActorSystem, notes: Notes) -> None:
        top = system.options(name="top").spawn(
            Supervisor, [ChildSpec("pool", DynamicSupervisor, args=(Session,))]
        )
        await top.wait_started()
        sup = system.find("top/pool")
        ref = await sup.start_child(notes, "Ada")

        await sup.kill()

        assert await sup.which_children() == []
        with pytest.raises(ActorStopped):
            await ref.who()
        assert (await top.count_children()).supervisors == 1

    async def test_a_start_under_way_does_not_hold_up_a_stop(self, system: ActorSystem, notes: Notes) -> None:
        sup = await pool(system, Whim, start_timeout=math.inf)
        start = sup.start_child(notes, "hang")
        await wait_until(lambda: any(what == "hang" for what, _ in notes))

        await sup.stop()

        with pytest.raises(ActorStopped):
            await start
        assert await sup.wait_stopped() == Exit("shutdown")


async def test_supervisors_of_supervisors_are_counted_as_such(system: ActorSystem) -> None:
    sup = await pool(system, Supervisor)

    await sup.start_child()

    assert await sup.count_children() == ChildCounts(1, 1, 1, 0)

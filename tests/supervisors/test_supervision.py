"""
What a supervisor decides, played against a world without clock or actors.

`World` performs the actions in its head and tells the facts back; names in `slow`
take as long as the test wants. It refuses whatever may never happen, such as a
second life of a child or a second answer to an order.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import (
    ActorStopped,
    AlreadyPresent,
    AlreadyStarted,
    InvalidArgument,
    NotFound,
    Refusal,
    StartFailed,
)
from actors.exit import Exit
from supervisors import actions, facts
from supervisors.backoff import Backoff
from supervisors.orders import Begin, DeleteChild, Order, RestartChild, StartChild, Stop, TerminateChild
from supervisors.spec import ChildCounts, Kind, Restart, Shutdown
from supervisors.supervision import Supervision

CRASH = Exit("error", ValueError("burnt"))
SHUTDOWN = Exit("shutdown")
NORMAL = Exit("normal")
GAVE_UP = Exit("shutdown", "intensity")
PLAIN = Backoff(initial=1, factor=2, maximum=8, jitter=0)

Outcome = Exit | Literal["started", "ignored"]


@dataclass(frozen=True)
class Member:
    id: str
    restart: Restart = "permanent"
    shutdown_time: Shutdown = 5.0
    kind: Kind = "worker"
    significant: bool = False


@dataclass
class World:
    """One supervision and the children it believes in."""

    supervision: Supervision
    now: float = 0.0
    trace: list[str] = field(default_factory=list)
    """Starts, halts, forgets, waits and the finish, in order."""
    alive: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    """Children whose starts and stops wait for `release`."""
    outcomes: dict[str, deque[Outcome]] = field(default_factory=dict)
    """What the next starts of a child come to; "started" when nothing is said."""
    answers: dict[int, actions.Answer] = field(default_factory=dict)
    reports: list[actions.Report] = field(default_factory=list)
    finished: Exit | None = None
    _orders: int = 0
    _held: dict[str, facts.Fact] = field(default_factory=dict)
    _inbox: deque[facts.Fact] = field(default_factory=deque)
    _timers: dict[str, float] = field(default_factory=dict)

    # What tests do

    def order(self, kind: type[Any], what: Any) -> int:
        """Send one order, let everything happen that follows; its token."""
        self._orders += 1
        self.send(kind(self._orders, what))
        return self._orders

    def ask(self, kind: type[Any], what: Any) -> Any:
        """The value that an order is answered with; raises its error."""
        answer = self.answers[self.order(kind, what)]
        if answer.error is not None:
            raise answer.error
        return answer.value

    def crash(
        self,
        *ids: str,
        exit: Exit = CRASH,
        handled: int = 0,
        counts: bool = True,
        cause_open: bool = False,
    ) -> None:
        for id in ids:
            self.alive.remove(id)
            self._held.pop(id, None)
        self.send(facts.Exited(ids, exit, handled, counts, cause_open))

    def send(self, event: facts.Fact | Order) -> None:
        self._decide(event)
        while self._inbox:
            self._decide(self._inbox.popleft())

    def release(self, id: str) -> None:
        """Let the slow start or stop of *id* come to its end."""
        self._end_of_life(self._held[id])
        self.send(self._held.pop(id))

    def advance(self, seconds: float) -> None:
        """Let time pass, and the retries that fall due in it."""
        until = self.now + seconds
        while due := [(at, id) for id, at in self._timers.items() if at <= until]:
            at, id = min(due)
            self.now = max(self.now, at)
            del self._timers[id]
            self.send(facts.RetryDue(id))
        self.now = until

    def drain(self) -> list[str]:
        """The trace since the last call."""
        trace, self.trace = self.trace, []
        return trace

    def reported(self, what: str) -> list[str]:
        return [report.id for report in self.reports if report.what == what]

    @property
    def held(self) -> list[str]:
        return list(self._held)

    @property
    def open_orders(self) -> set[int]:
        return set(range(1, self._orders + 1)) - set(self.answers)

    # What the supervision does

    def _decide(self, event: facts.Fact | Order) -> None:
        for action in self.supervision.decide(event, self.now):
            assert self.finished is None or isinstance(action, actions.Answer), f"{action} after the end"
            self._perform(action)

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.Start(id):
                assert id not in self.alive, f"second life of {id}"
                assert id not in self._timers, f"{id} starts while a retry is pending"
                self.trace.append(f"start {id}")
                self.alive.add(id)
                self._follow(id, self._outcome_of_start(id))
            case actions.Halt(id, shutdown):
                told = [fact for fact in self._inbox if getattr(fact, "id", None) == id]
                assert id in self.alive or told, f"halt of {id}, which is known to be dead"
                self.trace.append(f"halt {id}")
                self._held.pop(id, None)
                exit = Exit("killed", "order") if shutdown == "brutal_kill" else SHUTDOWN
                self._inbox = deque(fact for fact in self._inbox if getattr(fact, "id", None) != id)
                self._follow(id, facts.Stopped(id, exit))
            case actions.Forget(id):
                assert id not in self.alive, f"{id} is forgotten alive"
                self.trace.append(f"forget {id}")
            case actions.RetryAfter(id, delay):
                assert id not in self.alive
                self.trace.append(f"wait {id} {delay:g}")
                if delay:
                    self._timers[id] = self.now + delay
                else:
                    self._inbox.append(facts.RetryDue(id))
            case actions.CancelRetry(id):
                self._timers.pop(id, None)
                self._inbox = deque(fact for fact in self._inbox if fact != facts.RetryDue(id))
            case actions.Answer(order, _, _):
                assert order not in self.answers, f"order {order} is answered twice"
                assert isinstance(order, int)
                self.answers[order] = action
            case actions.Report():
                self.reports.append(action)
            case actions.Finished(exit):
                assert not self.alive, f"finished while {self.alive} live"
                assert not self._timers
                self.finished = exit
                self.trace.append("finished")

    def _outcome_of_start(self, id: str) -> facts.Fact:
        outcomes = self.outcomes.get(id)
        outcome = outcomes.popleft() if outcomes else "started"
        if isinstance(outcome, Exit):
            return facts.StartFailed(id, outcome)
        return facts.Started(id) if outcome == "started" else facts.Ignored(id)

    def _follow(self, id: str, fact: facts.Fact) -> None:
        if id in self.slow:
            self._held[id] = fact
        else:
            self._end_of_life(fact)
            self._inbox.append(fact)

    def _end_of_life(self, fact: facts.Fact) -> None:
        if isinstance(fact, facts.Stopped | facts.StartFailed | facts.Ignored):
            self.alive.discard(fact.id)


def empty(**flags: Any) -> World:
    return World(Supervision(**flags))


def running(*members: str | Member, **flags: Any) -> World:
    """A world whose children all run; the trace begins afterwards."""
    world = empty(**flags)
    world.ask(Begin, specs(*members))
    world.drain()
    return world


def specs(*members: str | Member) -> tuple[Member, ...]:
    return tuple(Member(member) if isinstance(member, str) else member for member in members)


def states(world: World) -> dict[str, str]:
    return {row.id: row.state for row in world.supervision.children()}


class TestStart:
    def test_c10_children_start_one_by_one_in_order(self) -> None:
        world = empty()
        world.slow = {"ch7", "ch3", "ch10"}

        order = world.order(Begin, specs("ch7", "ch3", "ch10"))

        for id in ("ch7", "ch3", "ch10"):
            assert world.drain() == [f"start {id}"]
            assert order not in world.answers
            world.release(id)
        assert world.answers[order].error is None

    def test_c10_children_stop_strictly_in_reverse(self) -> None:
        world = running("ch7", "ch3", "ch10")
        world.slow = {"ch7", "ch3", "ch10"}

        world.send(Stop(SHUTDOWN))

        for id in ("ch10", "ch3", "ch7"):
            assert world.drain()[-1] == f"halt {id}"
            world.release(id)
        assert world.drain() == ["forget ch7", "finished"]
        assert world.finished == SHUTDOWN

    def test_c01_an_empty_supervisor_starts_and_stops(self) -> None:
        world = running()

        world.send(Stop(SHUTDOWN))
        world.send(Stop(NORMAL))

        assert (world.finished, world.supervision.is_finished) == (SHUTDOWN, True)
        assert not world.supervision.has_failed

    def test_c07_a_first_start_that_fails_fails_the_start(self) -> None:
        world = empty()
        world.outcomes["b"] = deque([Exit("start_failed", KeyError("salt"))])

        with pytest.raises(StartFailed, match=r"child 'b' did not start.*salt") as failure:
            world.ask(Begin, specs("a", "b", "c"))

        assert isinstance(failure.value.__cause__, KeyError)
        assert world.trace == ["start a", "start b", "forget b", "halt a", "forget a", "finished"]
        assert world.supervision.has_failed
        assert world.finished is not None
        assert world.finished.kind == "start_failed"

    def test_c07_the_answer_comes_when_the_others_have_stopped(self) -> None:
        world = empty()
        world.slow = {"a"}
        order = world.order(Begin, specs("a", "b"))
        world.outcomes["b"] = deque([CRASH])
        world.release("a")

        assert order not in world.answers
        world.release("a")
        assert isinstance(world.answers[order].error, StartFailed)

    def test_two_children_of_one_id_are_refused_before_anything_starts(self) -> None:
        world = empty()

        with pytest.raises(InvalidArgument, match="same id: 'a'"):
            world.ask(Begin, specs("a", "b", "a"))

        assert world.trace == ["finished"]

    def test_c03_a_child_that_declines_is_kept_but_does_not_run(self) -> None:
        world = running()
        world.outcomes["a"] = deque(["ignored"])

        assert world.ask(StartChild, Member("a")) is None
        assert world.ask(StartChild, Member("b")) == "b"

        assert states(world) == {"a": "stopped", "b": "running"}
        assert world.supervision.counts() == ChildCounts(specs=2, active=1, supervisors=0, workers=2)

    def test_a_temporary_child_that_declines_is_gone(self) -> None:
        world = empty()
        world.outcomes["a"] = deque(["ignored"])

        world.ask(Begin, specs(Member("a", "temporary"), "b"))

        assert states(world) == {"b": "running"}

    def test_c05_a_child_that_fails_to_start_leaves_no_spec(self) -> None:
        world = running()
        world.outcomes["a"] = deque([CRASH])

        with pytest.raises(StartFailed, match="burnt"):
            world.ask(StartChild, Member("a"))

        assert states(world) == {}
        assert world.drain() == ["start a", "forget a"]
        assert world.ask(StartChild, Member("a")) == "a"

    def test_before_the_beginning_no_order_is_taken(self) -> None:
        world = empty()

        with pytest.raises(Refusal, match="not begun"):
            world.ask(StartChild, Member("a"))

        assert world.ask(Begin, specs("a")) is None

    def test_supervisors_begin_once(self) -> None:
        world = running("a")

        with pytest.raises(Refusal):
            world.ask(Begin, specs("b"))

        assert states(world) == {"a": "running"}

    @pytest.mark.parametrize(
        "flags",
        [
            {"strategy": "none_for_one"},
            {"intensity": math.inf},
            {"intensity": -1},
            {"intensity": True},
            {"period": 0},
            {"side_by_side": True, "strategy": "one_for_all"},
        ],
    )
    def test_c09_wrong_flags_are_refused_by_name_and_value(self, flags: dict[str, Any]) -> None:
        field, value = next(iter(flags.items()))

        with pytest.raises(InvalidArgument) as refusal:
            Supervision(**flags)

        assert f"{field}={value!r}" in str(refusal.value)


class TestOrders:
    def test_c11_the_whole_life_of_a_child_by_hand(self) -> None:
        world = running("child1")

        with pytest.raises(AlreadyStarted):
            world.ask(StartChild, Member("child1"))
        with pytest.raises(NotFound, match="did you mean 'child1'"):
            world.ask(TerminateChild, "child2")
        assert world.ask(TerminateChild, "child1") is None
        assert world.supervision.counts() == ChildCounts(1, 0, 0, 1)
        assert states(world) == {"child1": "stopped"}
        assert world.ask(TerminateChild, "child1") is None
        with pytest.raises(AlreadyPresent):
            world.ask(StartChild, Member("child1"))
        assert world.ask(RestartChild, "child1") == "child1"
        with pytest.raises(AlreadyStarted):
            world.ask(RestartChild, "child1")
        with pytest.raises(Refusal):
            world.ask(DeleteChild, "child1")
        world.ask(TerminateChild, "child1")
        assert world.ask(DeleteChild, "child1") is None
        with pytest.raises(NotFound):
            world.ask(RestartChild, "child1")
        assert world.supervision.counts() == ChildCounts(0, 0, 0, 0)
        assert world.ask(StartChild, Member("child1")) == "child1"

    def test_a_registration_ends_once_however_a_child_leaves(self) -> None:
        world = running("a")

        world.ask(TerminateChild, "a")
        world.ask(TerminateChild, "a")
        world.ask(DeleteChild, "a")

        assert world.drain() == ["halt a", "forget a"]

    def test_c06_a_restart_by_hand_that_fails_keeps_the_spec(self) -> None:
        world = running("a")
        world.ask(TerminateChild, "a")
        world.outcomes["a"] = deque([CRASH])

        with pytest.raises(StartFailed) as failure:
            world.ask(RestartChild, "a")

        assert failure.value.__cause__ is CRASH.detail
        assert states(world) == {"a": "stopped"}
        assert not world.supervision.is_finished

    def test_terminating_a_temporary_child_removes_it(self) -> None:
        world = running(Member("a", "temporary"))

        world.ask(TerminateChild, "a")

        assert states(world) == {}

    def test_c11_orders_to_a_supervisor_that_has_stopped_fail_at_once(self) -> None:
        world = running("a")
        world.send(Stop(SHUTDOWN))

        with pytest.raises(ActorStopped):
            world.ask(StartChild, Member("b"))
        with pytest.raises(ActorStopped):
            world.ask(Begin, specs("b"))

    def test_terminating_a_child_that_restarts_cancels_the_restart(self) -> None:
        world = running("a", backoff=PLAIN)
        world.crash("a")
        assert states(world) == {"a": "backing_off"}

        world.ask(TerminateChild, "a")
        world.advance(100)

        assert world.drain() == ["wait a 1", "forget a"]
        assert states(world) == {"a": "stopped"}

    def test_a_child_about_to_restart_is_not_restarted_or_deleted_by_hand(self) -> None:
        world = running("a", backoff=PLAIN)
        world.crash("a")

        for kind in (RestartChild, DeleteChild):
            with pytest.raises(Refusal, match="backing_off"):
                world.ask(kind, "a")
        with pytest.raises(AlreadyPresent):
            world.ask(StartChild, Member("a"))

    def test_orders_wait_for_the_step_under_way_and_questions_do_not(self) -> None:
        world = running("a", strategy="one_for_all")
        world.slow = {"a"}
        world.crash("a")

        order = world.order(TerminateChild, "a")

        assert order not in world.answers
        assert states(world) == {"a": "starting"}
        assert world.supervision.children()[0].shown == "restarting"
        world.slow = set()
        world.release("a")
        assert world.answers[order].error is None
        assert states(world) == {"a": "stopped"}

    def test_questions_about_strangers_name_the_nearest_child(self) -> None:
        world = running("grill")

        assert world.supervision.spec("grill") == Member("grill")
        with pytest.raises(NotFound, match=r"'gril'.*did you mean 'grill'"):
            world.supervision.spec("gril")
        with pytest.raises(NotFound):
            world.supervision.state_of("x")

    def test_counts_tell_supervisors_and_workers_apart(self) -> None:
        world = running("a", Member("b", kind="supervisor"), Member("c", "transient"))
        world.crash("c", exit=NORMAL)

        assert world.supervision.counts() == ChildCounts(specs=3, active=2, supervisors=1, workers=2)


class TestExits:
    @pytest.mark.parametrize(
        "exit", [NORMAL, SHUTDOWN, Exit("shutdown", "x"), CRASH, Exit("killed")], ids=str
    )
    def test_c14_a_permanent_child_always_comes_back(self, exit: Exit) -> None:
        world = running("a")

        world.crash("a", exit=exit)

        assert world.drain() == ["start a"]
        [row] = world.supervision.children()
        assert (row.state, row.restarts, row.last_exit) == ("running", 1, exit)

    @pytest.mark.parametrize("exit", [NORMAL, SHUTDOWN, Exit("shutdown", "x")], ids=str)
    def test_c15_a_transient_child_that_ended_well_rests(self, exit: Exit) -> None:
        world = running(Member("a", "transient"))

        world.crash("a", exit=exit)

        assert world.drain() == ["forget a"]
        assert world.supervision.counts() == ChildCounts(1, 0, 0, 1)

    @pytest.mark.parametrize("exit", [CRASH, Exit("killed"), Exit("oom"), Exit("hung")], ids=str)
    def test_c15_a_transient_child_that_ended_badly_comes_back(self, exit: Exit) -> None:
        world = running(Member("a", "transient"))

        world.crash("a", exit=exit)

        assert world.drain() == ["start a"]

    @pytest.mark.parametrize("exit", [NORMAL, SHUTDOWN, CRASH, Exit("killed")], ids=str)
    def test_c16_a_temporary_child_is_gone_however_it_ends(self, exit: Exit) -> None:
        world = running(Member("a", "temporary"), intensity=0)

        world.crash("a", exit=exit)

        assert world.drain() == ["forget a"]
        assert world.supervision.counts() == ChildCounts(0, 0, 0, 0)
        assert world.ask(StartChild, Member("a")) == "a"

    def test_exits_of_strangers_and_of_the_dead_are_ignored(self) -> None:
        world = running("a", Member("b", "transient"), intensity=0)
        world.crash("b", exit=NORMAL)
        world.drain()

        world.send(facts.Exited(("x", "b"), CRASH))
        world.send(facts.Stopped("a", CRASH))
        world.send(facts.Started("b"))
        world.send(facts.StartFailed("a", CRASH))
        world.send(facts.RetryDue("a"))

        assert world.drain() == []
        assert states(world) == {"a": "running", "b": "stopped"}


class TestStrategies:
    def test_c18_one_for_one_restarts_only_the_failed_child(self) -> None:
        world = running("a", "b")

        world.crash("a")

        assert world.drain() == ["start a"]

    def test_c19_one_for_all_restarts_all_of_them(self) -> None:
        world = running("a", "b", "c", strategy="one_for_all")

        world.crash("b")

        assert world.drain() == ["halt c", "halt a", "start a", "start b", "start c"]
        assert world.supervision.counts() == ChildCounts(3, 3, 0, 3)

    def test_c20_rest_for_one_restarts_the_failed_child_and_those_behind_it(self) -> None:
        world = running("a", "b", "c", strategy="rest_for_one")

        world.crash("b")

        assert world.drain() == ["halt c", "start b", "start c"]

    def test_a_group_restart_waits_for_each_of_its_steps(self) -> None:
        world = running("a", "b", "c", strategy="one_for_all")
        world.slow = {"a", "b", "c"}

        world.crash("b")

        for step, id in (("halt", "c"), ("halt", "a"), ("start", "a"), ("start", "b"), ("start", "c")):
            assert world.drain() == [f"{step} {id}"]
            world.release(id)
        assert world.drain() == []

    def test_a_group_restart_removes_temporary_siblings(self) -> None:
        world = running("a", Member("t", "temporary"), "b", strategy="one_for_all")

        world.crash("a")

        assert world.drain() == ["halt b", "halt t", "forget t", "start a", "start b"]
        assert states(world) == {"a": "running", "b": "running"}

    def test_a_group_restart_revives_a_child_that_was_stopped_by_hand(self) -> None:
        world = running("a", "b", strategy="one_for_all")
        world.ask(TerminateChild, "b")
        world.drain()

        world.crash("a")

        assert world.drain() == ["start a", "start b"]

    @pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
    def test_a_sibling_that_ends_while_it_waits_to_be_stopped_counts_as_stopped(
        self, restart: Restart
    ) -> None:
        world = running("a", Member("b", restart), "c", strategy="one_for_all", intensity=1)
        world.slow = {"c"}
        world.crash("a")
        world.drain()

        world.crash("b")
        world.slow = set()
        world.release("c")

        starts = ["start a", "start b", "start c"] if restart != "temporary" else ["start a", "start c"]
        assert [step for step in world.drain() if step != "forget b"] == starts
        assert world.finished is None

    def test_a_child_that_ends_while_it_is_being_stopped_counts_as_stopped(self) -> None:
        world = running("a", "b", strategy="one_for_all", intensity=1)
        world.slow = {"b"}
        world.crash("a")

        world.crash("b", exit=SHUTDOWN)

        assert world.drain() == ["halt b", "start a", "start b"]
        assert world.finished is None

    def test_an_exit_outside_the_group_is_handled_after_the_restart(self) -> None:
        world = running("a", "b", "c", strategy="rest_for_one")
        world.slow = {"c"}
        world.crash("b")
        world.drain()

        world.crash("a")
        assert world.drain() == []
        world.slow = set()
        world.release("c")

        assert world.drain() == ["start b", "start c", "halt c", "halt b", "start a", "start b", "start c"]

    def test_lives_that_ended_together_are_one_restart_and_one_count(self) -> None:
        world = running("a", "b", "c", "d", strategy="rest_for_one", intensity=1)

        world.crash("c", "b")

        assert world.drain() == ["halt d", "start b", "start c", "start d"]

    @pytest.mark.parametrize("side_by_side", [False, True])
    def test_a_host_that_took_many_with_it_is_one_count(self, side_by_side: bool) -> None:
        world = running("a", "b", "c", intensity=1, side_by_side=side_by_side)

        world.crash("a", "b", "c")
        assert world.drain() == ["start a", "start b", "start c"]
        world.crash("a", "b", "c")

        assert world.finished == GAVE_UP

    def test_a_host_that_dies_with_starting_children_is_one_count_too(self) -> None:
        world = running("a", "b", "c", intensity=2, side_by_side=True)
        world.slow = {"b"}
        world.crash("b")

        world.crash("a", "b", "c")

        assert world.finished is None
        world.release("b")
        assert states(world) == {"a": "running", "b": "running", "c": "running"}


class TestFailedRestarts:
    def test_c28_a_restart_that_fails_is_tried_again_and_counts(self) -> None:
        world = running("a", intensity=2)
        world.outcomes["a"] = deque([CRASH, "started"])

        world.crash("a")

        assert world.drain() == ["start a", "wait a 0", "start a"]
        assert world.finished is None
        assert world.supervision.children()[0].restarts == 2

    def test_c28_failed_restarts_use_up_the_budget(self) -> None:
        world = running("a", "b", intensity=2)
        world.outcomes["a"] = deque([CRASH] * 9)

        world.crash("a")

        assert world.drain().count("start a") == 2
        assert world.finished == GAVE_UP

    def test_those_behind_a_child_that_fails_wait_for_it(self) -> None:
        world = running("a", "b", "c", strategy="one_for_all")
        world.outcomes["b"] = deque([CRASH])

        world.crash("a")

        assert world.drain() == [
            *("halt c", "halt b", "start a", "start b", "wait b 0"),
            *("halt a", "start a", "start b", "start c"),
        ]

    def test_a_sibling_that_was_to_be_tried_again_waits_for_the_one_before_it(self) -> None:
        world = running("a", "b", strategy="rest_for_one", intensity=9, backoff=Backoff(8, 1, 8, 0))
        world.outcomes = {"a": deque(["started", CRASH]), "b": deque([CRASH])}
        world.crash("a")
        world.advance(8)
        assert world.drain() == ["wait a 8", "halt b", "start a", "start b", "wait b 8"]
        world.advance(4)
        world.crash("a", counts=False)
        assert world.drain() == ["start a", "wait a 8"]

        world.advance(7)
        assert world.drain() == []
        world.advance(1)

        assert world.drain() == ["start a", "start b"]

    def test_between_two_tries_other_orders_are_served(self) -> None:
        world = running("a", "b", strategy="rest_for_one")
        world.outcomes["a"] = deque([CRASH])
        world.slow = {"a"}
        world.crash("a")
        order = world.order(TerminateChild, "a")
        world.release("a")

        assert world.answers[order].error is None
        assert world.drain() == ["halt b", "start a", "wait a 0", "forget a"]

    def test_a_child_that_declines_its_restart_rests(self) -> None:
        world = running("a", "b", strategy="one_for_all")
        world.outcomes["a"] = deque(["ignored"])

        world.crash("b")

        assert world.drain() == ["halt a", "start a", "forget a", "start b"]
        assert states(world) == {"a": "stopped", "b": "running"}

    def test_c27_a_stop_is_served_while_a_child_starts(self) -> None:
        world = running("a", "b", intensity=8, period=10)
        world.outcomes["a"] = deque([CRASH] * 9)
        world.slow = {"a"}
        world.crash("a")
        world.release("a")
        assert world.held == ["a"]
        world.drain()

        world.send(Stop(SHUTDOWN))

        assert world.drain() == ["halt b", "forget b", "halt a"]
        world.release("a")
        assert world.finished == SHUTDOWN

    def test_c27_a_stop_during_the_first_start_answers_whoever_began(self) -> None:
        world = empty()
        world.slow = {"b"}
        order = world.order(Begin, specs("a", "b", "c"))

        world.send(Stop(SHUTDOWN))

        assert isinstance(world.answers[order].error, ActorStopped)
        assert world.drain() == ["start a", "start b", "halt b"]
        world.release("b")
        assert world.drain() == ["forget b", "halt a", "forget a", "finished"]

    def test_a_stop_never_stops_two_at_a_time(self) -> None:
        world = running("a", "b", "c")
        world.slow = {"a"}
        order = world.order(TerminateChild, "a")
        world.drain()

        world.send(Stop(SHUTDOWN))

        assert isinstance(world.answers[order].error, ActorStopped)
        assert world.drain() == []
        world.release("a")
        assert world.drain() == ["forget a", "halt c", "forget c", "halt b", "forget b", "finished"]

    def test_a_stop_ends_a_wait(self) -> None:
        world = running("a", "b", backoff=PLAIN)
        world.crash("a")
        world.drain()

        world.send(Stop(SHUTDOWN))

        assert world.drain() == ["halt b", "forget b", "forget a", "finished"]


class TestIntensity:
    def test_c23_one_window_for_all_children(self) -> None:
        world = running("a", "b", "c", intensity=2)

        world.crash("a")
        world.crash("b")
        assert world.drain() == ["start a", "start b"]
        world.crash("c")

        assert world.drain() == ["forget c", "halt b", "forget b", "halt a", "forget a", "finished"]
        assert world.finished == GAVE_UP
        assert world.supervision.has_failed
        assert world.reported("gave_up") == ["c"]

    def test_c24_slow_crashes_never_add_up(self) -> None:
        world = running("a", intensity=1, period=1)

        for _ in range(4):
            world.advance(2.1)
            world.crash("a")

        assert states(world) == {"a": "running"}

    def test_c25_intensity_zero_ends_with_the_first_crash(self) -> None:
        world = running("a", intensity=0)

        world.crash("a")

        assert world.drain() == ["forget a", "finished"]

    def test_a_group_restart_is_one_count(self) -> None:
        world = running("a", "b", "c", strategy="one_for_all", intensity=1)

        world.crash("a")

        assert world.finished is None
        assert [row.restarts for row in world.supervision.children()] == [1, 1, 1]

    def test_what_does_not_count_is_restarted_for_ever(self) -> None:
        world = running("a", intensity=0, backoff=PLAIN)

        for _ in range(5):
            world.crash("a", exit=Exit("node_lost"), counts=False)

        assert world.drain() == ["start a"] * 5

    def test_a_clean_end_of_a_permanent_child_counts_too(self) -> None:
        world = running("a", intensity=1)

        world.crash("a", exit=NORMAL)
        world.crash("a", exit=NORMAL)

        assert world.finished == GAVE_UP

    def test_restarts_by_hand_do_not_count(self) -> None:
        world = running("a", intensity=1)

        for _ in range(5):
            world.ask(TerminateChild, "a")
            world.ask(RestartChild, "a")

        world.crash("a")
        assert states(world) == {"a": "running"}


class TestBackoff:
    def test_c52_waits_of_a_crash_loop(self) -> None:
        world = running("a", intensity=100, backoff=PLAIN)

        for delay in (1, 2, 4, 8, 8):
            world.crash("a")
            assert world.drain() == [f"wait a {delay}"]
            world.advance(delay - 0.5)
            assert world.drain() == []
            world.advance(0.5)
            assert world.drain() == ["start a"]

        world.advance(PLAIN.reset_after)
        world.crash("a")
        assert world.drain() == ["wait a 1"]

    def test_a_failed_restart_waits_too(self) -> None:
        world = running("a", backoff=PLAIN)
        world.outcomes["a"] = deque([CRASH])

        world.crash("a")
        world.advance(1)
        assert world.drain() == ["wait a 1", "start a", "wait a 2"]
        world.advance(2)

        assert states(world) == {"a": "running"}

    def test_waiting_does_not_age_the_window(self) -> None:
        world = running("a", intensity=1, period=5, backoff=Backoff(10, 1, 10, 0))
        world.crash("a")
        world.advance(10)

        world.crash("a")

        assert world.finished == GAVE_UP

    def test_a_sibling_takes_a_waiting_child_along(self) -> None:
        world = running("a", "b", strategy="one_for_all", backoff=PLAIN)
        world.crash("a")
        world.advance(0.5)
        world.crash("b")
        world.drain()

        world.advance(0.5)

        assert world.drain() == ["start a", "start b"]
        world.advance(10)
        assert world.drain() == []


class TestServices:
    """`intensity=None`: a window for each member, and backing off instead of giving up."""

    def test_a_member_over_its_limit_backs_off(self) -> None:
        world = running("a", "b", intensity=None, backoff=PLAIN)

        for _ in range(4):
            world.crash("a", handled=1)

        assert world.drain() == ["start a"] * 3 + ["wait a 1"]
        assert states(world) == {"a": "backing_off", "b": "running"}
        assert world.supervision.children()[0].last_exit == CRASH

    def test_the_windows_of_members_do_not_add_up(self) -> None:
        world = running("a", "b", "c", intensity=None, backoff=PLAIN)

        for id in "abc" * 3:
            world.crash(id)

        assert states(world) == {"a": "running", "b": "running", "c": "running"}

    def test_waits_grow_while_it_stays_over_and_begin_anew_after_good_running(self) -> None:
        world = running("a", intensity=None, backoff=PLAIN)
        for _ in range(3):
            world.crash("a", handled=1)
        world.drain()

        for delay in (1, 2, 4, 8, 8):
            world.crash("a", handled=1)
            world.advance(delay)
            assert world.drain() == [f"wait a {delay}", "start a"]

        world.advance(PLAIN.reset_after)
        world.crash("a", handled=1)
        assert world.drain() == ["wait a 1"]
        world.advance(1 + 5.5)
        world.crash("a", handled=1)
        assert world.drain() == ["start a", "start a"]

    def test_a_service_that_still_answers_is_never_failed(self) -> None:
        world = running("a", "b", intensity=None, backoff=PLAIN)

        for _ in range(4):
            world.crash("a")
            world.crash("b", handled=1)

        assert states(world) == {"a": "backing_off", "b": "backing_off"}
        assert not world.supervision.has_failed

    def test_a_service_of_which_no_life_did_any_good_fails(self) -> None:
        world = running("a", "b", intensity=None, backoff=PLAIN)

        for _ in range(4):
            world.crash("a")
        assert world.finished is None
        for _ in range(4):
            world.crash("b")

        assert world.finished == GAVE_UP
        assert world.supervision.has_failed

    def test_good_lives_outside_the_window_do_not_save_it(self) -> None:
        world = running("a", intensity=None, backoff=PLAIN)
        world.crash("a", handled=1000)
        world.advance(6)

        for _ in range(4):
            world.crash("a")

        assert world.finished == GAVE_UP

    @pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
    def test_failed_first_starts_are_tried_again_and_then_fail_the_service(self, strategy: Any) -> None:
        world = empty(intensity=None, backoff=PLAIN, strategy=strategy)
        world.outcomes = {"a": deque([CRASH] * 9), "b": deque([CRASH] * 9)}

        assert world.ask(Begin, specs("a", "b")) is None

        assert world.finished == GAVE_UP

    def test_a_service_begins_when_each_member_has_started_or_failed_once(self) -> None:
        world = empty(intensity=None, backoff=PLAIN, side_by_side=True)
        world.slow = {"a", "b"}
        world.outcomes["a"] = deque([CRASH])

        order = world.order(Begin, specs("a", "b"))

        assert world.drain() == ["start a", "start b"]
        world.release("a")
        assert world.drain() == ["wait a 0", "start a"]
        assert order not in world.answers
        world.release("b")
        assert world.answers[order].error is None

    def test_slow_starts_that_fail_do_not_age_the_window(self) -> None:
        """A model that loads for ten seconds and then fails must end in `failed`, too."""
        world = empty(intensity=None, backoff=PLAIN)
        world.slow, world.outcomes["a"] = {"a"}, deque([CRASH] * 9)
        world.order(Begin, specs("a"))

        for _ in range(4):
            world.advance(10)
            world.release("a")

        assert world.finished == GAVE_UP

    def test_a_member_added_later_is_tried_again_too(self) -> None:
        world = running("a", intensity=None, backoff=PLAIN)
        world.outcomes["b"] = deque([CRASH])

        with pytest.raises(StartFailed):
            world.ask(StartChild, Member("b"))

        assert states(world) == {"a": "running", "b": "running"}

    def test_a_lost_node_never_counts_for_a_member(self) -> None:
        world = running("a", intensity=None, backoff=PLAIN)

        for _ in range(9):
            world.crash("a", exit=Exit("node_lost"), counts=False)

        assert world.drain() == ["start a"] * 9


class TestSideBySide:
    def test_children_start_at_the_same_time(self) -> None:
        world = empty(side_by_side=True)
        world.slow = {"a", "b"}

        order = world.order(Begin, specs("a", "b"))

        assert world.drain() == ["start a", "start b"]
        world.release("b")
        assert order not in world.answers
        world.release("a")
        assert world.answers[order].error is None

    def test_a_restart_waits_for_nobody(self) -> None:
        world = running("a", "b", "c", side_by_side=True)
        world.slow = {"a", "b", "c"}
        world.crash("a")

        world.crash("b")
        order = world.order(TerminateChild, "c")

        assert world.drain() == ["start a", "start b", "halt c"]
        world.release("c")
        assert world.answers[order].error is None

    def test_all_stop_at_the_same_time(self) -> None:
        world = running("a", "b", side_by_side=True)
        world.slow = {"a", "b"}

        world.send(Stop(SHUTDOWN))

        assert world.drain() == ["halt b", "halt a"]
        world.release("a")
        assert world.finished is None
        world.release("b")
        assert world.finished == SHUTDOWN

    def test_orders_about_one_child_keep_their_order(self) -> None:
        world = running("a", "b", side_by_side=True)
        world.slow = {"a"}
        terminate = world.order(TerminateChild, "a")
        delete = world.order(DeleteChild, "a")

        assert not {terminate, delete} & set(world.answers)
        world.release("a")

        assert {terminate, delete} <= set(world.answers)
        assert states(world) == {"b": "running"}


class TestCauses:
    """The cause of an exit may come later than the exit; what was counted meanwhile is put right."""

    OOM = Exit("oom")
    KILLED = Exit("killed")

    def test_a_restart_does_not_wait_for_the_cause(self) -> None:
        world = running("a")

        world.crash("a", exit=self.KILLED, cause_open=True)

        assert world.drain() == ["start a"]

    def test_the_cause_is_filled_in(self) -> None:
        world = running("a", "b")
        world.crash("a", "b", exit=self.KILLED, cause_open=True)
        world.crash("b")

        world.send(facts.CauseKnown(("a", "b"), self.OOM))

        assert [row.last_exit for row in world.supervision.children()] == [self.OOM, CRASH]
        assert world.reported("cause_known") == ["a"]

    @pytest.mark.parametrize("known", [{"counts": False}, {"exit": Exit("node_lost")}], ids=str)
    def test_a_count_that_should_not_be_is_taken_back(self, known: dict[str, Any]) -> None:
        world = running("a", intensity=1)

        for _ in range(5):
            world.crash("a", exit=self.KILLED, cause_open=True)
            world.send(facts.CauseKnown(("a",), **{"exit": self.KILLED, **known}))

        world.crash("a")
        assert states(world) == {"a": "running"}
        world.crash("a")
        assert world.finished == GAVE_UP

    def test_giving_up_waits_for_the_cause(self) -> None:
        world = running("a", "b", intensity=0)

        world.crash("a", exit=self.KILLED, cause_open=True)

        assert world.drain() == []
        assert (world.finished, states(world)["a"]) == (None, "restarting")
        world.send(facts.CauseKnown(("a",), self.OOM))
        assert world.drain() == ["forget a", "halt b", "forget b", "finished"] or world.finished == GAVE_UP
        assert world.finished == GAVE_UP

    def test_giving_up_is_off_when_the_cause_does_not_count(self) -> None:
        world = running("a", intensity=0)
        world.crash("a", exit=self.KILLED, cause_open=True)

        world.send(facts.CauseKnown(("a",), self.KILLED, counts=False))

        assert world.drain() == ["start a"]
        assert world.finished is None

    @pytest.mark.parametrize("second_is_open", [True, False])
    def test_nobody_gives_up_because_of_one_whose_cause_is_open(self, second_is_open: bool) -> None:
        """Two ends are one too many, if the first counts; the second one's cause is known before."""
        world = running("a", "b", intensity=1)
        world.crash("a", exit=self.KILLED, cause_open=True)
        world.crash("b", exit=self.OOM, cause_open=second_is_open)
        if second_is_open:
            world.send(facts.CauseKnown(("b",), self.OOM))

        assert (world.finished, states(world)) == (None, {"a": "running", "b": "running"})

        world.send(facts.CauseKnown(("a",), self.OOM))

        assert world.finished == GAVE_UP

    def test_one_that_is_known_earlier_does_not_decide_for_a_later_one(self) -> None:
        world = running("a", intensity=1)
        world.crash("a", exit=self.KILLED, cause_open=True)
        world.crash("a", exit=Exit("killed"), cause_open=True)

        world.send(facts.CauseKnown(("a",), self.OOM))
        assert world.finished is None
        world.send(facts.CauseKnown(("a",), Exit("node_lost")))

        assert (world.finished, states(world)) == (None, {"a": "running"})

    def test_while_it_waits_for_the_cause_a_stop_is_served(self) -> None:
        world = running("a", "b", intensity=0)
        world.crash("a", exit=self.KILLED, cause_open=True)
        order = world.order(TerminateChild, "b")

        world.send(Stop(SHUTDOWN))
        world.send(facts.CauseKnown(("a",), self.OOM))

        assert world.finished == SHUTDOWN
        assert isinstance(world.answers[order].error, ActorStopped)

    def test_a_cause_moves_to_the_budget_it_belongs_to(self) -> None:
        world = running("a", intensity={"killed": 1, "oom": 1})

        for _ in range(2):
            world.crash("a", exit=self.KILLED, cause_open=True)
            world.send(
                facts.CauseKnown(
                    ("a",), self.OOM if world.supervision.children()[0].restarts == 1 else self.KILLED
                )
            )

        assert world.finished is None
        world.crash("a", exit=self.OOM)
        assert world.finished == GAVE_UP

    def test_a_budget_that_turns_out_to_be_used_up_ends_them_late(self) -> None:
        world = running("a", intensity={"killed": 5, "oom": 0})
        world.crash("a", exit=self.KILLED, cause_open=True)
        assert states(world) == {"a": "running"}

        world.send(facts.CauseKnown(("a",), self.OOM))

        assert world.finished == GAVE_UP

    def test_causes_become_known_in_the_order_of_their_incidents(self) -> None:
        world = running("a", intensity=1)
        world.crash("a", exit=self.KILLED, cause_open=True)
        world.crash("a", exit=self.KILLED, cause_open=True)
        assert world.drain() == ["start a"]

        world.send(facts.CauseKnown(("a",), self.KILLED, counts=False))
        assert world.finished is None
        world.send(facts.CauseKnown(("a",), self.KILLED, counts=False))

        assert world.drain() == ["start a"]

    def test_a_cause_nobody_asked_about_changes_nothing(self) -> None:
        world = running("a", intensity=0)

        world.send(facts.CauseKnown(("a",), self.OOM))
        world.send(facts.CauseKnown(("x",), self.OOM))

        assert states(world) == {"a": "running"}
        assert world.supervision.children()[0].last_exit is None

    def test_a_life_that_was_killed_while_it_started_counts_as_that(self) -> None:
        world = running("a", intensity={"killed": 0, "start_failed": 5})
        world.slow = {"a"}
        world.crash("a")

        world.crash("a", exit=self.KILLED, cause_open=True)
        assert world.finished is None
        world.send(facts.CauseKnown(("a",), self.KILLED))

        assert world.finished == GAVE_UP

    def test_a_failed_restart_counts_under_what_led_to_it_through_all_its_tries(self) -> None:
        world = running("a", "b", intensity={"oom": 2, "start_failed": 0}, strategy="one_for_all")
        world.outcomes["b"] = deque([CRASH])

        world.crash("a", exit=self.OOM)
        assert states(world) == {"a": "running", "b": "running"}
        world.crash("a", exit=self.OOM)

        assert world.finished == GAVE_UP

    def test_a_failed_start_after_what_never_counts_counts_for_itself(self) -> None:
        """Else a start that always fails would be tried for ever, without a pause."""
        world = running("a", intensity={"start_failed": 1})
        world.outcomes["a"] = deque([Exit("start_failed", "no")] * 9)

        world.crash("a", exit=Exit("node_lost"))

        assert world.drain().count("start a") == 2
        assert world.finished == GAVE_UP

    def test_restarts_are_all_lives_after_the_first_whatever_they_cost(self) -> None:
        world = running("a", intensity=1)

        for _ in range(5):
            world.crash("a", exit=Exit("node_lost"))
            world.crash("a", exit=Exit("killed", "order"), counts=False)

        [row] = world.supervision.children()
        assert (row.restarts, row.state) == (10, "running")

    @pytest.mark.parametrize("side_by_side", [False, True])
    def test_a_service_takes_counts_back_too(self, side_by_side: bool) -> None:
        world = running("a", "b", intensity=None, backoff=PLAIN, side_by_side=side_by_side)

        for _ in range(9):
            world.crash("a", "b", exit=self.KILLED, cause_open=True)
            world.send(facts.CauseKnown(("a", "b"), Exit("node_lost")))

        assert world.drain() == ["start a", "start b"] * 9

    @pytest.mark.parametrize("counts", [False, True])
    def test_a_service_waits_for_the_cause_before_it_fails(self, counts: bool) -> None:
        world = running("a", intensity=None, backoff=PLAIN)
        for _ in range(3):
            world.crash("a")

        world.crash("a", exit=self.KILLED, cause_open=True)
        assert world.finished is None
        world.send(facts.CauseKnown(("a",), self.KILLED, counts))

        assert world.supervision.has_failed == counts
        assert counts or states(world) == {"a": "running"}

    @pytest.mark.parametrize(("known", "fails"), [(Exit("node_lost"), False), (KILLED, True)])
    def test_the_last_hope_of_a_service_is_not_gone_while_a_cause_is_open(
        self, known: Exit, fails: bool
    ) -> None:
        """`b` may yet turn out to be within its limit, and so the end of `a` is not the last straw."""
        world = running("a", "b", intensity=None, backoff=PLAIN, side_by_side=True)
        for _ in range(3):
            world.crash("b")
        world.crash("b", exit=self.KILLED, cause_open=True)
        for _ in range(4):
            world.crash("a")
        assert states(world) == {"a": "backing_off", "b": "backing_off"}
        assert world.finished is None

        world.send(facts.CauseKnown(("b",), known))

        assert world.supervision.has_failed == fails


class TestSignificance:
    def test_c33_the_end_of_any_or_of_the_last_one_stops_them_all(self) -> None:
        for mode, ends in (("any_significant", 1), ("all_significant", 2)):
            members = [Member(id, "transient", significant=True) for id in "ab"]
            world = running(*members, "n", auto_shutdown=mode)
            for id in "ab"[:ends]:
                assert world.finished is None
                world.crash(id, exit=NORMAL)

            assert world.finished == SHUTDOWN
            assert not world.supervision.has_failed
            assert world.reported("auto_shutdown") == ["ab"[ends - 1]]

    def test_one_that_a_group_restart_revives_has_not_ended(self) -> None:
        """In OTP its end is flushed with the stop that comes too late."""
        world = running(
            "a",
            Member("s", "transient", significant=True),
            "z",
            strategy="one_for_all",
            auto_shutdown="any_significant",
        )
        world.slow = {"z"}
        world.crash("a")

        world.crash("s", exit=NORMAL)
        world.slow = set()
        world.release("z")

        assert states(world) == {"a": "running", "s": "running", "z": "running"}

    def test_one_that_ends_while_it_is_to_be_terminated_was_terminated(self) -> None:
        world = running(Member("s", "transient", significant=True), "z", auto_shutdown="any_significant")
        world.slow = {"z"}
        world.order(TerminateChild, "z")
        world.order(TerminateChild, "s")

        world.crash("s", exit=NORMAL)
        world.release("z")

        assert states(world) == {"s": "stopped", "z": "stopped"}

    @pytest.mark.parametrize(
        ("restart", "mode", "complaint"),
        [
            ("permanent", "any_significant", "restart='permanent'"),
            ("transient", "never", "auto_shutdown='never'"),
        ],
    )
    def test_c35_what_does_not_go_together_is_refused(self, restart: Any, mode: Any, complaint: str) -> None:
        member = Member("s", restart, significant=True)
        with pytest.raises(InvalidArgument, match=f"ChildSpec 's' significant=True .* {complaint}"):
            running(auto_shutdown=mode).ask(StartChild, member)

        world = empty(auto_shutdown=mode)
        with pytest.raises(InvalidArgument, match=complaint):
            world.ask(Begin, (Member("a"), member))
        assert world.trace == ["finished"]


class TestDynamic:
    def test_all_stop_at_once_and_are_forgotten_as_they_stop(self) -> None:
        world = running("a", "b", "c", dynamic=True)
        world.slow = {"a", "b", "c"}

        world.send(Stop(SHUTDOWN))

        assert world.drain() == ["halt c", "halt b", "halt a"]
        world.release("a")
        assert world.drain() == ["forget a"]
        world.release("c")
        world.release("b")
        assert world.drain() == ["forget c", "forget b", "finished"]

    def test_orders_and_restarts_are_one_at_a_time(self) -> None:
        world = running("a", "b", dynamic=True)
        world.slow = {"a"}
        world.crash("a")

        order = world.order(StartChild, Member("c"))

        assert order not in world.answers
        world.release("a")
        assert world.answers[order].value == "c"

    def test_who_rests_is_gone(self) -> None:
        world = running(Member("a", "transient"), "b", dynamic=True)

        world.crash("a", exit=NORMAL)
        world.ask(TerminateChild, "b")

        assert world.supervision.counts() == ChildCounts(1, 0, 0, 0)
        with pytest.raises(NotFound):
            world.ask(RestartChild, "b")

    def test_c13_no_more_than_max_children(self) -> None:
        world = running(dynamic=True, max_children=1)
        assert world.ask(StartChild, Member("a")) == "a"

        with pytest.raises(Refusal, match="1 children, its max_children"):
            world.ask(StartChild, Member("b"))

    @pytest.mark.parametrize("flag", [{"strategy": "one_for_all"}, {"auto_shutdown": "any_significant"}])
    def test_c35_flags_of_others_are_refused(self, flag: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            empty(dynamic=True, **flag)


class TestReports:
    def test_a_restart_says_why_and_how_often(self) -> None:
        world = running("a")

        world.crash("a")

        assert world.reports == [
            actions.Report("child_exited", "a", CRASH, 0),
            actions.Report("restarting", "a", CRASH, 1),
        ]

    def test_a_wait_says_how_long(self) -> None:
        world = running("a", backoff=PLAIN)

        world.crash("a")

        assert world.reports[-1] == actions.Report("backing_off", "a", CRASH, 0, 1.0)

    @pytest.mark.parametrize(
        ("member", "exit", "expected"),
        [
            (Member("a"), SHUTDOWN, []),
            (Member("a"), Exit("killed"), ["shutdown_overrun"]),
            (Member("a"), CRASH, ["shutdown_failed"]),
            (Member("a"), NORMAL, ["shutdown_failed"]),
            (Member("a", "transient"), NORMAL, []),
            (Member("a", shutdown_time="brutal_kill"), Exit("killed"), []),
        ],
    )
    def test_c29_a_stop_that_went_wrong_is_reported_and_is_a_stop(
        self, member: Member, exit: Exit, expected: list[str]
    ) -> None:
        world = running(member)
        world.slow = {"a"}
        order = world.order(TerminateChild, "a")
        world._held["a"] = facts.Stopped("a", exit)

        world.release("a")

        assert [report.what for report in world.reports] == expected
        assert world.answers[order].error is None


# Random worlds

IDS = ("a", "b", "c", "d")
EXITS = (CRASH, NORMAL, SHUTDOWN, Exit("killed"))
steps = st.one_of(
    st.tuples(
        st.just("crash"), st.sets(st.sampled_from(IDS), min_size=1), st.sampled_from(EXITS), st.booleans()
    ),
    st.tuples(st.just("release"), st.sampled_from(IDS)),
    st.tuples(st.just("slow"), st.sets(st.sampled_from(IDS))),
    st.tuples(st.just("fail"), st.sampled_from(IDS), st.sampled_from((CRASH, "ignored"))),
    st.tuples(st.just("advance"), st.sampled_from((0.1, 1.0, 7.0))),
    st.tuples(st.sampled_from((TerminateChild, RestartChild, DeleteChild)), st.sampled_from((*IDS, "x"))),
    st.tuples(
        st.just(StartChild),
        st.sampled_from(IDS),
        st.sampled_from(("permanent", "transient", "temporary")),
    ),
)
flags = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(("one_for_one", "one_for_all", "rest_for_one")),
        "intensity": st.sampled_from((0, 1, 3, 100, None)),
        "backoff": st.sampled_from((None, PLAIN)),
    }
) | st.fixed_dictionaries({"side_by_side": st.just(True), "intensity": st.sampled_from((1, 100, None))})


def play(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("crash", ids, exit, counts):
            dead = sorted(ids & world.alive)
            if dead:
                world.crash(*dead, exit=exit, counts=counts)
        case ("release", id):
            if id in world.held:
                world.release(id)
        case ("slow", ids):
            world.slow = ids
        case ("fail", id, outcome):
            world.outcomes.setdefault(id, deque()).append(outcome)
        case ("advance", seconds):
            world.advance(seconds)
        case (kind, id, restart):
            world.order(kind, Member(id, restart))
        case (kind, id):
            world.order(kind, id)


@settings(max_examples=300, deadline=None)
@given(
    flags=flags,
    restarts=st.tuples(*[st.sampled_from(("permanent", "transient", "temporary"))] * 3),
    early=st.lists(steps, max_size=2),
    late=st.lists(steps, max_size=25),
)
def test_whatever_happens_the_rules_hold(
    flags: dict[str, Any], restarts: tuple[Restart, ...], early: list[Any], late: list[Any]
) -> None:
    """
    The world itself refuses second lives, second answers and a finish with the living;
    here: every order is answered in the end, states agree, and a stop finishes.
    """
    world = empty(**flags)
    for step in early:
        play(world, step)
    world.order(Begin, specs(*(Member(id, restart) for id, restart in zip(IDS, restarts, strict=False))))
    for step in late:
        play(world, step)
        believed = {
            row.id for row in world.supervision.children() if row.state in ("running", "starting", "stopping")
        }
        assert believed == world.alive
        assert world.supervision.is_finished == (world.finished is not None)

    world.slow = set()
    for id in list(world.held):
        if id in world.held:
            world.release(id)
    assert not world.open_orders
    world.advance(1000)
    if world.finished is None:
        assert all(state in ("running", "stopped", "restarting") for state in states(world).values())

    world.send(Stop(SHUTDOWN))
    assert world.finished is not None
    assert not world.alive
    assert not world.open_orders


@settings(max_examples=100, deadline=None)
@given(
    strategy=st.sampled_from(("one_for_one", "one_for_all", "rest_for_one")),
    intensity=st.integers(0, 3),
    crashes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=15),
)
def test_an_otp_supervisor_gives_up_exactly_when_its_window_says_so(
    strategy: Any, intensity: int, crashes: list[tuple[str, int]]
) -> None:
    world, times = running("a", "b", "c", strategy=strategy, intensity=intensity, period=5), []
    for id, gap in crashes:
        world.advance(gap)
        times.append(world.now)
        world.crash(id)
        if len([at for at in times if at >= world.now - 5]) > intensity:
            assert world.finished == GAVE_UP
            return
        assert states(world) == {"a": "running", "b": "running", "c": "running"}
        # Stops in reverse and starts in order, whatever failed.
        trace = world.drain()
        halts = [step[-1] for step in trace if step.startswith("halt")]
        starts = [step[-1] for step in trace if step.startswith("start")]
        assert halts == sorted(halts, reverse=True)
        assert starts == sorted(starts)


def test_no_order_is_forgotten_when_the_supervisor_gives_up() -> None:
    world = running("a", "b", intensity=0)
    world.slow = {"b"}
    first = world.order(TerminateChild, "b")
    world.crash("a")
    second = world.order(DeleteChild, "b")
    assert not {first, second} & set(world.answers)

    world.release("b")

    assert world.answers[first].error is None
    assert isinstance(world.answers[second].error, ActorStopped)
    assert world.finished == GAVE_UP

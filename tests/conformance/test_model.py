"""
The decision core against a plain model of the rules, over random sequences of events.

`Model` is written from the rule book (prior art, 4.1-4.5), naively and without a look at the core:
one call runs to its end, as in OTP, where starts and stops are synchronous. Three things are ours
(design, 4.7 and 4.10): lives that end together are one incident, a failed restart counts when it
fails, and an operator's kill is restarted without being counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.exit import Exit
from supervisors import actions, facts
from supervisors.orders import Begin, DeleteChild, RestartChild, StartChild, Stop, TerminateChild
from supervisors.supervision import Supervision

IDS = ("a", "b", "c", "d")
CLEAN = ("normal", "shutdown")
PERIOD = 5.0


@dataclass(frozen=True)
class Spec:
    """A child spec, as the core wants it."""

    id: str
    restart: Any = "permanent"
    significant: bool = False
    shutdown_time: float = 5.0
    kind: Any = "worker"


# The model


@dataclass
class Row:
    """What a supervisor of OTP keeps of a child."""

    spec: Spec
    pid: str = "undefined"  # or "running", or "restarting"


class Ended(Exception):
    """The supervisor has stopped: nothing that it was doing goes on."""


class Model:
    """A supervisor, straight from the rule book."""

    def __init__(self, strategy: str, intensity: int, auto_shutdown: str, outcomes: dict[str, list[str]]):
        self.strategy, self.intensity, self.auto_shutdown = strategy, intensity, auto_shutdown
        self.outcomes = outcomes
        self.rows: list[Row] = []
        self.restarts: list[float] = []
        self.try_agains: list[str] = []
        self.log: list[str] = []
        self.ended = ""
        self.now = 0.0

    # Calls, each with its answer in one word

    def begin(self, specs: list[Spec]) -> str:
        self.rows = [Row(spec) for spec in specs]
        for row in self.rows:
            if self.start(row) == "fail":
                self.stop_all("start_failed")
                return "StartFailed"
        self.rows = [row for row in self.rows if row.pid == "running" or row.spec.restart != "temporary"]
        return "ok"

    def start_child(self, spec: Spec) -> str:
        if self.ended:
            return "ActorStopped"
        known = self.find(spec.id)
        if known is not None:
            return "AlreadyStarted" if known.pid == "running" else "AlreadyPresent"
        row = Row(spec)
        outcome = self.start(row)
        if outcome == "fail":
            return "StartFailed"
        if outcome == "ok" or spec.restart != "temporary":
            self.rows.append(row)
        return "started" if outcome == "ok" else "ok"

    def terminate_child(self, id: str) -> str:
        if self.ended:
            return "ActorStopped"
        row = self.find(id)
        if row is None:
            return "NotFound"
        self.terminate(row)
        self.forget(row)
        return "ok"

    def restart_child(self, id: str) -> str:
        if self.ended:
            return "ActorStopped"
        row = self.find(id)
        if row is None:
            return "NotFound"
        if row.pid == "running":
            return "AlreadyStarted"
        if row.pid == "restarting":
            return "Refusal"
        return {"ok": "started", "ignore": "ok", "fail": "StartFailed"}[self.start(row)]

    def delete_child(self, id: str) -> str:
        if self.ended:
            return "ActorStopped"
        row = self.find(id)
        if row is None:
            return "NotFound"
        if row.pid != "undefined":
            return "Refusal"
        self.rows.remove(row)
        return "ok"

    def stop(self) -> None:
        if not self.ended:
            self.stop_all("shutdown")

    # Events

    def exited(self, ids: list[str], reason: str, counts: bool) -> None:
        try:
            self.handle_exits(ids, reason, counts)
        except Ended:
            pass

    def handle_exits(self, ids: list[str], reason: str, counts: bool) -> None:
        to_restart, left = [], []
        for row in list(self.rows):
            if row.spec.id in ids:
                restart = row.spec.restart
                if restart == "permanent" or (restart == "transient" and reason not in CLEAN):
                    row.pid = "restarting"
                    to_restart.append(row)
                else:
                    self.forget(row)
                    left.append(row)
        for row in left:
            self.auto_shutdown_check(row)
        if to_restart:
            if counts:
                self.count()
            self.run_strategy(to_restart)

    def auto_shutdown_check(self, row: Row) -> None:
        if not row.spec.significant or self.auto_shutdown == "never":
            return
        others = [other for other in self.rows if other.spec.significant and other.pid != "undefined"]
        if self.auto_shutdown == "any_significant" or not others:
            self.stop_all("shutdown")
            raise Ended

    def try_again(self) -> str:
        id = self.try_agains.pop(0)
        row = self.find(id)
        assert row is not None
        try:
            self.run_strategy([row])
        except Ended:
            pass
        return id

    # Restarting

    def count(self) -> None:
        self.restarts = [at for at in self.restarts if at >= self.now - PERIOD] + [self.now]
        if len(self.restarts) > self.intensity:
            self.stop_all("intensity")
            raise Ended

    def run_strategy(self, failed: list[Row]) -> None:
        if self.strategy == "one_for_one":
            for row in failed:
                if self.start(row) == "fail":
                    self.start_failed(row)
            return
        first = self.rows.index(failed[0])
        group = self.rows[first:] if self.strategy == "rest_for_one" else list(self.rows)
        for row in reversed(group):
            if row not in failed:
                self.terminate(row)
        for row in reversed(group):
            if row not in failed and row.spec.restart == "temporary":
                self.rows.remove(row)
                group.remove(row)
        for row in group:
            row.pid = "undefined"
        for row in group:
            if self.start(row) == "fail":
                self.start_failed(row)
                return

    def start_failed(self, row: Row) -> None:
        row.pid = "restarting"
        self.count()
        self.try_agains.append(row.spec.id)

    # Starting and stopping one

    def start(self, row: Row) -> str:
        self.log.append(f"start {row.spec.id}")
        self.cancel_try_again(row)
        planned = self.outcomes.get(row.spec.id)
        outcome = planned.pop(0) if planned else "ok"
        row.pid = "running" if outcome == "ok" else "undefined"
        return outcome

    def terminate(self, row: Row) -> None:
        self.cancel_try_again(row)
        if row.pid == "running":
            self.log.append(f"stop {row.spec.id}")
        row.pid = "undefined"

    def forget(self, row: Row) -> None:
        row.pid = "undefined"
        if row.spec.restart == "temporary":
            self.rows.remove(row)

    def stop_all(self, why: str) -> None:
        self.ended = why
        for row in reversed(self.rows):
            self.terminate(row)
        self.rows = [row for row in self.rows if row.spec.restart != "temporary"]

    def cancel_try_again(self, row: Row) -> None:
        self.try_agains = [id for id in self.try_agains if id != row.spec.id]

    def find(self, id: str) -> Row | None:
        return next((row for row in self.rows if row.spec.id == id), None)


# The core, in a world where starts and stops take no time


@dataclass
class Core:
    """A supervision whose actions are performed at once; only retries wait to be called for."""

    supervision: Supervision
    outcomes: dict[str, list[str]]
    now: float = 0.0
    log: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    ended: str = ""
    _answers: dict[int, str] = field(default_factory=dict)
    _orders: int = 0

    def order(self, kind: Any, what: Any) -> str:
        self._orders += 1
        self.send(kind(self._orders, what))
        return self._answers.pop(self._orders)

    def try_again(self) -> str:
        id = self.retries.pop(0)
        self.send(facts.RetryDue(id))
        return id

    def send(self, event: Any) -> None:
        events = deque([event])
        while events:
            for action in self.supervision.decide(events.popleft(), self.now):
                events.extend(self._perform(action))

    def _perform(self, action: actions.Action) -> list[facts.Fact]:
        match action:
            case actions.Start(id):
                self.log.append(f"start {id}")
                planned = self.outcomes.get(id)
                match planned.pop(0) if planned else "ok":
                    case "ok":
                        return [facts.Started(id)]
                    case "ignore":
                        return [facts.Ignored(id)]
                    case _:
                        return [facts.StartFailed(id, Exit("start_failed"))]
            case actions.Halt(id, _):
                self.log.append(f"stop {id}")
                return [facts.Stopped(id, Exit("shutdown"))]
            case actions.RetryAfter(id, delay):
                assert delay == 0
                self.retries.append(id)
            case actions.CancelRetry(id):
                self.retries.remove(id)
            case actions.Answer(order, value, error):
                assert isinstance(order, int)
                self._answers[order] = type(error).__name__ if error else "started" if value else "ok"
            case actions.Finished(exit):
                self.ended = exit.detail if exit.detail == "intensity" else exit.kind
        return []

    @property
    def rows(self) -> list[tuple[str, str]]:
        def pid(id: str, state: str) -> str:
            return "running" if state == "running" else "restarting" if id in self.retries else "undefined"

        return [(row.id, pid(row.id, row.state)) for row in self.supervision.children()]


restarts = st.sampled_from(("permanent", "transient", "temporary"))
ids = st.sampled_from(IDS)
outcomes = st.sampled_from(("ok", "ok", "ok", "ignore", "fail"))


class Rules(RuleBasedStateMachine):
    """Whatever happens to both, both do the same, in the same order, and say the same."""

    core: Core
    model: Model

    @initialize(
        strategy=st.sampled_from(("one_for_one", "rest_for_one", "one_for_all")),
        intensity=st.sampled_from((0, 1, 2, 3, 100)),
        auto_shutdown=st.sampled_from(("never", "any_significant", "all_significant")),
        kinds=st.lists(st.tuples(restarts, st.booleans()), max_size=4),
        outcomes=st.dictionaries(ids, st.sampled_from(("ok", "ignore", "fail")), max_size=1),
    )
    def begin(
        self, strategy: Any, intensity: int, auto_shutdown: Any, kinds: list[Any], outcomes: dict[str, str]
    ) -> None:
        supervision = Supervision(
            strategy=strategy, intensity=intensity, period=PERIOD, auto_shutdown=auto_shutdown
        )
        self.core = Core(supervision, {id: [outcome] for id, outcome in outcomes.items()})
        copies = {id: [outcome] for id, outcome in outcomes.items()}
        self.model = Model(strategy, intensity, auto_shutdown, copies)
        specs = [self._spec(id, *kind) for id, kind in zip(IDS, kinds, strict=False)]
        assert self.core.order(Begin, tuple(specs)) == self.model.begin(specs)

    def _spec(self, id: str, restart: str, significant: bool) -> Spec:
        allowed = restart != "permanent" and self.model.auto_shutdown != "never"
        return Spec(id, restart, significant and allowed)

    # What the world does

    @rule(
        data=st.data(),
        reason=st.sampled_from(("error", "error", "killed", "normal", "shutdown")),
        together=st.sampled_from((1, 1, 1, 2, 3)),
        counts=st.sampled_from((True, True, True, False)),
        outcomes=st.dictionaries(ids, st.lists(st.sampled_from(("fail", "ignore")), min_size=1), max_size=2),
    )
    def lives_end(
        self,
        data: st.DataObject,
        reason: Any,
        together: int,
        counts: bool,
        outcomes: dict[str, list[str]],
    ) -> None:
        for id, planned in outcomes.items():
            self.the_next_starts_come_to(id, planned)
        alive = [row.spec.id for row in self.model.rows if row.pid == "running"]
        if alive:
            size = min(together, len(alive))
            dead = data.draw(st.lists(st.sampled_from(alive), min_size=size, max_size=size, unique=True))
            self.core.send(facts.Exited(tuple(dead), Exit(reason), counts=counts))
            self.model.exited(dead, reason, counts)

    @precondition(lambda self: self.model.try_agains)
    @rule()
    def a_retry_is_due(self) -> None:
        assert self.core.try_again() == self.model.try_again()

    def the_next_starts_come_to(self, id: str, outcomes: list[str]) -> None:
        self.core.outcomes[id], self.model.outcomes[id] = list(outcomes), list(outcomes)

    @rule(seconds=st.sampled_from((0.5, 1.0, 2.0, 5.0, 5.5)))
    def time_passes(self, seconds: float) -> None:
        self.core.now += seconds
        self.model.now += seconds

    # What it is asked to do

    @rule(id=ids, restart=restarts, significant=st.booleans(), outcome=outcomes)
    def start_child(self, id: str, restart: str, significant: bool, outcome: str) -> None:
        self.the_next_starts_come_to(id, [outcome])
        spec = self._spec(id, restart, significant)
        assert self.core.order(StartChild, spec) == self.model.start_child(spec)

    @rule(id=ids)
    def terminate_child(self, id: str) -> None:
        assert self.core.order(TerminateChild, id) == self.model.terminate_child(id)

    @rule(id=ids, outcome=outcomes)
    def restart_child(self, id: str, outcome: str) -> None:
        self.the_next_starts_come_to(id, [outcome])
        assert self.core.order(RestartChild, id) == self.model.restart_child(id)

    @rule(id=ids)
    def delete_child(self, id: str) -> None:
        assert self.core.order(DeleteChild, id) == self.model.delete_child(id)

    @precondition(lambda self: len(self.model.log) > 20)
    @rule()
    def stop(self) -> None:
        self.core.send(Stop(Exit("shutdown")))
        self.model.stop()

    # What both must agree on

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.core.log == self.model.log
        assert self.core.ended == self.model.ended
        assert self.core.rows == [(row.spec.id, row.pid) for row in self.model.rows]
        assert self.core.retries == self.model.try_agains
        counts = self.core.supervision.counts()
        running = sum(row.pid == "running" for row in self.model.rows)
        assert (counts.specs, counts.active) == (len(self.model.rows), running)


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)

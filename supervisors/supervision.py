"""
The supervision: everything one supervisor decides, and nothing it does.

It is fed facts, orders and the time, and returns actions; it never waits, calls or
looks at a clock. Starts and stops are actions whose outcome comes back as facts,
so questions are answered at once from what is known, and a `Stop` is served at
once, whatever is under way.

The rules are OTP's (strategy, intensity, period, restart types, orders). One job at
a time: children start in order, each awaited, and stop in reverse order, each
awaited; what happens meanwhile is handled afterwards, except that a child that ends
on its own while it waits to be stopped counts as stopped. With `side_by_side` every
child is a lane of its own: they start, restart and stop at the same time. `dynamic`
children (OTP's simple_one_for_one) are at most `max_children`, have one spec that is
not theirs to keep, and stop all at once.

With an `intensity`, a first start that fails fails the whole, and so does
failing too often: all children stop. With `intensity` None, for services, a failed
first start is one more failure to retry, and a child that fails too often backs off;
`allowance` has the rules.

Every order is answered exactly once. `Finished` comes once, with every child stopped.
"""

from __future__ import annotations

import random as _random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from actors.errors import (
    ActorError,
    ActorStopped,
    AlreadyPresent,
    AlreadyStarted,
    InvalidArgument,
    NotFound,
    Refusal,
    StartFailed,
)
from actors.exit import Exit
from supervisors import checks, facts
from supervisors.actions import Action, Answer, Finished
from supervisors.allowance import Allowance, MemberAllowance, SharedAllowance
from supervisors.backoff import Backoff
from supervisors.budget import NEVER_COUNTED, Intensity, check_intensity
from supervisors.child import Cause, Child, ChildRow, State
from supervisors.lane import Job, Lane, Lanes
from supervisors.orders import (
    Begin,
    ChildOrder,
    DeleteChild,
    Order,
    RestartChild,
    Spec,
    StartChild,
    Stop,
    TerminateChild,
)
from supervisors.recovery import Recovery
from supervisors.roster import Roster
from supervisors.significance import AUTO_SHUTDOWNS, AutoShutdown, check_significance, is_the_end
from supervisors.spec import ChildCounts
from supervisors.strategy import STRATEGIES, Strategy


@dataclass(slots=True)
class _Opening:
    """The `Begin` order, until every first child has started or failed once."""

    order: Hashable
    unsettled: set[str]


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why it stops; what is left to say comes just before `Finished`."""

    exit: Exit
    last_words: tuple[Answer, ...] = ()


class Supervision:
    """The state of one supervisor; `decide` is its only verb."""

    def __init__(
        self,
        *,
        strategy: Strategy = "one_for_one",
        intensity: Intensity | None = 3,
        period: float = 5.0,
        backoff: Backoff | None = None,
        auto_shutdown: AutoShutdown = "never",
        side_by_side: bool = False,
        dynamic: bool = False,
        max_children: int | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        check_flags(strategy, intensity, period, auto_shutdown)
        if max_children is not None:
            checks.whole("Supervisor", "max_children", max_children)
        for flag, is_set in (("side_by_side", side_by_side), ("dynamic", dynamic)):
            if is_set and strategy != "one_for_one":
                raise checks.misfit("Supervision", flag, is_set, f"does not go with {strategy}")
        if dynamic and auto_shutdown != "never":
            why = "does not go with dynamic children"
            raise checks.misfit("Supervisor", "auto_shutdown", auto_shutdown, why)
        self.strategy: Strategy = strategy
        self._stops_together = side_by_side or dynamic
        self._max_children = max_children
        self._auto_shutdown: AutoShutdown = auto_shutdown
        self._allowance: Allowance = (
            MemberAllowance(period, backoff, random)
            if intensity is None
            else SharedAllowance(intensity, period, backoff, random)
        )
        self._roster = Roster(self._allowance, dynamic=dynamic)
        self._recovery = Recovery(strategy, self._roster, self._allowance, self._give_up)
        self._lanes = Lanes(side_by_side)
        self._closing = Lane()
        self._opening: _Opening | None = None
        self._ending: _Ending | None = None
        self._open_causes: list[Cause] = []
        # Orders not answered yet, oldest first.
        self._open_orders: dict[Hashable, None] = {}
        self.has_begun = False
        self.has_failed = False
        """True once it gave up, or could not begin."""
        self.is_finished = False

    # Questions

    def children(self) -> list[ChildRow]:
        """All children in start order."""
        return [child.row for child in self._roster]

    def counts(self) -> ChildCounts:
        """How many there are, and how many of them run."""
        return self._roster.counts()

    def spec(self, id: str) -> Spec:
        """The spec of child *id*; `NotFound` with the nearest name otherwise."""
        return self._roster.find(id).spec

    def state_of(self, id: str) -> State:
        """Where child *id* is in its life; `NotFound` otherwise."""
        return self._roster.find(id).state

    # What comes in

    def decide(self, event: facts.Fact | Order, now: float) -> list[Action]:
        """Take in one fact or order at the monotonic time *now*: what is to be done about it."""
        self._roster.now, self._roster.actions = now, []
        self._take(event)
        if self._ending is not None and not self.is_finished and self._closing.is_idle:
            self._closing.put(self._close(self._ending))
        return self._roster.actions

    def _take(self, event: facts.Fact | Order) -> None:
        match event:
            case Stop(exit):
                self._end(_Ending(exit))
            case Begin() | StartChild() | TerminateChild() | RestartChild() | DeleteChild():
                self._accept(event)
            case facts.RetryDue(id):
                self._lanes.put(id, self._recovery.retry(id))
            case facts.Exited():
                self._take_exits(event)
            case facts.CauseKnown():
                self._take_cause(event)
            case facts.Started(id) | facts.Ignored(id) | facts.StartFailed(id, _) | facts.Stopped(id, _):
                child = self._roster.get(id)
                if child is not None:
                    self._roster.take_outcome(child, event)
                    self._wake([child])

    def _take_exits(self, event: facts.Exited) -> None:
        ended = [child for child in self._roster.those(event.ids) if child.is_alive]
        cause = _cause(event)
        if event.cause_open:
            cause.is_open = True
            self._open_causes.append(cause)
        for child in ended:
            self._roster.take_exit(child, cause, event.handled)
            if child.has_left and child.spec.significant:
                self._lanes.put(child.id, self._take_leave(child))
        # Those whose start this was have a job that waits for them.
        failed = [child for child in ended if child.cause is cause and child.failure is None]
        for group in self._lanes.split(failed):
            self._lanes.put(group[0].id, self._recovery.recover(group, cause))
        self._wake(ended)

    def _take_cause(self, event: facts.CauseKnown) -> None:
        cause = next((cause for cause in self._open_causes if not cause.ids.isdisjoint(event.ids)), None)
        if cause is None or self.is_finished:
            return
        self._open_causes.remove(cause)
        children = self._roster.those(cause.ids)
        self._recovery.learn(children, cause, _cause(event))
        for child in children:
            self._lanes.step(child.id)
        if children and self._ending is None and not self._allowance.holds(cause, self._roster):
            # Nobody waited for it and the restarts have begun; yet it was one too many.
            self._give_up(children[0])

    def _take_leave(self, child: Child) -> Job:
        """A significant child has ended by itself; nothing follows if a group restart revives it first."""
        if child.has_left and is_the_end(child, self._roster, self._auto_shutdown):
            self._roster.report("auto_shutdown", child)
            self._end(_Ending(Exit("shutdown")))
            yield

    def _wake(self, children: Sequence[Child]) -> None:
        """Let the jobs that wait for *children* look again."""
        if self._ending is not None:
            if self._stops_together:
                for child in children:
                    if not child.is_alive:
                        self._roster.rest(child)
            self._closing.step()
        for child in children:
            self._lanes.step(child.id)

    # Orders

    def _accept(self, order: Begin | ChildOrder) -> None:
        self._open_orders[order.order] = None
        if self._ending is not None:
            self._answer(order.order, error=ActorStopped("the supervisor has stopped"))
            return
        if isinstance(order, Begin) == self.has_begun:
            begun = "has begun already" if self.has_begun else "has not begun"
            self._answer(order.order, error=Refusal(f"the supervisor {begun}"))
            return
        match order:
            case Begin():
                self._begin(order)
            case StartChild(_, spec):
                self._lanes.put(spec.id, self._start_child(order))
            case TerminateChild(_, id):
                self._lanes.put(id, self._terminate_child(order))
            case RestartChild(_, id):
                self._lanes.put(id, self._restart_child(order))
            case DeleteChild(_, id):
                self._lanes.put(id, self._delete_child(order))

    def _begin(self, begin: Begin) -> None:
        self.has_begun = True
        ids = [spec.id for spec in begin.specs]
        try:
            self._check_specs(begin.specs)
        except InvalidArgument as error:
            self._fail_to_begin(begin.order, error)
            return
        children = [self._roster.add(spec) for spec in begin.specs]
        self._opening = _Opening(begin.order, set(ids))
        self._open_if_settled()
        for group in self._lanes.split(children):
            self._lanes.put(group[0].id, self._start_first(group))

    def _check_specs(self, specs: Sequence[Spec]) -> None:
        doubles = sorted(id for id, times in Counter(spec.id for spec in specs).items() if times > 1)
        if doubles:
            raise InvalidArgument(f"children have the same id: {', '.join(map(repr, doubles))}")
        for spec in specs:
            check_significance(spec, self._auto_shutdown)

    def _start_first(self, children: Sequence[Child]) -> Job:
        for child in children:
            yield from self._roster.start(child)
            if child.failure is not None:
                yield from self._settle_failure(child)
            if self._opening is not None:
                self._opening.unsettled.discard(child.id)
                self._open_if_settled()

    def _settle_failure(self, child: Child) -> Job:
        """A first start failed: try again, or fail with it."""
        assert child.failure is not None
        assert self._opening is not None
        if self._allowance.retries_first_start:
            yield from self._recovery.retry_later(child)
        else:
            self._fail_to_begin(self._opening.order, _start_error(child.id, child.failure))
            yield  # for good: the ending has closed this lane

    def _open_if_settled(self) -> None:
        if self._opening is not None and not self._opening.unsettled:
            self._answer(self._opening.order)
            self._opening = None

    def _fail_to_begin(self, order: Hashable, error: ActorError) -> None:
        self.has_failed = True
        del self._open_orders[order]
        self._end(_Ending(Exit("start_failed", error), (Answer(order, error=error),)))

    def _start_child(self, order: StartChild) -> Job:
        known = self._roster.get(order.spec.id)
        if known is not None:
            error = AlreadyStarted if known.is_alive else AlreadyPresent
            self._answer(order.order, error=error(f"child {known.id!r} is {known.state}"))
            return
        if self._max_children is not None and len(self._roster) >= self._max_children:
            limit = f"the supervisor has {len(self._roster)} children, its max_children"
            self._answer(order.order, error=Refusal(limit))
            return
        try:
            self._check_specs([order.spec])
        except InvalidArgument as error:
            self._answer(order.order, error=error)
            return
        child = self._roster.add(order.spec)
        yield from self._roster.start(child)
        self._answer_start(order.order, child)
        if child.failure is not None and self._allowance.retries_first_start:
            yield from self._recovery.retry_later(child)
        elif child.failure is not None:
            self._roster.drop(child)

    def _restart_child(self, order: RestartChild) -> Job:
        child = self._sought(order)
        if child is None:
            return
        if child.is_alive:
            self._answer(order.order, error=AlreadyStarted(f"child {child.id!r} is {child.state}"))
        elif child.is_pending:
            self._answer(order.order, error=Refusal(f"child {child.id!r} is {child.state}"))
        else:
            yield from self._roster.start(child)
            self._answer_start(order.order, child)
            if child.failure is not None:
                self._roster.rest(child)

    def _terminate_child(self, order: TerminateChild) -> Job:
        child = self._sought(order)
        if child is not None:
            yield from self._roster.halt(child)
            self._roster.rest(child)
            self._answer(order.order)

    def _delete_child(self, order: DeleteChild) -> Job:
        child = self._sought(order)
        if child is None:
            return
        if child.is_alive or child.is_pending:
            error = Refusal(f"child {child.id!r} is {child.state}: terminate it first")
            self._answer(order.order, error=error)
        else:
            self._roster.drop(child)
            self._answer(order.order)
        yield from ()

    def _sought(self, order: TerminateChild | RestartChild | DeleteChild) -> Child | None:
        try:
            return self._roster.find(order.id)
        except NotFound as error:
            self._answer(order.order, error=error)
            return None

    def _answer_start(self, order: Hashable, child: Child) -> None:
        if child.failure is not None:
            self._answer(order, error=_start_error(child.id, child.failure))
        else:
            self._answer(order, child.id if child.is_alive else None)

    def _answer(self, order: Hashable, value: str | None = None, error: ActorError | None = None) -> None:
        del self._open_orders[order]
        self._roster.actions.append(Answer(order, value, error))

    # The end

    def _end(self, ending: _Ending) -> None:
        """Let go of what is under way; the first ending is the one that holds."""
        if self._ending is None:
            self._ending = ending
            self._lanes.close()

    def _give_up(self, child: Child) -> None:
        self.has_failed = True
        self._roster.report("gave_up", child)
        self._end(_Ending(Exit("shutdown", "intensity")))

    def _close(self, ending: _Ending) -> Job:
        for order in list(self._open_orders):
            self._answer(order, error=ActorStopped("the supervisor is stopping"))
        backwards = list(self._roster)[::-1]
        if self._stops_together:
            for child in backwards:
                self._roster.order_halt(child)
        # One that is being stopped already goes first: never two at a time.
        for child in sorted(backwards, key=lambda child: child.state != "stopping"):
            yield from self._roster.halt(child)
            self._roster.rest(child)
        self.is_finished = True
        self._roster.actions += [*ending.last_words, Finished(ending.exit)]


def check_flags(
    strategy: object,
    intensity: object,
    period: object,
    auto_shutdown: object = "never",
    *,
    owner: str = "Supervisor",
) -> None:
    """What every supervisor's flags must look like; `InvalidArgument` otherwise."""
    checks.choice(owner, "strategy", strategy, STRATEGIES)
    if intensity is not None:
        check_intensity(owner, intensity)
    checks.positive(owner, "period", period)
    checks.choice(owner, "auto_shutdown", auto_shutdown, AUTO_SHUTDOWNS)


def _cause(event: facts.Exited | facts.CauseKnown) -> Cause:
    return Cause(event.exit, event.counts and event.exit.kind not in NEVER_COUNTED, frozenset(event.ids))


def _start_error(id: str, exit: Exit) -> StartFailed:
    error = StartFailed(f"child {id!r} did not start: {exit}")
    if isinstance(exit.detail, BaseException):
        error.__cause__ = exit.detail
    return error

"""
The roster: a supervision's children in start order, and the steps of each.

Steps that take time (`start`, `halt`) are jobs: they order an action and yield until
a fact has changed the child. Everything a step orders lands in `actions`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from actors.errors import NotFound, nearest
from actors.exit import Exit
from supervisors.actions import Action, CancelRetry, Forget, Halt, Incident, Report, RetryAfter, Start
from supervisors.allowance import Allowance
from supervisors.child import Cause, Child
from supervisors.facts import Ignored, Started, StartFailed, Stopped
from supervisors.lane import Job
from supervisors.orders import Spec
from supervisors.spec import ChildCounts


class Roster:
    """
    Children by id, oldest first; `now` and `actions` belong to the decision under way.

    A *dynamic* one keeps only those that live or will live again: their specs are all the same.
    """

    def __init__(self, allowance: Allowance, *, dynamic: bool = False) -> None:
        self._allowance = allowance
        self._dynamic = dynamic
        self._child_by_id: dict[str, Child] = {}
        self._numbers = itertools.count()
        self.now = 0.0
        self.actions: list[Action] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._child_by_id.values()))

    def __len__(self) -> int:
        return len(self._child_by_id)

    def get(self, id: str) -> Child | None:
        return self._child_by_id.get(id)

    def those(self, ids: Iterable[str]) -> list[Child]:
        """The children with these *ids* that there are, oldest first."""
        known = (self._child_by_id.get(id) for id in ids)
        return sorted((child for child in known if child is not None), key=lambda child: child.number)

    def find(self, id: str) -> Child:
        """Child *id*; `NotFound` with the nearest name otherwise."""
        if id not in self._child_by_id:
            raise NotFound(f"no child {id!r}{nearest(id, self._child_by_id)}")
        return self._child_by_id[id]

    def counts(self) -> ChildCounts:
        """How many there are, and how many of them run."""
        kinds = [child.spec.kind for child in self]
        specs = 1 if self._dynamic else len(kinds)
        active = sum(child.is_running for child in self)
        return ChildCounts(specs, active, kinds.count("supervisor"), kinds.count("worker"))

    def add(self, spec: Spec) -> Child:
        """A new child, last in start order and not started."""
        child = Child(spec, next(self._numbers), self._allowance.window())
        self._child_by_id[spec.id] = child
        return child

    # Steps

    def start(self, child: Child, *, again: bool = False, incident: str = "") -> Job:
        """
        Start *child*; afterwards it runs, is at rest because it wanted to, or has a `failure`.

        *incident* is what a failure counts as, when it would be the next of a row.
        """
        child.incident = incident
        self._cancel_retry(child)
        if again:
            child.restarts += 1
            self.report("restarting", child)
        child.begin()
        self.actions.append(Start(child.id))
        while child.state == "starting":
            yield
        if child.failure is not None:
            self.report("start_failed", child)
        elif not child.is_alive:
            self.rest(child)

    def halt(self, child: Child) -> Job:
        """Stop *child* if it lives; afterwards it is between two lives, or at rest as before."""
        self.order_halt(child)
        while child.is_alive:
            yield

    def order_halt(self, child: Child) -> None:
        """Begin to stop *child*; what it was about to do by itself is off."""
        self.let_go(child)
        if child.state in ("starting", "running"):
            child.state = "stopping"
            self.actions.append(Halt(child.id, child.spec.shutdown_time))

    def let_go(self, child: Child) -> None:
        """What *child* was about to do by itself is off, and what followed from its end: others decide."""
        child.cause, child.has_left = None, False
        self._cancel_retry(child)

    def rest(self, child: Child) -> None:
        """No life of *child* is to come: end its registration, and drop it if it is temporary."""
        self._cancel_retry(child)
        child.cause = None
        if child.state != "stopped":
            child.state = "stopped"
            self.actions.append(Forget(child.id))
        if child.is_temporary or self._dynamic:
            self._child_by_id.pop(child.id, None)

    def drop(self, child: Child) -> None:
        """Let *child* rest, and forget its spec too."""
        self.rest(child)
        self._child_by_id.pop(child.id, None)

    def wait(self, child: Child, delay: float) -> None:
        """Order the next try; 0 is behind the messages that already wait, so that these are served."""
        child.cause = None
        child.state = "backing_off" if delay else "restarting"
        child.waiting_since = self.now
        self.actions.append(RetryAfter(child.id, delay))
        if delay:
            self.report("backing_off", child, delay=delay)

    def stop_waiting(self, child: Child) -> None:
        """The retry of *child* is due, or void."""
        if child.state == "backing_off" and child.waiting_since is not None:
            self._allowance.waited(child, self.now - child.waiting_since, self.now)
        child.state, child.waiting_since = "restarting", None

    def report(self, what: Incident, child: Child, *, delay: float = 0.0) -> None:
        self.actions.append(Report(what, child.id, child.last_exit, child.restarts, delay))

    def _cancel_retry(self, child: Child) -> None:
        if child.waiting_since is not None:
            self.stop_waiting(child)
            self.actions.append(CancelRetry(child.id))

    # Facts

    def take_outcome(self, child: Child, fact: Started | Ignored | StartFailed | Stopped) -> None:
        """What a start or a halt led to; facts that do not fit the child's state are late and drop out."""
        match (child.state, fact):
            case ("starting", Started()):
                child.started(self.now)
            case ("starting", Ignored()):
                child.state = "restarting"
            case ("starting", StartFailed(_, exit)):
                child.failed(Cause(exit, kind=child.incident))
            case ("stopping", StartFailed(_, exit) | Stopped(_, exit)):
                self._take_stop(child, exit)
            case ("stopping", Ignored()):
                self._take_stop(child, Exit("shutdown"))

    def take_exit(self, child: Child, cause: Cause, handled: int) -> None:
        """A life that ended by itself: it counts as stopped, as a failed start, or as an exit."""
        if child.state == "stopping":
            self._take_stop(child, cause.exit)
        elif child.state == "starting":
            child.failed(cause)
        else:
            self._end_life(child, cause.exit)
            child.handled = handled
            self.report("child_exited", child)
            if child.wants_restart(cause.exit):
                child.cause = cause
            else:
                child.has_left = True
                self.rest(child)

    def _take_stop(self, child: Child, exit: Exit) -> None:
        self._end_life(child, exit)
        if child.ended_badly(exit):
            self.report("shutdown_overrun" if exit.kind == "killed" else "shutdown_failed", child)

    def _end_life(self, child: Child, exit: Exit) -> None:
        child.ended(exit, self.now, reset_after=self._allowance.reset_after)

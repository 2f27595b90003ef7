"""
Recovery: what follows when children have failed.

Count the incident, then restart what the strategy says, now or after a wait, or give
up, once the cause is known. A restart whose start fails is the next incident, counts
as what led to it, and its retry goes back through the mailbox. `give_up` is called
once, and ends the lane of the job that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supervisors.allowance import Allowance
from supervisors.child import Cause, Child
from supervisors.lane import Job
from supervisors.roster import Roster
from supervisors.strategy import Strategy, plan


class Recovery:
    """The jobs that bring the children of one roster back."""

    def __init__(
        self,
        strategy: Strategy,
        roster: Roster,
        allowance: Allowance,
        give_up: Callable[[Child], None],
    ) -> None:
        self._strategy: Strategy = strategy
        self._roster = roster
        self._allowance = allowance
        self._give_up = give_up

    def recover(self, failed: Sequence[Child], cause: Cause) -> Job:
        """Lives of *failed* ended in one incident."""
        # A group restart may have taken some along while this waited.
        failed = [child for child in failed if child.cause is cause]
        if not failed:
            return
        yield from self._count(failed, cause)
        delays = [self._allowance.delay(child, cause) for child in failed]
        for child in failed:
            child.cause = None
            child.incident = cause.counts_as if cause.counts else ""
        if self._strategy == "one_for_one":
            for child, delay in zip(failed, delays, strict=True):
                if delay:
                    self._roster.wait(child, delay)
        elif max(delays):
            # The first stands for the group: its restart takes the others along.
            self._roster.wait(failed[0], max(delays))
            return
        yield from self._restart([child for child in failed if not child.is_pending])

    def retry(self, id: str) -> Job:
        """The wait of child *id* is over; it was counted when it began."""
        child = self._roster.get(id)
        if child is not None and child.waiting_since is not None:
            self._roster.stop_waiting(child)
            yield from self._restart([child])

    def retry_later(self, child: Child) -> Job:
        """A start of *child* failed: that counts like an exit."""
        assert child.failure is not None
        if child.is_temporary:
            self._roster.rest(child)
            return
        cause = child.cause or Cause(child.failure, kind=child.incident)
        yield from self._count([child], cause)
        self._roster.wait(child, self._allowance.delay(child, cause))

    def _count(self, failed: Sequence[Child], cause: Cause) -> Job:
        """Enter an incident in the budget; over it, this never comes back."""
        self._allowance.count(failed, cause, self._roster.now)
        while not self._allowance.holds(cause, self._roster):
            if not cause.is_open:
                self._give_up(failed[0])
            yield

    def learn(self, children: Sequence[Child], cause: Cause, known: Cause) -> None:
        """The *cause* why lives of *children* ended is *known*; jobs that wait for it must look again."""
        self._allowance.count_again(children, cause, known)
        for child in children:
            if child.last_exit is cause.exit:
                child.last_exit = known.exit
                self._roster.report("cause_known", child)
        cause.exit, cause.counts, cause.is_open = known.exit, known.counts, False

    def _restart(self, failed: Sequence[Child]) -> Job:
        """Stop and start what the strategy says, as long as it goes well."""
        incident = failed[0].incident if failed else ""
        stops, removals, starts = self._planned(failed)
        for child in starts:
            if child not in failed:
                self._roster.let_go(child)
        for child in stops:
            yield from self._roster.halt(child)
        for child in removals:
            self._roster.rest(child)
        for child in starts:
            yield from self._roster.start(child, again=True, incident=incident)
            if child.failure is not None:
                yield from self.retry_later(child)
                if self._strategy != "one_for_one":
                    return  # the retry takes those behind it along

    def _planned(self, failed: Sequence[Child]) -> tuple[Sequence[Child], ...]:
        if self._strategy == "one_for_one":
            return (), (), failed  # without a look at all the others
        todo = plan(
            self._strategy,
            [child.id for child in self._roster],
            {child.id for child in failed},
            running={child.id for child in self._roster if child.is_alive},
            temporary={child.id for child in self._roster if child.is_temporary},
        )
        # Children, not ids: a temporary one may end and be gone before its turn.
        return tuple(
            [self._roster.find(id) for id in ids] for ids in (todo.stops, todo.removals, todo.starts)
        )

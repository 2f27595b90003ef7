"""
The allowance: how much failing a supervisor puts up with, and how long it waits in between.

`SharedAllowance` is OTP's: one window for all children, or one for each kind of exit;
an incident counts once, however many lives it took; over the intensity everything ends.

`MemberAllowance` is for services: each child has a window of its own, against its
own seconds of running, so that neither waiting nor a slow start ages it. A child
over it backs off instead of ending anything. There is no hope left only when every
child is over, or waits for one that is, and none of the lives in those windows
finished a message.

What was counted while its cause was looked for is counted again when that is known.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from supervisors.backoff import Backoff
from supervisors.budget import DEFAULT_INTENSITY, Intensity, RestartBudget, RestartWindow
from supervisors.child import Cause, Child


class Allowance(Protocol):
    """What a supervision asks of either kind."""

    @property
    def retries_first_start(self) -> bool:
        """Whether a child whose first start fails is tried again."""

    @property
    def reset_after(self) -> float:
        """Seconds of uninterrupted running that end a row of backoffs."""

    def window(self) -> RestartWindow | None:
        """The window a new child counts in; None where all share theirs."""

    def count(self, failed: Sequence[Child], cause: Cause, now: float) -> None:
        """Enter an incident."""

    def count_again(self, failed: Sequence[Child], cause: Cause, known: Cause) -> None:
        """What was entered as *cause* turns out to be *known*."""

    def holds(self, cause: Cause, everyone: Iterable[Child]) -> bool:
        """False when the incident, once entered, was one too many."""

    def delay(self, child: Child, cause: Cause) -> float:
        """Seconds to wait before the child's next start; 0 is none."""

    def waited(self, child: Child, seconds: float, now: float) -> None:
        """The child has backed off for *seconds*, which must not age its attempts."""


class SharedAllowance:
    """One budget for all; with a backoff, every restart waits."""

    retries_first_start = False

    def __init__(
        self,
        intensity: Intensity,
        period: float,
        backoff: Backoff | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._budget = RestartBudget(intensity, period)
        self._backoff = backoff
        self._random = random

    @property
    def reset_after(self) -> float:
        return 0.0 if self._backoff is None else self._backoff.reset_after

    def window(self) -> None:
        return None

    def count(self, failed: Sequence[Child], cause: Cause, now: float) -> None:
        if cause.counts and cause.counted_for is None:
            cause.counted_for = failed[0].id
            window = self._budget.window(cause.counts_as)
            cause.is_within = window.count(now, owner=cause.counted_for, is_open=cause.is_open)
            if not cause.is_open:
                cause.is_within = not window.is_surely_over

    def count_again(self, failed: Sequence[Child], cause: Cause, known: Cause) -> None:
        if cause.counted_for is not None:
            attempt = self._budget.window(cause.counts_as).take_back(cause.counted_for)
            cause.is_within = True
            if attempt is not None and known.counts:
                window = self._budget.window(known.counts_as)
                window.enter(replace(attempt, is_open=False))
                # Of those that are still open each decides when its own cause is known.
                cause.is_within = not window.is_surely_over

    def holds(self, cause: Cause, everyone: Iterable[Child]) -> bool:
        return cause.is_within

    def delay(self, child: Child, cause: Cause) -> float:
        if self._backoff is None or not cause.counts:
            return 0.0
        child.waits += 1
        return self._backoff.delay(child.waits, self._random)

    def waited(self, child: Child, seconds: float, now: float) -> None:
        self._budget.postpone(child.id, seconds, now)


class MemberAllowance:
    """A window for each; whoever is over it waits."""

    retries_first_start = True

    def __init__(
        self,
        period: float,
        backoff: Backoff | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._period = period
        self._backoff = backoff or Backoff()
        self._random = random

    @property
    def reset_after(self) -> float:
        return self._backoff.reset_after

    def window(self) -> RestartWindow:
        return RestartWindow(DEFAULT_INTENSITY, self._period)

    def count(self, failed: Sequence[Child], cause: Cause, now: float) -> None:
        if cause.counts:
            for child in failed:
                _window(child).count(
                    child.uptime, owner=child.id, handled=child.handled, is_open=cause.is_open
                )

    def count_again(self, failed: Sequence[Child], cause: Cause, known: Cause) -> None:
        for child in failed:
            attempt = _window(child).take_back(child.id)
            if attempt is not None and known.counts:
                _window(child).enter(replace(attempt, is_open=False))

    def holds(self, cause: Cause, everyone: Iterable[Child]) -> bool:
        if not cause.counts:
            return True
        # Others whose causes are open may yet turn out to be within: giving up waits for those.
        return not all(
            _is_lost(child, surely=not cause.is_open) for child in everyone if child.state != "stopped"
        )

    def delay(self, child: Child, cause: Cause) -> float:
        if not cause.counts or not _window(child).is_over(child.uptime):
            return 0.0
        child.waits += 1
        return self._backoff.delay(child.waits, self._random)

    def waited(self, child: Child, seconds: float, now: float) -> None:
        """Nothing: seconds of running do not pass while it waits."""


def _window(child: Child) -> RestartWindow:
    assert child.window is not None
    return child.window


def _is_lost(child: Child, *, surely: bool) -> bool:
    if child.is_running or _window(child).has_handled:
        return False
    if child.state == "restarting" and not child.is_pending:
        return True  # it waits for another child of its group, and can save nobody
    return _window(child).is_over(child.uptime) and (not surely or _window(child).is_surely_over)

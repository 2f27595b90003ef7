"""
The allowance: how much failing a supervisor puts up with, and how long it waits in between.

`SharedAllowance` is OTP's: one window for all children; an incident counts once,
however many lives it took; over the intensity everything ends.

`MemberAllowance` is for services: each child has a window of its own, against its
own seconds of running, so that neither waiting nor a slow start ages it. A child
over it backs off instead of ending anything. There is no hope left only when every
child is over, or waits for one that is, and none of the lives in those windows
finished a message.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from supervisors.backoff import Backoff
from supervisors.budget import RestartWindow
from supervisors.child import Cause, Child

MEMBER_INTENSITY = 3


class Allowance(Protocol):
    """What a supervision asks of either kind."""

    @property
    def retries_first_start(self) -> bool:
        """Whether a child whose first start fails is tried again."""

    @property
    def reset_after(self) -> float:
        """Seconds of uninterrupted running that end a row of backoffs."""

    def window(self) -> RestartWindow:
        """The window a new child counts in."""

    def count(self, failed: Sequence[Child], cause: Cause, everyone: Collection[Child], now: float) -> bool:
        """Enter an incident; False when it was one too many."""

    def delay(self, child: Child, cause: Cause) -> float:
        """Seconds to wait before the child's next start; 0 is none."""

    def take_back(self, children: Sequence[Child]) -> None:
        """The newest incident of *children*, one for all of them, turns out not to count."""

    def waited(self, child: Child, seconds: float, now: float) -> None:
        """The child has backed off for *seconds*, which must not age its attempts."""


class SharedAllowance:
    """One window for all; with a backoff, every restart waits."""

    retries_first_start = False

    def __init__(
        self,
        intensity: int,
        period: float,
        backoff: Backoff | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._window = RestartWindow(intensity, period)
        self._backoff = backoff
        self._random = random

    @property
    def reset_after(self) -> float:
        return 0.0 if self._backoff is None else self._backoff.reset_after

    def window(self) -> RestartWindow:
        return self._window

    def count(self, failed: Sequence[Child], cause: Cause, everyone: Collection[Child], now: float) -> bool:
        if cause.counts and not cause.is_counted:
            cause.is_counted = True
            cause.is_within = self._window.count(now, owner=failed[0].id)
        return cause.is_within

    def delay(self, child: Child, cause: Cause) -> float:
        if self._backoff is None or not cause.counts:
            return 0.0
        child.waits += 1
        return self._backoff.delay(child.waits, self._random)

    def take_back(self, children: Sequence[Child]) -> None:
        any(self._window.take_back(child.id) for child in children)  # counted under the first of them

    def waited(self, child: Child, seconds: float, now: float) -> None:
        self._window.postpone(child.id, seconds, now)


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
        return RestartWindow(MEMBER_INTENSITY, self._period)

    def count(self, failed: Sequence[Child], cause: Cause, everyone: Collection[Child], now: float) -> bool:
        if not cause.counts:
            return True
        for child in failed:
            child.window.count(child.uptime, owner=child.id, handled=child.handled)
        return not all(_is_lost(child) for child in everyone if child.state != "stopped")

    def delay(self, child: Child, cause: Cause) -> float:
        if not cause.counts or not child.window.is_over(child.uptime):
            return 0.0
        child.waits += 1
        return self._backoff.delay(child.waits, self._random)

    def take_back(self, children: Sequence[Child]) -> None:
        for child in children:
            child.window.take_back(child.id)

    def waited(self, child: Child, seconds: float, now: float) -> None:
        """Nothing: seconds of running do not pass while it waits."""


def _is_lost(child: Child) -> bool:
    if child.is_running or child.window.has_handled:
        return False
    if child.state == "restarting" and not child.is_pending:
        return True  # it waits for another child of its group, and can save nobody
    return child.window.is_over(child.uptime)

"""
The restart budget: how many restarts in how many seconds are still acceptable.

OTP's rule: one entry per attempt, whatever it restarts; an entry counts while it
is at most `period` seconds old (inclusive); more than `intensity` entries are too
many. Time comes in as an argument and may be any clock that only goes forward.

Ours on top: an *intensity* that is a mapping counts each kind of exit in a window of
its own, those it does not name up to `DEFAULT_INTENSITY`; and an attempt whose cause
is still being looked for is open, and can be taken back.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, replace

from actors.errors import nearest
from actors.exit import EXIT_KINDS
from supervisors import checks

Intensity = int | Mapping[str, int]
"""For all causes together, or for each kind of exit."""

DEFAULT_INTENSITY = 3
NEVER_COUNTED = frozenset({"node_lost"})
"""Kinds of exit that nobody's children are to blame for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One entry of a window."""

    at: float
    owner: str | None = None
    handled: int = 0
    """Messages that the life that ended finished without crashing."""
    is_open: bool = False
    """True while it is not known whether it counts."""


class RestartWindow:
    """The attempts of the last *period* seconds."""

    __slots__ = ("_attempts", "_handled_at", "_looked_at", "_open", "intensity", "period")

    def __init__(self, intensity: int, period: float) -> None:
        checks.whole("RestartWindow", "intensity", intensity)
        checks.positive("RestartWindow", "period", period, allow_infinity=True)
        self.intensity = intensity
        self.period = period
        self._attempts: list[Attempt] = []
        self._open = 0
        self._looked_at = 0.0
        self._handled_at = -math.inf
        """The newest attempt of a life that had worked, were it pushed out of the window by others."""

    def count(self, now: float, *, owner: str | None = None, handled: int = 0, is_open: bool = False) -> bool:
        """Enter an attempt of *owner*, and say whether the window still holds."""
        return self.enter(Attempt(now, owner, handled, is_open))

    def enter(self, attempt: Attempt) -> bool:
        """Enter *attempt* in its place in time, and say whether the window still holds."""
        self._forget(attempt.at)
        insort(self._attempts, attempt, key=lambda attempt: attempt.at)
        self._open += attempt.is_open
        if attempt.handled:
            self._handled_at = max(self._handled_at, attempt.at)
        # One more than the intensity says "over"; older ones could change that only by what is taken back.
        while len(self._attempts) > self.intensity + 1 + self._open:
            self._remove(0)
        return len(self._attempts) <= self.intensity

    def take_back(self, owner: str | None = None) -> Attempt | None:
        """Remove the oldest open attempt of *owner*; None if it is gone."""
        for index, attempt in enumerate(self._attempts):
            if attempt.is_open and attempt.owner == owner:
                return self._remove(index)
        return None

    def postpone(self, owner: str | None, seconds: float, now: float) -> None:
        """Let the *seconds* that *owner* waited not age its attempts."""
        self._attempts = sorted(
            (
                replace(attempt, at=min(now, attempt.at + seconds)) if attempt.owner == owner else attempt
                for attempt in self._attempts
            ),
            key=lambda attempt: attempt.at,
        )

    def is_over(self, now: float) -> bool:
        """True while there are more attempts than the intensity allows."""
        self._forget(now)
        return len(self._attempts) > self.intensity

    @property
    def is_surely_over(self) -> bool:
        """True when there are too many, whatever comes of the open ones."""
        return len(self._attempts) - self._open > self.intensity

    @property
    def restarts(self) -> int:
        """Attempts in the window, when it was last looked at; open ones aside, at most intensity + 1."""
        return len(self._attempts)

    @property
    def has_handled(self) -> bool:
        """True when a life in the window finished a message without crashing."""
        return self._handled_at >= self._looked_at - self.period

    def _forget(self, now: float) -> None:
        self._looked_at = max(self._looked_at, now)
        while self._attempts and self._attempts[0].at < now - self.period:
            self._remove(0)

    def _remove(self, index: int) -> Attempt:
        attempt = self._attempts.pop(index)
        self._open -= attempt.is_open
        return attempt


class RestartBudget:
    """The windows of one *intensity*: one for all kinds of exit, or one for each."""

    def __init__(self, intensity: Intensity, period: float) -> None:
        check_intensity("RestartBudget", intensity)
        self._intensity = intensity
        self._period = period
        self._window_by_kind: dict[str, RestartWindow] = {}

    def window(self, kind: str) -> RestartWindow:
        """Where an exit of *kind* counts."""
        if isinstance(self._intensity, int):
            kind, limit = "", self._intensity
        else:
            limit = self._intensity.get(kind, DEFAULT_INTENSITY)
        if kind not in self._window_by_kind:
            self._window_by_kind[kind] = RestartWindow(limit, self._period)
        return self._window_by_kind[kind]

    def postpone(self, owner: str | None, seconds: float, now: float) -> None:
        """`RestartWindow.postpone` in all windows."""
        for window in self._window_by_kind.values():
            window.postpone(owner, seconds, now)


def check_intensity(owner: str, intensity: object) -> None:
    """A whole number, or a mapping from kinds of exit that can count to whole numbers."""
    if not isinstance(intensity, Mapping):
        checks.whole(owner, "intensity", intensity)
        return
    if not intensity:
        raise checks.misfit(owner, "intensity", intensity, "names no kind of exit")
    known = [kind for kind in EXIT_KINDS if kind not in NEVER_COUNTED]
    for kind, limit in intensity.items():
        if kind in NEVER_COUNTED:
            raise checks.misfit(owner, "intensity", intensity, f"names {kind!r}, which never counts")
        if kind not in known:
            why = f"names {kind!r}, which is no kind of exit{nearest(str(kind), known)}"
            raise checks.misfit(owner, "intensity", intensity, why)
        checks.whole(owner, f"intensity[{kind!r}]", limit)

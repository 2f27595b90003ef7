"""
The restart budget: how many restarts in how many seconds are still acceptable.

OTP's rule: one entry per attempt, whatever it restarts; an entry counts while it
is at most `period` seconds old (inclusive); more than `intensity` entries are too
many. Time comes in as an argument and may be any clock that only goes forward.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from supervisors import checks


@dataclass(frozen=True, slots=True)
class _Attempt:
    at: float
    owner: str | None
    handled: int


class RestartWindow:
    """The attempts of the last *period* seconds."""

    def __init__(self, intensity: int, period: float) -> None:
        checks.whole("RestartWindow", "intensity", intensity)
        checks.positive("RestartWindow", "period", period, allow_infinity=True)
        self.intensity = intensity
        self.period = period
        self._looked_at = 0.0
        # One more than the intensity says "over"; older ones could not change that.
        self._attempts: deque[_Attempt] = deque(maxlen=intensity + 1)
        self._handled_at = -math.inf
        """The newest attempt of a life that had worked, were it pushed out of the window by others."""

    def count(self, now: float, *, owner: str | None = None, handled: int = 0) -> bool:
        """
        Enter an attempt of *owner*, and say whether the window still holds.

        *handled* is how many messages the life that ended finished without crashing.
        """
        self._forget(now)
        self._attempts.append(_Attempt(now, owner, handled))
        if handled:
            self._handled_at = now
        return len(self._attempts) <= self.intensity

    def take_back(self, owner: str | None = None) -> bool:
        """Remove the newest attempt of *owner*, whose cause turned out not to count; False if it is gone."""
        for attempt in reversed(self._attempts):
            if attempt.owner == owner:
                self._attempts.remove(attempt)
                return True
        return False

    def postpone(self, owner: str | None, seconds: float, now: float) -> None:
        """Let the *seconds* that *owner* waited not age its attempts."""
        moved = (
            replace(attempt, at=min(now, attempt.at + seconds)) if attempt.owner == owner else attempt
            for attempt in self._attempts
        )
        self._attempts = deque(sorted(moved, key=lambda attempt: attempt.at), maxlen=self.intensity + 1)

    def is_over(self, now: float) -> bool:
        """True while there are more attempts than the intensity allows."""
        self._forget(now)
        return len(self._attempts) > self.intensity

    @property
    def restarts(self) -> int:
        """Attempts in the window, when it was last looked at; never more than intensity + 1."""
        return len(self._attempts)

    @property
    def has_handled(self) -> bool:
        """True when a life in the window finished a message without crashing."""
        return self._handled_at >= self._looked_at - self.period

    def _forget(self, now: float) -> None:
        self._looked_at = max(self._looked_at, now)
        while self._attempts and self._attempts[0].at < now - self.period:
            self._attempts.popleft()

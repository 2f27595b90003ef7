"""
Deadlines: the instant by which a call must have its outcome.

An instant lives on the monotonic clock of one process; between processes
travels what remains of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """The instant by which an answer is due."""

    __slots__ = ("_now", "at")

    def __init__(self, at: float, now: Callable[[], float] = time.monotonic) -> None:
        self.at = at
        """Monotonic instant, seconds."""
        self._now = now

    @classmethod
    def after(cls, timeout: float) -> Deadline:
        """The deadline *timeout* seconds from now."""
        return cls(time.monotonic() + timeout)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self._now())

    @property
    def expired(self) -> bool:
        """True once nothing is left."""
        return self.at <= self._now()

    def __repr__(self) -> str:
        return f"Deadline({self.remaining():.3f} s left)"

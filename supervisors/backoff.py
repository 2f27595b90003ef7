"""
Backoff: how long to wait before the next try.

The wait doubles (by default) from `initial` up to `maximum`; jitter then adds up
to its fraction, so that members that fell together do not rise together. Every
delay lies between min(maximum, initial * factor ** (attempt - 1)) and that times
1 + jitter.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from supervisors import checks


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing waits between restarts, in seconds."""

    initial: float = 0.2
    factor: float = 2
    maximum: float = 30
    jitter: float = 0.2
    """The most that is added, as a fraction of the wait; 0 for none, at most 1."""

    def __post_init__(self) -> None:
        checks.positive("Backoff", "initial", self.initial)
        checks.positive("Backoff", "factor", self.factor)
        checks.positive("Backoff", "maximum", self.maximum)
        checks.non_negative("Backoff", "jitter", self.jitter)
        if self.factor < 1:
            raise checks.misfit("Backoff", "factor", self.factor, "is below 1: waits would shrink")
        if self.maximum < self.initial:
            raise checks.misfit("Backoff", "maximum", self.maximum, f"is below initial={self.initial!r}")
        if self.jitter > 1:
            raise checks.misfit("Backoff", "jitter", self.jitter, "is above 1")

    def delay(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds to wait before try number *attempt*, counted from 1; *random* gives [0, 1)."""
        checks.whole("Backoff.delay", "attempt", attempt, least=1)
        try:
            grown = self.initial * float(self.factor) ** (attempt - 1)
        except OverflowError:
            grown = self.maximum
        return min(self.maximum, grown) * (1 + self.jitter * random())

    @property
    def reset_after(self) -> float:
        """Seconds of uninterrupted running after which the waits begin anew."""
        return (self.initial + self.maximum) / 2

"""
Health: whether a process that does not answer hangs. Decided by evidence, not by time alone.

A question that stays open for the limit is suspicion. Proof is one of three: the process is
stopped; it has used CPU for half of the limit since it was asked; or it has used none and no
thread of it could run. A thread that could run and does not get a CPU is starvation, and a
process held by a debugger is somebody's business: neither hangs, however long it lasts.

Pure: the time that passes and what `/proc` shows come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

BEATS = 5
"""Questions within one limit."""

_IDLE = 0.1
"""Share of the silent time; below it a process does nothing. Ray's own threads use 0.005."""
_PATIENT_LOOKS = 2
"""Looks in a row at which no thread could run: a single one may just have missed it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A process as `/proc` shows it."""

    cpu: float
    """Seconds, user and system, of all its threads since it began."""
    state: str
    """`T` is stopped, `t` held by a debugger."""
    is_able: bool
    """Some thread runs, could run, or waits for the disk."""


class Pulse:
    """What is known of one process: the question that is open, and for how long."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.silent = 0.0
        """Seconds, watched by us, since the oldest question without an answer."""
        self.is_asked = False
        self._cpu = 0.0
        self._unable_looks = 0

    def ask(self, cpu: float) -> None:
        """A question goes to a process that has used *cpu* seconds so far; an open one stays the oldest."""
        if not self.is_asked:
            self.is_asked, self.silent, self._cpu, self._unable_looks = True, 0.0, cpu, 0

    def hear(self) -> None:
        """It has answered."""
        self.is_asked, self.silent = False, 0.0

    def wait(self, seconds: float) -> None:
        """Time has passed, of which we know that we have watched (`watched`)."""
        if self.is_asked:
            self.silent += seconds

    @property
    def is_silent(self) -> bool:
        """True when it is time to look at the process."""
        return self.silent >= self.limit

    def judge(self, look: Look) -> str:
        """How the process hangs, in words; empty without proof."""
        if not self.is_silent or look.state == "t":
            return ""
        if look.state == "T":
            return f"stopped, no answer for {self.silent:.1f} s"
        burned = look.cpu - self._cpu
        if burned >= self.limit / 2:
            return f"no answer for {self.silent:.1f} s while it used {burned:.1f} s of CPU"
        self._unable_looks = 0 if look.is_able else self._unable_looks + 1
        if self._unable_looks >= _PATIENT_LOOKS and burned < self.silent * _IDLE:
            return f"no answer for {self.silent:.1f} s, and no thread that could run"
        return ""


def watched(elapsed: float, period: float) -> float:
    """
    How much of the time between two rounds, *period* seconds apart, counts as watched.

    Who comes late was itself stopped, starved or asleep with the whole machine: what did not
    answer meanwhile may have been so too.
    """
    return min(elapsed, 2 * period)


def beat(limit: float) -> float:
    """Seconds between two questions."""
    return limit / BEATS

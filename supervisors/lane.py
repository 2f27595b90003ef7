"""
Lanes: jobs that must not overlap, one after the other.

A job is a generator that yields when it has to wait; whoever changes the world
calls `step`, and the job looks for itself whether it can go on. So a plan with
waits in it reads from top to bottom, without a loop or a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar

Job = Generator[None, None, None]


class Named(Protocol):
    """Whatever has an id."""

    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=Named)


class Lane:
    """A queue of jobs of which the first is under way."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """True when nothing is under way."""
        return not self._jobs

    def put(self, job: Job) -> None:
        """Run *job* after those that are here already."""
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self.step()

    def step(self) -> None:
        """Let the first job look again; when it has ended, begin the next."""
        while self._jobs and not self._is_closed:
            try:
                next(self._jobs[0])
            except StopIteration:
                self._jobs.popleft()
            else:
                return

    def close(self) -> None:
        """No job goes on from where it is now, not even the one that calls this."""
        self._is_closed = True


class Lanes:
    """One lane for all ids, or one for each; a lane exists as long as it has something to do."""

    def __init__(self, side_by_side: bool) -> None:
        self._side_by_side = side_by_side
        self._lane_by_key: dict[str, Lane] = {}
        self._is_closed = False

    def split(self, things: Sequence[N]) -> list[Sequence[N]]:
        """*things*, those together that share a lane."""
        if self._side_by_side:
            return [[thing] for thing in things]
        return [things] if things else []

    def put(self, id: str, job: Job) -> None:
        """Run *job* in the lane of *id*; nothing once they are closed."""
        if not self._is_closed:
            key = self._key(id)
            self._lane_by_key.setdefault(key, Lane()).put(job)
            self._sweep(key)

    def step(self, id: str) -> None:
        """Let the job that is under way for *id*, if any, look again."""
        key = self._key(id)
        if key in self._lane_by_key:
            self._lane_by_key[key].step()
            self._sweep(key)

    def close(self) -> None:
        """No job goes on, and no new one is taken."""
        self._is_closed = True
        for lane in self._lane_by_key.values():
            lane.close()

    def _key(self, id: str) -> str:
        return id if self._side_by_side else ""

    def _sweep(self, key: str) -> None:
        if self._lane_by_key[key].is_idle:
            del self._lane_by_key[key]

"""The sweeps: what one thing costs as another grows, by us and where it is cheap to say by Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.benchmarks.apps import CHOIRS
from tests.benchmarks.rows import OURS, Contestant

_QUICK_SHARE = 0.1


class Point(NamedTuple):
    at: int
    """What the action is given beside its count."""
    count: int
    """Operations that make one sample there."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Contestants as in rows, one sample of each at each point and round."""

    key: str
    title: str
    x: str
    """What grows, with its unit."""
    unit: str
    contestants: tuple[Contestant, ...]
    points: tuple[Point, ...]
    starts_fresh: bool = False
    limit: float = 120.0

    @property
    def peers(self) -> set[str]:
        return {contestant.peer for contestant in self.contestants}

    def count_at(self, point: Point, *, is_quick: bool) -> int:
        """Operations of a sample at *point*: fewer in quick runs and to warm up, at least one."""
        return max(1, round(point.count * _QUICK_SHARE)) if is_quick else point.count


SWEEPS = (
    Sweep(
        "by-callers",
        "Ask between processes, by callers",
        "callers in one process, each waits for its answer",
        "µs per ask",
        (
            Contestant("understudy", OURS, "callers"),
            Contestant("ray", "ray", "callers"),
        ),
        tuple(Point(callers, 2048) for callers in (1, 2, 4, 8, 16, 32, 64)),
    ),
    Sweep(
        "by-size",
        "Ask between processes, by size",
        "bytes of a message and of its answer",
        "µs per ask",
        (
            Contestant("understudy", OURS, "echo_bytes"),
            Contestant("ray", "ray", "echo_bytes"),
        ),
        (
            Point(64, 500),
            Point(1_000, 500),
            Point(16_000, 500),
            Point(256_000, 100),
            Point(1_000_000, 50),
            Point(8_000_000, 10),
            Point(64_000_000, 3),
        ),
    ),
    Sweep(
        "by-members",
        "Ask through a service, by members",
        "members of the service, in at most 2 processes",
        "µs per ask",
        (
            Contestant("one after the other", OURS, "choir_ask"),
            Contestant("1,000 in flight", OURS, "choir_in_flight_us"),
        ),
        tuple(Point(size, 2000) for size in CHOIRS),
        starts_fresh=True,
    ),
)

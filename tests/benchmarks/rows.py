"""
The rows: what is measured, by whom, and what is expected of us.

A contestant is one action of one peer; each action returns one sample in the row's unit.
A peer with several contestants in a row competes with its best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OURS = "understudy"

Kind = Literal["ratio at most", "ratio at least", "above by at most", "at most"]


@dataclass(frozen=True, slots=True)
class Contestant:
    label: str
    peer: str
    """Which peer's process takes the orders: `tests.benchmarks.peer_<peer>`."""
    action: str
    arguments: tuple[int, ...] = ()
    """What the action is given beside its count."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one of our contestants is expected to reach, alone or beside a peer."""

    of: str
    kind: Kind
    limit: float
    against: str | None = None
    """The other side of a ratio or difference: a contestant by label, else a peer with its best."""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    title: str
    unit: str
    """Units that end in "/s" are better high, all others low."""
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...] = ()
    count: int = 1
    """Operations that make one sample."""
    quick_count: int = 1
    warms_up: bool = False
    """Whether a first, small sample of everyone is thrown away."""
    starts_fresh: bool = False
    """Whether peers of earlier rows, and what they run, must be gone."""
    limit: float = 120.0
    """Seconds one sample may take, what it has to start first included."""

    @property
    def peers(self) -> set[str]:
        return {contestant.peer for contestant in self.contestants}


_ARRAY_TITLES = {"taken": "one way, read and answered", "echoed": "there and back, read"}


def _array(megabytes: int, how: Literal["taken", "echoed"]) -> Row:
    size = megabytes * 1_000_000
    return Row(
        f"array-{megabytes}-{how}",
        f"{megabytes} MB array {_ARRAY_TITLES[how]}",
        "MB/s",
        (
            Contestant("understudy", OURS, f"array_{how}", (size,)),
            Contestant("ray", "ray", f"array_{how}", (size,)),
            Contestant("xoscar", "xoscar", f"array_{how}", (size,)),
        ),
        (
            Target("understudy", "ratio at least", 3, "ray"),
            Target("understudy", "ratio at least", 2, "xoscar"),
        ),
        count=20 if megabytes < 10 else 5,
        quick_count=3,
        warms_up=True,
    )


ROWS = (
    Row(
        "ask",
        "ask between processes, one after the other",
        "µs",
        (
            Contestant("understudy", OURS, "ask"),
            Contestant("understudy, by service", OURS, "ask_service"),
            Contestant("ray, await", "ray", "ask_await"),
            Contestant("ray, get", "ray", "ask_get"),
            Contestant("xoscar", "xoscar", "ask"),
            Contestant("pynng, blocking", "pynng", "ask"),
        ),
        (
            Target("understudy", "ratio at most", 0.33, "ray"),
            Target("understudy", "ratio at most", 1.6, "pynng"),
            Target("understudy", "ratio at most", 1.0, "xoscar"),
        ),
        count=1000,
        quick_count=200,
        warms_up=True,
    ),
    Row(
        "ask-sync",
        "ask between processes from sync code, one after the other",
        "µs",
        (
            Contestant("understudy, result", OURS, "ask_sync"),
            Contestant("ray, get", "ray", "ask_get"),
        ),
        (Target("understudy, result", "ratio at most", 0.3, "ray"),),
        count=1000,
        quick_count=200,
        warms_up=True,
    ),
    Row(
        "ask-loaded",
        "99th percentile of asks, every core half busy",
        "µs",
        (
            Contestant("understudy", OURS, "ask_p99"),
            Contestant("ray, await", "ray", "ask_p99_await"),
            Contestant("ray, get", "ray", "ask_p99_get"),
        ),
        (Target("understudy", "ratio at most", 1.0, "ray"),),
        count=3000,
        quick_count=300,
        warms_up=True,
    ),
    Row(
        "in-flight",
        "1,000 asks in flight, one caller, one actor",
        "calls/s",
        (
            Contestant("understudy, gather", OURS, "in_flight_gather"),
            Contestant("understudy, by service, gather", OURS, "in_flight_service"),
            Contestant("understudy, replies", OURS, "in_flight_replies"),
            Contestant("ray, gather", "ray", "in_flight_gather"),
            Contestant("ray, get", "ray", "in_flight_get"),
            Contestant("xoscar, gather", "xoscar", "in_flight"),
        ),
        (
            Target("understudy, replies", "ratio at least", 40, "ray"),
            Target("understudy, replies", "ratio at least", 20, "xoscar"),
        ),
        count=10_000,
        quick_count=2000,
        warms_up=True,
    ),
    Row(
        "members",
        "1,000 asks in flight through a service ref, members in 2 processes",
        "calls/s",
        (
            Contestant("1,000 members", OURS, "choir_in_flight", (1000,)),
            Contestant("2 members", OURS, "choir_in_flight", (2,)),
        ),
        (Target("1,000 members", "ratio at least", 0.8, "2 members"),),
        count=10_000,
        quick_count=2000,
        warms_up=True,
        starts_fresh=True,
    ),
    Row(
        "tell",
        "tells, sent and handled",
        "tells/s",
        (
            Contestant("understudy", OURS, "tell"),
            Contestant("ray, calls", "ray", "tell"),
            Contestant("ray, 1,000 at a time", "ray", "tell_windows"),
            Contestant("xoscar", "xoscar", "tell"),
        ),
        (Target("understudy", "ratio at least", 100, "ray"),),
        count=20_000,
        quick_count=2000,
        warms_up=True,
    ),
    Row(
        "stream",
        "items of a stream, one reader, one actor",
        "items/s",
        (
            Contestant("understudy", OURS, "stream"),
            Contestant("understudy, by service, from sync code", OURS, "stream_sync"),
            Contestant("understudy, as an argument", OURS, "stream_argument"),
            Contestant("ray, await", "ray", "stream_await"),
            Contestant("ray, get", "ray", "stream_get"),
            Contestant("xoscar", "xoscar", "stream"),
        ),
        (
            Target("understudy", "ratio at least", 20, "ray"),
            Target("understudy", "ratio at least", 5, "xoscar"),
        ),
        count=10_000,
        quick_count=2000,
        warms_up=True,
    ),
    *(_array(megabytes, how) for megabytes in (8, 64) for how in ("taken", "echoed")),
    Row(
        "create",
        "8 actors created, each has answered",
        "ms",
        (
            Contestant("understudy, a process each", OURS, "create_apart"),
            Contestant("understudy, one process", OURS, "create_shared"),
            Contestant("ray", "ray", "create"),
        ),
        warms_up=True,
    ),
    Row(
        "kill",
        "SIGKILL of its process to the next answer",
        "ms",
        (
            Contestant("understudy", OURS, "kill"),
            Contestant("ray", "ray", "kill"),
        ),
        (Target("understudy", "ratio at most", 0.03, "ray"),),
    ),
    Row(
        "kills",
        "SIGKILL to the next answer, once a second, two understudies",
        "ms",
        (
            Contestant("the first", OURS, "kills_first"),
            Contestant("the slowest", OURS, "kills_slowest"),
        ),
        (Target("the slowest", "ratio at most", 2, "the first"),),
        count=20,
        quick_count=3,
    ),
    Row(
        "kill-heavy",
        "the same, of an actor that loads for 1 s",
        "ms",
        (
            Contestant("with an understudy of its own", OURS, "kill_warmed"),
            Contestant("without", OURS, "kill_heavy"),
        ),
        (Target("with an understudy of its own", "ratio at most", 0.1, "without"),),
    ),
    Row(
        "crash",
        "exception in a handler to the next answer",
        "µs",
        (
            Contestant("restart in its process", OURS, "crash"),
            Contestant("one ask", OURS, "crash_ask"),
        ),
        (Target("restart in its process", "ratio at most", 5, "one ask"),),
        count=200,
        quick_count=20,
        warms_up=True,
    ),
    Row(
        "stage-away",
        "asks that fail while the stage is stopped for 10 s, then killed",
        "asks",
        (Contestant("understudy", OURS, "stage_away"),),
        (Target("understudy", "at most", 0),),
        count=10,
        quick_count=1,
    ),
    Row(
        "crowd",
        "10,000 supervised actors in one process, started and stopped",
        "ms",
        (
            Contestant("10,000", OURS, "crowd"),
            Contestant("1,000, times ten", OURS, "crowd_tenth"),
        ),
        (Target("10,000", "ratio at most", 1.3, "1,000, times ten"),),
        count=10_000,
        quick_count=1000,
        warms_up=True,
        starts_fresh=True,
    ),
    Row(
        "idle-memory",
        "memory of an idle supervised actor in a shared process",
        "KB",
        (Contestant("understudy", OURS, "idle_memory"),),
        (Target("understudy", "at most", 4),),
        count=10_000,
        quick_count=2000,
        starts_fresh=True,
    ),
    Row(
        "idle-cpu",
        "CPU of a process with an idle actor",
        "% of a core",
        (
            Contestant("understudy, per host", OURS, "idle"),
            Contestant("ray, actor", "ray", "idle"),
        ),
        (Target("understudy, per host", "above by at most", 0.3, "ray"),),
        count=10,
        quick_count=2,
        warms_up=True,
        starts_fresh=True,
    ),
    Row(
        "crowd-threads",
        "threads 10 s after 10,000 actors with `def` handlers had a call each",
        "threads",
        (Contestant("understudy", OURS, "crowd_threads"),),
        (Target("understudy", "at most", 64),),
        count=10_000,
        quick_count=1000,
        starts_fresh=True,
    ),
    Row(
        "up",
        "from nothing to the first answer",
        "s",
        (
            Contestant("understudy up, 3 hosts", OURS, "up"),
            Contestant("ray.init", "ray", "init_alone"),
            Contestant("ray.init, 3 actors", "ray", "init_and_actors"),
        ),
        (Target("understudy up, 3 hosts", "above by at most", 1.5, "ray.init"),),
        starts_fresh=True,
    ),
    Row(
        "ps",
        "`understudy ps`, whole process",
        "ms",
        (
            Contestant("idle machine", OURS, "ps_idle"),
            Contestant("every core busy", OURS, "ps_busy"),
        ),
        (
            Target("idle machine", "at most", 200),
            Target("every core busy", "at most", 350),
        ),
        count=5,
        quick_count=2,
        warms_up=True,
        starts_fresh=True,
    ),
    Row(
        "local-ask",
        "ask in one process, one after the other",
        "µs",
        (
            Contestant("understudy", OURS, "local_ask"),
            Contestant("pykka, bare messages", "pykka", "ask"),
            Contestant("pykka, method calls", "pykka", "ask_proxy"),
        ),
        (Target("understudy", "ratio at most", 0.5, "pykka"),),
        count=5000,
        quick_count=500,
        warms_up=True,
        starts_fresh=True,
    ),
    Row(
        "local-tell",
        "tells in one process, sent and handled",
        "tells/s",
        (
            Contestant("understudy", OURS, "local_tell"),
            Contestant("pykka, bare messages", "pykka", "tell"),
            Contestant("pykka, method calls", "pykka", "tell_proxy"),
        ),
        (Target("understudy", "ratio at least", 5, "pykka"),),
        count=20_000,
        quick_count=2000,
        warms_up=True,
    ),
)

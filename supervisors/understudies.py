"""
The understudies: processes that wait to take over.

Each node has a pool of blank ones for everybody. A service may reserve its own, on every node
where it has members; they have done beforehand what its actors' `warm` does, and take over for
nobody else. Missing ones are started in the background, few at a time and after the restarts;
those that fail wait longer each time. When memory is short they are the first to go.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.clock import Clock
from actors.errors import ActorError, DeadlineExceeded
from actors.exit import Exit
from supervisors import memory, placement
from supervisors.backoff import Backoff
from supervisors.placement import NodeLike
from supervisors.service import ServicePlan

if TYPE_CHECKING:
    from supervisors.slot import Host, Slot

_PAUSE = 0.1
"""Seconds after a promotion before the next understudy is started: the restart goes first."""
_SHORT_LIFE = 5.0
"""Seconds; a process that ended by itself after less is not replaced at once every time."""
_MEMORY_LOOK = 0.5
"""Seconds between two looks at the memory: one process is ended at each while it is short."""
_BACKOFF = Backoff()


@dataclass(frozen=True, slots=True)
class Post:
    """What an understudy stands ready for: a node, and one service or all."""

    node_id: str | None
    service: str | None = None


def wanted(
    blanks: int, nodes: Iterable[NodeLike], reserved: Mapping[str, int], slots: Iterable[Slot]
) -> dict[Post, int]:
    """How many understudies to have where; a service has its own where it has members, and no others."""
    alive = [node.node_id for node in nodes if node.alive]
    posts = {Post(node_id): blanks for node_id in alive if blanks}
    for slot in slots:
        if reserved.get(slot.service) and slot.node_id in alive:
            posts[Post(slot.node_id, slot.service)] = reserved[slot.service]
    return posts


def surplus(hosts: Sequence[Host], posts: Mapping[Post, int]) -> list[Host]:
    """Reserved understudies that nobody wants any more; the least ready go."""
    seen: Counter[Post] = Counter()
    found = []
    for host in sorted(hosts, key=_readiness):
        post = _post(host)
        seen[post] += 1
        if post.service is not None and seen[post] > posts.get(post, 0):
            found.append(host)
    return found


def missing(hosts: Iterable[Host], posts: Mapping[Post, int]) -> list[Post]:
    """Where one more understudy is wanted, the blank ones first."""
    there = Counter(_post(host) for host in hosts)
    found = [post for post, count in posts.items() if there[post] < count]
    return sorted(found, key=lambda post: post.service is not None)


def choose(hosts: Iterable[Host], post: Post) -> Host | None:
    """Who takes over at *post*: its own that is warm, else a blank one, else whoever is on the way."""
    fitting = [
        host for host in hosts if host.node_id == post.node_id and host.reserved_for in (None, post.service)
    ]
    return min(fitting, key=_readiness, default=None)


def at_a_time(cpus: int, *, is_bare: bool) -> int:
    """
    How many processes may start side by side: where Ray boots an interpreter for each, on a cluster
    that is not ours, that takes a CPU for most of a second.

    One more where nobody is ready: ends that come faster than that would else wait for ever longer.
    """
    return max(1, cpus // 4) + is_bare


def _post(host: Host) -> Post:
    return Post(host.node_id, host.reserved_for)


_ORDER = (
    ("ready", True),
    ("cold", True),
    ("ready", False),
    ("warming", False),
    # What it does is of use when it has done it; until then it only competes with the member's start.
    ("warming", True),
    ("starting", False),
    ("starting", True),
)


def _readiness(host: Host) -> int:
    return _ORDER.index((host.readiness, host.reserved_for is not None))


class Understudies:
    """All processes of an app that wait. Loop thread only."""

    def __init__(
        self,
        blanks: int,
        plans: Mapping[str, ServicePlan],
        epoch: int,
        clock: Clock,
        *,
        hosts: Callable[[], list[Host]],
        slots: Callable[[], Iterable[Slot]],
        nodes: Callable[[], Sequence[NodeLike]],
        spawn: Callable[[Post], Any],
        end: Callable[[Host, Exit], None],
        on_event: Callable[..., None],
    ) -> None:
        self._blanks = blanks
        self._plans = plans
        self._epoch = epoch
        self._clock = clock
        self._hosts = hosts
        self._slots = slots
        self._nodes = nodes
        self._spawn = spawn
        self._end = end
        self._on_event = on_event
        self._failures: Counter[Post] = Counter()
        self._not_before: dict[Post, float] = {}
        self._up_at: dict[Host, float] = {}
        self._is_short = False
        self.is_counted = True
        """False while a new stage still takes over who is there: nobody is missed, or too many, meanwhile."""
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def waiting(self) -> list[Host]:
        """Who waits or is about to."""
        return [
            host for host in self._hosts() if host.service is None and not host.dead and host.ordered is None
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Who is up and waits, as `ps` shows it."""
        return [
            {
                "name": host.name,
                "pid": host.pid,
                "node": host.node_id,
                "service": host.reserved_for,
                "state": host.readiness,
            }
            for host in self.waiting()
            if host.address
        ]

    def take(self, slot: Slot) -> Host | None:
        """Who takes over in *slot*, if anybody is there; not for the first life on devices."""
        if slot.gpus and not slot.gpu_ids:
            return None  # only a process that asks Ray for GPUs is told which ones
        host = choose(self.waiting(), Post(slot.node_id, slot.service))
        if host is not None:
            self._up_at.pop(host, None)
        return host

    # -- what becomes of them ------------------------------------------------------------------

    def up(self, host: Host) -> None:
        """One has said hello: it gets ready now."""
        self._up_at[host] = self._clock.now()
        self._prepare(host)

    def died(self, host: Host) -> None:
        """One has ended; by itself, unless it was ordered to."""
        lived = self._clock.now() - self._up_at.pop(host, -math.inf)
        if host.service is not None:
            return
        # What hangs is ended by us, and has failed all the same.
        if host.ordered is None or host.ordered.kind == "hung":
            has_failed = host.readiness == "warming" and host.reserved_for is not None
            if has_failed or lived < _SHORT_LIFE:
                self._fail(_post(host))
            else:
                self._failures.pop(_post(host), None)

    def _fail(self, post: Post) -> float:
        """Once more has *post* not worked; says for how many seconds nobody tries again."""
        self._failures[post] += 1
        delay = _BACKOFF.delay(self._failures[post])
        self._not_before[post] = self._clock.now() + delay
        return delay

    def _prepare(self, host: Host) -> None:
        if host.service is None and not host.dead and not self._is_closed:
            host.readiness = "warming"
            task = asyncio.get_running_loop().create_task(self._rehearse(host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _rehearse(self, host: Host) -> None:
        """Have it import and warm what it may need. Whoever takes over meanwhile is not waited for."""
        plan = self._plans.get(host.reserved_for or "")
        limit = plan.start_timeout if plan is not None else math.inf
        assert host.ref is not None
        try:
            outcome, exit = await host.ref.options(timeout=limit if limit < math.inf else None).rehearse(
                self._epoch, plan.to_plain() if plan is not None else None
            )
        except DeadlineExceeded:
            self._overran(host, limit)
            return
        except ActorError:
            return  # its process is gone, or follows another stage
        if host.service is not None or host.dead:
            return
        if outcome == "ready":
            host.readiness = "ready"
            if host.reserved_for is not None:
                self._note("understudy.ready", host, "")
        else:
            host.readiness = "cold"
            _, reason, traceback = exit
            delay = self._fail(_post(host))
            self._note("understudy.warm_failed", host, reason, delay=round(delay, 3), traceback=traceback)
            self._clock.call_later(delay, lambda: self._prepare(host))

    def _overran(self, host: Host, limit: float) -> None:
        if host.service is not None or host.dead:
            return
        reason = f"not ready within {limit:g} s"
        self._note("understudy.warm_failed", host, reason, traceback="")
        self._end(host, Exit("hung", reason))  # a thread cannot be ended without its process

    def _note(self, event: str, host: Host, reason: str, **fields: Any) -> None:
        self._on_event(
            event,
            supervisor=host.reserved_for or "company",
            context="warm",
            reason=reason,
            child=host.name,
            host=host.name,
            pid=host.pid,
            service=host.reserved_for,
            **fields,
        )

    # -- how many there are ----------------------------------------------------------------------

    def refill_later(self) -> None:
        """Look soon at who is missing."""
        if not self._is_closed:
            self._clock.call_later(_PAUSE, self.refill)

    def refill(self) -> None:
        """Start one where one is missing, the next when it is up; let go whom nobody wants."""
        if self._is_closed or not self.is_counted:
            return
        reserved = {name: plan.understudies for name, plan in self._plans.items() if plan.understudies}
        posts = wanted(self._blanks, self._nodes(), reserved, self._slots())
        for host in surplus(self.waiting(), posts):
            self._end(host, Exit("shutdown", "nobody needs it"))
        is_bare = not any(host.readiness == "ready" for host in self.waiting())
        starting = sum(not host.address for host in self._hosts())
        at_once = at_a_time(placement.cpus(self._nodes()), is_bare=is_bare) - starting
        if self._is_short or at_once < 1:
            return  # each hello looks again
        now = self._clock.now()
        lacking = missing(self.waiting(), posts)
        due = [post for post in lacking if self._not_before.get(post, 0.0) <= now]
        if due:
            self._spawn(due[0])
            if at_once > 1:
                self.refill()
        elif lacking:
            soonest = min(self._not_before[post] for post in lacking)
            self._clock.call_later(soonest - now + 0.001, self.refill)

    # -- memory ----------------------------------------------------------------------------------

    async def watch_memory(self) -> None:
        """Whoever only waits goes first when memory is short, one after the other, the fullest first."""
        while True:
            await asyncio.sleep(_MEMORY_LOOK)
            self.look_at_memory(memory.used())

    def look_at_memory(self, used: float) -> None:
        """*used* is the share of the memory that is in use."""
        was_short, self._is_short = (
            self._is_short,
            used >= (memory.ENOUGH if self._is_short else memory.SHORT),
        )
        if was_short and not self._is_short:
            self.refill()
        if used < memory.SHORT:
            return
        there = [host for host in self.waiting() if host.pid]
        host = max(there, key=lambda host: memory.resident(host.pid), default=None)
        if host is not None:
            self._end(host, Exit("shutdown", f"memory is short: {used:.0%} is used"))

    def close(self) -> None:
        """Nobody is missed any more."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()

"""Understudies: who is missing, who takes over, who is tried again and who goes first. No process, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import ActorStopped, DeadlineExceeded
from actors.exit import Exit
from actors.testing import ManualClock
from supervisors import memory
from supervisors.service import Service
from supervisors.slot import Host, Slot
from supervisors.understudies import Post, Understudies, choose, missing, surplus, wanted


class Chef(Actor): ...


@dataclass
class Node:
    node_id: str
    alive: bool = True
    resources: dict[str, float] = field(default_factory=dict)
    available: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def host(name: str, node: str = "n1", service: str | None = None, readiness: str = "ready") -> Host:
    return Host(
        name,
        node,
        None,
        address=f"ipc://{name}" if readiness != "starting" else "",
        pid=1,
        reserved_for=service,
        readiness=readiness,  # type: ignore[arg-type]
    )


def slot(service: str, node: str | None = "n1") -> Slot:
    return Slot(f"{service}-1", service, {}, {}, node_id=node)


class TestWhoIsWanted:
    def test_some_blank_ones_on_every_node_that_lives(self) -> None:
        nodes = [Node("n1"), Node("n2"), Node("n3", alive=False)]

        assert wanted(2, nodes, {}, []) == {Post("n1"): 2, Post("n2"): 2}
        assert wanted(0, nodes, {}, []) == {}

    def test_reserved_ones_where_their_service_has_members(self) -> None:
        nodes = [Node("n1"), Node("n2"), Node("n3", alive=False)]
        slots = [
            slot("opera"),
            slot("opera"),
            slot("opera", "n3"),
            slot("kitchen", "n2"),
            slot("opera", None),
        ]

        assert wanted(0, nodes, {"opera": 1, "vision": 1}, slots) == {Post("n1", "opera"): 1}

    def test_those_who_wait_or_are_on_the_way_are_not_missing(self) -> None:
        posts = {Post("n1", "opera"): 1, Post("n1"): 2}

        assert missing([], posts) == [Post("n1"), Post("n1", "opera")]
        assert missing([host("a"), host("b", readiness="starting")], posts) == [Post("n1", "opera")]
        assert missing([host("a"), host("b"), host("c", service="opera", readiness="cold")], posts) == []

    def test_reserved_ones_too_many_go_and_the_readiest_stay(self) -> None:
        ready, warming = host("a", service="opera"), host("b", service="opera", readiness="warming")
        elsewhere, blank = host("c", "n2", service="opera"), host("d")

        assert surplus([warming, ready, elsewhere, blank], {Post("n1", "opera"): 1}) == [elsewhere, warming]


class TestWhoTakesOver:
    def test_its_own_that_is_warm_then_a_blank_one_then_whoever_is_on_the_way(self) -> None:
        order = [
            host("warm", service="opera"),
            host("cold", service="opera", readiness="cold"),
            host("blank"),
            host("importing", readiness="warming"),
            host("warming", service="opera", readiness="warming"),
            host("starting", readiness="starting"),
            host("starting too", service="opera", readiness="starting"),
        ]
        hosts = order[::-1]
        taken = []
        while (chosen := choose(hosts, Post("n1", "opera"))) is not None:
            hosts.remove(chosen)
            taken.append(chosen.name)

        assert taken == [each.name for each in order]

    def test_nobody_from_another_node_or_of_another_service(self) -> None:
        hosts = [host("a", "n2"), host("b", service="kitchen")]

        assert choose(hosts, Post("n1", "opera")) is None


class Director:
    """A host's ref: gets ready as it is told, or not."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.limits: list[float | None] = []

    def options(self, timeout: float | None) -> Director:
        self.limits.append(timeout)
        return self

    async def rehearse(self, epoch: int, plan: Any) -> tuple[str, Any]:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]


class Wings:
    """All that understudies know of the company."""

    def __init__(self, clock: ManualClock, blanks: int = 1, cpus: int = 2) -> None:
        self.hosts: list[Host] = []
        self.spawned: list[Post] = []
        self.ended: list[tuple[str, Exit]] = []
        self.events: list[dict[str, Any]] = []
        self.slots = [slot("opera")]
        self.clock = clock
        self.understudies = Understudies(
            blanks,
            {"opera": Service("opera", Chef, understudies=1, start_timeout=7.0).plan()},
            1,
            clock,
            hosts=lambda: self.hosts,
            slots=lambda: self.slots,
            nodes=lambda: [Node("n1", resources={"CPU": cpus})],
            spawn=self._spawn,
            end=self._end,
            on_event=lambda event, **fields: self.events.append({"event": event, **fields}),
        )

    def _spawn(self, post: Post) -> None:
        self.spawned.append(post)
        self.hosts.append(host(f"host-{len(self.spawned)}", "n1", post.service, "starting"))

    def _end(self, host: Host, why: Exit) -> None:
        host.ordered = why
        self.ended.append((host.name, why))

    async def come_up(self, *outcomes: Any) -> Host:
        """The oldest of those that start says hello."""
        first = next(host for host in self.hosts if not host.address)
        first.address, first.ref = "ipc://x", Director(*outcomes)  # type: ignore[assignment]
        self.understudies.up(first)
        await turns()
        self.understudies.refill()
        return first

    def die(self, host: Host) -> None:
        host.dead = True
        self.hosts.remove(host)
        self.understudies.died(host)
        self.understudies.refill()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def wings(clock: ManualClock) -> Wings:
    return Wings(clock)


FAILED = ("failed", ("start_failed", "OSError: no model", "Traceback"))


async def test_the_blank_ones_are_started_first_one_at_a_time_unless_nobody_is_ready(
    clock: ManualClock,
) -> None:
    wings = Wings(clock, blanks=3)
    wings.understudies.refill()
    wings.understudies.refill()
    assert wings.spawned == [Post("n1")] * 2

    await wings.come_up(("ready", None))
    assert len(wings.spawned) == 2
    await wings.come_up(("ready", None))
    assert len(wings.spawned) == 3
    await wings.come_up(("ready", None))
    assert wings.spawned == [*[Post("n1")] * 3, Post("n1", "opera")]

    reserved = await wings.come_up(("ready", None))
    assert len(wings.spawned) == 4
    assert [(row["service"], row["state"]) for row in wings.understudies.rows()] == [
        *[(None, "ready")] * 3,
        ("opera", "ready"),
    ]
    assert reserved.ref.limits == [7.0]  # type: ignore[union-attr]


async def test_a_large_machine_starts_several_side_by_side(clock: ManualClock) -> None:
    wings = Wings(clock, blanks=5, cpus=12)

    wings.understudies.refill()

    assert wings.spawned == [Post("n1")] * 4  # and one more as long as nobody is ready
    await wings.come_up(("ready", None))
    assert len(wings.spawned) == 4
    await wings.come_up(("ready", None))
    assert len(wings.spawned) == 5


async def test_a_failed_warm_is_told_and_tried_again_after_longer_and_longer(
    clock: ManualClock, wings: Wings
) -> None:
    wings.understudies.refill()
    await wings.come_up(("ready", None))
    reserved = await wings.come_up(FAILED, FAILED, ("ready", None))

    assert reserved.readiness == "cold"
    assert wings.understudies.take(wings.slots[0]) is reserved  # of use all the same
    failed = wings.events[-1]
    assert (failed["event"], failed["reason"], failed["service"]) == (
        "understudy.warm_failed",
        "OSError: no model",
        "opera",
    )
    await clock.elapse(0.25)
    await turns()
    assert [event["event"] for event in wings.events] == ["understudy.warm_failed"] * 2
    delays = [event["delay"] for event in wings.events]
    assert 0.2 <= delays[0] <= 0.24 < 0.4 <= delays[1] <= 0.48
    await clock.elapse(0.5)
    await turns()
    assert reserved.readiness == "ready"
    assert wings.events[-1]["event"] == "understudy.ready"
    assert wings.ended == []


async def test_one_that_is_never_ready_is_ended(wings: Wings) -> None:
    wings.understudies.refill()
    await wings.come_up(("ready", None))

    reserved = await wings.come_up(DeadlineExceeded("7 s"))

    assert wings.ended == [(reserved.name, Exit("hung", "not ready within 7 s"))]
    assert wings.events[-1]["reason"] == "not ready within 7 s"


async def test_one_that_has_taken_over_meanwhile_is_not_judged(wings: Wings) -> None:
    wings.understudies.refill()
    await wings.come_up(("ready", None))
    reserved = next(host for host in wings.hosts if not host.address)
    reserved.service = "opera"

    await wings.come_up(FAILED)

    assert wings.events == []


@pytest.mark.parametrize("ordered", [None, Exit("hung", "not ready within 7 s")])
async def test_whoever_dies_while_it_gets_ready_is_replaced_later_each_time(
    clock: ManualClock, wings: Wings, ordered: Exit | None
) -> None:
    """A `warm` that ends its process must not have one started after the other."""
    wings.understudies.refill()
    await wings.come_up(("ready", None))
    waits = []
    for _ in range(4):
        reserved = await wings.come_up(ActorStopped("gone"))
        assert reserved.readiness == "warming"
        reserved.ordered = ordered
        await clock.elapse(60)  # however long it took
        spawned = len(wings.spawned)
        died_at = clock.now()
        wings.die(reserved)
        while len(wings.spawned) == spawned:
            await clock.elapse(0.05)
        waits.append(clock.now() - died_at)

    assert waits == sorted(waits)
    assert waits[0] < 0.5
    assert waits[-1] > 1.5


async def test_one_that_has_waited_long_is_replaced_at_once(clock: ManualClock, wings: Wings) -> None:
    wings.slots.clear()
    wings.understudies.refill()
    for _ in range(5):
        blank = await wings.come_up(("ready", None))
        await clock.elapse(10)
        spawned = len(wings.spawned)
        wings.die(blank)
        assert len(wings.spawned) == spawned + 1


async def test_when_its_service_has_left_the_node_a_reserved_one_is_let_go(wings: Wings) -> None:
    wings.understudies.refill()
    await wings.come_up(("ready", None))
    reserved = await wings.come_up(("ready", None))
    wings.slots.clear()

    wings.understudies.refill()

    assert wings.ended == [(reserved.name, Exit("shutdown", "nobody needs it"))]
    assert [row["service"] for row in wings.understudies.rows()] == [None]


async def test_when_memory_is_short_the_fullest_goes_first_and_nobody_is_started(
    clock: ManualClock, wings: Wings, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident: Callable[[int], int] = lambda pid: pid  # noqa: E731
    monkeypatch.setattr(memory, "resident", resident)
    wings.understudies.refill()
    blank = await wings.come_up(("ready", None))
    reserved = await wings.come_up(("ready", None))
    reserved.pid = 2

    wings.understudies.look_at_memory(0.92)
    assert wings.ended == [("host-2", Exit("shutdown", "memory is short: 92% is used"))]
    wings.die(reserved)
    wings.understudies.look_at_memory(0.88)  # enough to keep who is there, too little for another
    await clock.elapse(100)
    assert (len(wings.spawned), blank.ordered) == (2, None)

    wings.understudies.look_at_memory(0.84)
    assert wings.spawned[2:] == [Post("n1", "opera")]


async def test_an_understudy_never_sees_a_device_before_ray_has_told_which(wings: Wings) -> None:
    wings.understudies.refill()
    await wings.come_up(("ready", None))
    seat = slot("vision")
    seat.bundle["GPU"] = 1.0

    assert wings.understudies.take(seat) is None
    seat.gpu_ids = ("0",)
    assert wings.understudies.take(seat) is wings.hosts[0]


async def test_a_stage_that_takes_over_counts_before_it_misses_anybody(wings: Wings) -> None:
    """Hosts are taken over one after the other."""
    wings.understudies.is_counted = False
    wings.hosts.append(host("a", service="opera", readiness="starting"))
    await wings.come_up(("ready", None))
    wings.hosts.append(host("b", readiness="starting"))
    await wings.come_up(("ready", None))

    wings.understudies.is_counted = True
    wings.understudies.refill()

    assert (wings.spawned, wings.ended) == ([], [])

"""The ensemble: what a group does when a service in it gives up, with services that only write down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument, ServiceFailed, StartFailed
from actors.exit import Exit
from actors.ref import Ref
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.ensemble import Ensemble
from supervisors.group import GroupPlan
from supervisors.playbill import GroupEntry
from supervisors.strategy import Strategy

GAVE_UP = Exit("shutdown", "intensity")


class Act(Actor):
    """Stands for a service: begins, halts, fails as told, and writes that down."""

    expected = (StartFailed,)
    concurrency = 100

    def __init__(self, name: str, notes: list[str], bad_starts: dict[str, int], slow: set[str]) -> None:
        self.me, self.notes, self.bad_starts, self.slow = name, notes, bad_starts, slow

    async def begin(self) -> None:
        self.notes.append(f"begin {self.me}")
        if self.bad_starts.get(self.me, 0):
            self.bad_starts[self.me] -= 1
            raise StartFailed(f"{self.me} did not start: no stove")
        while self.me in self.slow:
            await asyncio.sleep(0)

    async def halt(self, for_good: bool = False) -> None:
        self.notes.append(f"halt {self.me}{' for good' if for_good else ''}")

    async def restart(self, names: list[str], rolling: bool) -> list[str]:
        self.notes.append(f"{'rolling ' if rolling else ''}restart {self.me}")
        return []

    async def fail(self, reason: str) -> None:
        self.notes.append(f"fail {self.me}: {reason}")


class Bill:
    """Groups by name, the first at the top, and what becomes of their services."""

    def __init__(self, system: ActorSystem, *plans: GroupPlan, adopted: dict[str, Any] | None = None) -> None:
        self.system = system
        self.notes: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.kept: list[GroupEntry] = []
        self.bad_starts: dict[str, int] = {}
        self.slow: set[str] = set()
        self.adopted = adopted if adopted is not None else {}
        self._plans = {plan.name: plan for plan in plans}
        self._parts: dict[str, Ref[Any]] = {}
        self._group_of = {part: plan.name for plan in plans for part in plan.parts}
        self.top: Any = self.part(plans[0].name)

    def part(self, name: str) -> Ref[Any]:
        if name not in self._parts:
            options = self.system.options(name=name)
            self._parts[name] = (
                options.spawn(
                    Ensemble,
                    self._plans[name],
                    self.part,
                    lambda event, **fields: self.events.append((event, fields["child"])),
                    self.keep,
                    "",
                    self.adopted,
                    self.superior(name),
                )
                if name in self._plans
                else options.spawn(Act, name, self.notes, self.bad_starts, self.slow)
            )
        return self._parts[name]

    def superior(self, name: str) -> Callable[[Exit, str], object] | None:
        group = self._group_of.get(name)
        return (
            None if group is None else lambda exit, reason: self.part(group).tell("ended", name, exit, reason)
        )

    async def keep(self, entry: GroupEntry) -> None:
        self.kept.append(entry)

    async def give_up(self, name: str, reason: str = "gave up: error (Burnt)") -> None:
        """A service gives up."""
        await self.part(self._group_of[name]).ended(name, GAVE_UP, reason)

    async def wait_notes(self, *wanted: str) -> None:
        """What was written down since the last look."""
        await wait_until(lambda: len(self.notes) >= len(wanted))
        assert self.notes == list(wanted)
        self.notes.clear()


def group(name: str, *parts: str, strategy: Strategy = "rest_for_one", intensity: int = 3) -> GroupPlan:
    return GroupPlan(name, parts, strategy, intensity, 5.0)


@pytest.fixture
async def shop(system: ActorSystem) -> Bill:
    """A group of three that has begun."""
    bill = Bill(system, group("shop", "a", "b", "c", intensity=1))
    await bill.top.begin()
    await bill.wait_notes("begin a", "begin b", "begin c")
    return bill


@pytest.mark.parametrize(
    ("strategy", "notes"),
    [
        ("one_for_one", ["begin b"]),
        ("rest_for_one", ["halt c", "begin b", "begin c"]),
        ("one_for_all", ["halt c", "halt a", "begin a", "begin b", "begin c"]),
    ],
)
async def test_a_service_that_gives_up_is_an_incident_of_its_group(
    system: ActorSystem, strategy: Strategy, notes: list[str]
) -> None:
    bill = Bill(system, group("shop", "a", "b", "c", strategy=strategy))
    await bill.top.begin()
    await bill.wait_notes("begin a", "begin b", "begin c")

    await bill.give_up("b")

    await bill.wait_notes(*notes)
    assert ("group.restarting", "b") in bill.events
    told = (await bill.top.describe())["parts"]
    assert told["b"] == {"restarts": 1, "last_exit": str(GAVE_UP)}


async def test_services_start_one_after_the_other(system: ActorSystem) -> None:
    bill = Bill(system, group("shop", "a", "b"))
    bill.slow.add("a")
    begun = bill.top.begin()
    await bill.wait_notes("begin a")

    bill.slow.clear()

    await begun
    await bill.wait_notes("begin b")


async def test_over_the_intensity_the_group_fails_as_a_whole(shop: Bill) -> None:
    """Callers are told before anybody is stopped; the failure is kept when all have stopped."""
    await shop.give_up("a")
    await shop.wait_notes("halt c", "halt b", "begin a", "begin b", "begin c")

    await shop.give_up("b")

    reason = "group shop gave up: b gave up: error (Burnt)"
    await shop.wait_notes(f"fail a: {reason}", f"fail b: {reason}", f"fail c: {reason}", "halt c", "halt a")
    await wait_until(lambda: shop.kept == [GroupEntry("shop", "gave up: b gave up: error (Burnt)")])
    assert shop.events[-2:] == [("group.gave_up", "b"), ("group.failed", "shop")]
    assert (await shop.top.describe())["failed"] == "gave up: b gave up: error (Burnt)"


async def test_incidents_far_apart_are_no_reason_to_give_up(shop: Bill, clock: ManualClock) -> None:
    for _ in range(3):
        await shop.give_up("c")
        await shop.wait_notes("begin c")
        await clock.elapse(6.0)


async def test_reset_revives_all_with_fresh_limits(shop: Bill) -> None:
    for name in ("c", "c"):
        await shop.give_up(name)
    await wait_until(lambda: "halt a" in shop.notes)
    shop.notes.clear()

    assert await shop.top.reset()

    await shop.wait_notes("begin a", "begin b", "begin c")
    assert shop.kept[-1] == GroupEntry("shop", "")
    await shop.give_up("c")
    await shop.wait_notes("begin c")
    assert not await shop.top.reset()


async def test_a_first_start_that_fails_fails_the_group(system: ActorSystem) -> None:
    bill = Bill(system, group("shop", "a", "b", "c"))
    bill.bad_starts["b"] = 1

    with pytest.raises(StartFailed, match="shop did not start: b did not start: no stove"):
        await bill.top.begin()

    reason = "group shop did not start: b did not start: no stove"
    await bill.wait_notes(
        "begin a", "begin b", "halt a", f"fail a: {reason}", f"fail b: {reason}", f"fail c: {reason}"
    )


async def test_a_reset_that_fails_says_why_it_did(shop: Bill) -> None:
    """And not why something else had failed before."""
    await shop.give_up("a")
    await shop.wait_notes("halt c", "halt b", "begin a", "begin b", "begin c")
    await shop.give_up("a")
    await wait_until(lambda: "halt b" in shop.notes)
    shop.bad_starts["c"] = 1

    assert not await shop.top.reset()

    assert (await shop.top.describe())["failed"] == "did not start: c did not start: no stove"


async def test_a_restart_that_fails_is_the_next_incident(system: ActorSystem) -> None:
    bill = Bill(system, group("shop", "a", "b", intensity=2))
    await bill.top.begin()
    await bill.wait_notes("begin a", "begin b")
    bill.bad_starts["a"] = 1

    await bill.give_up("a")

    await bill.wait_notes("halt b", "begin a", "begin a", "begin b")


async def test_a_group_that_gives_up_in_a_group_is_an_incident_of_the_outer_one(system: ActorSystem) -> None:
    inner = group("inner", "b", "c", intensity=0)
    bill = Bill(system, group("outer", "a", "inner", "d"), inner)
    await bill.top.begin()
    await bill.wait_notes("begin a", "begin b", "begin c", "begin d")

    await bill.give_up("b")

    await bill.wait_notes("halt c", "halt d", "begin b", "begin c", "begin d")
    told = (await bill.top.describe())["parts"]["inner"]
    assert told == {"restarts": 1, "last_exit": str(GAVE_UP)}
    assert (await bill.top.describe())["failed"] == ""


async def test_a_group_in_a_failed_group_has_failed_too(system: ActorSystem) -> None:
    bill = Bill(system, group("outer", "a", "inner", intensity=0), group("inner", "b"))
    await bill.top.begin()
    await bill.wait_notes("begin a", "begin b")

    await bill.give_up("a")

    await wait_until(lambda: "halt b" in bill.notes)
    reason = "group outer gave up: a gave up: error (Burnt)"
    assert {f"fail a: {reason}", f"fail b: {reason}"} <= set(bill.notes)
    assert (await bill.part("inner").describe())["failed"] == reason


async def test_a_group_stops_in_reverse_order(shop: Bill) -> None:
    await shop.top.halt(True)

    await shop.wait_notes("halt c for good", "halt b for good", "halt a for good")


async def test_a_stop_does_not_wait_for_a_slow_start(system: ActorSystem) -> None:
    bill = Bill(system, group("shop", "a", "b"))
    bill.slow.add("b")
    begun = bill.top.begin()
    await bill.wait_notes("begin a", "begin b")

    await bill.top.halt()

    await bill.wait_notes("halt b", "halt a")
    with pytest.raises(StartFailed, match="was stopped while it started"):
        await begun


async def test_what_an_earlier_stage_has_left_is_not_started_again(system: ActorSystem) -> None:
    """None waits for another, and a bad start among them is an incident like any other."""
    loop = asyncio.get_running_loop()
    begun: dict[str, asyncio.Future[None]] = {name: loop.create_future() for name in "abc"}
    bill = Bill(system, group("shop", "a", "b", "c"), adopted=dict(begun))

    await bill.top.begin()
    assert bill.notes == []
    begun["b"].set_exception(StartFailed("b did not start: no stove"))

    await bill.wait_notes("halt c", "begin b", "begin c")
    begun["a"].set_result(None)


async def test_a_group_goes_on_starting_when_nobody_listens_any_more(system: ActorSystem) -> None:
    bill = Bill(system, group("outer", "inner", intensity=1), group("inner", "a", intensity=0))
    bill.slow.add("a")
    begun = bill.top.begin()
    await bill.wait_notes("begin a")
    begun.cancel()
    bill.slow.clear()
    await bill.give_up("a")

    await bill.wait_notes("begin a")


async def test_two_resets_at_once_are_one(shop: Bill) -> None:
    for _ in range(2):
        await shop.give_up("c")
    await wait_until(lambda: "halt a" in shop.notes)
    shop.notes.clear()

    assert sorted([await each for each in (shop.top.reset(), shop.top.reset())]) == [False, True]

    await shop.wait_notes("begin a", "begin b", "begin c")


ALL_ANEW = ["halt c", "halt b", "halt a", "begin a", "begin b", "begin c"]


@pytest.mark.parametrize(
    ("strategy", "notes"),
    [
        ("one_for_one", ["restart a", "restart b", "restart c"]),
        ("rest_for_one", ALL_ANEW),
        ("one_for_all", ALL_ANEW),
    ],
)
async def test_an_order_restarts_a_group_by_its_strategy_at_no_cost(
    system: ActorSystem, strategy: Strategy, notes: list[str]
) -> None:
    bill = Bill(system, group("shop", "a", "b", "c", strategy=strategy, intensity=0))
    await bill.top.begin()
    bill.notes.clear()

    for _ in range(2):
        assert await bill.top.restart([]) == ["a", "b", "c"]
        await bill.wait_notes(*notes)

    assert bill.kept == bill.events == []


async def test_one_by_one_goes_only_where_nobody_depends_on_another(system: ActorSystem) -> None:
    loose = Bill(system, group("loose", "a", strategy="one_for_one"))
    tight = Bill(system, group("tight", "x", "y"))
    for bill in (loose, tight):
        await bill.top.begin()
        bill.notes.clear()

    await loose.top.restart([], True)
    with pytest.raises(InvalidArgument, match="tight is rest_for_one: its parts stop and start together"):
        await tight.top.restart([], True)

    assert (loose.notes, tight.notes) == (["rolling restart a"], [])


async def test_a_group_that_has_failed_is_reset_and_not_restarted(shop: Bill) -> None:
    for _ in range(2):
        await shop.give_up("c")

    with pytest.raises(ServiceFailed, match=r"group shop has failed \(gave up: c gave up: error \(Burnt\)\)"):
        await shop.top.restart([])


async def test_a_restart_by_order_that_fails_is_an_incident_of_the_outer_group(system: ActorSystem) -> None:
    bill = Bill(system, group("mall", "shop"), group("shop", "a", "b"))
    await bill.top.begin()
    bill.notes.clear()
    bill.bad_starts["b"] = 1

    with pytest.raises(StartFailed, match="shop did not start: b did not start: no stove"):
        await bill.part("shop").restart([])

    await wait_until(lambda: bill.notes[-2:] == ["begin a", "begin b"] and len(bill.notes) == 7)
    assert ("group.restarting", "shop") in bill.events

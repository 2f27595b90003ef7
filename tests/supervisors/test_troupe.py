"""The troupe: what it tells its supervision of ends whose cause comes later."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import StartFailed
from actors.exit import Exit
from actors.system import ActorSystem
from actors.testing import wait_until
from supervisors.exits import Verdict
from supervisors.news import is_at_leisure
from supervisors.playbill import EndedMember, LivingMember, MemberEntry, ServiceEntry
from supervisors.registry import MemberView, ServiceView
from supervisors.service import Service
from supervisors.slot import Host, Slot
from supervisors.troupe import Troupe

KILLED = Verdict(Exit("killed", "SIGKILL or os._exit"), counts=True, is_final=True)
LOST = Verdict(Exit("node_lost", "node 3"), counts=False, is_final=True)
OOM = Verdict(Exit("oom", "low"), counts=True, is_final=True)


class Chef(Actor):
    async def cook(self) -> str:
        return "steak"


class Orders:
    """A host's ref: whatever is ordered is done."""

    def __init__(self, outcome: tuple[str, Any]) -> None:
        self._outcome = outcome
        self.stopped: list[str] = []

    async def start_member(self, *order: Any) -> tuple[str, Any]:
        return self._outcome

    async def stop_member(self, epoch: int, name: str, *order: Any) -> tuple[str, str, str]:
        self.stopped.append(name)
        return "shutdown", "", ""

    def tell(self, *order: Any) -> None: ...


class Company:
    """One slot; a new host whenever the last one is dead."""

    def __init__(self, outcome: tuple[str, Any]) -> None:
        self.outcome = outcome
        self.slot = Slot("kitchen-1", "kitchen", {}, {})
        self.hosts: list[Host] = []

    def slot_for(self, plan: Any, member: str) -> Slot:
        self.slot.members[member] = None
        return self.slot

    async def man(self, slot: Slot, plan: Any, on_pending: Any) -> Host:
        if slot.host is None:
            name = f"host-{len(self.hosts)}"
            slot.host = Host(name, "node", None, address=name, pid=1, slot=slot, service="kitchen")
            slot.host.ref = Orders(self.outcome)  # type: ignore[assignment]
            self.hosts.append(slot.host)
        return slot.host

    def slot_named(self, name: str | None) -> Slot | None:
        return self.slot if name == self.slot.name else None

    def leave_slot(self, slot: Slot, member: str) -> None:
        slot.members.pop(member, None)


class Show:
    """A troupe and what becomes of it."""

    def __init__(
        self,
        system: ActorSystem,
        intensity: int,
        in_group: bool = False,
        outcome: tuple[str, Any] = ("started", None),
        failed: str = "",
        ended: EndedMember | None = None,
    ) -> None:
        self.company = Company(outcome)
        self.events: list[str] = []
        self.views: list[ServiceView] = []
        self.kept: list[ServiceEntry] = []
        self.gave_up: list[str] = []
        """What its group was told."""
        plan = Service("kitchen", Chef, intensity=intensity, period=3600.0).plan()

        async def commit(entry: ServiceEntry) -> None:
            self.kept.append(entry)

        self.troupe = system.options(name="kitchen").spawn(
            Troupe,
            plan,
            self.company,  # type: ignore[arg-type]
            self.views.append,
            lambda event, **fields: self.events.append(event),
            commit,
            1,
            self.left_behind(failed) if failed or ended else None,
            {"kitchen/0": (self.company.hosts[0], LivingMember(7, 3, True, True))} if failed else {},
            {"kitchen/0": ended} if ended else {},
            (lambda exit, reason: self.gave_up.append(reason)) if in_group else None,
        )
        self.begun = self.troupe.begin() if not failed else None

    def left_behind(self, failed: str) -> ServiceEntry:
        """What a stage has left that went away while it stopped the only member."""
        slot = self.company.slot
        slot.members["kitchen/0"] = None
        slot.host = Host("host-0", "node", None, pid=1, slot=slot, service="kitchen")
        slot.host.ref = Orders(("started", None))  # type: ignore[assignment]
        self.company.hosts.append(slot.host)
        return ServiceEntry("kitchen", 1, failed, (MemberEntry("kitchen/0", 7, 3, slot.name, True),), {})

    async def state(self) -> tuple[str, str | None]:
        """Of the service, and why its member ended last."""
        service, [member] = await self.troupe.describe()
        return service["state"], member["last_exit"]

    async def lose_host(self) -> Host:
        """The host's process has ended, and nobody knows why yet."""
        host, self.company.slot.host = self.company.hosts[-1], None
        host.dead = True
        await self.troupe.host_died(host, ("kitchen/0",), Verdict(Exit("killed"), counts=True))
        return host

    async def wait_hosts(self, number: int) -> None:
        async def runs() -> bool:
            return len(self.company.hosts) == number and (await self.state())[0] == "running"

        await wait_until(runs)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [(LOST, ("running", "node_lost (node 3)")), (KILLED, ("failed", "killed (SIGKILL or os._exit)"))],
)
async def test_giving_up_waits_for_the_cause(
    system: ActorSystem, verdict: Verdict, outcome: tuple[str, str]
) -> None:
    show = Show(system, intensity=0)
    await show.wait_hosts(1)

    host = await show.lose_host()
    assert (await show.state())[0] != "failed"
    await show.troupe.host_explained(host, verdict)

    await wait_until(lambda: "service.failed" in show.events or len(show.company.hosts) == 2)
    if outcome[0] == "running":
        await show.wait_hosts(2)
    assert await show.state() == outcome


async def test_causes_that_come_in_the_wrong_order_belong_to_their_own_ends(system: ActorSystem) -> None:
    show = Show(system, intensity=1)
    await show.wait_hosts(1)
    first = await show.lose_host()
    await show.wait_hosts(2)
    second = await show.lose_host()

    await show.troupe.host_explained(second, LOST)
    await show.troupe.host_explained(first, OOM)

    await show.wait_hosts(3)
    assert await show.state() == ("running", "node_lost (node 3)")
    assert "service.failed" not in show.events


async def test_an_end_that_is_explained_costs_no_event_of_its_own(system: ActorSystem) -> None:
    """The stage tells of the process, once for all who lived in it."""
    show = Show(system, intensity=3)
    await show.wait_hosts(1)

    await show.troupe.host_explained(await show.lose_host(), OOM)

    await show.wait_hosts(2)
    assert "member.cause_known" not in show.events


class TestInAGroup:
    """A service whose group decides what follows when it gives up."""

    @pytest.fixture
    async def show(self, system: ActorSystem) -> Show:
        show = Show(system, intensity=0, in_group=True)
        await show.wait_hosts(1)
        return show

    async def give_up(self, show: Show) -> None:
        host = await show.lose_host()
        await show.troupe.host_explained(host, KILLED)
        await wait_until(lambda: show.gave_up)

    async def test_giving_up_is_told_and_callers_wait(self, show: Show) -> None:
        await self.give_up(show)

        assert show.gave_up == ["gave up: killed (SIGKILL or os._exit)"]
        assert "service.failed" not in show.events
        await wait_until(lambda: [member.state for member in show.views[-1].members] == ["restarting"])
        assert show.views[-1].state == "running"

    async def test_the_next_life_has_fresh_limits_and_goes_on_counting(self, show: Show) -> None:
        await self.give_up(show)

        await show.troupe.begin()

        assert await show.state() == ("running", "killed (SIGKILL or os._exit)")
        [member] = (await show.troupe.describe())[1]
        assert member["incarnation"] == 2
        show.gave_up.clear()
        await self.give_up(show)

    async def test_what_its_members_hold_stays_theirs_until_nothing_is_to_come(self, show: Show) -> None:
        await show.troupe.halt()
        assert list(show.company.slot.members) == ["kitchen/0"]
        await wait_until(lambda: show.kept[-1].members[0].slot == "kitchen-1")
        assert not show.kept[-1].members[0].is_running
        await show.troupe.begin()
        assert len(show.company.hosts) == 1

        await show.troupe.halt()
        await show.troupe.fail("group shop gave up")

        assert list(show.company.slot.members) == []

    async def test_who_is_not_wanted_any_more_gives_its_place_back(self, show: Show) -> None:
        await show.troupe.halt()
        await show.troupe.resize(0)

        await show.troupe.begin()

        assert list(show.company.slot.members) == []

    async def test_the_size_may_change_between_two_lives(self, show: Show) -> None:
        await show.troupe.halt()
        assert await show.troupe.resize("+1") == (1, 2)
        moved = show.troupe.move(1, 2)

        await show.troupe.begin()

        assert (await moved)["size"] == 2
        assert [member["state"] for member in (await show.troupe.describe())[1]] == ["running", "running"]

    async def test_failing_with_the_group_is_told_and_kept_at_once(self, show: Show) -> None:
        await show.troupe.fail("group shop gave up")
        await wait_until(lambda: show.views[-1].state == "failed")
        assert show.views[-1].reason == "group shop gave up"
        await wait_until(lambda: show.kept[-1].failed == "group shop gave up")

        await show.troupe.halt()
        await show.troupe.begin()

        assert (await show.state())[0] == "running"

    async def test_after_a_halt_for_good_nobody_waits(self, show: Show) -> None:
        await show.troupe.halt(True)

        await wait_until(lambda: show.views[-1].members == ())


async def test_a_first_start_that_fails_is_the_groups_to_hear(system: ActorSystem) -> None:
    show = Show(system, intensity=0, in_group=True, outcome=("failed", ("start_failed", "no stove", "")))

    with pytest.raises(StartFailed, match=r"kitchen did not start: start_failed \(no stove\)"):
        await show.begun

    assert show.gave_up == []
    assert "service.failed" not in show.events


RUNS = MemberView("kitchen/0", 7, "running", 1, "ipc://a")


def view(*members: MemberView, state: str = "running", version: int = 1) -> ServiceView:
    return ServiceView("kitchen", version, state, "", 5.0, "least_busy", members)


@pytest.mark.parametrize(
    "now",
    [
        replace(RUNS, state="restarting", reason="error (Boom)"),
        replace(RUNS, state="starting", incarnation=2),
        replace(RUNS, incarnation=2),
        RUNS,
    ],
)
def test_news_of_a_restart_in_place_may_wait(now: MemberView) -> None:
    """Its mailbox takes what comes meanwhile."""
    assert is_at_leisure(view(RUNS), view(now, version=2))


@pytest.mark.parametrize(
    ("shown", "now"),
    [
        (None, view(RUNS)),
        (view(RUNS), view(replace(RUNS, state="restarting", address=""))),  # its process is gone
        (view(RUNS), view(replace(RUNS, incarnation=2, address="ipc://b"))),
        (view(RUNS), view(replace(RUNS, state="backing_off"))),
        (view(RUNS), view(replace(RUNS, state="draining"))),
        (view(RUNS), view(replace(RUNS, uid=8))),
        (view(replace(RUNS, state="restarting")), view(RUNS)),  # somebody waits for it
        (view(RUNS), view()),
        (view(), view(RUNS)),
        (view(RUNS), view(RUNS, state="failed")),
    ],
)
def test_all_other_news_may_not(shown: ServiceView | None, now: ServiceView) -> None:
    assert not is_at_leisure(shown, now)


async def test_a_restart_in_its_process_is_one_piece_of_news_and_in_order_with_ps(
    system: ActorSystem,
) -> None:
    show = Show(system, intensity=5)
    await show.wait_hosts(1)
    before = len(show.views)

    await show.troupe.exited("kitchen/0", 1, Exit("error", "Boom"), "", 1)
    await wait_until(lambda: "member.started" in show.events[2:])
    _, [row] = await show.troupe.describe()

    assert row["incarnation"] == 2
    states = [(each.members[0].state, each.members[0].incarnation) for each in show.views[before:]]
    assert states == [("running", 2)]  # told before `ps` was answered, and once


async def test_a_lost_process_is_told_with_the_one_that_replaces_it(system: ActorSystem) -> None:
    show = Show(system, intensity=5)
    await show.wait_hosts(1)
    before = len(show.views)

    await show.lose_host()
    await show.wait_hosts(2)

    assert [each.members[0].address for each in show.views[before:]] == ["host-1"]
    assert len({each.version for each in show.views}) == len(show.views)


async def test_what_has_been_begun_is_in_the_playbill_soon(system: ActorSystem) -> None:
    """Not before: the host that begins it knows it too, and the start does not wait."""
    show = Show(system, intensity=5)
    await show.wait_hosts(1)

    await show.lose_host()
    await show.wait_hosts(2)

    await wait_until(
        lambda: show.kept[-1].members[0].incarnation == 2 and show.kept[-1].members[0].is_running
    )


async def test_who_still_runs_of_a_failed_service_goes_on_being_stopped(system: ActorSystem) -> None:
    """The stage went away in the middle of it; the next one starts nobody before that is done."""
    show = Show(system, intensity=0, in_group=True, failed="group shop gave up")
    host: Any = show.company.hosts[0]
    await wait_until(lambda: show.company.slot.members == {})
    assert host.ref.stopped == ["kitchen/0"]
    assert (await show.state())[0] == "failed"
    show.company.slot.host = None

    await show.troupe.begin()

    [member] = (await show.troupe.describe())[1]
    assert (member["state"], member["incarnation"], len(show.company.hosts)) == ("running", 4, 2)


@pytest.mark.parametrize(("counts", "state"), [(False, "running"), (True, "failed")])
async def test_what_a_stage_stopped_before_it_went_away_is_no_incident(
    system: ActorSystem, counts: bool, state: str
) -> None:
    """A group was halting it, or an order restarting it: with no intensity one count is one too many."""
    show = Show(system, intensity=0, ended=EndedMember(3, ("shutdown", "", ""), 0, counts))

    with contextlib.suppress(StartFailed):
        await show.begun

    assert (await show.state())[0] == state
    assert len(show.company.hosts) == 1

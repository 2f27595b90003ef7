"""What a process knows of its app: views, refs, routing, watching; without an app and without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.actor import Actor
from actors.blame import blame
from actors.errors import (
    ActorError,
    ActorStopped,
    Cancelled,
    InvalidArgument,
    NotFound,
    ServiceFailed,
    Unavailable,
)
from actors.exit import Exit, Terminated
from actors.ref import Ref, decoding
from actors.reply import Reply, gather
from actors.system import ActorSystem
from actors.testing import memory_system, wait_until
from supervisors.outliers import FAILURES
from supervisors.registry import MemberView, Registry, ServiceRouter, ServiceView
from supervisors.service import ServiceRef


def view(
    *members: MemberView,
    version: int = 1,
    state: str = "running",
    reason: str = "",
    routing: str = "least_busy",
) -> ServiceView:
    return ServiceView("kitchen", version, state, reason, 5.0, routing, members)


def member(
    number: int, state: str = "running", uid: int = 0, address: str = "ipc:///h", reason: str = ""
) -> MemberView:
    return MemberView(f"kitchen/{number}", uid or number + 100, state, 1, address, reason)


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    """With an inbox, so that members may live elsewhere."""
    async with memory_system(sinks=()) as system:
        yield system


@pytest.fixture
def registry(system: ActorSystem) -> Registry:
    registry = Registry("restaurant")
    registry.attach(system)
    system.directory = registry
    return registry


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Chef(Actor):
    async def cook(self, dish: str) -> str:
        return f"{dish} by {self.context.name}"

    async def burn(self) -> None:
        raise RuntimeError("burnt")

    async def total(self, numbers: AsyncIterator[int]) -> tuple[str, int]:
        return self.context.name, sum([number async for number in numbers])

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number


class Idler(Actor):
    async def cook(self, dish: str) -> None:
        await asyncio.sleep(60)


class Watcher(Actor):
    def __init__(self, target: Ref[Any], seen: list[Terminated]) -> None:
        self.seen = seen
        self.context.watch(target)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.seen.append(terminated)

    async def is_there(self) -> bool:
        return True


class TestViews:
    def test_a_view_travels_as_plain_data(self) -> None:
        sent = view(member(0), member(1, "backing_off", reason="error (burnt)"))

        assert ServiceView.from_plain(sent.to_plain()) == sent

    def test_an_older_view_never_replaces_a_newer_one(self, registry: Registry) -> None:
        registry.take([view(member(0), version=2)])
        registry.take([view(version=1), view(version=2)])

        assert registry.view("kitchen").members == (member(0),)

    def test_an_unknown_service_is_named_with_the_nearest(self, registry: Registry) -> None:
        registry.take([view()])

        with pytest.raises(
            NotFound, match=r"app 'restaurant' has no service 'kitchn'; did you mean 'kitchen'\?"
        ):
            registry.service("kitchn")


class TestLocating:
    @pytest.mark.parametrize("state", ["running", "draining", "restarting", "backing_off"])
    def test_who_is_there_is_located(self, registry: Registry, state: str) -> None:
        registry.take([view(member(0, state))])

        assert registry.locate("kitchen/0", 0) == "ipc:///h"
        assert registry.locate("kitchen/0", 100) == "ipc:///h"
        assert registry.incarnation_of("kitchen/0", 100) == 1

    @pytest.mark.parametrize("state", ["restarting", "backing_off", "pending", "starting"])
    def test_who_is_away_is_unavailable_and_never_ran(self, registry: Registry, state: str) -> None:
        """Its process is gone, or it never had one."""
        registry.take([view(member(0, state, address="", reason="killed"))])

        with pytest.raises(Unavailable, match=f"kitchen/0 is {state}") as error:
            registry.locate("kitchen/0", 0)
        assert not error.value.may_have_run

    def test_who_left_has_stopped(self, registry: Registry) -> None:
        registry.take([view(member(0))])

        with pytest.raises(ActorStopped, match="no member of kitchen"):
            registry.locate("kitchen/1", 101)
        with pytest.raises(ActorStopped, match="another has its name now"):
            registry.locate("kitchen/0", 999)

    def test_a_failed_service_says_why(self, registry: Registry) -> None:
        registry.take([view(member(0), state="failed", reason="gave up: error (burnt)")])

        with pytest.raises(ServiceFailed, match="burnt") as error:
            registry.locate("kitchen/0", 0)
        assert error.value.reason == "gave up: error (burnt)"
        with pytest.raises(ServiceFailed):
            registry.router("kitchen").pick(None, ())


class TestPicking:
    def test_only_running_members_are_picked(self, registry: Registry) -> None:
        registry.take([view(member(0, "backing_off"), member(1), member(2, "draining"))])

        assert {registry.router("kitchen").pick(None, ()).__repr__() for _ in range(5)} == {"<Ref kitchen/1>"}

    def test_the_least_busy_is_picked(self, registry: Registry) -> None:
        registry.take([view(member(0), member(1))])
        router = registry.router("kitchen")
        for _ in range(2):
            router.begun("kitchen/0")
        router.begun("kitchen/1")
        assert repr(router.pick(None, ())) == "<Ref kitchen/1>"

        router.ended("kitchen/0", 0, None)
        router.ended("kitchen/0", 0, None)

        assert repr(router.pick(None, ())) == "<Ref kitchen/0>"

    def test_round_robin_takes_them_in_turn(self, registry: Registry) -> None:
        registry.take([view(member(0), member(1), member(2), routing="round_robin")])
        router = registry.router("kitchen")
        router.begun("kitchen/0")

        picked = [repr(router.pick(None, ())) for _ in range(6)]

        assert picked[:3] == picked[3:]
        assert len(set(picked)) == 3

    def test_somebody_expected_is_waited_for_and_nobody_is_not(self, registry: Registry) -> None:
        router = registry.router("kitchen")
        registry.take([view(member(0, "restarting"), version=1)])
        assert router.pick(None, ()) is None

        registry.take([view(member(0, "pending"), version=2)])
        with pytest.raises(Unavailable, match=r"no member of kitchen is running \(pending\)") as error:
            router.pick(None, ())
        assert not error.value.may_have_run
        registry.take([view(version=3)])
        with pytest.raises(Unavailable, match="its size is 0"):
            router.pick(None, ())

    def test_who_is_expected_is_known_before_it_runs(self, registry: Registry) -> None:
        """The one whose message can be kept; not one that nobody knows the return of."""
        router = registry.router("kitchen")
        registry.take([view(member(0, "backing_off"), member(1, "restarting", address=""), version=1)])
        assert repr(router.expected(None)) == "<Ref kitchen/1>"

        registry.take([view(member(0, "backing_off"), version=2)])

        assert router.expected(None) is None

    def test_who_waits_hears_of_the_next_change_once(self, registry: Registry) -> None:
        registry.take([view(member(0, "restarting"))])
        heard: list[int] = []
        router = registry.router("kitchen")
        assert router.when_changed(lambda: heard.append(1), router.changes)

        registry.take([view(member(0), version=2)])
        registry.take([view(member(0), version=3)])

        assert heard == [1]

    def test_who_looked_before_the_last_change_does_not_wait_for_another(self, registry: Registry) -> None:
        registry.take([view(member(0, "restarting"))])
        router = registry.router("kitchen")
        looked_at = router.changes
        assert router.pick(None, ()) is None

        registry.take([view(member(0), version=2)])

        assert not router.when_changed(lambda: None, looked_at)


class TestKeys:
    def test_one_key_is_one_member_until_it_leaves(self, registry: Registry) -> None:
        registry.take([view(*map(member, range(4)))])
        router = registry.router("kitchen")
        homes = {key: repr(router.pick(key, ())) for key in map(str, range(40))}
        registry.take([view(*map(member, range(3)), member(3, "draining"), version=2)])

        moved = {key for key, home in homes.items() if repr(router.pick(key, ())) != home}

        assert moved == {key for key, home in homes.items() if home == "<Ref kitchen/3>"}
        assert len(set(homes.values())) == 4

    def test_a_key_waits_for_its_member_alone(self, registry: Registry) -> None:
        router = registry.router("kitchen")
        registry.take([view(member(0), member(1))])
        key = next(key for key in map(str, range(99)) if repr(router.pick(key, ())) == "<Ref kitchen/1>")
        registry.take([view(member(0), member(1, "restarting"), version=2)])
        assert router.pick(key, ()) is None
        assert repr(router.expected(key)) == "<Ref kitchen/1>"

        registry.take([view(member(0), member(1, "backing_off", reason="error (burnt)"), version=3)])

        with pytest.raises(Unavailable, match=r"kitchen/1, where key .* belongs, is backing_off") as error:
            router.pick(key, ())
        assert not error.value.may_have_run


class TestAvoiding:
    """Members that keep failing, as one process sees them."""

    @pytest.fixture
    def router(self, registry: Registry) -> ServiceRouter:
        registry.take([view(member(0), member(1), member(2))])
        router = registry.router("kitchen")
        router.pick(None, ())
        return router

    def fail(self, router: ServiceRouter, name: str, error: BaseException | None = None) -> None:
        for _ in range(FAILURES):
            known = router.begun(name)
            router.ended(name, known, error or blame(RuntimeError("burnt"), name))

    def picked(self, router: ServiceRouter) -> set[str]:
        return {repr(router.pick(None, ())) for _ in range(20)}

    def test_who_keeps_failing_is_avoided(self, router: ServiceRouter) -> None:
        self.fail(router, "kitchen/1")

        assert self.picked(router) == {"<Ref kitchen/0>", "<Ref kitchen/2>"}

    @pytest.mark.parametrize(
        "answer", [KeyError("no such dish"), blame(RuntimeError("burnt"), "cellar/0"), Cancelled("enough")]
    )
    def test_answers_and_failures_of_others_do_not_count(
        self, router: ServiceRouter, answer: BaseException
    ) -> None:
        self.fail(router, "kitchen/1", answer)

        assert len(self.picked(router)) == 3

    def test_it_is_better_than_who_has_declined(self, router: ServiceRouter) -> None:
        self.fail(router, "kitchen/1")

        ref = router.pick(None, [("kitchen/0", "ipc:///h"), ("kitchen/2", "ipc:///h")])

        assert repr(ref) == "<Ref kitchen/1>"

    def test_a_new_life_is_tried_by_one_call(self, router: ServiceRouter, registry: Registry) -> None:
        self.fail(router, "kitchen/1")
        again = MemberView("kitchen/1", 101, "running", 2, "ipc:///h")
        registry.take([view(member(0), again, member(2), version=2)])

        first, *rest = [repr(router.pick(None, (), is_followed=True)) for _ in range(20)]

        assert first == "<Ref kitchen/1>"
        assert "<Ref kitchen/1>" not in rest
        router.ended("kitchen/1", router.begun("kitchen/1"), None)
        assert len(self.picked(router)) == 3

    def test_it_is_back_when_all_others_are_gone(self, router: ServiceRouter, registry: Registry) -> None:
        self.fail(router, "kitchen/1")

        registry.take([view(member(0, "restarting"), member(1), member(2, "backing_off"), version=2)])

        assert self.picked(router) == {"<Ref kitchen/1>"}


class TestWatching:
    def test_a_watcher_hears_when_the_registration_ends(self, registry: Registry) -> None:
        registry.take([view(member(0), member(1))])
        heard: list[Exit] = []
        registry.watch("kitchen/0", 100, heard.append)
        registry.watch("kitchen/1", 101, heard.append)()

        registry.take([view(member(0, "restarting"), version=2)])
        assert heard == []
        registry.take([view(member(0, uid=999), version=3)])
        registry.take([view(version=4)])

        assert heard == [Exit("shutdown")]

    def test_a_failed_service_ends_all_registrations(self, registry: Registry) -> None:
        registry.take([view(member(0))])
        heard: list[Exit] = []
        registry.watch("kitchen/0", 100, heard.append)

        registry.take([view(member(0), version=2, state="failed", reason="gave up")])

        assert heard == [Exit("shutdown", "gave up")]

    def test_who_never_was_is_told_at_once(self, registry: Registry) -> None:
        heard: list[Exit] = []

        registry.take([view()])
        registry.watch("kitchen/0", 100, heard.append)
        registry.watch("cellar/0", 100, heard.append)

        assert heard == [Exit("not_found"), Exit("not_found")]

    async def test_an_actor_watches_a_member_by_its_ref(
        self, system: ActorSystem, registry: Registry
    ) -> None:
        seen: list[Terminated] = []
        registry.take([view(member(0, address="ipc:///elsewhere"))])
        target = registry.service("kitchen").member(0)
        await system.spawn(Watcher, target, seen).is_there()

        registry.take([view(version=2)])

        await wait_until(lambda: seen)
        assert [(terminated.ref, terminated.exit) for terminated in seen] == [(target, Exit("shutdown"))]

    @pytest.mark.xfail(
        strict=True, reason="`watch` looks for the member's process first, and takes none for an end"
    )
    async def test_a_member_that_is_away_has_not_ended(self, system: ActorSystem, registry: Registry) -> None:
        seen: list[Terminated] = []
        registry.take([view(member(0, "restarting", address=""))])
        target = registry.service("kitchen").member(0)
        watcher = system.spawn(Watcher, target, seen)
        await watcher.is_there()

        assert seen == []
        registry.take([view(version=2)])
        await wait_until(lambda: seen)
        assert [terminated.exit for terminated in seen] == [Exit("shutdown")]


class TestServiceRefs:
    """Refs whose members live in this very process, to see where calls go."""

    @pytest.fixture
    def kitchen(self, system: ActorSystem, registry: Registry) -> ServiceRef[Chef]:
        for number in range(2):
            system.options(name=f"kitchen/{number}").spawn(Chef)
        registry.take(
            [view(*(MemberView(f"kitchen/{n}", 0, "running", 1, system.address) for n in range(2)))]
        )
        return registry.service("kitchen")  # type: ignore[no-any-return]

    async def test_a_call_goes_to_one_member(self, kitchen: ServiceRef[Chef]) -> None:
        assert sorted([await kitchen.ask(Chef.cook, "steak") for _ in range(2)]) == [
            "steak by kitchen/0",
            "steak by kitchen/1",
        ]

    async def test_streams_go_to_one_member_in_both_directions(self, kitchen: ServiceRef[Chef]) -> None:
        name, total = await kitchen.ask(Chef.total, numbers(1000))
        assert (name in ("kitchen/0", "kitchen/1"), total) == (True, sum(range(1000)))
        doubled = kitchen.stream(Chef.doubled, numbers(1000))
        assert [number async for number in doubled] == [2 * n for n in range(1000)]

    async def test_a_stream_that_a_member_declined_goes_whole_to_another(
        self, kitchen: ServiceRef[Chef], system: ActorSystem
    ) -> None:
        """Nothing of it is used up before a handler asks."""
        gone = system.find("kitchen/1")
        await gone.kill()
        await gone.wait_stopped()

        for _ in range(4):
            assert await kitchen.ask(Chef.total, numbers(1000)) == ("kitchen/0", sum(range(1000)))

    async def test_a_stream_is_not_for_a_whole_service(self, kitchen: ServiceRef[Chef]) -> None:
        with pytest.raises(InvalidArgument, match="has one reader"):
            kitchen.broadcast(Chef.total, numbers(3))

    def test_an_unknown_member_is_named_with_how_many_there_are(self, kitchen: ServiceRef[Chef]) -> None:
        with pytest.raises(NotFound, match="kitchen/7: kitchen has 2 members"):
            kitchen.member(7)

    def test_refs_are_equal_when_service_and_key_are(
        self, kitchen: ServiceRef[Chef], registry: Registry
    ) -> None:
        assert kitchen == registry.service("kitchen")
        assert kitchen.options(key="a") == registry.service("kitchen").options(key="a")
        assert kitchen != kitchen.options(key="a")
        assert len({kitchen, kitchen.options(timeout=1), kitchen.options(key="a")}) == 2

    def test_a_ref_travels_with_its_options(self, kitchen: ServiceRef[Chef], system: ActorSystem) -> None:
        data = pickle.dumps(kitchen.options(key="a", timeout=1.5))
        decoding.system = system
        try:
            arrived = pickle.loads(data)
        finally:
            del decoding.system

        assert arrived == kitchen.options(key="a")
        assert repr(arrived) == "kitchen"

    @pytest.mark.parametrize(
        "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": "5"}, {"timeout": True}]
    )
    def test_wrong_options_are_refused(self, kitchen: ServiceRef[Chef], options: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument, match="timeout="):
            kitchen.options(**options)

    async def test_a_member_that_does_not_answer_is_soon_avoided(
        self, system: ActorSystem, registry: Registry
    ) -> None:
        """Once its row of failures is too long, nobody waits for it any more."""
        system.options(name="kitchen/0", concurrency=100).spawn(Idler)
        system.options(name="kitchen/1").spawn(Chef)
        registry.take(
            [view(*(MemberView(f"kitchen/{n}", 0, "running", 1, system.address) for n in range(2)))]
        )
        kitchen = registry.service("kitchen").options(timeout=0.2)

        outcomes = []
        for _ in range(2 * FAILURES + 10):
            reply = kitchen.cook("steak")
            await asyncio.wait([asyncio.ensure_future(_done(reply))])
            outcomes.append(reply.outcome())

        assert sum(not outcome.ok for outcome in outcomes) == FAILURES
        assert all(outcome.ok for outcome in outcomes[-10:])


async def _done(reply: Reply[Any]) -> None:
    with contextlib.suppress(ActorError):
        await reply


class TestGathering:
    async def test_every_outcome_is_there_failures_included(self, system: ActorSystem) -> None:
        good, bad = system.spawn(Chef), system.spawn(Chef)

        outcomes = await gather({"good": good.cook("steak"), "bad": bad.burn()})

        assert list(outcomes) == ["good", "bad"]
        assert outcomes["good"].unwrap() == "steak by chef-1"
        assert isinstance(outcomes["bad"].error, RuntimeError)

    async def test_nothing_gathers_at_once(self) -> None:
        assert await gather({}) == {}

    def test_cancelling_it_cancels_all(self) -> None:
        replies: dict[str, Reply[Any]] = {"a": Reply(), "b": Reply()}

        gather(replies).cancel()

        assert all(reply.done for reply in replies.values())

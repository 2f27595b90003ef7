"""Idempotent calls and their next incarnation, or their next member; without an app and without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import Actor, ActorSystem, Ref, Unavailable, idempotent
from actors.retry import MAX_ATTEMPTS, MAX_TOKENS
from actors.testing import FaultyTransport, memory_system, wait_until
from supervisors import ChildSpec, Supervisor
from supervisors.registry import MemberView, Registry, ServiceView
from supervisors.service import ServiceRef


class Oven(Actor):
    """Its lives are counted outside of it."""

    def __init__(self, log: list[Any], gate: asyncio.Event) -> None:
        self.log = log
        self.gate = gate

    @idempotent
    async def bake(self, dish: str) -> str:
        self.log.append((self.context.name, dish, self.context.redelivered))
        await self.gate.wait()
        return f"{dish} by {self.context.name}"

    @idempotent(key="dish")
    async def fry(self, dish: str) -> int:
        self.log.append(dish)
        return len(self.log)

    async def grill(self, dish: str) -> str:
        return await self.bake(dish)

    @idempotent
    async def explode(self) -> None:
        self.log.append(self.context.redelivered)
        raise SystemExit

    @idempotent
    async def pass_on(self, other: Ref[Any]) -> Any:
        self.log.append("asked")
        return await other.grill("soup")

    async def crash(self) -> None:
        raise RuntimeError("burnt")


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with memory_system(sinks=()) as system:
        yield system


@pytest.fixture
async def oven(system: ActorSystem, log: list[Any], gate: asyncio.Event) -> Ref[Oven]:
    """One under a supervisor that never gives up on it."""
    supervisor = system.spawn(Supervisor, [ChildSpec("oven", Oven, args=(log, gate))], "one_for_one", 1000)
    (child,) = await supervisor.which_children()
    ref: Ref[Oven] = child.ref
    return ref


class TestTheNextIncarnation:
    async def test_it_answers(self, oven: Ref[Oven], log: list[Any], gate: asyncio.Event) -> None:
        reply = oven.bake("bread")
        await wait_until(lambda: log)

        await oven.kill()
        gate.set()

        name = oven.name
        assert await reply == f"bread by {name}"
        assert log == [(name, "bread", False), (name, "bread", True)]

    async def test_what_may_not_run_twice_fails(self, oven: Ref[Oven], log: list[Any]) -> None:
        reply = oven.grill("bread")
        await wait_until(lambda: log)

        await oven.kill()

        with pytest.raises(Unavailable, match="was stopped while it ran") as error:
            await reply
        assert error.value.may_have_run
        assert len(log) == 1

    async def test_a_pinned_call_stays_with_its_incarnation(self, oven: Ref[Oven], log: list[Any]) -> None:
        reply = oven.pinned().bake("bread")
        await wait_until(lambda: log)

        await oven.kill()

        with pytest.raises(Unavailable):
            await reply
        assert len(log) == 1

    async def test_it_remembers_what_was_answered(self, oven: Ref[Oven], log: list[Any]) -> None:
        """A restart in the process keeps the answers, as it keeps the mailbox."""
        first = await oven.fry("fish")
        with pytest.raises(RuntimeError, match="burnt"):
            await oven.crash()

        assert await oven.fry("fish") == first
        assert log == ["fish"]

    async def test_five_attempts_are_enough(self, oven: Ref[Oven], log: list[Any]) -> None:
        with pytest.raises(Unavailable, match="ended itself while it ran explode") as error:
            await oven.options(timeout=60).explode()

        assert error.value.may_have_run
        assert log == [False] + [True] * (MAX_ATTEMPTS - 1)

    async def test_who_cannot_wait_for_another_attempt_is_told_at_once(
        self, oven: Ref[Oven], log: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("actors._named.wait_before", lambda attempt, random: 60.0)

        with pytest.raises(Unavailable, match="ended itself"):
            async with asyncio.timeout(10):
                await oven.options(timeout=30).explode()

        assert log == [False]

    async def test_an_outage_behind_it_is_an_answer(
        self, system: ActorSystem, oven: Ref[Oven], log: list[Any], gate: asyncio.Event
    ) -> None:
        """Who asked somebody who became unavailable is there itself."""
        behind = system.spawn(Oven, [], gate)
        reply = oven.pass_on(behind)
        await wait_until(lambda: log)

        await behind.kill()

        with pytest.raises(Unavailable, match="oven-1 was stopped"):
            await reply
        assert log == ["asked"]


async def test_c54_what_a_lost_worker_held_goes_to_another_in_order(gate: asyncio.Event) -> None:
    """Flagged as redelivered; what it has answered does not go there."""
    faults, registry = FaultyTransport(), Registry("restaurant")
    logs: list[list[Any]] = [[], []]
    async with (
        memory_system(sinks=(), transport=faults, directory=registry) as near,
        memory_system(sinks=()) as one,
        memory_system(sinks=()) as other,
    ):
        registry.attach(near)
        hosts = (one, other)
        for number, host in enumerate(hosts):
            host.options(name=f"kitchen/{number}").spawn(Oven, logs[number], gate)
        members = [MemberView(f"kitchen/{n}", 0, "running", 1, hosts[n].address) for n in range(2)]
        registry.take([_kitchen(1, members[0])])
        kitchen: ServiceRef[Oven] = registry.service("kitchen")
        gate.set()
        await kitchen.bake("1")
        gate.clear()
        held = [kitchen.bake(dish) for dish in "234"]
        await wait_until(lambda: len(logs[0]) == 2)

        registry.take([_kitchen(2, members[1])])
        faults.script("fail")
        with pytest.raises(Unavailable):
            await near.ref(f"{one.address}#nobody").anything()
        await wait_until(lambda: logs[1])
        gate.set()

        assert await asyncio.gather(*held) == [f"{dish} by kitchen/1" for dish in "234"]
        assert logs[1] == [("kitchen/1", dish, True) for dish in "234"]


def _kitchen(version: int, *members: MemberView) -> ServiceView:
    methods = ("bake", "explode", "fry", "pass_on")
    return ServiceView("kitchen", version, "running", "", 5.0, "least_busy", members, len(members), methods)


class TestAnotherMember:
    @pytest.fixture
    def kitchen(self, system: ActorSystem, log: list[Any], gate: asyncio.Event) -> ServiceRef[Oven]:
        registry = Registry("restaurant")
        registry.attach(system)
        system.directory = registry
        members = tuple(MemberView(f"kitchen/{n}", 0, "running", 1, system.address) for n in range(3))
        for member in members:
            system.options(name=member.name).spawn(Oven, log, gate)
        registry.take([_kitchen(1, *members)])
        kitchen: ServiceRef[Oven] = registry.service("kitchen")
        return kitchen

    async def test_it_answers(
        self, system: ActorSystem, kitchen: ServiceRef[Oven], log: list[Any], gate: asyncio.Event
    ) -> None:
        reply = kitchen.bake("bread")
        await wait_until(lambda: log)
        ((first, _, _),) = log

        await system.find(first).kill()
        gate.set()

        answer = await reply
        assert answer.startswith("bread by kitchen/")
        assert first not in answer
        assert [redelivered for _, _, redelivered in log] == [False, True]

    async def test_what_may_not_run_twice_fails(
        self, system: ActorSystem, kitchen: ServiceRef[Oven], log: list[Any]
    ) -> None:
        reply = kitchen.grill("bread")
        await wait_until(lambda: log)

        await system.find(log[0][0]).kill()

        with pytest.raises(Unavailable):
            await reply
        assert len(log) == 1

    async def test_there_are_no_retries_while_too_much_fails(
        self, system: ActorSystem, kitchen: ServiceRef[Oven], log: list[Any]
    ) -> None:
        budget = kitchen._router.retries
        for _ in range(int(MAX_TOKENS / 2)):
            budget.failed()
        reply = kitchen.bake("bread")
        await wait_until(lambda: log)

        await system.find(log[0][0]).kill()

        with pytest.raises(Unavailable):
            await reply
        assert len(log) == 1

    async def test_calls_of_one_name_go_where_they_are_remembered(
        self, kitchen: ServiceRef[Oven], log: list[Any]
    ) -> None:
        answers = {
            key: {await kitchen.options(idempotency_key=key).fry(f"{key} {n}") for n in range(6)}
            for key in "abcdef"
        }

        assert all(len(answer) == 1 for answer in answers.values())
        assert log == [f"{key} 0" for key in "abcdef"]

"""Calls to services find the way to a member they know at once, and never to one that is not meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import Actor, ActorSystem, UnknownMethod, idempotent
from actors.interceptors import Interceptor
from actors.testing import memory_system
from actors.traces import Trace
from actors.tracing import carrying, current_trace
from supervisors.registry import MemberView, Registry, ServiceView
from supervisors.service import ServiceRef


class Cook(Actor):
    async def where(self, *args: Any) -> str:
        return self.context.name

    async def trace(self) -> Trace | None:
        return current_trace()

    @idempotent
    async def bake(self) -> bool:
        return self.context.redelivered


class Waiter(Actor):
    async def order(self, service: str, count: int) -> list[str]:
        kitchen = self.context.service(service)
        return [await kitchen.where() for _ in range(count)]


def view(version: int, *members: MemberView) -> ServiceView:
    return ServiceView(
        "kitchen", version, "running", "", 5.0, "round_robin", members, len(members), ("bake",)
    )


def at(number: int, system: ActorSystem) -> MemberView:
    return MemberView(f"kitchen/{number}", 0, "running", 1, system.address)


@pytest.fixture
def registry() -> Registry:
    return Registry("restaurant")


@pytest.fixture
async def near(registry: Registry) -> AsyncIterator[ActorSystem]:
    async with memory_system(sinks=(), directory=registry) as system:
        registry.attach(system)
        yield system


@pytest.fixture
async def hosts() -> AsyncIterator[list[ActorSystem]]:
    async with memory_system(sinks=()) as one, memory_system(sinks=()) as other:
        for number, host in enumerate((one, other)):
            host.options(name=f"kitchen/{number}").spawn(Cook)
        yield [one, other]


@pytest.fixture
def kitchen(near: ActorSystem, registry: Registry, hosts: list[ActorSystem]) -> ServiceRef[Cook]:
    registry.take([view(1, at(0, hosts[0]), at(1, hosts[1]))])
    service: ServiceRef[Cook] = near.service("kitchen")
    return service


@pytest.fixture
def dispatched(near: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What took the long way."""
    seen: list[str] = []
    remote = near._remote
    assert remote is not None
    plain_ask = remote.ask

    def ask(call: Any, *args: Any) -> None:
        seen.append(call.method)
        plain_ask(call, *args)

    monkeypatch.setattr(remote, "ask", ask)
    return seen


async def test_the_first_call_to_each_member_takes_the_long_way_the_next_ones_do_not(
    kitchen: ServiceRef[Cook], dispatched: list[str]
) -> None:
    for _ in range(3):
        assert {await kitchen.where(), await kitchen.where()} == {"kitchen/0", "kitchen/1"}

    assert dispatched == ["where", "where"]


async def test_what_is_not_plain_takes_the_long_way(
    kitchen: ServiceRef[Cook], near: ActorSystem, dispatched: list[str]
) -> None:
    for _ in range(2):
        await kitchen.where()
    dispatched.clear()

    trace = Trace.new()
    await kitchen.where([1])
    await kitchen.where("x" * 100_000)
    with carrying(trace):
        assert (seen := await kitchen.trace()) is not None
    assert seen.trace_id == trace.trace_id
    waiter = near.spawn(Waiter)
    assert len(set(await waiter.order("kitchen", 4))) == 2

    assert dispatched == ["where", "where", "trace", *["where"] * 4]


async def test_what_is_no_method_is_said_by_its_name(kitchen: ServiceRef[Cook]) -> None:
    for name in ("_where", "wher"):
        for _ in range(4):
            with pytest.raises(UnknownMethod, match=name):
                await kitchen.ask(name)


async def test_what_is_idempotent_keeps_its_name(kitchen: ServiceRef[Cook], dispatched: list[str]) -> None:
    """By which it could be known should it come twice."""
    assert [await kitchen.bake() for _ in range(4)] == [False] * 4
    assert dispatched == ["bake"] * 4


async def test_whose_process_is_gone_is_left_for_another(
    kitchen: ServiceRef[Cook], near: ActorSystem, hosts: list[ActorSystem]
) -> None:
    assert {await kitchen.where(), await kitchen.where()} == {"kitchen/0", "kitchen/1"}

    await hosts[0].stop()

    assert [await kitchen.where() for _ in range(6)] == ["kitchen/1"] * 6


async def test_a_member_that_has_moved_is_called_where_it_lives_now(
    kitchen: ServiceRef[Cook], registry: Registry, hosts: list[ActorSystem]
) -> None:
    for _ in range(4):
        await kitchen.where()
    moved = hosts[1].options(name="kitchen/0").spawn(Cook)
    await moved.wait_started()
    before = hosts[0].statistics().handled

    registry.take([view(2, at(0, hosts[1]), at(1, hosts[1]))])

    assert {await kitchen.where(), await kitchen.where()} == {"kitchen/0", "kitchen/1"}
    assert hosts[0].statistics().handled == before


async def test_an_interceptor_sees_all_of_them(registry: Registry, hosts: list[ActorSystem]) -> None:
    class Counter(Interceptor):
        seen = 0

        def on_send(self, passing: Any) -> None:
            self.seen += 1

    counter = Counter()
    async with memory_system(sinks=(), directory=registry, interceptors=[counter]) as near:
        registry.attach(near)
        registry.take([view(1, at(0, hosts[0]), at(1, hosts[1]))])
        kitchen: ServiceRef[Cook] = near.service("kitchen")
        for _ in range(5):
            await kitchen.where()

    assert counter.seen == 5

"""
Types as users see them: checked by mypy (`test_types.py`), never run.

A line with `type: ignore[code]` must be an error of that code; without the error the check fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, assert_type

from actors import Actor, ActorSystem, Exit, Outcome, Ref, Reply, idempotent
from supervisors import App, Cluster, Group, Service, ServiceRef


class Chef(Actor):
    def __init__(self, station: str = "grill") -> None:
        self.station = station

    async def cook(self, dish: str, times: int = 1) -> str:
        return dish * times

    def chop(self, dish: str) -> bytes:
        return dish.encode()

    async def courses(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            yield dish

    async def dishes(self) -> AsyncGenerator[str, None]:
        yield "soup"

    async def count(self, dishes: AsyncIterator[str]) -> int:
        return len([dish async for dish in dishes])

    async def plates(self, dishes: AsyncIterator[str]) -> AsyncIterator[bytes]:
        async for dish in dishes:
            yield dish.encode()

    def numbers(self) -> Iterator[int]:
        yield 1

    async def hire(self) -> None:
        assert_type(self.context.deadline.remaining() if self.context.deadline else None, float | None)
        self.context.after(1.0, self.cook, "soup")
        self.context.spawn(Chef, "grill")
        self.context.stop("shutdown")


class Cashier(Actor):
    @idempotent
    async def total(self, day: str) -> int:
        return len(day)

    @idempotent(key="order")
    async def charge(self, order: str, amount: int = 1) -> bytes:
        return order.encode()

    @idempotent(key=lambda order: order)
    def refund(self, order: str) -> bool:
        return self.context.redelivered


async def charging(cashier: Ref[Cashier]) -> None:
    assert_type(await cashier.ask(Cashier.total, "monday"), int)
    assert_type(await cashier.ask(Cashier.charge, "a", amount=2), bytes)
    assert_type(await cashier.ask(Cashier.refund, "a"), bool)
    assert_type(await cashier.options(idempotency_key="order 7").ask(Cashier.charge, "a"), bytes)
    cashier.ask(Cashier.charge, 7)  # type: ignore[call-overload]
    cashier.ask(Cashier.charge)  # type: ignore[call-overload]
    cashier.options(idempotency_key=7)  # type: ignore[arg-type]


class Waiter(Actor):
    async def serve(self, table: int) -> None: ...


async def spawning(system: ActorSystem) -> None:
    assert_type(system.spawn(Chef, "grill"), Ref[Chef])
    assert_type(system.options(name="chef").spawn(Chef, station="grill"), Ref[Chef])
    system.spawn(Chef, 7)  # type: ignore[arg-type]
    system.spawn(Chef, statoin="grill")  # type: ignore[call-arg]
    system.options(nmae="chef")  # type: ignore[call-arg]
    system.find("chef")
    assert_type(await system.stop(), None)


async def asking(chef: Ref[Chef]) -> None:
    assert_type(chef.ask(Chef.cook, "steak"), Reply[str])
    assert_type(await chef.ask(Chef.cook, "steak"), str)
    assert_type(await chef.ask(Chef.cook, dish="steak", times=2), str)
    assert_type(await chef.ask(Chef.chop, "leek"), bytes)
    assert_type(chef.ask(Chef.cook, "steak").result(), str)
    assert_type(chef.ask(Chef.cook, "steak").outcome(), Outcome[str])
    assert_type(chef.ask(Chef.cook, "steak").outcome().unwrap(), str)
    assert_type(await chef.ask("cook", "steak"), Any)
    assert_type(await chef.cook("steak"), Any)
    assert_type(await chef.options(timeout=0.5).ask(Chef.cook, "steak"), str)


def asking_wrongly(chef: Ref[Chef]) -> None:
    chef.ask(Chef.cook)  # type: ignore[call-overload]
    chef.ask(Chef.cook, 7)  # type: ignore[call-overload]
    chef.ask(Chef.cook, "steak", rare=True)  # type: ignore[call-arg]
    chef.ask(Chef.chop, 7)  # type: ignore[call-overload]
    chef.ask(Waiter.serve, 7)  # type: ignore[call-overload]
    chef.ask(7)  # type: ignore[call-overload]
    chef.options(timeuot=0.5)  # type: ignore[call-arg]
    chef.options(timeout="soon")  # type: ignore[arg-type]
    if chef.ask(Chef.cook, "steak"):  # a truth value: refused when it runs
        pass


async def telling(chef: Ref[Chef]) -> None:
    assert_type(await chef.tell(Chef.cook, "stock"), None)
    assert_type(await chef.tell(Chef.chop, "leek"), None)
    assert_type(await chef.tell("cook", "stock"), None)
    chef.tell(Chef.cook, 7)  # type: ignore[call-overload]
    chef.tell(Waiter.serve, 7)  # type: ignore[call-overload]


async def streaming(chef: Ref[Chef]) -> None:
    assert_type(chef.stream(Chef.courses, ["soup"]), Reply[str])
    assert_type(chef.stream(Chef.dishes), Reply[str])
    assert_type(chef.stream(Chef.numbers), Reply[int])
    async for item in chef.stream("courses", ["soup"]):
        assert_type(item, Any)
    async for course in chef.stream(Chef.courses, ["soup"]):
        assert_type(course, str)
    for number in chef.stream(Chef.numbers):
        assert_type(number, int)
    chef.stream(Chef.courses, 7)  # type: ignore[call-overload]


async def feeding(chef: Ref[Chef], dishes: AsyncIterator[str], tables: AsyncIterator[int]) -> None:
    assert_type(await chef.ask(Chef.count, dishes), int)
    assert_type(chef.stream(Chef.plates, dishes), Reply[bytes])
    assert_type(await chef.ask(Chef.count, aiter(chef.stream(Chef.dishes))), int)
    chef.ask(Chef.count, tables)  # type: ignore[call-overload]
    chef.ask(Chef.count, ["soup"])  # type: ignore[call-overload]


async def controlling(chef: Ref[Chef]) -> None:
    assert_type(await chef.is_alive(), bool)
    assert_type(await chef.wait_started(), bool)
    assert_type(await chef.wait_stopped(), Exit)
    assert_type(await chef.stop(), None)
    assert_type(await chef.kill(), None)
    assert_type(chef.pinned(), Ref[Chef])


async def services(kitchen: ServiceRef[Chef], cluster: Cluster) -> None:
    assert_type(cluster.service("kitchen", Chef), ServiceRef[Chef])
    assert_type(cluster.service("kitchen"), ServiceRef[Any])
    assert_type(await kitchen.ask(Chef.cook, "steak"), str)
    assert_type(await kitchen.ask(Chef.chop, "leek"), bytes)
    assert_type(await kitchen.tell(Chef.cook, "stock"), None)
    assert_type(kitchen.member(2), Ref[Chef])
    assert_type(await kitchen.member(2).ask(Chef.cook, "steak"), str)
    assert_type(kitchen.stream(Chef.courses, ["soup"]), Reply[str])
    assert_type(kitchen.stream(Chef.dishes), Reply[str])
    assert_type(kitchen.stream(Chef.numbers), Reply[int])
    kitchen.stream(Chef.courses, 7)  # type: ignore[call-overload]
    outcomes = await kitchen.broadcast(Chef.cook, "steak")
    for name, outcome in outcomes.items():
        assert_type(name, str)
        assert_type(outcome.ok, bool)
    kitchen.ask(Chef.cook, 7)  # type: ignore[call-overload]
    kitchen.ask(Waiter.serve, 7)  # type: ignore[call-overload]


def described() -> None:
    assert_type(Service("kitchen", Chef, understudies=1), Service[Chef])
    Service("kitchen", Chef, understudies="1")  # type: ignore[arg-type]


def exits() -> None:
    Exit("normal")
    Exit("shutdwon")  # type: ignore[arg-type]


def groups(kitchen: Service[Chef]) -> App:
    assert_type(Group("line", kitchen, Group("inner", kitchen), strategy="rest_for_one").name, str)
    Group("line", kitchen, strategy="rest_for_all")  # type: ignore[arg-type]
    Group("line", Chef)  # type: ignore[arg-type]
    Group("line", kitchen, intensity=None)  # type: ignore[arg-type]
    return App(kitchen, Group("line", kitchen, intensity={"error": 3}), escalate=True)


async def gaps(chef: Ref[Chef], kitchen: ServiceRef[Chef]) -> None:
    """What ought to be known and is not yet: each line fails the check once it is."""
    asked = kitchen.options(timeout=0.5, key="table-7").ask(Chef.cook, "steak")
    assert_type(asked, Reply[str])  # type: ignore[assert-type]

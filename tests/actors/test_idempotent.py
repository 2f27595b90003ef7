"""
Idempotent methods: which calls are the same, what they are answered, and when they are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    Ref,
    Refusal,
    Unavailable,
    idempotent,
)
from actors.events import DeadLettered, Event
from actors.testing import FaultyTransport, ManualClock, memory_system, wait_until

from distant import Far, Till  # isort: skip


class NoCredit(Exception):
    pass


class Cashier(Actor):
    """Notes what it really does."""

    expected = (NoCredit,)
    concurrency = 3

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate or asyncio.Event()
        self.charged: list[Any] = []

    @idempotent(key="order")
    async def charge(self, order: str, amount: int = 1) -> int:
        self.charged.append((order, amount))
        return len(self.charged)

    @idempotent(key=lambda amount, *, order: (order, amount))
    async def refund(self, amount: int, *, order: str) -> int:
        self.charged.append((order, -amount))
        return len(self.charged)

    @idempotent(key="order")
    async def weigh(self, order: str) -> str:
        self.charged.append(order)
        await self.gate.wait()
        return f"{order} by {self.context.name}"

    @idempotent(key="order")
    async def refuse(self, order: str, error: BaseException) -> None:
        self.charged.append(order)
        raise error

    @idempotent
    async def total(self) -> list[Any]:
        return self.charged

    @idempotent(key="size")
    async def receipt(self, size: int) -> bytes:
        self.charged.append(size)
        return bytes(size)

    async def add(self, order: str) -> None:
        self.charged.append(order)

    async def seen(self) -> list[Any]:
        return list(self.charged)


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with ActorSystem(sinks=()) as system:
        yield system


@pytest.fixture
def cashier(system: ActorSystem, gate: asyncio.Event) -> Ref[Cashier]:
    return system.spawn(Cashier, gate)


# -- what may be idempotent -----------------------------------------------------------------------


def test_a_marked_method_is_the_method_itself() -> None:
    async def cook(self: Actor, dish: str) -> str:
        return dish

    assert idempotent(cook) is cook
    assert idempotent(key="dish")(cook) is cook


def test_a_stream_cannot_be_idempotent() -> None:
    async def courses(self: Actor) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(InvalidArgument, match="courses is a stream: it cannot be idempotent"):
        idempotent(courses)


def test_a_key_names_an_argument_or_is_a_function() -> None:
    async def cook(self: Actor, dish: str) -> str:
        return dish

    with pytest.raises(
        InvalidArgument, match=r"key='dsh': .*cook has no such argument; did you mean 'dish'\?"
    ):
        idempotent(key="dsh")(cook)
    with pytest.raises(
        InvalidArgument, match=r"key=7 of .*cook is neither an argument's name nor a function"
    ):
        idempotent(key=7)(cook)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="stands in front of a method, not of 7"):
        idempotent(7)  # type: ignore[type-var]


# -- which calls are one ---------------------------------------------------------------------------


async def test_calls_with_one_key_are_one_call(cashier: Ref[Cashier]) -> None:
    first = await cashier.charge("a", 5)

    assert [await cashier.charge("a", 7), await cashier.charge(order="a")] == [first, first]
    assert await cashier.charge("b", 5) == 2
    assert await cashier.seen() == [("a", 5), ("b", 5)]


async def test_a_function_makes_the_key_of_the_arguments(cashier: Ref[Cashier]) -> None:
    answers = [await cashier.refund(5, order=order) for order in "aab"]

    assert answers == [1, 1, 2]
    assert await cashier.refund(6, order="a") == 3


async def test_without_a_key_each_call_is_one_of_its_own(cashier: Ref[Cashier]) -> None:
    before = list(await cashier.total())
    await cashier.add("a")

    assert (before, await cashier.total()) == ([], ["a"])


async def test_a_caller_names_a_call(cashier: Ref[Cashier]) -> None:
    named = cashier.options(idempotency_key="order 7")

    assert [await named.charge("a"), await named.charge("b")] == [1, 1]
    assert await cashier.options(idempotency_key="order 8").charge("a") == 2


async def test_a_name_for_what_may_not_run_twice_is_refused(cashier: Ref[Cashier]) -> None:
    with pytest.raises(
        InvalidArgument, match=r"Cashier.add\(\) is not @idempotent: it takes no idempotency_key"
    ):
        await cashier.options(idempotency_key="order 7").add("a")
    assert await cashier.seen() == []
    with pytest.raises(InvalidArgument, match="idempotency_key=7 must be a text"):
        cashier.options(idempotency_key=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{}, {"order": []}])
async def test_arguments_without_a_key_are_refused(cashier: Ref[Cashier], arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"Cashier.charge\(\): no key can be made of the arguments"):
        await cashier.charge(**arguments)


async def test_keys_are_the_actors_and_the_methods_own(system: ActorSystem, cashier: Ref[Cashier]) -> None:
    other = system.spawn(Cashier)

    await cashier.charge("a")
    await other.charge("a")
    with pytest.raises(NoCredit):
        await cashier.refuse("a", NoCredit())

    assert await other.seen() == [("a", 1)]
    assert await cashier.seen() == [("a", 1), "a"]


async def test_tells_are_not_compared(cashier: Ref[Cashier]) -> None:
    with pytest.raises(InvalidArgument, match="a tell has no idempotency_key"):
        await cashier.options(idempotency_key="order 7").tell(Cashier.charge, "a")
    for _ in range(2):
        await cashier.tell(Cashier.charge, "a")

    assert await cashier.seen() == [("a", 1), ("a", 1)]


# -- what they are answered ---------------------------------------------------------------------------


async def test_a_call_joins_the_one_that_runs(cashier: Ref[Cashier], gate: asyncio.Event) -> None:
    calls = [cashier.weigh("a") for _ in range(3)]
    await wait_until(lambda: _has_seen(cashier, "a"))
    gate.set()

    assert await asyncio.gather(*calls) == ["a by cashier-1"] * 3
    assert await cashier.seen() == ["a"]


async def test_declared_errors_are_answers_and_remembered(cashier: Ref[Cashier]) -> None:
    for error in (NoCredit("at all"), NoCredit("so soon")):
        with pytest.raises(NoCredit, match="at all"):
            await cashier.refuse("a", error)
    for refusal in (Refusal("never"), Refusal("ever")):
        with pytest.raises(Refusal, match="never"):
            await cashier.refuse("b", refusal)

    assert await cashier.seen() == ["a", "b"]


async def test_what_the_actor_does_later_does_not_change_an_answer(cashier: Ref[Cashier]) -> None:
    named = cashier.options(idempotency_key="report")
    await cashier.add("a")
    await named.total()
    await cashier.add("b")

    assert await named.total() == ["a"]


async def test_the_first_may_leave_and_the_others_are_answered(
    cashier: Ref[Cashier], gate: asyncio.Event
) -> None:
    first, second = cashier.weigh("a"), cashier.weigh("a")
    await wait_until(lambda: _has_seen(cashier, "a"))

    first.cancel()
    await wait_until(lambda: _has_seen(cashier, "a", times=2))
    gate.set()

    assert await second == "a by cashier-1"
    with pytest.raises(Cancelled):
        await first


async def test_the_first_runs_out_of_time_and_the_others_are_answered(
    cashier: Ref[Cashier], gate: asyncio.Event
) -> None:
    first, second = cashier.options(timeout=0.05).weigh("a"), cashier.weigh("a")
    with pytest.raises(DeadlineExceeded):
        await first
    gate.set()

    assert await second == "a by cashier-1"


async def test_counters_balance(system: ActorSystem, cashier: Ref[Cashier], gate: asyncio.Event) -> None:
    calls = [cashier.weigh(order) for order in "aaabb"]
    await wait_until(lambda: _has_seen(cashier, "b"))
    calls[0].cancel()
    gate.set()
    await asyncio.gather(*calls[1:])
    await cashier.weigh("a")

    def balances() -> bool:
        now = system.statistics()
        return now.accepted == now.handled + now.in_progress + now.in_mailbox + now.dead_lettered

    assert balances()
    await wait_until(lambda: system.statistics().in_progress == 0)
    assert balances()


async def test_answers_are_forgotten_after_a_while() -> None:
    clock = ManualClock()
    async with ActorSystem(sinks=(), clock=clock) as system:
        cashier = system.spawn(Cashier)
        await cashier.charge("a")
        clock.advance(299)
        assert await cashier.charge("a") == 1
        clock.advance(2)

        assert await cashier.charge("a") == 2


async def test_large_answers_are_not_remembered(cashier: Ref[Cashier]) -> None:
    for _ in range(2):
        await cashier.receipt(60_000)
        await cashier.receipt(70_000)

    assert await cashier.seen() == [60_000, 70_000, 70_000]


async def test_many_answers_push_out_the_oldest(
    cashier: Ref[Cashier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors._answered.KEPT_COUNT", 3)
    for order in "abcda":
        await cashier.charge(order)
    assert len(await cashier.seen()) == 5

    monkeypatch.setattr("actors._answered.KEPT_BYTES", 100_000)
    for size in (60_000, 50_000, 60_000):
        await cashier.receipt(size)

    assert len(await cashier.seen()) == 8


async def _has_seen(cashier: Ref[Any], order: str, times: int = 1) -> bool:
    return (await cashier.seen()).count(order) >= times


# -- sent again ----------------------------------------------------------------------------------------


@pytest.fixture
async def ends() -> AsyncIterator[tuple[ActorSystem, FaultyTransport, ActorSystem, FaultyTransport]]:
    """Two systems, and the transport of each."""
    near_faults, far_faults = FaultyTransport(), FaultyTransport()
    async with (
        memory_system(transport=near_faults, sinks=()) as near,
        memory_system(transport=far_faults, sinks=()) as far,
    ):
        yield near, near_faults, far, far_faults


Ends = tuple[ActorSystem, FaultyTransport, ActorSystem, FaultyTransport]


async def lose_the_link(near: ActorSystem, faults: FaultyTransport, far: ActorSystem) -> None:
    """Everything that was sent on it may have run."""
    faults.script("fail")
    with pytest.raises(Unavailable):
        await near.ref(f"{far.address}#nobody").anything()


async def test_a_call_whose_link_broke_joins_itself(ends: Ends, gate: asyncio.Event) -> None:
    near, faults, far, _ = ends
    here = far.options(name="cashier").spawn(Cashier, gate)
    reply = near.ref(f"{far.address}#cashier").ask(Cashier.weigh, "a")
    await wait_until(lambda: _has_seen(here, "a"))

    await lose_the_link(near, faults, far)
    gate.set()

    assert await reply == "a by cashier"
    assert await here.seen() == ["a"]


async def test_a_call_whose_answer_was_lost_gets_the_first_answer(ends: Ends) -> None:
    near, faults, far, far_faults = ends
    here = far.options(name="cashier").spawn(Cashier)
    far_faults.script("drop")
    reply = near.ref(f"{far.address}#cashier").ask(Cashier.charge, "a")
    await wait_until(lambda: far_faults.suffered)

    await lose_the_link(near, faults, far)

    assert await reply == 1
    assert await here.seen() == [("a", 1)]


async def test_a_call_that_may_not_run_twice_is_never_sent_again(ends: Ends, gate: asyncio.Event) -> None:
    near, faults, far, far_faults = ends
    here = far.options(name="cashier").spawn(Cashier, gate)
    far_faults.script("drop")
    reply = near.ref(f"{far.address}#cashier").add("a")
    await wait_until(lambda: far_faults.suffered)

    await lose_the_link(near, faults, far)

    with pytest.raises(Unavailable) as error:
        await reply
    assert error.value.may_have_run
    assert await here.seen() == ["a"]


async def test_a_ref_that_travels_knows_what_is_idempotent(ends: Ends) -> None:
    near, faults, far, far_faults = ends

    class Host(Actor):
        async def hire(self) -> Any:
            return self.context.spawn(Cashier)

    far.options(name="host").spawn(Host)
    cashier = await near.ref(f"{far.address}#host").hire()
    far_faults.script("drop")
    reply = cashier.charge("a")
    await wait_until(lambda: "drop" in far_faults.suffered)

    await lose_the_link(near, faults, far)

    assert await reply == 1
    assert len(await cashier.seen()) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_befalls_the_way_there_each_call_runs_once_and_has_its_own_answer(seed: int) -> None:
    """Its receiver lives and remembers; and what is said never to have run has not."""
    faults = FaultyTransport(odds={"fail": 0.1, "delay": 0.1}, seed=seed, delay=0.01)
    async with memory_system(transport=faults, sinks=()) as near, memory_system(sinks=()) as far:
        here = far.options(name="cashier", mailbox=10_000).spawn(Cashier)
        cashier = near.ref(f"{far.address}#cashier").options(timeout=20)
        replies = []
        for number in range(150):
            replies.append(cashier.ask(Cashier.charge, str(number), number))
            if number % 5 == 0:
                await asyncio.sleep(0.002)
        await wait_until(lambda: all(reply.done for reply in replies), timeout=30)
        outcomes = [reply.outcome() for reply in replies]

        charged = await here.seen()
        orders = {order for order, _ in charged}
        assert len(orders) == len(charged)
        for number, outcome in enumerate(outcomes):
            if outcome.ok:
                assert charged[outcome.unwrap() - 1] == (str(number), number)
            else:
                assert isinstance(outcome.error, Unavailable)
                assert outcome.error.may_have_run or str(number) not in orders
        assert any(outcome.ok for outcome in outcomes)


# -- between processes -----------------------------------------------------------------------------------


async def test_it_is_not_looked_for_where_nobody_will_ever_be(run_root: object, far: Far) -> None:
    """An address belongs to one process life: who called it is told at once, and may have run."""
    letters: list[Event] = []
    async with ActorSystem(listen=True, sinks=(letters.append,)) as near:
        till = await far.actor(near, "stagehand").start(Till, concurrency=3)
        reply = till.options(timeout=30).nap(20)
        await wait_until(lambda: _naps(till))

        far.kill()

        with pytest.raises(Unavailable) as error:
            async with asyncio.timeout(10):
                await reply
        assert error.value.may_have_run
        assert not [letter for letter in letters if isinstance(letter, DeadLettered)]


async def _naps(till: Ref[Any]) -> bool:
    return bool(await till.napping())

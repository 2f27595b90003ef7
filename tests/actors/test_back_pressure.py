"""Back-pressure between processes: a full actor holds up its own senders, and nobody's memory grows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import Actor, ActorStopped, ActorSystem, DeadlineExceeded, MailboxFull, Ref, Unavailable
from actors import _arrivals as arrivals
from actors import _outbox as outbox
from actors.events import DeadLettered, Event
from actors.testing import memory_system, wait_until


class Chef(Actor):
    """Notes what it cooks; can be held up."""

    def __init__(self) -> None:
        self.cooked: list[Any] = []
        self.gate = asyncio.Event()

    async def cook(self, dish: Any) -> Any:
        self.cooked.append(dish)
        return dish

    async def hold(self) -> None:
        await self.gate.wait()

    async def all_cooked(self) -> list[Any]:
        return self.cooked

    async def take(self, load: bytes) -> None: ...


def far(system: ActorSystem, other: ActorSystem, name: str) -> Ref[Any]:
    return system.ref(f"{other.address}#{name}")


async def held(system: ActorSystem, other: ActorSystem, **options: Any) -> tuple[Ref[Any], asyncio.Event]:
    """A chef of the other process whose handler runs until the event is set, as this one knows it."""
    chef = other.options(name="chef", **options).spawn(Chef)
    await chef.wait_started()
    chef.tell("hold")
    await wait_until(lambda: other.statistics().in_progress == 1)
    cell = other._names.find("chef")
    assert cell.life is not None
    return far(system, other, "chef"), cell.life.instance.gate


def waits_at_its_receiver(other: ActorSystem) -> int:
    room = other._names.find("chef").mailbox.waiting_room
    return room.parked if room is not None else 0


def balances(system: ActorSystem) -> bool:
    now = system.statistics()
    return now.accepted == now.handled + now.in_progress + now.in_mailbox + now.dead_lettered


async def test_c51_a_sender_in_another_process_waits_until_there_is_room(
    system: ActorSystem, other: ActorSystem
) -> None:
    chef, gate = await held(system, other, mailbox=3, overflow="block")
    tells = [chef.tell("cook", number) for number in range(1, 7)]
    asked = chef.cook("asked")
    await wait_until(lambda: tells[2].done)
    await wait_until(lambda: waits_at_its_receiver(other) == 4)

    assert [tell.done for tell in tells] == [True] * 3 + [False] * 3
    gate.set()

    assert await asyncio.gather(*tells) == [None] * 6
    assert await asked == "asked"
    assert await chef.all_cooked() == [1, 2, 3, 4, 5, 6, "asked"]
    assert other.statistics().refused == 0
    assert balances(other)


async def test_c51_the_oldest_is_dropped_for_a_sender_in_another_process(
    system: ActorSystem, other: ActorSystem
) -> None:
    chef, gate = await held(system, other, mailbox=3, overflow="drop_oldest")
    first, *others = [chef.cook(number) for number in range(1, 5)]

    with pytest.raises(MailboxFull, match="chef has 3 messages waiting"):
        await first
    gate.set()

    assert await asyncio.gather(*others) == [2, 3, 4]


async def test_what_comes_in_one_frame_stays_in_order_whatever_its_kind(
    system: ActorSystem, other: ActorSystem
) -> None:
    """Calls that are alike are delivered together; those between them are not overtaken."""
    other.options(name="chef").spawn(Chef)
    chef = far(system, other, "chef")
    await chef.cook("first")  # the way there is known

    tells = [chef.tell("cook", 0), chef.tell("cook", 1)]
    asks = [chef.cook(2), chef.cook(dish=3), chef.cook([4]), chef.cook(5), chef.cook(6)]
    tells += [chef.tell("cook", 7), chef.tell("cook", [8]), chef.tell("cook", 9)]

    assert await asyncio.gather(*asks) == [2, 3, [4], 5, 6]
    await asyncio.gather(*tells)
    assert await chef.all_cooked() == ["first", 0, 1, 2, 3, [4], 5, 6, 7, [8], 9]
    assert balances(other)


async def test_an_actor_without_room_does_not_hold_up_its_neighbours(
    system: ActorSystem, other: ActorSystem
) -> None:
    chef, gate = await held(system, other, mailbox=2, overflow="block")
    other.options(name="waiter").spawn(Chef)
    waiter = far(system, other, "waiter")
    tells = [chef.tell("cook", number) for number in range(5_000)]
    await wait_until(lambda: waits_at_its_receiver(other) > 0)

    assert await waiter.cook("soup") == "soup"
    assert await chef.is_alive()
    more = [chef.tell("cook", number) for number in range(5_000, 5_010)]
    for number in range(5):
        assert await waiter.cook(number) == number
    assert not more[0].done
    gate.set()
    await asyncio.gather(*tells, *more)

    assert await chef.all_cooked() == list(range(5_010))
    assert balances(other)


async def test_what_waits_at_the_receiver_is_bounded_by_what_was_on_its_way(
    system: ActorSystem, other: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_IN_FLIGHT", 64 * 1024)
    monkeypatch.setattr(outbox, "_CHECKPOINT", 4 * 1024)
    monkeypatch.setattr(outbox, "_FRAME_TARGET", 8 * 1024)
    monkeypatch.setattr(outbox, "_MOST", 128)  # one frame more than that may be on its way
    monkeypatch.setattr(arrivals, "CREDIT_EVERY", 16 * 1024)
    chef, gate = await held(system, other, mailbox=2, overflow="block")
    tells, most = [], 0
    for number in range(2_000):
        tells.append(chef.tell("cook", number))
        if number % 50 == 0:
            await asyncio.sleep(0)
            most = max(most, waits_at_its_receiver(other))

    def is_held_back() -> bool:
        nonlocal most
        most = max(most, waits_at_its_receiver(other))
        return len(system._remote.peer(other.address).held) > 1_000  # type: ignore[union-attr]

    await wait_until(is_held_back)

    assert 0 < most < 300
    gate.set()
    await asyncio.gather(*tells)

    assert await chef.all_cooked() == list(range(2_000))


async def test_what_is_on_its_way_is_bounded(
    system: ActorSystem, other: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose loop is busy does not collect what others send it."""
    monkeypatch.setattr(outbox, "MAX_IN_FLIGHT", 64 * 1024)
    monkeypatch.setattr(outbox, "_CHECKPOINT", 4 * 1024)
    monkeypatch.setattr(outbox, "_FRAME_TARGET", 8 * 1024)
    monkeypatch.setattr(arrivals, "CREDIT_EVERY", 16 * 1024)
    other.options(name="chef", mailbox=100_000).spawn(Chef)
    chef = far(system, other, "chef")
    await chef.cook(0)
    peer = system._remote.peer(other.address)  # type: ignore[union-attr]
    tells = [chef.tell("take", bytes(1000)) for _ in range(1_000)]

    for _ in range(5):  # no credit comes while this loop, which is the far one too, is busy
        peer.flush()

    assert peer.waits > 800
    assert peer.on_its_way < 64 * 1024 + 8 * 1024 + 4 * 1024 + 2_000
    assert await asyncio.gather(*tells) == [None] * 1_000
    assert peer.is_idle


async def test_both_ways_full_at_once_is_no_deadlock(
    system: ActorSystem, other: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_IN_FLIGHT", 16 * 1024)
    monkeypatch.setattr(outbox, "_CHECKPOINT", 1024)
    monkeypatch.setattr(outbox, "_FRAME_TARGET", 4 * 1024)
    monkeypatch.setattr(arrivals, "CREDIT_EVERY", 4 * 1024)
    for one in (system, other):
        one.options(name="chef", mailbox=100_000).spawn(Chef)
    there, back = far(system, other, "chef"), far(other, system, "chef")

    tells = [chef.tell("take", bytes(500)) for _ in range(500) for chef in (there, back)]

    assert await asyncio.gather(*tells) == [None] * 1_000


async def test_who_waits_for_room_keeps_its_deadline_and_never_runs(
    system: ActorSystem, other: ActorSystem
) -> None:
    chef, gate = await held(system, other, mailbox=1, overflow="block")
    chef.tell("cook", "first")
    waits_there = chef.options(timeout=0.2).cook("late")
    await wait_until(lambda: waits_at_its_receiver(other) == 1)
    waits_here = chef.options(timeout=0.2).cook("later")

    for late in (waits_there, waits_here):
        with pytest.raises(DeadlineExceeded):
            await late
    await wait_until(lambda: waits_at_its_receiver(other) == 0)
    gate.set()

    assert await chef.all_cooked() == ["first"]
    assert balances(other)


async def test_who_waits_for_room_is_told_when_the_actor_ends(
    system: ActorSystem, other: ActorSystem
) -> None:
    chef, _ = await held(system, other, mailbox=1, overflow="block")
    tells = [chef.tell("cook", number) for number in range(3)]
    await wait_until(lambda: waits_at_its_receiver(other) == 2)
    waits_here = [chef.tell("cook", "later"), chef.cook("later")]

    await chef.kill()

    assert await tells[0] is None
    for reply in (*tells[1:], *waits_here):
        with pytest.raises(ActorStopped):
            await reply


async def test_who_waits_here_for_a_process_that_dies_has_never_run(
    system: ActorSystem, events: list[Event]
) -> None:
    other = memory_system(sinks=())
    await other.__aenter__()
    chef, gate = await held(system, other, mailbox=1, overflow="block")
    tells = [chef.tell("cook", number) for number in range(2)]
    await wait_until(lambda: waits_at_its_receiver(other) == 1)
    await wait_until(lambda: "chef" in system._remote.peer(other.address).held)  # type: ignore[union-attr]
    asked = chef.cook("later")
    told = chef.tell("cook", "later")

    other._transport.close()  # type: ignore[union-attr]

    for reply in (asked, told):
        with pytest.raises(Unavailable) as error:
            await reply
        assert not error.value.may_have_run
    with pytest.raises(Unavailable) as error:
        await tells[1]
    assert error.value.may_have_run
    assert [one.method for one in events if isinstance(one, DeadLettered)] == ["cook", "cook"]
    gate.set()
    await other.stop()


async def test_one_process_that_floods_an_actor_does_not_starve_another(
    system: ActorSystem, other: ActorSystem
) -> None:
    async with memory_system(sinks=()) as third:
        chef, gate = await held(system, other, mailbox=100, overflow="block")
        flood = [chef.tell("cook", ("flood", number)) for number in range(2_000)]
        await wait_until(lambda: waits_at_its_receiver(other) > 0)
        asked = far(third, other, "chef").cook("guest")
        guests = other._remote.peer(third.address).serving  # type: ignore[union-attr]
        await wait_until(lambda: any(message.is_parked for message in guests.values()))
        gate.set()

        assert await asked == "guest"
        await asyncio.gather(*flood)
        cooked = await chef.all_cooked()

    assert cooked.index("guest") <= 103
    assert [one for one in cooked if one != "guest"] == [("flood", number) for number in range(2_000)]

"""Full mailboxes: who is refused, who makes room, who waits, and that callers take turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, ActorStopped, ActorSystem, InvalidArgument, MailboxFull, Ref, Reply
from actors._mailbox import Turns
from actors._message import Message, Origin
from actors._overflow import MOST_PARKED
from actors.events import DeadLettered, Event
from actors.testing import ManualClock, memory_system, wait_until
from supervisors import ChildSpec, Service, Supervisor


class Chef(Actor):
    """Notes what it cooks, in order; can be held up."""

    def __init__(self) -> None:
        self.cooked: list[Any] = []

    async def cook(self, dish: Any) -> Any:
        self.cooked.append(dish)
        return dish

    async def hold(self, gate: asyncio.Event) -> None:
        await gate.wait()

    async def all_cooked(self) -> list[Any]:
        return self.cooked

    async def crash(self) -> None:
        raise ValueError("boom")


class Guest(Actor):
    """A caller of its own."""

    async def order(self, chef: Ref[Any], dishes: list[Any]) -> list[Reply[None]]:
        return [chef.tell("cook", dish) for dish in dishes]

    async def want(self, chef: Ref[Any], dish: Any) -> Any:
        return await chef.cook(dish)


async def held(system: ActorSystem, gate: asyncio.Event, **options: Any) -> Ref[Any]:
    """A chef whose handler runs until *gate* is set; its mailbox is empty."""
    chef = system.options(name="chef", **options).spawn(Chef)
    chef.tell("hold", gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    return chef


def letters(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.method, event.reason) for event in events if isinstance(event, DeadLettered)]


def balances(system: ActorSystem) -> bool:
    now = system.statistics()
    return now.accepted == now.handled + now.in_progress + now.in_mailbox + now.dead_lettered


# -- the three policies -------------------------------------------------------------------------


async def test_c51_drop_oldest_makes_the_first_a_dead_letter(
    system: ActorSystem, events: list[Event]
) -> None:
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=3, overflow="drop_oldest")
    first, *others = [chef.cook(number) for number in range(1, 5)]

    with pytest.raises(MailboxFull, match="chef has 3 messages waiting, its limit"):
        await first
    gate.set()

    assert await asyncio.gather(*others) == [2, 3, 4]
    assert letters(events) == [("cook", "dropped as the oldest")]
    assert system.statistics().dead_lettered == 1
    assert balances(system)


async def test_c51_block_lets_the_sender_wait_until_there_is_room(
    system: ActorSystem, events: list[Event]
) -> None:
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=3, overflow="block")
    tells = [chef.tell("cook", number) for number in range(1, 5)]
    await wait_until(lambda: tells[2].done)

    assert [tell.done for tell in tells] == [True, True, True, False]
    assert system.statistics().in_mailbox == 3
    gate.set()
    await tells[3]

    assert await chef.all_cooked() == [1, 2, 3, 4]
    assert letters(events) == []
    assert balances(system)


async def test_an_ask_that_waits_for_room_keeps_its_deadline(timed: ActorSystem, clock: ManualClock) -> None:
    gate = asyncio.Event()
    chef = await held(timed, gate, mailbox=1, overflow="block")
    chef.tell("cook", "first")
    waiting = chef.options(timeout=2).cook("late")
    await asyncio.sleep(0)

    await clock.elapse(3)

    with pytest.raises(TimeoutError, match=r"did not answer cook\(\) within 2 s"):
        await waiting
    gate.set()
    assert await chef.all_cooked() == ["first"]
    assert timed.statistics().refused == 1
    assert balances(timed)


async def test_who_does_not_wait_for_its_tells_is_refused_in_the_end(system: ActorSystem) -> None:
    """Nobody's memory grows without a bound, not even that of somebody who never looks."""
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=1, overflow="block")
    tells = [chef.tell("cook", number) for number in range(MOST_PARKED + 2)]

    with pytest.raises(MailboxFull, match="1 messages waiting, its limit, and 1000 wait for room"):
        await tells[-1]
    gate.set()

    assert await asyncio.gather(*tells[:-1]) == [None] * (MOST_PARKED + 1)


async def test_who_waits_for_room_is_told_when_the_actor_ends(system: ActorSystem) -> None:
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=1, overflow="block")
    waiting = [chef.tell("cook", 1), chef.tell("cook", 2), chef.cook(3)]

    await chef.kill()

    assert await waiting[0] is None
    for reply in waiting[1:]:
        with pytest.raises(ActorStopped):
            await reply
    assert balances(system)


async def test_who_waits_for_room_is_served_after_a_restart(system: ActorSystem) -> None:
    sup = system.options(name="sup").spawn(Supervisor, [ChildSpec("chef", Chef, mailbox=1, overflow="block")])
    await sup.wait_started()
    chef, gate = system.find("sup/chef"), asyncio.Event()
    chef.tell("hold", gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    crash, dishes = chef.crash(), [chef.cook(number) for number in range(5)]
    gate.set()

    with pytest.raises(ValueError, match="boom"):
        await crash

    assert await asyncio.gather(*dishes) == list(range(5))
    assert balances(system)


async def test_an_ask_that_waits_for_room_which_it_takes_itself_is_a_deadlock(system: ActorSystem) -> None:
    class Loop(Actor):
        mailbox = 1
        overflow = "block"

        async def ask_itself(self) -> None:
            self.context.ref.tell("nothing")
            await self.context.ref.nothing()

        async def nothing(self) -> None: ...

    with pytest.raises(Exception, match="would wait for itself"):
        await system.spawn(Loop).ask_itself()


async def test_a_timer_never_waits_for_room(timed: ActorSystem, clock: ManualClock) -> None:
    class Ticking(Chef):
        mailbox = 1
        overflow = "block"

        async def tick(self) -> None:
            self.context.every(1, "cook", "tick")

    chef, gate = timed.spawn(Ticking), asyncio.Event()
    await chef.tick()
    chef.tell("hold", gate)
    await wait_until(lambda: timed.statistics().in_progress == 1)
    chef.tell("cook", "soup")
    await clock.elapse(3.5)
    gate.set()

    assert await chef.all_cooked() == ["soup"]
    assert timed.statistics().refused == 3


def test_a_wrong_policy_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidArgument, match=r"Wrong.overflow='drop_old'.*did you mean 'drop_oldest'"):
        type("Wrong", (Actor,), {"overflow": "drop_old"})
    with pytest.raises(InvalidArgument, match="ChildSpec overflow="):
        ChildSpec("a", Chef, overflow="drop")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="Service 'a': overflow="):
        Service("a", Chef, overflow="drop")  # type: ignore[arg-type]


async def test_options_override_the_class(system: ActorSystem) -> None:
    class Patient(Chef):
        overflow = "block"

    with pytest.raises(InvalidArgument, match="overflow='drop'"):
        system.options(overflow="drop").spawn(Chef)  # type: ignore[arg-type]
    gate = asyncio.Event()
    chef = system.options(mailbox=1, overflow="reject").spawn(Patient)
    chef.tell("hold", gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    chef.tell("cook", 1)

    with pytest.raises(MailboxFull):
        await chef.tell("cook", 2)

    gate.set()
    assert Service("a", Patient).plan().overflow == "block"
    assert Service("a", Patient, overflow="drop_oldest").plan().overflow == "drop_oldest"


# -- fairness -----------------------------------------------------------------------------------


async def test_one_who_floods_an_actor_waits_behind_itself(system: ActorSystem) -> None:
    gate = asyncio.Event()
    chef, flood, guest = await held(system, gate), system.spawn(Guest), system.spawn(Guest)
    await flood.order(chef, [("flood", number) for number in range(500)])
    await guest.order(chef, [("guest", number) for number in range(3)])
    gate.set()

    cooked = await chef.all_cooked()

    assert [number for who, number in cooked if who == "guest"] == [0, 1, 2]
    assert [number for who, number in cooked if who == "flood"] == sorted(
        number for who, number in cooked if who == "flood"
    )
    assert cooked.index(("guest", 2)) <= 6


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest", "block"])
async def test_one_who_has_filled_the_mailbox_leaves_room_for_others(
    system: ActorSystem, overflow: str
) -> None:
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=10, overflow=overflow)
    flood, guest = system.spawn(Guest), system.spawn(Guest)
    sent = await flood.order(chef, [("flood", number) for number in range(30)])
    asked = guest.want(chef, ("guest", 0))
    await wait_until(lambda: asked.done or system.statistics().in_progress == 2)
    gate.set()

    assert await asked == ("guest", 0)
    await asyncio.gather(*sent, return_exceptions=True)
    cooked = await chef.all_cooked()
    assert cooked.index(("guest", 0)) <= 2 if overflow != "block" else len(cooked) == 31
    assert balances(system)


async def test_a_newcomer_takes_the_place_of_the_youngest_of_who_has_most(
    system: ActorSystem, events: list[Event]
) -> None:
    gate = asyncio.Event()
    chef = await held(system, gate, mailbox=3)
    flood, guest = system.spawn(Guest), system.spawn(Guest)
    await flood.order(chef, [1, 2, 3])
    await guest.order(chef, ["a", "b"])
    gate.set()
    await wait_until(lambda: system.statistics().in_mailbox == 0)

    assert await chef.all_cooked() == [1, "a", 2]
    assert letters(events) == [("cook", "displaced by another caller"), ("cook", "mailbox full")]
    assert system.statistics().refused == 1
    assert balances(system)


def message(caller: int, number: int) -> Message:
    return Message(str(number), (), {}, None, Origin(f"a{caller}", caller, 1, "mem://1"))


@given(st.lists(st.one_of(st.integers(0, 3), st.just("pop"), st.just("drop"), st.just("remove"))))
def test_turns_keep_each_callers_order_and_serve_all(steps: list[Any]) -> None:
    turns, waiting, number = Turns(), [], 0  # type: ignore[var-annotated]
    for step in steps:
        if step == "pop":
            taken = turns.pop()
            assert (taken is None) == (not waiting)
            if taken is not None:
                own = [one for one in waiting if one.sender == taken.sender]
                assert own[0] is taken
                waiting.remove(taken)
        elif step == "remove" and waiting:
            assert turns.remove(waiting.pop(len(waiting) // 2))
        elif isinstance(step, int):
            number += 1
            waiting.append(message(step, number))
            turns.append(waiting[-1])
        assert turns.waiting == len(waiting)
    callers = list({one.sender: None for one in waiting})
    first = [turns.pop() for _ in callers]
    assert {one.sender for one in first if one is not None} == set(callers)


# -- counters -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    overflow=st.sampled_from(["reject", "drop_oldest", "block"]),
    mailbox=st.integers(1, 4),
    steps=st.lists(
        st.sampled_from(["tell", "ask", "guest", "hold", "free", "cancel", "crash", "turn", "elapse"]),
        max_size=40,
    ),
)
def test_counters_balance_under_every_policy(overflow: str, mailbox: int, steps: list[str]) -> None:
    asyncio.run(_play(overflow, mailbox, steps))


async def _play(overflow: str, mailbox: int, steps: list[str]) -> None:
    clock, events = ManualClock(), list[Event]()
    async with memory_system(clock=clock, sinks=(events.append,)) as system:
        spec = ChildSpec("chef", Chef, mailbox=mailbox, overflow=overflow)  # type: ignore[arg-type]
        sup = system.options(name="sup").spawn(Supervisor, [spec], "one_for_one", 10_000)
        await sup.wait_started()
        chef, guest = system.find("sup/chef"), system.spawn(Guest)
        gates: list[asyncio.Event] = []
        replies: list[Reply[Any]] = []
        for number, step in enumerate(steps):
            if step == "hold":
                gates.append(asyncio.Event())
                chef.tell("hold", gates[-1])
            elif step == "free":
                for gate in gates:
                    gate.set()
            elif step == "guest":
                replies.append(guest.options(timeout=None).ask("want", chef, number))
            elif step == "cancel" and replies:
                replies[-1].cancel()
            elif step == "turn":
                for _ in range(5):
                    await asyncio.sleep(0)
            elif step == "elapse":
                await clock.elapse(2)
            elif step in ("tell", "ask", "crash"):
                verb = "cook" if step != "crash" else "crash"
                args = (number,) if step != "crash" else ()
                send = chef.tell if step == "tell" else chef.options(timeout=3).ask
                replies.append(send(verb, *args))
            assert balances(system)
            assert len(system._names.find("sup/chef").mailbox) <= mailbox

        def is_quiet() -> bool:
            for gate in gates:
                gate.set()
            now = system.statistics()
            return all(reply.done for reply in replies) and now.in_mailbox + now.in_progress == 0

        await wait_until(is_quiet)
        assert balances(system)
        for reply in replies:
            reply.outcome()

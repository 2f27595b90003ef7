"""Reliable tells: handled once and in order, whatever becomes of frames, pipes and processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors import (
    Actor,
    ActorError,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    Exit,
    InvalidArgument,
    MailboxFull,
    NotFound,
    Ref,
    SerializationError,
    ServiceFailed,
    Unavailable,
    UnknownMethod,
)
from actors import _reliable as reliable
from actors._memory import MemoryTransport
from actors._windows import WINDOW
from actors.events import DeadLettered, ErrorUnanswered, Event
from actors.remains import Remains, remains_of
from actors.routed import Routed
from actors.testing import FaultyTransport, ManualClock, memory_system, wait_until
from supervisors import ChildSpec, Supervisor

from distant import Echo, Far  # isort: skip

SEEDS = range(20 if os.environ.get("UNDERSTUDY_LONG") else 2)


class Chef(Actor):
    """Notes what it cooks, and whether it was told so before; can be held up."""

    cooked: list[tuple[Any, bool]] = []
    gates: list[asyncio.Event] = []

    def __init__(self, cooked: list[tuple[Any, bool]] | None = None) -> None:
        self.cooked = [] if cooked is None else cooked

    async def cook(self, dish: Any) -> None:
        self.cooked.append((dish, self.context.redelivered))

    async def hold(self, dish: Any) -> None:
        self.cooked.append((dish, self.context.redelivered))
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()

    async def crash(self, dish: Any) -> None:
        self.cooked.append((dish, self.context.redelivered))
        raise ValueError("boom")

    async def all_cooked(self) -> list[tuple[Any, bool]]:
        return self.cooked


class Waiter(Actor):
    """A sender of its own."""

    async def order(self, chef: Ref[Any], *dishes: Any) -> None:
        for dish in dishes:
            chef.options(reliable=True).tell("cook", dish)

    async def crash(self) -> None:
        raise ValueError("boom")


@pytest.fixture(autouse=True)
def gates() -> list[asyncio.Event]:
    Chef.gates = []
    return Chef.gates


def chef_of(system: ActorSystem, other: ActorSystem, name: str = "chef") -> Ref[Any]:
    return system.ref(f"{other.address}#{name}").options(reliable=True)


async def supervised(system: ActorSystem, **options: Any) -> Ref[Any]:
    cooked: list[tuple[Any, bool]] = []
    spec = ChildSpec("chef", Chef, args=(cooked,), **options)
    await system.options(name="sup").spawn(Supervisor, [spec], "one_for_one", 100).wait_started()
    return system.find("sup/chef").options(reliable=True)


def balances(system: ActorSystem) -> bool:
    now = system.statistics()
    return now.accepted == now.handled + now.in_progress + now.in_mailbox + now.dead_lettered


def count(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """The calls of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    wrapped: Callable[..., Any] = getattr(owner, name)

    def counted(self: Any, *args: Any) -> Any:
        calls.append(args)
        return wrapped(self, *args)

    monkeypatch.setattr(owner, name, counted)
    return calls


# -- the reply ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_far", [False, True])
async def test_it_is_acknowledged_when_its_handler_has_ended(
    system: ActorSystem, other: ActorSystem, gates: list[asyncio.Event], is_far: bool
) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other) if is_far else other.find("chef").options(reliable=True)
    tell = chef.tell("hold", "soup")
    await wait_until(lambda: gates)
    await asyncio.sleep(0.05)

    assert not tell.done
    gates[0].set()

    assert await tell is None
    assert balances(other)


@pytest.mark.parametrize("is_far", [False, True])
async def test_what_cannot_be_handled_fails_with_the_reason_and_holds_up_nobody(
    system: ActorSystem, other: ActorSystem, events: list[Event], is_far: bool
) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other) if is_far else other.find("chef").options(reliable=True)
    tells = [chef.tell("cook", 1), chef.tell("bake", 2), chef.tell("cook", 3), chef.tell("cook")]

    with pytest.raises(UnknownMethod, match="no method 'bake'"):
        await tells[1]
    assert [await tells[0], await tells[2], await tells[3]] == [None, None, None]

    assert await chef.all_cooked() == [(1, False), (3, False)]
    assert [event.reason for event in events if isinstance(event, DeadLettered)] == ["unknown method"]
    assert len([event for event in events if isinstance(event, ErrorUnanswered)]) == 1
    assert balances(other)


async def test_what_cannot_be_pickled_fails_before_it_is_sent(
    system: ActorSystem, other: ActorSystem
) -> None:
    other.options(name="chef").spawn(Chef)

    with pytest.raises(SerializationError, match=r"argument 1 of chef.cook\(\) cannot be pickled"):
        await chef_of(system, other).tell("cook", threading.Lock())


async def test_what_the_receiver_cannot_decode_fails_alone(system: ActorSystem, other: ActorSystem) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other)
    tells = [chef.tell("cook", 1), chef.tell("cook", Undecodable()), chef.tell("cook", 3)]

    with pytest.raises(SerializationError, match="cannot decode the message: ValueError: never here"):
        await tells[1]
    await asyncio.gather(tells[0], tells[2])

    assert await chef.all_cooked() == [(1, False), (3, False)]


class Undecodable:
    """Pickles, and nobody can read it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _never, ()


def _never() -> None:
    raise ValueError("never here")


async def test_nobody_is_not_found_at_once(system: ActorSystem, other: ActorSystem) -> None:
    with pytest.raises(NotFound, match="no actor is named 'chef'"):
        await chef_of(system, other).tell("cook", 1)


async def test_an_actor_that_has_ended_says_so_to_all_that_wait(
    system: ActorSystem, other: ActorSystem, gates: list[asyncio.Event]
) -> None:
    chef = other.options(name="chef").spawn(Chef)
    tells = [
        chef_of(system, other).tell("hold", 1),
        *(chef_of(system, other).tell("cook", n) for n in range(3)),
    ]
    await wait_until(lambda: gates)

    await chef.kill()

    for tell in tells:
        with pytest.raises(ActorStopped):
            await tell
    assert balances(other)


async def test_a_window_that_is_full_refuses_the_next(
    system: ActorSystem, other: ActorSystem, gates: list[asyncio.Event], events: list[Event]
) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other)
    tells = [chef.tell("hold", 0), *(chef.tell("cook", n) for n in range(1, WINDOW + 1))]

    with pytest.raises(MailboxFull, match=f"chef: {WINDOW} reliable tells are not acknowledged, the limit"):
        await tells[-1]
    assert [event.reason for event in events if isinstance(event, DeadLettered)] == ["window full"]
    await wait_until(lambda: gates)
    gates[0].set()
    await asyncio.gather(*tells[:-1])


async def test_they_wait_for_room_whatever_the_policy(
    system: ActorSystem, other: ActorSystem, gates: list[asyncio.Event]
) -> None:
    other.options(name="chef", mailbox=2).spawn(Chef)
    chef = chef_of(system, other)
    tells = [chef.tell("hold", 0), *(chef.tell("cook", n) for n in range(1, 20))]
    await wait_until(lambda: gates)

    await wait_until(lambda: other.statistics().in_mailbox == 2)

    with pytest.raises(MailboxFull):
        await chef.cook("plain")
    gates[0].set()
    await asyncio.gather(*tells)

    assert await chef.all_cooked() == [(n, False) for n in range(20)]
    assert balances(other)


async def test_past_its_deadline_it_fails_and_never_runs(
    system: ActorSystem, other: ActorSystem, gates: list[asyncio.Event]
) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other)
    first = chef.tell("hold", 1)
    await wait_until(lambda: gates)
    late = chef.options(timeout=0.1).tell("cook", 2)

    with pytest.raises(DeadlineExceeded, match=r"chef.cook\(\) was not acknowledged before its deadline"):
        await late
    gates[0].set()
    await first
    await chef.tell("cook", 3)

    assert await chef.all_cooked() == [(1, False), (3, False)]
    assert balances(other)


def test_the_option_is_true_or_false() -> None:
    with pytest.raises(InvalidArgument, match="reliable=1 is neither True nor False"):
        Ref(None, "chef", 1, "mem://1").options(reliable=1)  # type: ignore[arg-type]


# -- restarts -----------------------------------------------------------------------------------


async def test_a_message_that_crashes_its_actor_has_been_handled(system: ActorSystem) -> None:
    chef = await supervised(system)
    tells = [chef.tell("cook", 1), chef.tell("crash", 2), chef.tell("cook", 3)]

    assert await asyncio.gather(*tells) == [None] * 3

    assert await chef.all_cooked() == [(1, False), (2, False), (3, False)]
    assert balances(system)


async def test_a_message_whose_handler_was_killed_is_the_next_lifes_first(
    system: ActorSystem, gates: list[asyncio.Event]
) -> None:
    chef = await supervised(system)
    tells = [chef.tell("hold", 1), chef.tell("cook", 2)]
    await wait_until(lambda: gates)

    await chef.kill()
    await wait_until(lambda: len(gates) == 2)
    assert not tells[0].done
    gates[1].set()
    await asyncio.gather(*tells)

    assert await chef.all_cooked() == [(1, False), (1, True), (2, False)]
    assert balances(system)


async def test_a_message_that_hangs_is_not_tried_again(timed: ActorSystem, clock: ManualClock) -> None:
    chef = await supervised(timed, handler_timeout=2.0)
    hung, after = chef.tell("hold", 1), chef.tell("cook", 2)
    await wait_until(lambda: Chef.gates)

    await clock.elapse(3)
    await hung
    await after

    assert await chef.all_cooked() == [(1, False), (2, False)]


async def test_the_window_dies_with_its_sender(events: list[Event]) -> None:
    faults = FaultyTransport()
    async with (
        memory_system(sinks=(events.append,), transport=faults) as system,
        memory_system(sinks=()) as other,
    ):
        other.options(name="chef").spawn(Chef)
        waiter = system.spawn(Waiter)
        await chef_of(system, other).all_cooked()
        faults.script("drop")
        waiter.tell("order", chef_of(system, other), 1, 2)
        await wait_until(lambda: "drop" in faults.suffered)
        await waiter.kill()
        await wait_until(lambda: sum(isinstance(one, DeadLettered) for one in events) == 2)

        assert await chef_of(system, other).all_cooked() == []


class Movable:
    """A directory of one member that lives in one process after the other."""

    def __init__(self) -> None:
        self.home: ActorSystem | None = None
        self.is_over = False
        self._looked = itertools.count()

    @property
    def version(self) -> int:
        return next(self._looked)  # it may have moved each time

    def locate(self, name: str, uid: int) -> str:
        if self.is_over:
            raise ActorStopped(f"{name} has left")
        if self.home is None:
            raise Unavailable(f"{name} is restarting", may_have_run=False, reason="restarting")
        return self.home.address

    def begin(self, system: ActorSystem, cooked: list[tuple[Any, bool]], incarnation: int) -> None:
        cell = system._register("kitchen/0", Chef, (cooked,), {}, uid=7, incarnation=incarnation, roams=True)
        cell.start()
        self.home = system

    def incarnation_of(self, name: str, uid: int) -> int:
        return 1

    def watch(self, name: str, uid: int, notify: Callable[[Exit], None]) -> Callable[[], None]:
        return lambda: None

    def service(self, name: str) -> Any:
        raise NotFound(name)


async def test_c54_what_is_unconfirmed_goes_to_the_next_incarnation_and_says_so(
    gates: list[asyncio.Event],
) -> None:
    directory = Movable()
    first: list[tuple[Any, bool]] = []
    second: list[tuple[Any, bool]] = []
    async with memory_system(sinks=(), directory=directory) as system:
        one = memory_system(sinks=())
        await one.__aenter__()
        directory.begin(one, first, 0)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        await member.tell("cook", 1)
        tells = [member.tell("hold", 2), member.tell("cook", 3)]
        await wait_until(lambda: gates)

        one._transport.close()  # type: ignore[union-attr]
        directory.home = None
        fourth = member.tell("cook", 4)
        async with memory_system(sinks=()) as two:
            directory.begin(two, second, 1)
            await wait_until(lambda: len(gates) == 2)
            gates[1].set()
            await asyncio.gather(*tells, fourth)
        gates[0].set()
        await one.stop()

    assert first[:2] == [(1, False), (2, False)]
    assert second == [(2, True), (3, True), (4, False)]


async def test_c54_it_says_so_too_where_the_next_life_is_known_before_the_end_of_the_last(
    gates: list[asyncio.Event],
) -> None:
    """The directory's news may overtake the pipe's."""
    directory = Movable()
    second: list[tuple[Any, bool]] = []
    async with (
        memory_system(sinks=(), directory=directory) as system,
        memory_system(sinks=()) as one,
        memory_system(sinks=()) as two,
    ):
        directory.begin(one, [], 0)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        tells = [member.tell("hold", 1), member.tell("cook", 2)]
        await wait_until(lambda: gates)
        [outgoing] = system._reliable._by_channel.values()
        await wait_until(lambda: outgoing._window._kept[2].arrived)

        directory.begin(two, second, 1)
        tells.append(member.tell("cook", 3))
        await wait_until(lambda: len(gates) == 2)
        one._transport.close()  # type: ignore[union-attr]
        gates[1].set()
        await asyncio.gather(*tells)
        gates[0].set()

    assert second == [(1, True), (2, True), (3, False)]


async def test_a_member_that_stops_in_order_hands_back_what_it_has_not_begun() -> None:
    directory = Movable()
    cooked: list[tuple[Any, bool]] = []
    async with (
        memory_system(sinks=(), directory=directory) as system,
        memory_system(sinks=()) as one,
        memory_system(sinks=()) as two,
    ):
        directory.begin(one, cooked, 0)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        tells = [member.tell("hold", 1), member.tell("cook", 2)]
        await wait_until(lambda: Chef.gates)
        one._names.find("kitchen/0").end_soon(Exit("shutdown"), 5.0)
        directory.begin(two, cooked, 1)
        Chef.gates[0].set()

        def is_over() -> bool:
            for gate in Chef.gates:
                gate.set()
            return all(tell.done for tell in tells)

        await wait_until(is_over)

    assert {dish for dish, _ in cooked} == {1, 2}
    assert cooked[-1][0] == 2


async def test_a_member_that_leaves_in_order_ends_what_it_handles_and_the_rest_never_ran(
    gates: list[asyncio.Event],
) -> None:
    directory = Movable()
    cooked: list[tuple[Any, bool]] = []
    async with memory_system(sinks=(), directory=directory) as system, memory_system(sinks=()) as one:
        directory.begin(one, cooked, 0)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        held, *rest = [member.tell("hold", 1), *(member.tell("cook", number) for number in range(2, 5))]
        await wait_until(lambda: gates)
        one._names.find("kitchen/0").end_soon(Exit("shutdown"), 5.0)
        gates[0].set()

        assert await held is None
        directory.is_over = True
        for tell in rest:
            with pytest.raises(ActorStopped, match="has left"):
                await tell

    assert cooked == [(1, False)]


class OneMember:
    """A router of a group with one member, known where it lives now."""

    def __init__(self, member: Ref[Any]) -> None:
        self.member = member

    def pick(self, key: str | None, refused: Any) -> Ref[Any]:
        return self.member

    def begun(self, member: str) -> None: ...
    def ended(self, member: str) -> None: ...
    def when_changed(self, callback: Callable[[], None]) -> None: ...


async def test_a_group_passes_them_on_to_where_the_member_lives_next() -> None:
    directory = Movable()
    first: list[tuple[Any, bool]] = []
    second: list[tuple[Any, bool]] = []
    async with (
        memory_system(sinks=(), directory=directory) as system,
        memory_system(sinks=()) as two,
    ):
        one = memory_system(sinks=())
        await one.__aenter__()
        directory.begin(one, first, 0)
        here: Ref[Any] = Ref(system, "kitchen/0", 7, one.address)
        kitchen: Any = Routed(system, OneMember(here), timeout=None).options(reliable=True)
        await kitchen.tell("cook", 1)
        held = kitchen.tell("hold", 2)
        await wait_until(lambda: Chef.gates)
        directory.begin(two, second, 1)
        one._transport.close()  # type: ignore[union-attr]
        await wait_until(lambda: len(Chef.gates) == 2)
        for gate in Chef.gates:
            gate.set()
        await held
        await one.stop()

    assert (first, second) == ([(1, False), (2, False)], [(2, True)])


class AbsentMember(OneMember):
    """A router of a group whose one member is about to come back."""

    def pick(self, key: str | None, refused: Any) -> Any:
        return None

    def expected(self, key: str | None) -> Ref[Any]:
        return self.member


async def test_a_group_keeps_them_for_a_member_that_restarts_and_fails_all_others() -> None:
    directory = Movable()
    cooked: list[tuple[Any, bool]] = []
    async with (
        memory_system(sinks=(), directory=directory) as system,
        memory_system(sinks=()) as one,
    ):
        kitchen: Any = Routed(system, AbsentMember(Ref(system, "kitchen/0", 7, "")), timeout=None)
        kept = kitchen.options(reliable=True).tell("cook", 1)
        with pytest.raises(Unavailable, match="has no member running now") as error:
            await kitchen.tell("cook", 2)
        assert not error.value.may_have_run
        directory.begin(one, cooked, 1)

        assert await kept is None

    assert cooked == [(1, False)]


@pytest.mark.parametrize("end", [ServiceFailed("kitchen has failed"), ActorStopped("kitchen/0 has left")])
async def test_what_may_have_run_before_the_end_says_so_and_the_rest_never_ran(end: ActorError) -> None:
    directory = Movable()
    async with memory_system(sinks=(), directory=directory) as system:
        one = memory_system(sinks=())
        await one.__aenter__()
        directory.begin(one, [], 0)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        held = member.tell("hold", 1)
        await wait_until(lambda: Chef.gates)
        one._transport.close()  # type: ignore[union-attr]
        directory.home = None
        [outgoing] = system._reliable._by_channel.values()
        await wait_until(lambda: outgoing._window.is_suspect(1))
        later = member.tell("cook", 2)
        directory.locate = lambda name, uid: raise_(end)  # type: ignore[method-assign]

        with pytest.raises(Unavailable, match=str(end)) as error:
            await held
        assert (error.value.may_have_run, error.value.__cause__) == (True, end)
        with pytest.raises(type(end)) as plain:
            await later
        assert plain.value is end
        Chef.gates[0].set()
        await one.stop()


async def test_a_system_that_stops_says_of_each_whether_it_may_have_run(
    gates: list[asyncio.Event],
) -> None:
    directory = Movable()
    async with memory_system(sinks=()) as one:
        async with memory_system(sinks=(), directory=directory) as system:
            directory.begin(one, [], 0)
            member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
            held = member.tell("hold", 1)
            await wait_until(lambda: gates)
            directory.home = None
            later = member.tell("cook", 2)

        for tell, may_have_run in ((held, True), (later, False)):
            with pytest.raises(Unavailable, match="system stopped") as error:
                await tell
            assert error.value.may_have_run is may_have_run
        gates[0].set()


def raise_(error: BaseException) -> Any:
    raise error


async def test_f33_what_two_processes_died_of_is_a_dead_letter_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: list[Event]
) -> None:
    """What the dead leave behind is told here; that they do, in real processes, is the next test."""
    directory = Movable()
    lives: list[list[tuple[Any, bool]]] = [[], [], []]
    (tmp_path / "crash").write_text("Fatal Python error: Segmentation fault")
    async with memory_system(sinks=(events.append,), directory=directory) as system:
        deaths = itertools.count()

        def remains(address: str) -> Remains | None:
            [channel] = system._reliable._by_channel
            return Remains({(channel, 2): next(deaths)}, str(tmp_path / "crash"))

        monkeypatch.setattr(reliable, "remains_of", remains)
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        homes = [memory_system(sinks=()) for _ in lives]
        for home in homes:
            await home.__aenter__()
        directory.begin(homes[0], lives[0], 0)
        tells = [member.tell("cook", 1), member.tell("hold", 2), member.tell("cook", 3)]
        for number in (0, 1):
            await wait_until(lambda: len(Chef.gates) == number + 1)  # noqa: B023
            directory.begin(homes[number + 1], lives[number + 1], number + 1)
            homes[number]._transport.close()  # type: ignore[union-attr]

        with pytest.raises(Unavailable, match="when its process died, 2 times: it is poison") as error:
            await tells[1]
        assert await asyncio.gather(tells[0], tells[2]) == [None, None]
        assert (error.value.may_have_run, error.value.reason) == (True, "poison")
        assert lives == [[(1, False), (2, False)], [(2, True)], [(3, True)]]
        for gate in Chef.gates:  # the first two have not really died
            gate.set()
        for home in homes:
            await home.stop()

    letters = [event for event in events if isinstance(event, DeadLettered)]
    assert [(one.method, one.reason) for one in letters] == [("hold", "poison")]
    assert "Segmentation fault" in letters[0].detail


async def test_a_process_leaves_behind_which_it_was_handling_and_no_other(far: Far) -> None:
    async with ActorSystem(listen=True, sinks=()) as near:
        echo = (await far.actor(near, "stagehand").start(Echo)).options(reliable=True)
        await echo.tell("note", "handled")
        echo.tell("nap", 60)
        echo.tell("note", "waits")
        [channel] = near._reliable._by_channel
        await wait_until(lambda: near._reliable._by_channel[channel]._window._kept[3].arrived)
        await wait_until(echo.is_alive)
        far.kill()

    remains = remains_of(far.address)
    assert remains is not None
    assert remains.deaths_by_call == {(channel, 2): 0}


async def test_a_registration_that_ended_meanwhile_fails_what_waits() -> None:
    directory = Movable()
    async with memory_system(sinks=(), directory=directory) as system:
        member: Ref[Any] = Ref(system, "kitchen/0", 7, "", reliable=True)
        tell = member.tell("cook", 1)
        await asyncio.sleep(0)
        assert not tell.done
        directory.is_over = True

        with pytest.raises(ActorStopped, match="has left"):
            await tell


# -- the way ------------------------------------------------------------------------------------


async def test_c53_a_lost_message_is_asked_for_once_and_all_come_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = FaultyTransport()
    async with memory_system(sinks=(), transport=faults) as system, memory_system(sinks=()) as other:
        other.options(name="chef").spawn(Chef)
        chef = chef_of(system, other)
        await chef.tell("cook", 0)
        missing = count(monkeypatch, reliable.Outgoing, "on_missing")
        monkeypatch.setattr("actors._windows.FIRST_WAIT", 60.0)
        faults.script("pass", "pass", "drop", "drop", "pass", "duplicate", "duplicate", "duplicate")
        sent, tells = len(faults.suffered), []
        for number in range(1, 9):
            tells.append(chef.tell("cook", number))
            await wait_until(lambda: len(faults.suffered) >= sent + number)  # noqa: B023
        await asyncio.gather(*tells)

        assert await chef.all_cooked() == [(number, False) for number in range(9)]
    assert missing == [(4, 5)]  # the third and the fourth, behind the one before


async def test_a_pipe_that_breaks_loses_and_doubles_nothing() -> None:
    there, back = FaultyTransport(), FaultyTransport()
    async with (
        memory_system(sinks=(), transport=there) as system,
        memory_system(sinks=(), transport=back) as other,
    ):
        other.options(name="chef").spawn(Chef)
        chef, tells = chef_of(system, other), []
        for number in range(60):
            tells.append(chef.tell("cook", number))
            if number in (10, 30):
                there.script("fail")
            if number == 45:
                back.script("fail")
            await asyncio.sleep(0.001)
        await asyncio.gather(*tells)

        assert [dish for dish, _ in await chef.all_cooked()] == list(range(60))


@pytest.mark.parametrize("seed", SEEDS)
async def test_c56_all_arrive_once_and_in_order_over_a_flaky_network(seed: int) -> None:
    odds = (0.1, 0.2, 0.3)[seed % 3]
    await _flaky(seed, 63, odds, within=120)


@pytest.mark.parametrize("seed", SEEDS)
async def test_c56_five_hundred_at_five_percent(seed: int) -> None:
    await _flaky(seed, 500, 0.05, within=30)


async def _flaky(seed: int, n: int, odds: float, *, within: float) -> None:
    def transport(number: int) -> FaultyTransport:
        return FaultyTransport(
            MemoryTransport(), odds={"drop": odds, "delay": 0.2}, seed=2 * seed + number, delay=(0.0, 0.04)
        )

    cooked: list[tuple[Any, bool]] = []
    async with (
        memory_system(sinks=(), transport=transport(0)) as system,
        memory_system(sinks=(), transport=transport(1)) as other,
    ):
        other.options(name="chef").spawn(Chef, cooked)
        chef, window, tells = chef_of(system, other), asyncio.Semaphore(50), []
        async with asyncio.timeout(within):
            for number in range(n):
                await window.acquire()
                tells.append(chef.tell("cook", number))
                tells[-1].add_done_callback(lambda _: window.release())
                await asyncio.sleep(0.001)  # or all of them travel in a few frames
            await asyncio.gather(*tells)

    assert cooked == [(number, False) for number in range(n)], f"seed {seed}"


async def test_a_process_that_is_gone_for_good_fails_what_waits(
    events: list[Event], clock: ManualClock
) -> None:
    async with memory_system(sinks=(events.append,), clock=clock) as system:
        other = memory_system(sinks=())
        await other.__aenter__()
        other.options(name="chef").spawn(Chef)
        chef = chef_of(system, other)
        held = chef.tell("hold", 1)
        await wait_until(lambda: Chef.gates)
        other._transport.close()  # type: ignore[union-attr]

        await clock.elapse(0.5)
        assert not held.done
        await wait_until(lambda: clock.advance(1.0) or held.done)
        with pytest.raises(Unavailable, match="its process is gone and did not answer for 10 s") as error:
            await held

        assert error.value.may_have_run
        assert [one.method for one in events if isinstance(one, DeadLettered)] == ["hold"]
        Chef.gates[0].set()
        await other.stop()


async def test_between_real_processes_all_arrive_once_and_in_order(run_root: Path, lasting: Far) -> None:
    async with ActorSystem(listen=True, sinks=()) as near:
        echo = await lasting.actor(near, "stagehand").start(Echo)
        tells = [echo.options(reliable=True).tell("note", number) for number in range(200)]
        await asyncio.gather(*tells)

        assert await echo.noted() == list(range(200))
        await echo.kill()


async def test_a_process_that_stands_still_for_a_while_gets_each_once(run_root: Path, far: Far) -> None:
    """What is sent again meanwhile is dropped when it wakes."""
    async with ActorSystem(listen=True, sinks=()) as near:
        echo = await far.actor(near, "stagehand").start(Echo)
        await echo.note("first")
        far.pause()
        tells = [echo.options(reliable=True).tell("note", number) for number in range(100)]
        await asyncio.sleep(1.0)
        assert not any(tell.done for tell in tells)
        far.resume()
        await asyncio.gather(*tells)

        assert await echo.noted() == ["first", *range(100)]


async def test_a_process_that_is_killed_fails_what_it_has_not_acknowledged(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliable, "SILENCE", 0.5)
    async with ActorSystem(listen=True, sinks=()) as near:
        echo = await far.actor(near, "stagehand").start(Echo)
        tell = echo.options(reliable=True).tell("nap", 60)
        await wait_until(echo.is_alive)
        far.kill()

        with pytest.raises(Unavailable, match="its process is gone") as error:
            await tell
        assert error.value.may_have_run


async def test_cancelling_the_reply_leaves_the_message_alone(system: ActorSystem, other: ActorSystem) -> None:
    other.options(name="chef").spawn(Chef)
    chef = chef_of(system, other)
    tell = chef.tell("cook", 1)

    tell.cancel()
    await chef.tell("cook", 2)

    with pytest.raises(Cancelled):
        await tell
    assert await chef.all_cooked() == [(1, False), (2, False)]

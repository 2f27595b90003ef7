"""Ways: the second plain message finds its process at once, and never a process that is not meant."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors import (
    Actor,
    ActorStopped,
    ActorSystem,
    DeadlineExceeded,
    InvalidArgument,
    MailboxFull,
    Ref,
    SerializationError,
    Unavailable,
    idempotent,
)
from actors._named import NamedCall
from actors._reliable import ReliableTell
from actors._sending import Sending
from actors.directory import Directory
from actors.testing import ManualClock, memory_system, wait_until
from actors.tracing import Trace, carrying, current_trace


class Desk(Actor):
    def __init__(self, name: str = "") -> None:
        self.place = name
        self.noted: list[Any] = []

    async def where(self, *args: Any) -> str:
        return self.place

    async def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    async def note(self, *args: Any) -> None:
        self.noted.append((args, self.context.sender))

    async def notes(self) -> list[Any]:
        return self.noted

    async def trace(self) -> Trace | None:
        return current_trace()

    async def wait(self) -> None:
        await asyncio.Event().wait()

    @idempotent
    async def bake(self) -> int:
        return 1


class Caller(Actor):
    async def note_twice(self, desk: Ref[Desk]) -> None:
        await desk.tell("note", 1)
        await desk.tell("note", 2)


@pytest.fixture
async def near() -> AsyncIterator[ActorSystem]:
    async with memory_system(sinks=()) as system:
        yield system


@pytest.fixture
async def far() -> AsyncIterator[ActorSystem]:
    async with memory_system(sinks=()) as system:
        system.options(name="desk").spawn(Desk, "far")
        yield system


@pytest.fixture
def dispatched(near: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What took the long way from `near`."""
    seen: list[str] = []
    remote = near._remote
    assert remote is not None
    plain_ask, plain_tell = remote.ask, remote.tell

    def ask(call: Any, *args: Any) -> None:
        seen.append(call.method)
        plain_ask(call, *args)

    def tell(address: str, ref: Any, method: str, *args: Any) -> Any:
        seen.append(method)
        return plain_tell(address, ref, method, *args)

    monkeypatch.setattr(remote, "ask", ask)
    monkeypatch.setattr(remote, "tell", tell)
    return seen


async def test_the_first_message_to_a_method_takes_the_long_way_the_next_ones_do_not(
    near: ActorSystem, far: ActorSystem, dispatched: list[str]
) -> None:
    desk = near.ref(f"{far.address}#desk")

    for number in range(3):
        assert await desk.where() == await desk.ask("where", number) == await desk.ask("where") == "far"
        await desk.tell(Desk.note, number)

    # A method of a ref has its own way; the ref itself has one, the last.
    assert dispatched == ["where", "where", "note", "where", "note", "where", "note"]
    assert [args for args, _ in await desk.notes()] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((b"x" * 100_000,), {}),
        (("x" * 100_000,), {}),
        (([1],), {}),
        ((1,), {"two": 2}),
        (("a", b"b", None, 1.5), {}),
    ],
)
async def test_whatever_is_said_arrives(
    near: ActorSystem, far: ActorSystem, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    echo = near.ref(f"{far.address}#desk").echo
    for _ in range(3):
        assert await echo(*args, **kwargs) == (args, kwargs)


async def test_who_moves_is_reached_where_it_is(far: ActorSystem) -> None:
    homes = {"desk": far.address}
    directory = SimpleNamespace(version=1, locate=lambda name, uid: homes[name])
    async with (
        memory_system(sinks=(), directory=cast(Directory, directory)) as near,
        memory_system(sinks=()) as second,
    ):
        second.options(name="desk").spawn(Desk, "second")
        desk: Ref[Desk] = Ref(near, "desk", 0, "")
        assert [await desk.where(), await desk.where()] == ["far", "far"]
        await desk.tell(Desk.note, "to far")

        homes["desk"], directory.version = second.address, 2

        assert [await desk.where(), await desk.where()] == ["second", "second"]
        await desk.tell(Desk.note, "to second")
        assert [args for args, _ in await desk.notes()] == [("to second",)]


async def test_a_change_while_the_first_message_leaves_is_not_missed(
    far: ActorSystem,
) -> None:
    """The directory changes between its answer and the moment when the way is remembered."""
    homes = {"desk": far.address}
    directory = SimpleNamespace(version=1)
    async with (
        memory_system(sinks=(), directory=cast(Directory, directory)) as near,
        memory_system(sinks=()) as second,
    ):
        second.options(name="desk").spawn(Desk, "second")

        def locate(name: str, uid: int) -> str:
            home = homes[name]
            homes[name], directory.version = second.address, 2
            return home

        directory.locate = locate
        desk: Ref[Desk] = Ref(near, "desk", 0, "")
        assert [await desk.where(), await desk.where()] == ["far", "second"]


async def test_a_process_that_is_gone_is_said_to_be(near: ActorSystem) -> None:
    async with memory_system(sinks=()) as far:
        far.options(name="desk").spawn(Desk, "far")
        desk = near.ref(f"{far.address}#desk")
        assert [await desk.where(), await desk.where()] == ["far", "far"]
    await wait_until(lambda: not (near._remote and near._remote._peers))

    with pytest.raises(Unavailable) as caught:
        await desk.where()
    assert not caught.value.may_have_run


async def test_what_a_handler_sends_says_who_sent_it(near: ActorSystem, far: ActorSystem) -> None:
    desk = near.ref(f"{far.address}#desk")
    await desk.tell(Desk.note, 0)  # this ref knows its way now
    caller = near.spawn(Caller)

    await caller.note_twice(desk)

    senders = [sender for _, sender in await desk.notes()]
    assert senders[0] is None
    assert [sender.name for sender in senders[1:]] == [caller.name] * 2


async def test_what_is_carried_goes_along(near: ActorSystem, far: ActorSystem) -> None:
    trace = Trace.new()
    desk = near.ref(f"{far.address}#desk")
    assert [await desk.trace(), await desk.trace()] == [None, None]

    with carrying(trace):
        seen = await desk.trace()

    assert seen is not None
    assert seen.trace_id == trace.trace_id
    assert await desk.trace() is None


async def test_deadlines_hold_on_the_way(far: ActorSystem) -> None:
    clock = ManualClock()
    async with memory_system(sinks=(), clock=clock) as near:
        desk = near.ref(f"{far.address}#desk").options(timeout=3.0)
        assert await desk.where() == "far"
        calls = [desk.wait(), desk.wait()]
        await clock.elapse(3.0)
        for call in calls:
            with pytest.raises(DeadlineExceeded):
                await call


async def test_the_way_of_tells_is_not_that_of_idempotent_asks(near: ActorSystem, far: ActorSystem) -> None:
    desk = near.ref(f"{far.address}#desk")
    await desk.tell(Desk.bake)
    await desk.tell(Desk.bake)
    assert isinstance(desk.ask(Desk.bake), NamedCall)

    known = pickle.loads(pickle.dumps(far.find("desk")))
    known._system = near
    await known.tell("bake")
    asked = known.ask("bake")
    assert isinstance(asked, NamedCall)
    assert await asked == 1


async def test_the_way_of_asks_is_not_that_of_reliable_tells(near: ActorSystem, far: ActorSystem) -> None:
    desk = near.ref(f"{far.address}#desk").options(reliable=True)
    assert [await desk.ask("where"), await desk.ask("where")] == ["far", "far"]
    await desk.ask("note", 1)
    told = desk.tell("note", 2)
    assert isinstance(told, ReliableTell)
    await told


async def test_what_cannot_be_written_is_a_failed_reply(near: ActorSystem, far: ActorSystem) -> None:
    desk = near.ref(f"{far.address}#desk")
    for reply in (desk.ask("m" * 70_000), desk.tell("m" * 70_000)):
        with pytest.raises(SerializationError):
            await reply


async def test_what_comes_while_its_process_is_lost_never_ran(near: ActorSystem, far: ActorSystem) -> None:
    """Between the moment when a peer counts as lost and the end of its outbox."""
    desk = near.ref(f"{far.address}#desk")
    assert [await desk.where(), await desk.where()] == ["far", "far"]
    assert near._remote is not None
    peer = near._remote.peer(far.address)
    plain_put = peer.put

    def put(one: Any) -> int:
        peer.is_lost = True
        return plain_put(one)

    asked: list[Any] = []
    for ask in (desk.where, partial(desk.ask, "echo", [1])):
        peer.put = put  # type: ignore[method-assign]
        asked.append(ask())
        peer.is_lost = False  # as far as the next one can see
    near._remote._lose(peer, "as it should")

    for reply in asked:
        with pytest.raises(Unavailable) as caught:
            await reply
        assert not caught.value.may_have_run


# -- inside a process --------------------------------------------------------------------------------


class Clerk(Actor):
    """Without idempotent methods: who has some looks up what it has answered."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    async def note(self, *args: Any) -> None:
        self.noted.append((args, self.context.sender))

    async def notes(self) -> list[Any]:
        return self.noted

    async def wait(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tells that took the long way."""
    seen: list[str] = []
    plain_tell = Sending.tell

    def tell(self: Any, ref: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(method)
        return plain_tell(self, ref, method, *args, **kwargs)

    monkeypatch.setattr(Sending, "tell", tell)
    return seen


async def test_the_second_tell_to_a_method_takes_the_short_way(near: ActorSystem, told: list[str]) -> None:
    clerk = near.spawn(Clerk)
    for number in range(3):
        await clerk.tell(Clerk.note, number)
    await clerk.tell("note", 3)
    await clerk.tell("note", [4])
    await clerk.tell(Clerk.note, 5)

    assert told == ["note", "note", "note"]
    assert [args for args, _ in await clerk.notes()] == [(0,), (1,), (2,), (3,), ([4],), (5,)]


async def test_a_handlers_tells_name_it_on_the_short_way_too(near: ActorSystem) -> None:
    class Teller(Actor):
        async def note(self, clerk: Ref[Clerk]) -> None:
            for number in range(3):
                clerk.tell(Clerk.note, number)

    clerk, teller = near.spawn(Clerk), near.spawn(Teller)
    await teller.note(clerk)

    assert [sender and sender.name for _, sender in await clerk.notes()] == [teller.name] * 3


async def test_who_has_no_room_or_has_ended_says_so_on_the_short_way_too(near: ActorSystem) -> None:
    clerk = near.options(mailbox=2).spawn(Clerk)
    await clerk.wait_started()
    waiting = clerk.wait()
    await wait_until(lambda: near.statistics().in_progress == 1)

    tells = [clerk.tell(Clerk.note, number) for number in range(4)]
    outcomes = await asyncio.gather(*tells, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), MailboxFull, MailboxFull]
    waiting.cancel()
    await wait_until(lambda: near.statistics().in_mailbox == 0)
    assert [args for args, _ in await clerk.notes()] == [(0,), (1,)]

    await clerk.stop()
    with pytest.raises(ActorStopped):
        await clerk.tell(Clerk.note, 5)
    now = near.statistics()
    assert (now.refused, now.in_mailbox) == (3, 0)


async def test_a_stream_is_refused_on_the_short_way_too(near: ActorSystem) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    clerk = near.spawn(Clerk)
    await clerk.tell(Clerk.note, 1)
    with pytest.raises(InvalidArgument, match="stream"):
        await clerk.tell(Clerk.note, items())


async def test_other_threads_take_the_long_way(near: ActorSystem, told: list[str]) -> None:
    clerk = near.spawn(Clerk)
    await clerk.tell(Clerk.note, 1)
    await clerk.tell(Clerk.note, 2)
    await asyncio.to_thread(lambda: clerk.tell(Clerk.note, 3).result(5))

    assert told == ["note", "note"]
    assert [args for args, _ in await clerk.notes()] == [(1,), (2,), (3,)]

"""Replays: a frame counts once, whatever became of its sender meanwhile."""

from __future__ import annotations

import itertools
import pickle
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, ActorSystem, _remote
from actors._senders import Seen, Senders
from actors.address import host_id_of
from actors.events import Event, FrameRejected, PeerLost
from actors.rundir import KEY_NAME, read_key
from actors.testing import MemoryTransport, memory_system, wait_until
from actors.transport import Link
from actors.wire import Codec, Kind, Sealer, envelope, head_of

KEY = secrets.token_bytes(32)


class Till(Actor):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.sum = 0

    async def put(self, amount: int) -> None:
        self.sum += amount

    async def total(self) -> int:
        return self.sum


# -- the memory --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=60), st.integers(1, 4))
def test_no_number_is_taken_twice_from_anybody_however_little_is_remembered(
    steps: list[tuple[int, bool]], kept: int
) -> None:
    """Each step is a frame of one of six senders, and perhaps its loss. Numbers are instants: they rise."""
    senders = Senders(kept)
    live: dict[int, Seen] = {}
    taken: dict[int, int] = {}
    for number, (host_id, is_lost) in enumerate(steps, 1):
        seen = live.get(host_id)
        assert number > (seen.last if seen else senders.last_of(host_id)), "a new frame is never refused"
        seen = live[host_id] = seen or senders.found(host_id)
        seen.last = taken[host_id] = number
        if is_lost:
            senders.lost(host_id, live.pop(host_id))
        for other, last in taken.items():
            known = live[other].last if other in live else senders.last_of(other)
            assert known >= last, "its last frame would be taken once more"


def test_a_frame_that_is_on_its_way_while_its_peer_is_lost_counts_too() -> None:
    senders = Senders()
    seen = senders.found(7)
    seen.last = 1
    senders.lost(7, seen)

    seen.last = 2

    assert senders.last_of(7) == 2
    assert senders.found(7) is seen


def test_a_sender_that_never_said_anything_is_not_remembered() -> None:
    senders = Senders(kept=1)
    seen = Seen(5)
    senders.lost(1, seen)

    senders.lost(2, Seen())

    assert senders.last_of(1) == 5


# -- at a system -------------------------------------------------------------------------------------


class Recorder:
    """Who has kept the frames of one process, and can send them again."""

    def __init__(self, system: ActorSystem, key: bytes = KEY) -> None:
        self.system = system
        self.transport = MemoryTransport()
        self.transport.listen(lambda frames: None)
        self.link = self.transport.link(system.address, lambda: None)
        self.link.open(1.0)
        self._sealer = Sealer(key)
        self._numbers = itertools.count(1)

    def frame(self, amount: int, number: int | None = None) -> bytes:
        number = number or next(self._numbers)
        tell = envelope(
            Kind.TELL, Codec.PICKLE, number, pickle.dumps((amount,)), head_of("till", 0, 0, "put")
        )
        own = self.transport.address
        return self._sealer.seal(
            host_id_of(self.system.address), host_id_of(own), number, own.encode(), [tell]
        )

    def rejected(self) -> int:
        return self.system.statistics().rejected_frames


@pytest.fixture
async def recorder(events: list[Event]) -> AsyncIterator[Recorder]:
    async with memory_system(key=KEY, sinks=(events.append,)) as system:
        system.options(name="till").spawn(Till)
        recorder = Recorder(system)
        yield recorder
        recorder.transport.close()


async def total(recorder: Recorder) -> int:
    return await recorder.system.find("till").total()  # type: ignore[no-any-return]


async def test_a_frame_that_comes_again_is_dropped(recorder: Recorder, events: list[Event]) -> None:
    first, second = recorder.frame(1), recorder.frame(10)
    for frame in (first, second, first, second):
        recorder.link.send(frame)

    await wait_until(lambda: recorder.rejected() == 2)
    assert await total(recorder) == 11
    assert [event.reason for event in events if isinstance(event, FrameRejected)] == ["sequence"] * 2


async def test_frames_of_a_process_that_is_gone_are_refused(recorder: Recorder, events: list[Event]) -> None:
    """Its peer is forgotten with it; which of its frames have come is not."""
    frames = [recorder.frame(1), recorder.frame(10)]
    for frame in frames:
        recorder.link.send(frame)
    await wait_until(lambda: recorder.system.statistics().handled == 2)
    recorder.transport.close()
    await wait_until(lambda: any(isinstance(event, PeerLost) for event in events))

    attacker = MemoryTransport()
    link = attacker.link(recorder.system.address, lambda: None)
    link.open(1.0)
    for frame in frames:
        link.send(frame)

    await wait_until(lambda: recorder.rejected() == 2)
    assert await total(recorder) == 11


async def test_refused_frames_of_the_dead_leave_no_peer_behind(
    recorder: Recorder, events: list[Event]
) -> None:
    frame = recorder.frame(1)
    recorder.link.send(frame)
    await wait_until(lambda: recorder.system.statistics().handled == 1)
    recorder.transport.close()
    await wait_until(lambda: any(isinstance(event, PeerLost) for event in events))

    link = MemoryTransport().link(recorder.system.address, lambda: None)
    link.open(1.0)
    link.send(frame)
    await wait_until(lambda: recorder.rejected() == 1)

    assert recorder.system._remote is not None
    assert recorder.system._remote._peers == {}


async def test_frames_for_an_earlier_life_of_the_receiver_are_refused(recorder: Recorder) -> None:
    frame = recorder.frame(1)
    async with memory_system(key=KEY, sinks=()) as next_life:
        next_life.options(name="till").spawn(Till)
        link = recorder.transport.link(next_life.address, lambda: None)
        link.open(1.0)
        link.send(frame)

        await wait_until(lambda: next_life.statistics().rejected_frames == 1)
        assert await next_life.find("till").total() == 0


async def test_a_process_that_is_lost_and_found_again_goes_on(
    system: ActorSystem, other: ActorSystem, events: list[Event]
) -> None:
    """Only the pipe broke: what it says now is new."""
    till = other.spawn(Till)
    ref = system.ref(f"{other.address}#{till.name}")
    await ref.put(1)
    for one, far in ((system, other), (other, system)):
        assert one._remote is not None
        one._remote._lose(one._remote._peers[far.address], "the pipe broke")

    await ref.put(10)

    assert await ref.total() == 11
    assert not [event for event in events if isinstance(event, FrameRejected)]


async def test_no_more_processes_are_known_than_the_limit(
    recorder: Recorder, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "MAX_PEERS", 1)
    recorder.link.send(recorder.frame(1))
    second = Recorder(recorder.system)
    second.link.send(second.frame(10))

    await wait_until(lambda: recorder.rejected() == 1)
    recorder.link.send(recorder.frame(100))

    await wait_until(lambda: recorder.system.statistics().handled == 2)
    assert await total(recorder) == 101
    assert [event.reason for event in events if isinstance(event, FrameRejected)] == ["peers"]
    second.transport.close()


async def test_real_frames_kept_from_a_socket_are_worth_nothing_later(run_root: Any) -> None:
    """All the frames of a conversation over nng, sent again while it goes on and after its end."""
    kept: list[bytes] = []
    async with ActorSystem(listen=True, sinks=()) as shop:
        till = shop.options(name="till").spawn(Till)
        assert shop._remote is not None
        assert shop._remote._arrivals is not None
        sealer = shop._remote._arrivals._sealer
        plain_open = sealer.open

        class Keeping:
            def open(self, data: bytes, receiver: int) -> Any:
                kept.append(bytes(data))
                return plain_open(data, receiver)

        shop._remote._arrivals._sealer = Keeping()  # type: ignore[assignment]
        async with ActorSystem(listen=True, sinks=()) as customer:
            ref = customer.ref(f"{shop.address}#till")
            for amount in (1, 10, 100):
                await ref.put(amount)
            before = list(kept)
            link = _sent_again(customer, shop.address, before)
            await wait_until(lambda: shop.statistics().rejected_frames >= len(before))
            link.close()
            assert await ref.total() == 111
        shop._remote._arrivals._sealer = sealer
        rejected = shop.statistics().rejected_frames
        async with ActorSystem(listen=True, sinks=(), key=read_key(run_root / KEY_NAME)) as later:
            link = _sent_again(later, shop.address, before)
            await wait_until(lambda: shop.statistics().rejected_frames == rejected + len(before))
            link.close()
        assert await till.total() == 111


def _sent_again(system: ActorSystem, address: str, frames: list[bytes]) -> Link:
    assert system._remote is not None
    assert system._remote._transport is not None
    link = system._remote._transport.link(address, lambda: None)
    link.open(1.0)
    for frame in frames:
        link.send(frame)
    return link

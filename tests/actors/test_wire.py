"""Frames and envelopes: what goes in comes out, and nothing else does."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, ActorSystem, _arrivals
from actors.address import host_id_of
from actors.events import Event, FrameRejected
from actors.testing import MemoryTransport, memory_system, wait_until
from actors.wire import ENVELOPE_OVERHEAD, BadFrame, Codec, Envelope, Kind, Sealer, envelope, envelopes


class Cook(Actor):
    async def echo(self, value: int) -> int:
        return value


KEY = bytes(range(32))
ids = st.integers(1, 2**64 - 1)
parts = st.lists(
    st.tuples(
        st.sampled_from(Kind),
        st.sampled_from(Codec),
        st.integers(0, 2**64 - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=100),
        st.binary(max_size=200),
    ),
    max_size=8,
)
addresses = st.text("abcdef/:0123456789.", max_size=100)


def rejected(events: list[Event]) -> list[FrameRejected]:
    return [event for event in events if isinstance(event, FrameRejected)]


def sealed(key: bytes = KEY, receiver: int = 7, body: bytes = b"payload") -> bytes:
    chunk = envelope(Kind.ASK, Codec.PICKLE, 1, body)
    return Sealer(key).seal(receiver, 9, 1, b"ipc:///tmp/x/0000000000000009.ipc", [chunk])


@given(ids, ids, st.integers(0, 2**64 - 1), addresses, parts)
def test_what_is_sealed_is_opened_unchanged(
    receiver: int, sender: int, sequence: int, address: str, content: list[Any]
) -> None:
    chunks = [
        envelope(kind, codec, call_id, body, head, remaining)
        for kind, codec, call_id, remaining, head, body in content
    ]

    frame = Sealer(KEY).open(Sealer(KEY).seal(receiver, sender, sequence, address.encode(), chunks), receiver)

    assert (frame.sender, frame.sequence, frame.address) == (sender, sequence, address)
    assert [Envelope(*one) for one in content] == list(envelopes(frame.body))


@given(st.data())
def test_a_flipped_bit_anywhere_is_a_bad_frame(data: st.DataObject) -> None:
    frame = bytearray(sealed())
    place = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[place // 8] ^= 1 << place % 8

    with pytest.raises(BadFrame):
        Sealer(KEY).open(bytes(frame), 7)


@pytest.mark.parametrize("size", range(0, len(sealed()), 3))
def test_a_truncated_frame_is_a_bad_frame(size: int) -> None:
    with pytest.raises(BadFrame):
        Sealer(KEY).open(sealed()[:size], 7)


def test_a_frame_with_something_behind_it_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame, match="length"):
        Sealer(KEY).open(sealed() + b"x", 7)


def test_a_frame_for_another_life_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame, match="receiver"):
        Sealer(KEY).open(sealed(receiver=8), 7)


def test_a_frame_sealed_with_another_key_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame, match="mac"):
        Sealer(KEY).open(sealed(key=bytes(32)), 7)


def test_a_flipped_bit_of_the_receiver_is_found_by_the_mac_not_by_luck() -> None:
    frame = bytearray(sealed(receiver=8))
    frame[4:12] = (7).to_bytes(8, "big")

    with pytest.raises(BadFrame, match="mac"):
        Sealer(KEY).open(bytes(frame), 7)


@given(st.binary(max_size=300))
def test_garbage_is_a_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Sealer(KEY).open(data, 7)


@given(st.binary(min_size=1, max_size=60))
def test_envelopes_that_do_not_add_up_are_a_bad_frame_or_whole(data: bytes) -> None:
    """Whatever the lengths say, no envelope reaches beyond the frame."""
    try:
        found = list(envelopes(memoryview(data)))
    except BadFrame:
        return
    assert sum(ENVELOPE_OVERHEAD + len(one.head) + len(one.body) for one in found) == len(data)


class TestInASystem:
    """The same rules at the inbox of a running system."""

    @pytest.fixture(autouse=True)
    def nothing_unpickles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("something was unpickled")

        monkeypatch.setattr(_arrivals, "loads", refuse)
        monkeypatch.setattr(pickle, "loads", refuse)

    async def send_raw(self, system: ActorSystem, frames: list[bytes]) -> None:
        link = MemoryTransport().link(system.address, lambda: None)
        link.open(1.0)
        for frame in frames:
            link.send(frame)

    async def test_bad_frames_are_counted_and_dropped_before_anything_is_decoded(
        self, events: list[Event]
    ) -> None:
        async with memory_system(key=KEY, sinks=(events.append,)) as system:
            own = host_id_of(system.address)
            body = pickle.dumps((("cook", 0, 0), "echo", None, None, (1,), {}))
            flipped = bytearray(sealed(receiver=own, body=body))
            flipped[-1] ^= 1
            bad = [
                b"",
                b"garbage",
                bytes(flipped),
                sealed(receiver=own, body=body)[:-3],
                sealed(receiver=own ^ 1, body=body),
                sealed(receiver=own, body=body, key=bytes(32)),
            ]

            await self.send_raw(system, bad)

            await wait_until(lambda: system.statistics().rejected_frames == len(bad))
            await wait_until(lambda: len(rejected(events)) == len(bad))
            reasons = [event.reason for event in rejected(events)]
            assert reasons == ["truncated", "truncated", "mac", "length", "receiver", "mac"]

    async def test_the_actors_behind_it_live_on(self, events: list[Event]) -> None:
        async with memory_system(key=KEY, sinks=(events.append,)) as system:
            cook = system.options(name="cook").spawn(Cook)

            await self.send_raw(system, [b"x" * 100] * 50)

            await wait_until(lambda: system.statistics().rejected_frames == 50)
            assert await cook.echo(1) == 1

    async def test_an_unknown_kind_of_envelope_is_rejected_alone(self, events: list[Event]) -> None:
        async with memory_system(key=KEY, sinks=(events.append,)) as system, memory_system(key=KEY) as other:
            chunks = [envelope(99, Codec.PICKLE, 1, b"?"), envelope(Kind.TAKEN, Codec.PICKLE, 1, b"")]
            own = host_id_of(system.address)

            await self.send_raw(system, [Sealer(KEY).seal(own, 9, 1, other.address.encode(), chunks)])

            await wait_until(lambda: rejected(events))
            assert [event.reason for event in rejected(events)] == ["kind 99"]

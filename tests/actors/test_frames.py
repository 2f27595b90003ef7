"""Odd frames: lying lengths, wrong keys around pickles, and wrong content under the right key."""

from __future__ import annotations

import itertools
import math
import pickle
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, ActorSystem, _arrivals
from actors.address import host_id_of
from actors.testing import FaultyTransport, memory_system, wait_until
from actors.wire import (
    AS_BEFORE,
    ENVELOPE,
    ENVELOPE_OVERHEAD,
    BadFrame,
    Codec,
    Kind,
    Sealer,
    envelope,
    envelopes,
    head_of,
)

KEY = secrets.token_bytes(32)
HERE = 0x0123456789ABCDEF
quick = settings(max_examples=60, deadline=None, database=None)
octets = st.integers(0, 255)
ids = st.integers(0, 2**64 - 1)
chunks = st.builds(envelope, octets, octets, ids, st.binary(max_size=100))
frames = st.builds(
    lambda sender, address, sent: Sealer(KEY).seal(HERE, sender, 1, address.encode(), sent),
    ids,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=107),
    st.lists(chunks, max_size=4),
)


@quick
@given(frames, st.data())
def test_a_changed_byte_spoils_any_frame_wherever_it_stands(frame: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(frame) - 1))
    changed = bytearray(frame)
    changed[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(BadFrame):
        Sealer(KEY).open(bytes(changed), HERE)


@quick
@given(frames, st.data())
def test_any_frame_cut_short_anywhere_is_bad(frame: bytes, data: st.DataObject) -> None:
    with pytest.raises(BadFrame):
        Sealer(KEY).open(frame[: data.draw(st.integers(0, len(frame) - 1))], HERE)


@quick
@given(frames, st.binary(min_size=1, max_size=64).filter(lambda key: key != KEY))
def test_no_other_key_opens_a_frame(frame: bytes, key: bytes) -> None:
    with pytest.raises(BadFrame, match="mac"):
        Sealer(key).open(frame, HERE)


@quick
@given(st.binary(max_size=50), st.integers(1, 2**32 - 51))
def test_an_envelope_that_claims_more_than_there_is_is_bad(body: bytes, excess: int) -> None:
    lying = bytearray(envelope(Kind.ASK, Codec.PICKLE, 1, body))
    lying[4:8] = (len(body) + excess).to_bytes(4, "big")

    with pytest.raises(BadFrame, match="envelope"):
        list(envelopes(memoryview(lying)))


@pytest.mark.parametrize("size", range(1, ENVELOPE_OVERHEAD))
def test_half_an_envelope_is_bad(size: int) -> None:
    whole = envelope(Kind.ASK, Codec.PICKLE, 1, b"x")

    with pytest.raises(BadFrame, match="envelope"):
        list(envelopes(memoryview(whole + whole[:size])))


def test_an_address_that_is_not_ascii_makes_a_bad_frame() -> None:
    frame = Sealer(KEY).seal(HERE, 1, 1, b"ipc:///tmp/\xff", [])

    with pytest.raises(BadFrame):
        Sealer(KEY).open(frame, HERE)


# -- at a system ----------------------------------------------------------------------------------


class Sink(Actor):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def take(self, value: Any) -> None:
        self.told.append(value)

    async def all(self) -> list[Any]:
        return self.told


TAKE = head_of("sink", 0, 0, "take")


def tell(value: Any, number: int = 1) -> bytes:
    return envelope(Kind.TELL, Codec.PICKLE, number, pickle.dumps((value,)), TAKE)


def ask(body: str, head: str | bytes = TAKE, remaining: float = math.inf) -> bytes:
    return envelope(
        Kind.ASK, Codec.JSON, 1, body.encode(), head if isinstance(head, bytes) else head.encode(), remaining
    )


class Stage:
    """A system with a `Sink`, and a stranger with a link to it who can write any frame."""

    def __init__(self, system: ActorSystem, transport: FaultyTransport) -> None:
        self.system = system
        self.sink = system.options(name="sink").spawn(Sink)
        self._host_id = host_id_of(system.address)
        self._sequences = itertools.count(1)
        self._address = transport.address.encode()
        self._link = transport.link(system.address, lambda: None)
        self._link.open(1.0)

    def frame(self, *sent: bytes, key: bytes = KEY, receiver: int = 0, address: bytes = b"") -> bytes:
        sequence = next(self._sequences)
        return Sealer(key).seal(receiver or self._host_id, 1, sequence, address or self._address, sent)

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self._link.send(frame)

    async def rejected(self, n: int) -> None:
        await wait_until(lambda: self.system.statistics().rejected_frames == n)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    transport = FaultyTransport()  # without faults: plain memory
    transport.listen(lambda frames: None)
    async with memory_system(key=KEY, sinks=()) as system:
        yield Stage(system, transport)
    transport.close()


async def test_nothing_is_unpickled_before_key_and_receiver_are_right(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle is a program. The last frame shows that this test would have seen one run."""
    unpickled: list[bytes] = []

    def count(data: Any) -> Any:
        unpickled.append(bytes(data))
        return pickle.loads(data)

    monkeypatch.setattr(_arrivals, "loads", count)
    good = stage.frame(tell("good"))
    bad = [
        stage.frame(tell("bad"), key=bytes(32)),
        stage.frame(tell("bad"), receiver=1),
        good[:-1] + bytes([good[-1] ^ 1]),
        good[:-1],
        good + b"x",
    ]

    stage.send(*bad)
    await stage.rejected(len(bad))
    assert unpickled == []

    stage.send(good)
    await wait_until(lambda: unpickled)
    assert await stage.sink.all() == ["good"]


async def test_a_frame_whose_envelopes_do_not_add_up_is_dropped_as_a_whole(stage: Stage) -> None:
    stage.send(stage.frame(tell("first"), tell("cut short")[:-1]), stage.frame(tell("next")))

    await wait_until(lambda: stage.system.statistics().accepted)
    assert await stage.sink.all() == ["next"]
    await stage.rejected(1)


ODD = {
    "a kind that is none": envelope(99, Codec.PICKLE, 1, b""),
    "an ask that is no call": envelope(Kind.ASK, Codec.PICKLE, 1, pickle.dumps("not a call"), TAKE),
    "an ask that is no pickle": envelope(Kind.ASK, Codec.PICKLE, 1, b"not a pickle", TAKE),
    "an ask that is no json": ask("[[1, 2]"),
    "an ask of nobody": envelope(Kind.ASK, Codec.PICKLE, 1, pickle.dumps(())),
    "a head that is no json": ask("[[], {}, null]", "sink"),
    "a head that is too long": ask("[[], {}, null]", '["sink", 0, 0, "take", 1]'),
    "a head that is a number": ask("[[], {}, null]", "5"),
    "a method that is no text": ask("[[], {}, null]", '["sink", 0, 0, 5]'),
    "a method without a letter": ask("[[], {}, null]", '["sink", 0, 0, ""]'),
    "a deadline that is no number": ask("[[], {}, null]", remaining=math.nan),
    "a deadline before all time": ask("[[1], {}, null]", remaining=-math.inf),
    "a name that is no text": ask("[[], {}, null]", '[["sink"], 0, 0, "take"]'),
    "a uid that is no number": ask("[[1], {}, null]", '["sink", null, 0, "take"]'),
    "a pin that is no number": ask("[[1], {}, null]", '["sink", 0, "x", "take"]'),
    "a codec that is none": envelope(Kind.ASK, 77, 1, b"?", TAKE),
    "arguments that are none": ask("[3, {}, null]"),
    "keywords that are none": ask("[[1], 3, null]"),
    "keywords that are a list": ask("[[1], [2], null]"),
    "a sender that is none": ask("[[1], {}, [1]]"),
    "a sender that is a number": ask("[[1], {}, 7]"),
    "metadata that is none": ask("[[1], {}, null, 5]"),
    "metadata that is a list": ask('[[1], {}, null, ["traceparent"]]'),
    "a chain that is none": ask("[[1], {}, null, null, 5]"),
    "a control that is none": ask("[[], {}, null]", '["sink", 0, 0, "$nothing"]'),
    "a stop of a kind that is none": ask('[["x"], {}, null]', '["sink", 0, 0, "$stop"]'),
    "a stop with too much": ask("[[1, 2, 3], {}, null]", '["sink", 0, 0, "$stop"]'),
    "a tell that is no call": envelope(Kind.TELL, Codec.PICKLE, 2, pickle.dumps(None), TAKE),
    "a tell of nobody": envelope(Kind.TELL, Codec.PICKLE, 2, pickle.dumps(())),
    "an answer nobody asked for": envelope(Kind.VALUE, Codec.PICKLE, 1, b"?"),
    "an error nobody asked for": envelope(Kind.ERROR, Codec.PICKLE, 1, b"?"),
    "an item nobody asked for": envelope(Kind.ITEM, Codec.PICKLE, 1, b"?"),
    "an end nobody asked for": envelope(Kind.END, Codec.PICKLE, 1, b""),
    "a refusal of nothing": envelope(Kind.REFUSED, Codec.PICKLE, 1, b"?"),
    "a refusal of no ask": envelope(Kind.REFUSED_ASK, Codec.PICKLE, 1, b"?"),
    "an end of nobody": envelope(Kind.TERMINATED, Codec.PICKLE, 1, b"?"),
    "a watch of nobody": envelope(Kind.WATCH, Codec.PICKLE, 1, b"?"),
    "a watch that is undone twice": envelope(Kind.UNWATCH, Codec.PICKLE, 1, b""),
    "a cancel of nothing": envelope(Kind.CANCEL, Codec.PICKLE, 1, b""),
    "an item that is no batch": envelope(Kind.ITEM, Codec.PICKLE, 1, b"\0" * 8),
    "an end that is no number": envelope(Kind.END, Codec.PICKLE, 1, b"?"),
    "leave to send what nobody sends": envelope(Kind.READ, Codec.PICKLE, 1, b"\xff" * 16),
    "leave that is none": envelope(Kind.FED_READ, Codec.PICKLE, 1, b"?"),
    "an item of nobody's argument": envelope(Kind.FED, Codec.PICKLE, 1, b"?"),
    "an end of nobody's argument": envelope(Kind.FED_END, Codec.PICKLE, 1, b"?"),
    "an error of nobody's argument": envelope(Kind.FED_ERROR, Codec.PICKLE, 1, b"?"),
    "an argument closed twice": envelope(Kind.FED_CLOSED, Codec.PICKLE, 1, b""),
    "a batch of nothing": envelope(Kind.ASKS, Codec.PICKLE, 1, bytes(4), TAKE),
    "a batch without its numbers": envelope(Kind.ASKS, Codec.PICKLE, 1, b"\1\0\0\0" + bytes(8), TAKE),
    "a batch of more than there may be": envelope(Kind.TELLS, Codec.PICKLE, 1, b"\xff" * 4, TAKE),
    "a batch that is no pickle": envelope(Kind.ASKS, Codec.PICKLE, 1, b"\1\0\0\0" + bytes(16), TAKE),
    "a batch in JSON": envelope(Kind.ASKS, Codec.JSON, 1, b"\1\0\0\0" + bytes(16) + b"[[1]]", TAKE),
    "a batch of tells to nobody": envelope(
        Kind.TELLS, Codec.PICKLE, 2, b"\1\0\0\0" + pickle.dumps(([()], None))
    ),
    "a batch with heads that are none": envelope(
        Kind.TELLS, Codec.PICKLE, 2, b"\2\0\0\0" + pickle.dumps(([(), ()], [5, b"?"]))
    ),
    "answers nobody asked for": envelope(
        Kind.VALUES, Codec.PICKLE, 1, b"\1\0\0\0" + bytes(8) + pickle.dumps(([1], None))
    ),
    "answers that are none": envelope(Kind.VALUES, Codec.PICKLE, 1, b"?"),
    "a confirmation of nothing": envelope(Kind.TAKEN, Codec.PICKLE, 2**64 - 1, b""),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_odd_message_harms_neither_its_neighbours_nor_its_target(stage: Stage, odd: bytes) -> None:
    stage.send(stage.frame(tell("before", 1), odd, tell("behind", 3)), stage.frame(tell("next", 4)))

    await wait_until(lambda: stage.system.statistics().accepted >= 3)
    await wait_until(lambda: stage.system.statistics().in_mailbox == 0)
    assert await stage.sink.all() == ["before", "behind", "next"]


async def test_an_envelope_that_leaves_out_its_head_has_the_last_one_of_its_frame(stage: Stage) -> None:
    def again(kind: int, number: int, *content: Any) -> bytes:
        body = pickle.dumps(content)
        return ENVELOPE.pack(kind, Codec.PICKLE, AS_BEFORE, len(body), number, math.inf) + body

    stage.send(
        stage.frame(again(Kind.TELL, 1, "for nobody"), again(Kind.ASK, 1, "nor this")),
        stage.frame(
            tell("named", 2), envelope(Kind.TAKEN, Codec.PICKLE, 0, b""), again(Kind.TELL, 3, "again")
        ),
    )

    await wait_until(lambda: stage.system.statistics().accepted >= 2)
    assert await stage.sink.all() == ["named", "again"]
    await stage.rejected(1)


async def test_a_frame_without_an_address_to_answer_to_is_rejected(stage: Stage) -> None:
    stage.send(
        *(stage.frame(tell("x"), address=address) for address in (b"nowhere", b"mem://\xff", b"\0" * 16))
    )

    await stage.rejected(3)
    assert await stage.sink.all() == []

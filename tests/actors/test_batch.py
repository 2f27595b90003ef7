"""Batches: small messages that leave together arrive one by one, as they were and in their order."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, ActorSystem, _outbox, batch
from actors._outbox import LATE, MESSAGE_OVERHEAD, Outbox, Outgoing
from actors.errors import NotFound, SerializationError, Unavailable
from actors.testing import memory_system
from actors.wire import BadFrame, Kind, envelopes
from tests.actors.test_outbox import Owner

numbers = st.integers(0, 2**64 - 1)
seconds = st.floats(allow_nan=False)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300), st.binary(max_size=300)
)
BATCHES = {int(Kind.ASKS): Kind.ASK, int(Kind.TELLS): Kind.TELL, int(Kind.VALUES): Kind.VALUE}


# -- what may wait for its pickle -------------------------------------------------------------------


@given(st.lists(plain, max_size=20))
def test_what_is_small_can_always_be_pickled_and_stays_small(values: list[Any]) -> None:
    if batch.is_small(values):
        # Four bytes for a letter; what has no length is eight bytes and its opcode.
        assert len(pickle.dumps(tuple(values))) <= 4 * batch.MOST_BYTES + 16 * len(values) + 32


class Name(str):
    """Text that may say something else when it is looked at later."""


@pytest.mark.parametrize(
    "value", [[1], {}, (1,), bytearray(1), Name("x"), Kind.ASK, 1 << 62, "x" * 257, b"x" * 257, object()]
)
def test_what_can_change_or_is_large_is_not_small(value: Any) -> None:
    assert batch.is_small(("x", 1)) is True
    assert batch.is_small(("x", value)) is False


# -- its bytes ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(numbers, seconds, st.tuples(plain)), min_size=1, max_size=20))
def test_what_is_packed_is_unpacked(content: list[tuple[int, float, Any]]) -> None:
    numbers, remaining, contents = (list(column) for column in zip(*content, strict=True))

    for kind, of in BATCHES.items():
        found, left, pickled = batch.unpack(kind, 7, batch.pack(of, numbers, remaining, contents))
        kept, heads = batch.check(found, pickle.loads(pickled))
        assert repr(kept) == repr(contents)  # not-a-number equals itself there
        assert heads is None
        assert list(found) == (numbers if of != Kind.TELL else [7 + n for n in range(len(numbers))])
        assert list(left) == (remaining if of == Kind.ASK else [])


@given(st.sampled_from(sorted(BATCHES)), st.binary(max_size=60))
def test_bytes_that_are_no_batch_are_a_bad_frame_or_have_as_many_numbers_as_they_say(
    kind: int, body: bytes
) -> None:
    try:
        numbers, remaining, pickled = batch.unpack(kind, 1, body)
    except BadFrame:
        return
    assert len(numbers) == int.from_bytes(body[:4], "little") > 0
    assert len(remaining) in (0, len(numbers))
    assert body.endswith(pickled)


# -- in the outbox ------------------------------------------------------------------------------------


outgoing = st.lists(
    st.tuples(
        st.sampled_from([Kind.ASK, Kind.TELL, Kind.VALUE, Kind.CANCEL]),
        st.sampled_from([b"", b"head", b"other"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(outgoing, st.integers(1, 7))
def test_all_leave_in_their_order_whatever_goes_with_them(
    script: list[tuple[Kind, bytes, bool]], most: int
) -> None:
    outbox = Outbox("mem://1")
    for number, (kind, head, late) in enumerate(script, 1):
        late = late and kind != Kind.CANCEL
        body = (number,) if late else pickle.dumps((number,))
        owner = Owner("a", number) if kind == Kind.TELL else None
        one: Outgoing = int(kind), LATE if late else 0, number, body, head, number / 2, owner
        outbox.put(one)

    arrived, tells = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_outbox, "_MOST", most)
        while outbox.waits:
            packed, owners, charge = outbox.pack()
            frame = b"".join(packed)
            assert 0 < len(owners) <= most
            assert charge == len(frame) + MESSAGE_OVERHEAD * len(owners)
            for kind, codec, number, left, head, body in envelopes(frame):
                assert codec == 0
                found = [(number, left, pickle.loads(body), head)] if kind not in BATCHES else []
                if kind in BATCHES:
                    numbers, remaining, pickled = batch.unpack(kind, number, body)
                    contents, heads = batch.check(numbers, pickle.loads(pickled))
                    assert len(contents) > 1, "one alone is no batch"
                    assert heads is None or len(set(heads)) > 1
                    lefts = remaining or [math.inf] * len(numbers)
                    heads = heads or [head] * len(numbers)
                    found = list(zip(numbers, lefts, contents, heads, strict=True))
                for number, left, (serial,), head in found:
                    of = BATCHES.get(kind, kind)
                    tells += of == Kind.TELL
                    assert number == (tells if of == Kind.TELL else serial)
                    assert left == serial / 2 or (kind in BATCHES and of != Kind.ASK)
                    arrived.append((of, bytes(head), serial))

    assert arrived == [(kind, head, number) for number, (kind, head, _) in enumerate(script, 1)]
    assert outbox._bytes == 0


# -- between two systems --------------------------------------------------------------------------------


class Echo(Actor):
    expected = (ValueError,)

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def echo(self, value: Any, more: Any = None) -> Any:
        if value == "fail":
            raise ValueError(value)
        return value

    async def left(self) -> float | None:
        deadline = self.context.deadline
        return None if deadline is None else deadline.remaining()

    async def note(self, value: Any) -> None:
        self.told.append(value)

    async def told_all(self, value: int) -> int:
        self.told.append(value)
        return len(self.told)

    async def all(self) -> list[Any]:
        return self.told


async def pair(system: ActorSystem, other: ActorSystem) -> Any:
    other.options(name="echo").spawn(Echo)
    echo = system.ref(f"{other.address}#echo")
    assert await echo.echo(1) == 1
    await echo.tell("note", 1)
    await echo.tell("note", 2)
    assert await echo.all() == [1, 2]
    return echo


def outcomes(replies: list[Any]) -> Any:
    return asyncio.gather(*replies, return_exceptions=True)


async def test_each_has_its_own_outcome() -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        values = [n if n % 7 else "fail" for n in range(300)]
        large = "x" * 1000

        replies = [echo.echo(value, large if value == 5 else None) for value in values]
        tells = [echo.tell("note", value) for value in values]
        found = await outcomes(replies)

        assert [str(one) if isinstance(one, ValueError) else one for one in found] == values
        assert await outcomes(tells) == [None] * 300
        assert await echo.all() == [1, 2, *values]


async def test_calls_to_many_actors_and_methods_keep_their_order_at_each() -> None:
    async with memory_system() as system, memory_system() as other:
        echoes = []
        for name in "abc":
            other.options(name=name).spawn(Echo)
            echoes.append(system.ref(f"{other.address}#{name}"))
        nobody = system.ref(f"{other.address}#nobody")
        await outcomes([one.told_all(0) for one in echoes] + [one.note(0) for one in echoes])
        await outcomes([nobody.note(0), *(one.tell("note", -1) for one in echoes)])

        replies, tells = [], []
        for n in range(1, 100):
            to = echoes[n * n % 3]
            replies.append(to.note(n) if n % 2 else to.told_all(n))
            if n % 10 == 0:
                replies.append(nobody.note(n))
            tells.append(to.tell("note" if n % 4 else "told_all", 1000 + n))
        found = await outcomes(replies)

        assert [type(one) for one in found if one is not None and type(one) is not int] == [NotFound] * 9
        assert await outcomes(tells) == [None] * 99
        for place, echo in enumerate(echoes):
            mine = [n for n in range(1, 100) if n * n % 3 == place]
            all_told = (await echo.all())[3:]
            assert [n for n in all_told if n < 1000] == mine
            assert [n - 1000 for n in all_told if n > 1000] == mine


async def test_arguments_are_as_they_were_when_they_were_sent() -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        value = [0]
        replies = []
        for n in range(20):
            value[0] = n
            replies.append(echo.echo(value))
            replies.append(echo.echo(n))

        assert await outcomes(replies) == [x for n in range(20) for x in ([n], n)]


async def test_each_keeps_its_own_deadline() -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        timeouts = [None, 30.0, 60.0, 90.0] * 5
        refs = {timeout: echo.options(timeout=timeout) for timeout in timeouts}
        await outcomes([ref.left() for ref in refs.values()])

        left = await outcomes([refs[timeout].left() for timeout in timeouts])

        for timeout, found in zip(timeouts, left, strict=True):
            assert found == timeout or timeout - 15 < found <= timeout


def spoil(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    """All batches have *content* in the place of what they should."""
    pack = batch.pack

    def packed(kind: int, *columns: Any) -> bytes:
        whole = pack(kind, *columns)
        _, _, pickled = batch.unpack(batch.KIND_OF[kind], 0, whole)
        return whole[: len(whole) - len(pickled)] + content

    monkeypatch.setattr(batch, "pack", packed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps("none"),
        pickle.dumps(([(1,)], None)),
        pickle.dumps(({1: 2}, None)),
        pickle.dumps(([()] * 4, [b"head"])),
    ],
    ids=["nothing", "no pickle", "no pair", "too few", "no list", "too few heads"],
)
async def test_a_batch_that_cannot_be_decoded_is_an_outcome_for_each(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        with monkeypatch.context() as patch:
            spoil(patch, content)
            replies = [echo.echo(n) for n in range(5)]
            tells = [echo.tell("note", n) for n in range(5)]
            found = await outcomes([*replies, *tells])

        # The first one leaves alone: nothing else was under way.
        assert found[0] == 0 or isinstance(found[0], SerializationError)
        assert [type(one) for one in found[1:]] == [SerializationError] * 9
        assert await echo.all() == [1, 2]
        assert await echo.echo("next") == "next"


async def test_answers_that_cannot_be_decoded_are_an_outcome_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        together = Outbox._together

        def spoiled(self: Outbox, alike: list[Outgoing], owners: Any) -> Any:
            kind, codec, number, body, head, left = together(self, alike, owners)
            return kind, codec, number, body[:-4] if kind == Kind.VALUES else body, head, left

        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "_together", spoiled)
            found = await outcomes([echo.echo(n) for n in range(20)])

        assert {type(one) for one in found} <= {int, SerializationError}
        assert sum(isinstance(one, SerializationError) for one in found) >= 15
        assert await echo.echo("next") == "next"


ODD = {
    "no tuple": (5, "text", None),
    "a list that is no call": ([1], [], [3, {}, None]),
    "one of them plain": ((1,), 5, [[2], {}, None]),
}


@pytest.mark.parametrize("contents", ODD.values(), ids=ODD)
async def test_what_is_no_call_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, contents: tuple[Any, ...]
) -> None:
    async with memory_system() as system, memory_system() as other:
        echo = await pair(system, other)
        with monkeypatch.context() as patch:
            spoil(patch, pickle.dumps((contents, None)))
            tells = [echo.tell("note", n) for n in range(3)]
            found = await outcomes(tells)

        told = (await echo.all())[2:]
        wanted = [one[0][0] if type(one) is list else one[0] for one in contents if _is_call(one)]
        assert told == wanted
        assert [one is None for one in found] == [_is_call(one) for one in contents]


def _is_call(one: Any) -> bool:
    return type(one) is tuple or (type(one) is list and len(one) == 3 and type(one[0]) is list)


async def test_nobody_is_told_twice_when_the_far_end_is_gone() -> None:
    async with memory_system() as system:
        async with memory_system() as other:
            echo = await pair(system, other)
            replies = [echo.echo(n) for n in range(10)]
            tells = [echo.tell("note", n) for n in range(10)]
            other._remote.close()  # type: ignore[union-attr]
            found = await outcomes([*replies, *tells])

        assert all(one in (*range(10), None) or isinstance(one, Unavailable) for one in found)

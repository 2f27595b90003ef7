"""The rules of flow control alone: nobody starves, nobody drowns, whatever the sizes and the order."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.stream import (
    BETWEEN,
    INSIDE,
    NOTHING,
    Credit,
    Limits,
    Window,
    is_stream,
    pack_batch,
    pack_limits,
    pack_total,
    unpack_batch,
    unpack_limits,
    unpack_total,
)

quick = settings(max_examples=200, deadline=None, database=None)
sizes = st.one_of(st.just(0), st.integers(1, 2000), st.integers(1, 3 * BETWEEN.bytes))


@quick
@given(
    st.lists(sizes, max_size=1000),
    st.lists(st.sampled_from(["write", "read", "hear", "lose"]), max_size=400),
    st.booleans(),
    st.sampled_from([BETWEEN, INSIDE]),
    st.integers(1, 70),
)
def test_every_item_gets_through_and_little_is_ever_on_its_way(
    items: list[int], steps: list[str], is_argument: bool, size: Limits, batch: int
) -> None:
    """Any order of writing, reading and hearing; limits may come twice, late or not at all."""
    limits = NOTHING if is_argument else size
    credit, window = Credit(limits), Window(size, limits)
    unread: deque[int] = deque()
    told: deque[Limits] = deque([window.raised()] if is_argument else [])
    unsent = deque(items)

    def write() -> bool:
        if not (unsent and credit.is_open):
            return False
        credit.spend(unsent[0])
        unread.append(unsent.popleft())
        assert len(unread) <= size.items
        assert sum(unread) < size.bytes + unread[-1]
        return True

    def read() -> bool:
        if not unread:
            return False
        read = [unread.popleft() for _ in range(min(batch, len(unread)))]
        if window.read(len(read), sum(read)):
            told.append(window.raised())
        return True

    def hear() -> bool:
        if not told:
            return False
        credit.allow(told[0])
        credit.allow(told.popleft())
        return True

    for step in steps:
        if step == "lose" and len(told) > 1:
            told.popleft()  # a later one says all that it said
        else:
            {"write": write, "read": read, "hear": hear, "lose": hear}[step]()
    while write() or read() or hear():
        pass

    assert not unsent
    assert window.items == credit.items == len(items)
    assert window.bytes == credit.bytes == sum(items)


def test_the_writer_hears_at_half_time_and_not_of_every_item() -> None:
    window = Window(BETWEEN)
    heard = []
    for number in range(1, 2 * BETWEEN.items + 1):
        if window.read(1, 10):
            heard.append(number)
            assert window.raised() == (number + BETWEEN.items, number * 10 + BETWEEN.bytes)
    assert heard == [n * BETWEEN.items // 2 for n in (1, 2, 3, 4)]


def test_an_argument_may_not_begin_before_its_reader_asks() -> None:
    credit, window = Credit(NOTHING), Window(INSIDE, NOTHING)
    assert not credit.is_open
    credit.allow(window.raised())
    assert credit.is_open


def test_one_item_may_be_larger_than_the_window() -> None:
    credit, window = Credit(BETWEEN), Window(BETWEEN)
    credit.spend(10 * BETWEEN.bytes)
    assert not credit.is_open
    assert window.read(1, 10 * BETWEEN.bytes)
    credit.allow(window.raised())
    assert credit.is_open


def test_an_older_limit_takes_nothing_back() -> None:
    credit = Credit(Limits(10, 10))
    credit.allow(Limits(5, 20))
    credit.spend(10)
    assert credit.is_open


@quick
@given(st.integers(0, 2**64 - 1), st.lists(st.binary(max_size=50), max_size=20))
def test_a_batch_comes_out_as_it_went_in(first: int, bodies: list[bytes]) -> None:
    number, items, size = unpack_batch(memoryview(pack_batch(first, bodies)))
    assert (number, size) == (first, sum(map(len, bodies)))
    assert [bytes(item) for item in items] == bodies


@quick
@given(st.binary(max_size=200))
def test_what_is_no_batch_is_refused_and_never_read_beyond_its_end(body: bytes) -> None:
    try:
        _, items, _ = unpack_batch(memoryview(body))
    except ValueError:
        return
    assert pack_batch(int.from_bytes(body[:8], "big"), [bytes(item) for item in items]) == body


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_batch_cut_short_is_none(cut: int) -> None:
    whole = pack_batch(0, [b"soup", b"fish"])
    with pytest.raises(ValueError, match="no batch"):
        unpack_batch(memoryview(whole[:-cut]))


def test_limits_and_totals_come_out_as_they_went_in() -> None:
    assert unpack_limits(pack_limits(Limits(3, 2**40))) == (3, 2**40)
    assert unpack_total(pack_total(7)) == 7
    assert unpack_total(b"") is None


def test_streams_are_async_iterators_and_nothing_else() -> None:
    class Half:
        def __aiter__(self) -> Half:
            return self

    class Both(Half):
        async def __anext__(self) -> int:
            return 1

    async def made():  # type: ignore[no-untyped-def]
        yield 1

    assert is_stream(Both())
    assert is_stream(made())
    assert not is_stream(Half())
    assert not is_stream(Both)
    assert not is_stream(iter([1]))
    assert not is_stream(n for n in [1])

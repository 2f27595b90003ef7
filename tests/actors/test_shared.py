"""Large messages between processes of one machine lie in shared memory: read in place and given back."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import ActorSystem, Ref, SerializationError, Unavailable
from actors import _shared as shared
from actors._shared import SHARED_FROM, Borrower, Lender, parcel
from actors.testing import wait_until

from distant import Echo, Far  # isort: skip

LARGE = SHARED_FROM // 8
"""Numbers of an array that is just large enough."""


@pytest.fixture
def lender() -> Iterator[Lender]:
    lender = Lender()
    yield lender
    lender.close()


class TestSegments:
    def test_what_is_lent_is_read_in_place_and_cannot_be_written(self, lender: Lender) -> None:
        parts = Borrower().read(
            "there", parcel(lender.lend("there", [b"head", b"x" * 100_000])), lambda: None
        )

        assert [bytes(part) for part in parts] == [b"head", b"x" * 100_000]
        assert all(part.readonly for part in parts)

    def test_the_end_of_the_last_view_is_told_once(self, lender: Lender) -> None:
        told: list[int] = []
        first, second = Borrower().read(
            "there", parcel(lender.lend("there", [b"1", b"2"])), lambda: told.append(1)
        )
        piece = second[:1]

        del first, second
        gc.collect()
        assert told == []
        del piece
        gc.collect()
        assert told == [1]

    def test_what_is_given_back_is_written_again(self, lender: Lender) -> None:
        first = parcel(lender.lend("there", [b"a" * 100_000]))
        lender.give_back("there", first.number)
        second = parcel(lender.lend("elsewhere", [b"b" * 90_000]))

        assert (second.fd, second.inode) == (first.fd, first.inode)
        assert second.number != first.number

    def test_nobody_gives_back_what_others_read(self, lender: Lender) -> None:
        first = parcel(lender.lend("there", [b"a" * 100_000]))
        lender.give_back("elsewhere", first.number)
        second = parcel(lender.lend("there", [b"b" * 100_000]))

        assert second.inode != first.inode

    def test_a_lost_reader_keeps_what_it_has_and_nothing_is_written_there(self, lender: Lender) -> None:
        wanted = parcel(lender.lend("there", [b"a" * 100_000]))
        (part,) = Borrower().read("here", wanted, lambda: None)
        lender.lost("there")
        lender.lend("elsewhere", [b"b" * 100_000])

        assert bytes(part) == b"a" * 100_000
        with pytest.raises(OSError):
            Borrower().read("here", wanted, lambda: None)

    def test_free_memory_is_given_to_the_system_after_a_while(
        self, lender: Lender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lender.give_back("there", parcel(lender.lend("there", [b"a" * 100_000])).number)
        assert memory_files()

        assert lender.sweep()
        assert memory_files()
        monkeypatch.setattr(shared, "IDLE_TIME", 0.0)
        assert not lender.sweep()
        assert not memory_files()

    @pytest.mark.parametrize(("limit", "value"), [("_MAX_LENT", 150_000), ("_MAX_SEGMENTS", 1)])
    def test_there_are_limits(
        self, lender: Lender, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
    ) -> None:
        monkeypatch.setattr(shared, limit, value)
        first = lender.lend("there", [b"a" * 100_000])
        before = len(memory_files())

        with pytest.raises(OSError):
            lender.lend("there", [b"b" * 100_000])
        assert len(memory_files()) == before
        lender.give_back("there", parcel(first).number)
        lender.lend("there", [b"b" * 100_000])

    @given(st.binary(max_size=200))
    def test_bytes_that_describe_no_memory_are_refused(self, body: bytes) -> None:
        try:
            found = parcel(body)
        except ValueError:
            return
        assert all(offset + length <= found.size for offset, length in found.places)


@pytest.fixture
async def near(run_root: Path) -> AsyncIterator[ActorSystem]:
    before = memory_files()
    async with ActorSystem(listen=True) as system:
        yield system
    gc.collect()
    assert memory_files() <= before  # nothing is left, whatever a test did


async def echo_in(far: Far, near: ActorSystem, **options: Any) -> Ref[Any]:
    echo: Ref[Any] = await far.actor(near, "stagehand").start(Echo, **options)
    return echo


def memory_files() -> set[str]:
    """Descriptors of this process that lead to memory of ours."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:understudy"):
                found.add(fd)
        except OSError:
            continue
    return found


def lent(system: ActorSystem) -> int:
    assert system._remote is not None
    return len(system._remote.parcels._lender._lent)


class TestBetweenProcesses:
    @pytest.mark.parametrize(
        "array",
        [
            numpy.arange(LARGE, dtype="f8"),
            numpy.asfortranarray(numpy.arange(2.0 * LARGE).reshape(2, LARGE)),
            numpy.arange(4.0 * LARGE)[::2],
            numpy.arange(3 * LARGE, dtype="f8").reshape(3, LARGE)[:, 1:],
        ],
        ids=["plain", "fortran", "strided", "cut"],
    )
    async def test_arrays_come_back_as_they_went(
        self, lasting: Far, near: ActorSystem, array: numpy.ndarray[Any, Any]
    ) -> None:
        echo = await echo_in(lasting, near)

        back = await echo.same({"array": array, "small": numpy.ones(3), "none": numpy.empty(0)})

        assert numpy.array_equal(back["array"], array)
        assert numpy.array_equal(back["small"], numpy.ones(3))
        assert back["none"].size == 0

    async def test_large_arrays_are_views_that_cannot_be_written(
        self, lasting: Far, near: ActorSystem
    ) -> None:
        back = await (await echo_in(lasting, near)).same(numpy.zeros(LARGE))

        with pytest.raises(ValueError, match="read-only"):
            back[0] = 1.0
        assert back.copy().flags.writeable

    async def test_large_bytes_and_texts_go_the_same_way(self, lasting: Far, near: ActorSystem) -> None:
        echo = await echo_in(lasting, near)
        value = {"bytes": os.urandom(3 * SHARED_FROM), "text": "ü" * SHARED_FROM}

        assert await echo.same(value) == value

    async def test_what_was_read_is_given_back(
        self, lasting: Far, near: ActorSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = memory_files()
        echo = await echo_in(lasting, near, concurrency=8)
        array = numpy.random.default_rng(1).random(LARGE)

        for _ in range(5):
            for back in await asyncio.gather(*(echo.same(array) for _ in range(20))):
                assert numpy.array_equal(back, array)

        del back
        await wait_until(lambda: lent(near) == 0)
        monkeypatch.setattr(shared, "IDLE_TIME", 0.0)
        assert near._remote is not None
        near._remote.parcels.sweep()
        gc.collect()
        await wait_until(lambda: memory_files() <= before)

    async def test_who_keeps_what_it_got_keeps_it_unchanged(self, lasting: Far, near: ActorSystem) -> None:
        echo = await echo_in(lasting, near)
        kept = [await echo.same(numpy.full(LARGE, float(n))) for n in range(10)]

        for n, array in enumerate(kept):
            assert (array == n).all()

    @pytest.mark.parametrize("piece", [slice(None), slice(1000, None), slice(5, -7)])
    async def test_what_comes_back_lies_where_it_was_sent_from(
        self, lasting: Far, near: ActorSystem, piece: slice
    ) -> None:
        """One copy, by the first sender: the answer only names the place, also of a part."""
        echo = await echo_in(lasting, near)
        array = numpy.random.default_rng(1).random(2 * LARGE)

        back = await echo.cut(array, piece)

        assert numpy.array_equal(back, array[piece])
        assert near._remote is not None
        (loan,) = near._remote.parcels._borrower._loans.values()
        assert loan[1].pid == os.getpid()
        assert lent(near) == 1  # as long as it is read here
        again = await echo.cut(back, slice(None))
        assert numpy.array_equal(again, back)
        del back, again
        await wait_until(lambda: lent(near) == 0)

    async def test_what_came_from_two_messages_is_copied(self, lasting: Far, near: ActorSystem) -> None:
        echo = await echo_in(lasting, near, concurrency=2)
        await echo.note(numpy.full(LARGE, 1.0))

        noted, sent = await echo.noted_and(numpy.full(LARGE, 2.0))

        assert (noted == 1.0).all()
        assert (sent == 2.0).all()
        assert near._remote is not None
        (loan,) = near._remote.parcels._borrower._loans.values()
        assert loan[1].pid != os.getpid()

    async def test_it_outlives_its_sender(self, far: Far, near: ActorSystem) -> None:
        echo = await echo_in(far, near)
        back = await echo.same(numpy.arange(LARGE))
        far.kill()

        with pytest.raises(Unavailable):
            await echo.same(1)
        assert (back == numpy.arange(LARGE)).all()

    async def test_a_receiver_that_dies_takes_nothing_along(self, far: Far, near: ActorSystem) -> None:
        echo = await echo_in(far, near)
        await echo.note(numpy.arange(LARGE))
        assert lent(near) == 1

        far.kill()
        await wait_until(lambda: lent(near) == 0)

    async def test_an_answer_that_comes_too_late_is_given_back(self, lasting: Far, near: ActorSystem) -> None:
        echo = await echo_in(lasting, near)
        for pause in (0.0, 0.001, 0.002, 0.004) * 5:
            reply = echo.same(numpy.arange(4 * LARGE))
            await asyncio.sleep(pause)
            reply.cancel()
            reply.outcome()
            del reply

        await wait_until(lambda: lent(near) == 0)

    async def test_without_memory_to_share_it_goes_through_the_socket(
        self, lasting: Far, near: ActorSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: Lender, address: str, parts: Any) -> bytes:
            raise OSError("no space left")

        monkeypatch.setattr(Lender, "lend", full)
        echo = await echo_in(lasting, near)

        assert (await echo.same(numpy.arange(LARGE)) == numpy.arange(LARGE)).all()

    async def test_a_stream_of_large_items(self, lasting: Far, near: ActorSystem) -> None:
        echo = await echo_in(lasting, near)

        sizes = [item.size async for item in echo.arrays(30, LARGE)]

        assert sizes == [LARGE] * 30

    async def test_more_than_a_message_may_have_is_refused_on_both_ways(
        self, lasting: Far, near: ActorSystem
    ) -> None:
        echo = await echo_in(lasting, near)

        with pytest.raises(SerializationError, match=r"arguments of .* have \d+ bytes, a message at most"):
            await echo.same(numpy.zeros(8 * 1024 * 1024 + 1))
        with pytest.raises(SerializationError, match=r"the result has \d+ bytes, a message at most"):
            await echo.zeros(8 * 1024 * 1024 + 1)

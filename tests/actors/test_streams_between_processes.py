"""Streams between real processes: bounded memory, both directions, and what the living learn of the dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from actors import ActorSystem, Ref, Unavailable
from actors.stream import BETWEEN
from actors.testing import wait_until, wait_until_sync

from distant import Far, Mill  # isort: skip


@pytest.fixture
async def near(run_root: Path) -> AsyncIterator[ActorSystem]:
    async with ActorSystem(listen=True, sinks=()) as system:
        yield system


@pytest.fixture
async def mill(near: ActorSystem, lasting: Far) -> AsyncIterator[Ref[Any]]:
    """A fresh `Mill` in the lasting process."""
    mill: Ref[Any] = await lasting.actor(near, "stagehand").start(Mill, concurrency=2000, mailbox=2000)
    yield mill
    await mill.kill()


async def _made(mill: Ref[Any]) -> int:
    made: int = (await mill.seen())[0]
    return made


async def _has_noted(mill: Ref[Any], *any_of: str) -> bool:
    return bool(set(any_of) & set((await mill.seen())[1]))


async def read_on(reader: AsyncIterator[Any]) -> None:
    async for _ in reader:
        pass


class Larder:
    """Makes numbers for ever, and counts them."""

    def __init__(self, item: Any = None) -> None:
        self.made = 0
        self.has_ended = False
        self._item = item

    async def numbers(self, until: int | None = None) -> AsyncIterator[Any]:
        try:
            while until is None or self.made < until:
                self.made += 1
                yield self.made if self._item is None else self._item
        finally:
            self.has_ended = True


# -- memory is bounded ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["grind", "grind_on_thread"])
async def test_a_reader_that_reads_nothing_stops_the_writer_at_the_window(
    mill: Ref[Any], method: str
) -> None:
    reply = mill.ask(method)

    async def stands_at_the_window() -> bool:
        return await _made(mill) == BETWEEN.items

    await wait_until(stands_at_the_window)
    await asyncio.sleep(0.05)
    assert await stands_at_the_window()
    reply.cancel()
    await wait_until(lambda: _has_noted(mill, "grind closed"))


async def test_bytes_count_too(mill: Ref[Any]) -> None:
    size = BETWEEN.bytes // 16
    reader = aiter(mill.grind(bytes(size)))
    assert len(await anext(reader)) == size
    await asyncio.sleep(0.05)
    assert 16 <= await _made(mill) <= 17
    for _ in range(100):
        assert len(await anext(reader)) == size


async def test_a_slow_handler_stops_the_caller_at_the_window(mill: Ref[Any]) -> None:
    larder = Larder()
    reader = aiter(mill.doubled(larder.numbers()))
    assert await anext(reader) == 2
    # A window at each end, but for what was not worth telling.
    await wait_until(lambda: larder.made >= BETWEEN.items * 5 // 4)
    await asyncio.sleep(0.05)
    assert larder.made <= 2 * BETWEEN.items + 2


# -- what arrives -----------------------------------------------------------------------------------


async def test_a_hundred_thousand_items_arrive_in_order(mill: Ref[Any]) -> None:
    number = 0
    async for item in mill.part(0, 100_000):
        assert item == number
        number += 1
    assert number == 100_000


async def test_a_thousand_streams_at_once(mill: Ref[Any]) -> None:
    async def read(number: int) -> int:
        return sum([item async for item in mill.part(number, 30)])

    sums = await asyncio.gather(*(read(number) for number in range(1000)))

    assert sums == [30 * number + sum(range(30)) for number in range(1000)]


async def test_a_thousand_arguments_at_once(mill: Ref[Any]) -> None:
    patient = mill.options(timeout=60)
    totals = await asyncio.gather(*(patient.total(Larder().numbers(number % 50)) for number in range(1000)))

    assert totals == [sum(range(1, number % 50 + 1)) for number in range(1000)]


async def test_both_directions_with_both_windows_full(mill: Ref[Any]) -> None:
    larder = Larder()
    reply = mill.doubled(larder.numbers(5000))
    await asyncio.sleep(0.05)
    assert [item async for item in reply] == [2 * n for n in range(1, 5001)]


async def test_arrays_travel_as_items_in_both_directions(mill: Ref[Any], near: ActorSystem) -> None:
    """Through shared memory, which is given back when they have been read."""
    larder = Larder(item=numpy.ones(200_000))
    total = await mill.total(larder.numbers(5))
    assert total.sum() == 1_000_000
    sums = [item.sum() async for item in mill.doubled(Larder(item=numpy.ones(200_000)).numbers(5))]
    assert sums == [400_000] * 5
    assert near._remote is not None
    del total
    await wait_until(lambda: not near._remote.parcels._lender._lent)


def test_sync_programs_stream_in_both_directions(run_root: Path, lasting: Far) -> None:
    with ActorSystem(listen=True, sinks=()) as system:
        mill: Ref[Any] = lasting.actor(system, "stagehand").start(Mill).result()
        assert mill.total(Larder().numbers(1000)).result() == 500_500
        assert mill.total_on_thread(Larder().numbers(1000)).result() == 500_500
        assert list(mill.doubled(Larder().numbers(1000))) == [2 * n for n in range(1, 1001)]
        larder = Larder()
        for item in mill.doubled(larder.numbers()):
            if item == 100:
                break
        wait_until_sync(lambda: larder.has_ended)
        mill.kill().result()


# -- the end ------------------------------------------------------------------------------------------


async def test_cancel_after_the_first_item_ends_it_at_the_far_end(mill: Ref[Any]) -> None:
    reply = mill.grind()
    reader = aiter(reply)
    assert await anext(reader) == 1
    reply.cancel()
    await wait_until(lambda: _has_noted(mill, "grind closed"))


async def test_a_handler_that_ends_early_ends_the_callers_generator(mill: Ref[Any]) -> None:
    larder = Larder()
    assert await mill.first(larder.numbers()) == 1
    await wait_until(lambda: larder.has_ended)
    assert larder.made <= BETWEEN.items


@pytest.mark.parametrize("method", ["drain", "drain_on_thread"])
async def test_the_callers_cancel_ends_the_handlers_iterator(mill: Ref[Any], method: str) -> None:
    larder = Larder()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            larder.has_ended = True

    reply = mill.ask(method, numbers())
    await wait_until(lambda: _has_made(mill, 1))
    reply.cancel()
    await wait_until(lambda: larder.has_ended)
    # A task may hear of the cancel itself first.
    await wait_until(lambda: _has_noted(mill, "Cancelled", *(["CancelledError"] * (method == "drain"))))


async def _has_made(mill: Ref[Any], least: int) -> bool:
    return await _made(mill) >= least


@pytest.mark.timeout(60)
async def test_a_killed_process_ends_both_ends_of_a_two_way_stream(near: ActorSystem, far: Far) -> None:
    mill = await far.actor(near, "stagehand").start(Mill)
    larder = Larder()
    reader = aiter(mill.options(timeout=None).doubled(larder.numbers()))
    assert await anext(reader) == 2
    began_at = time.monotonic()
    far.kill()
    with pytest.raises(Unavailable) as caught:
        await read_on(reader)
    await wait_until(lambda: larder.has_ended)
    assert caught.value.may_have_run
    assert time.monotonic() - began_at < 2  # and not the stream's timeout


@pytest.mark.parametrize("method", ["grind", "grind_on_thread"])
async def test_a_reader_that_is_killed_ends_the_writer(near: ActorSystem, far: Far, method: str) -> None:
    mill = near.spawn(Mill)
    puller = await far.actor(near, "stagehand").start(Mill)
    pull = puller.options(timeout=None).pull(mill, method)
    await wait_until(lambda: _has_made(mill, BETWEEN.items))
    far.kill()
    await wait_until(lambda: _has_noted(mill, "grind closed"))
    assert await _made(mill) < 100_000
    with pytest.raises(Unavailable):
        await pull


@pytest.mark.parametrize("method", ["drain", "drain_on_thread"])
async def test_a_writer_that_is_killed_ends_the_handler_that_reads(
    near: ActorSystem, far: Far, method: str
) -> None:
    mill = near.spawn(Mill)
    feeder = await far.actor(near, "stagehand").start(Mill)
    fed = feeder.options(timeout=None).feed(mill, method)
    await wait_until(lambda: _has_made(mill, 10))
    far.kill()
    await wait_until(lambda: _has_noted(mill, "Unavailable", *(["CancelledError"] * (method == "drain"))))
    with pytest.raises(Unavailable):
        await fed


async def test_the_next_life_of_an_actor_knows_nothing_of_its_streams(near: ActorSystem, far: Far) -> None:
    """The stream of a life ends with it, on both sides; the next stream is new."""
    stagehand = far.actor(near, "stagehand")
    mill = await stagehand.start(Mill, "mill")
    larder = Larder()
    reader = aiter(mill.doubled(larder.numbers()))
    assert await anext(reader) == 2
    await mill.kill()
    with pytest.raises(Unavailable, match="stopped while it ran"):
        await read_on(reader)
    await wait_until(lambda: larder.has_ended)
    again = await stagehand.start(Mill, "mill")
    assert [item async for item in again.doubled(Larder().numbers(2))] == [2, 4]

"""
Streams: items as they come, and an end at both ends, whoever leaves first.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    Reply,
    Unavailable,
)
from actors.stream import INSIDE
from actors.testing import ManualClock, wait_until


class Spoiled(Exception):
    """An answer."""


class Kitchen(Actor):
    """Serves in courses; `ended` says which of its generators ran their `finally`."""

    expected = (Spoiled,)

    def __init__(self, ended: list[str]) -> None:
        self.ended = ended

    async def courses(self, menu: list[Any]) -> AsyncIterator[Any]:
        try:
            for dish in menu:
                yield dish
        finally:
            self.ended.append("courses")

    async def endless(self) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            self.ended.append("endless")

    async def restless(self) -> AsyncIterator[int]:
        """Never waits for anything."""
        try:
            while True:
                yield 1
        finally:
            self.ended.append("restless")

    def endless_on_thread(self, pause: threading.Event) -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                pause.wait(0.001)
        finally:
            self.ended.append("endless_on_thread")

    async def counted(self) -> AsyncIterator[int]:
        """`ended` tells how far it came."""
        number = 0
        try:
            while True:
                self.ended[:] = [str(number + 1)]
                yield number
                number += 1
        finally:
            self.ended.append("counted")

    def counted_on_thread(self) -> Iterator[int]:
        number = 0
        try:
            while True:
                self.ended[:] = [str(number + 1)]
                yield number
                number += 1
        finally:
            self.ended.append("counted_on_thread")

    async def spoil(self, after: int, error: BaseException) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise error

    def spoil_on_thread(self, after: int, error: BaseException) -> Iterator[int]:
        yield from range(after)
        raise error

    async def on_demand(self, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        try:
            while (dish := await queue.get()) is not None:
                yield dish
        finally:
            self.ended.append("on_demand")

    async def with_help(self, helper: Any, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        while await queue.get() is not None:
            yield await helper.cook()

    async def cook(self) -> str:
        return "cooked"

    async def ended_so_far(self) -> list[str]:
        return list(self.ended)

    def read(self, ref: Any, method: str, *args: Any, stop_at: int) -> list[Any]:
        """Sync iteration, on a handler's thread."""
        read = []
        for item in ref.stream(method, *args):
            read.append(item)
            if len(read) == stop_at:
                break
        return read


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
async def system(clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time stands still, until it stops."""
    async with ActorSystem(sinks=(), clock=clock) as system:
        yield system
        stopped = system.stop()
        while not stopped.done:
            clock.advance(10)
            await asyncio.sleep(0.001)


async def items_of(reply: Reply[Any]) -> list[Any]:
    return [item async for item in reply]


# -- items -----------------------------------------------------------------------------


async def test_items_come_in_order_and_then_the_end(system: ActorSystem, ended: list[str]) -> None:
    kitchen = system.spawn(Kitchen, ended)
    menu = ["soup", None, 0, "fish"]
    assert await items_of(kitchen.courses(menu)) == menu
    assert await items_of(kitchen.stream("courses", menu)) == menu
    assert ended == ["courses", "courses"]


async def test_an_item_is_there_before_the_next_is_made(system: ActorSystem, ended: list[str]) -> None:
    kitchen, queue = system.spawn(Kitchen, ended), asyncio.Queue[Any]()
    reader = aiter(kitchen.on_demand(queue))
    for dish in ("soup", "fish"):
        queue.put_nowait(dish)
        assert await anext(reader) == dish
    queue.put_nowait(None)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_an_empty_stream_ends_at_once(system: ActorSystem, ended: list[str]) -> None:
    assert await items_of(system.spawn(Kitchen, ended).courses([])) == []


async def test_what_has_ended_can_still_be_read(system: ActorSystem, ended: list[str]) -> None:
    kitchen = system.spawn(Kitchen, ended)
    nothing, something = kitchen.courses([]), kitchen.courses(["soup", "fish"])
    await wait_until(lambda: nothing.done and something.done)
    assert await items_of(nothing) == []
    assert await items_of(something) == ["soup", "fish"]


async def test_a_stream_is_read_once(system: ActorSystem, ended: list[str]) -> None:
    reply = system.spawn(Kitchen, ended).courses([1, 2, 3])
    assert await items_of(reply) == [1, 2, 3]
    assert await items_of(reply) == []


@pytest.mark.parametrize("method", ["spoil", "spoil_on_thread"])
async def test_an_error_comes_after_the_items_before_it(
    system: ActorSystem, ended: list[str], method: str
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reader = aiter(kitchen.ask(method, 2, Spoiled("milk")))
    assert [await anext(reader), await anext(reader)] == [0, 1]
    with pytest.raises(Spoiled, match="milk"):
        await anext(reader)
    assert await kitchen.cook() == "cooked"

    with pytest.raises(ValueError, match="boom"):
        await items_of(kitchen.ask(method, 2, ValueError("boom")))
    assert (await kitchen.wait_stopped()).kind == "error"


async def test_an_error_before_the_first_item_is_raised_by_the_first_read(
    system: ActorSystem, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    with pytest.raises(Spoiled):
        await items_of(kitchen.spoil(0, Spoiled("milk")))
    await kitchen.stop()
    with pytest.raises(ActorStopped):
        await items_of(kitchen.courses([1]))


# -- leaving early -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["endless", "restless"])
async def test_break_ends_the_generator_and_runs_its_finally(
    system: ActorSystem, ended: list[str], method: str
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    async for _ in kitchen.ask(method):
        break
    await wait_until(lambda: ended == [method])
    assert await kitchen.cook() == "cooked"


async def test_the_generator_has_ended_before_the_next_message_begins(
    system: ActorSystem, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reader = aiter(kitchen.restless())
    assert await anext(reader) == 1
    following = kitchen.ended_so_far()
    del reader
    assert await following == ["restless"]


async def test_cancel_ends_it_and_whoever_reads_is_told(system: ActorSystem, ended: list[str]) -> None:
    kitchen, queue = system.spawn(Kitchen, ended), asyncio.Queue[Any]()
    reply = kitchen.on_demand(queue)
    queue.put_nowait("soup")
    reader = aiter(reply)
    assert await anext(reader) == "soup"
    reply.cancel()
    with pytest.raises(Cancelled):
        await anext(reader)
    await wait_until(lambda: ended == ["on_demand"])
    assert await kitchen.cook() == "cooked"


async def test_cancelling_the_task_that_reads_ends_it(system: ActorSystem, ended: list[str]) -> None:
    kitchen = system.spawn(Kitchen, ended)
    task = asyncio.create_task(items_of(kitchen.on_demand(asyncio.Queue())))
    await wait_until(lambda: system.statistics().in_progress == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: ended == ["on_demand"])


async def test_dropping_the_reader_ends_it(system: ActorSystem, ended: list[str]) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reader = aiter(kitchen.endless())
    assert await anext(reader) == 0
    del reader
    gc.collect()
    await wait_until(lambda: ended == ["endless"])
    assert await kitchen.cook() == "cooked"


async def test_dropping_a_stream_nobody_has_begun_to_read_ends_it(
    system: ActorSystem, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reply = kitchen.endless()
    await wait_until(lambda: system.statistics().in_progress == 1)
    del reply
    gc.collect()
    await wait_until(lambda: ended == ["endless"], timeout=0.5)


async def test_a_stream_nobody_begins_to_read_ends_by_the_deadline_of_asks(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reply = kitchen.endless()
    await wait_until(lambda: system.statistics().in_progress == 1)
    clock.advance(5.1)
    await wait_until(lambda: ended == ["endless"])
    with pytest.raises(DeadlineExceeded):
        await items_of(reply)


async def test_an_actor_that_stops_ends_its_streams(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reader = aiter(kitchen.on_demand(asyncio.Queue()))
    waiting = asyncio.ensure_future(anext(reader))
    await wait_until(lambda: system.statistics().in_progress == 1)
    stopped = kitchen.stop()
    await clock.elapse(5.1)
    await stopped
    with pytest.raises(Unavailable, match="stopped while it ran"):
        await waiting
    assert ended == ["on_demand"]


# -- time between items --------------------------------------------------------------------


async def test_the_timeout_of_a_stream_is_between_items(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    kitchen, queue = system.options(name="kitchen").spawn(Kitchen, ended), asyncio.Queue[Any]()
    reader = aiter(kitchen.options(timeout=2).on_demand(queue))
    for number in range(10):
        clock.advance(1.5)
        queue.put_nowait(number)
        assert await anext(reader) == number
    clock.advance(2.1)
    with pytest.raises(DeadlineExceeded, match=r"kitchen sent no item of on_demand\(\) within 2 s"):
        await anext(reader)
    await wait_until(lambda: ended == ["on_demand"])


async def test_a_stream_has_thirty_seconds_between_items_by_default(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    kitchen, queue = system.spawn(Kitchen, ended), asyncio.Queue[Any]()
    reader = aiter(kitchen.on_demand(queue))
    for number in range(3):
        queue.put_nowait(number)
        assert await anext(reader) == number
        clock.advance(29)
    clock.advance(2)
    with pytest.raises(DeadlineExceeded, match="within 30 s"):
        await anext(reader)


async def test_a_stream_without_a_deadline_waits_for_ever(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    queue = asyncio.Queue[Any]()
    reader = aiter(system.spawn(Kitchen, ended).options(timeout=None).on_demand(queue))
    clock.advance(1e6)
    queue.put_nowait("soup")
    assert await anext(reader) == "soup"


async def test_what_a_long_stream_asks_of_others_has_time_of_its_own(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    """The time of the first item does not bound the asks behind the tenth."""
    kitchen, helper = system.spawn(Kitchen, ended), system.spawn(Kitchen, ended)
    queue = asyncio.Queue[Any]()
    reader = aiter(kitchen.with_help(helper, queue))
    for number in range(10):
        queue.put_nowait(number)
        assert await anext(reader) == "cooked"
        clock.advance(20)


async def test_the_first_item_has_as_long_as_any_other(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    """Also while the stream waits for an actor that is busy."""
    kitchen, queue = system.spawn(Kitchen, ended), asyncio.Queue[Any]()
    busy = items_of(kitchen.options(timeout=None).on_demand(queue))
    reader = aiter(kitchen.stream(Kitchen.courses, [1]))
    clock.advance(10)
    queue.put_nowait(None)
    assert await busy == []
    assert await anext(reader) == 1


# -- flow ----------------------------------------------------------------------------------


async def test_what_lies_unread_is_no_silence(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    """A reader may take longer over an item than the stream's timeout: the far end owes nothing."""
    kitchen = system.spawn(Kitchen, ended)
    reader = aiter(kitchen.options(timeout=2).courses(list(range(3 * INSIDE.items))))
    for number in range(3 * INSIDE.items):
        assert await anext(reader) == number
        if number % 100 == 0:
            await asyncio.sleep(0.002)
            clock.advance(10)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


@pytest.mark.parametrize("method", ["counted", "counted_on_thread"])
async def test_a_reader_that_reads_nothing_stops_the_writer(
    system: ActorSystem, ended: list[str], method: str
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reply = kitchen.ask(method)
    await wait_until(lambda: ended == [str(INSIDE.items)])
    await asyncio.sleep(0.02)
    assert ended == [str(INSIDE.items)]
    reply.cancel()
    await wait_until(lambda: ended[1:] == [method])
    assert await kitchen.cook() == "cooked"


@pytest.mark.parametrize("method", ["counted", "counted_on_thread"])
async def test_a_slow_reader_slows_the_writer(system: ActorSystem, ended: list[str], method: str) -> None:
    reader = aiter(system.spawn(Kitchen, ended).ask(method))
    for number in range(4 * INSIDE.items):
        assert await anext(reader) == number
        assert int(ended[0]) <= number + 1 + INSIDE.items


async def test_a_cancel_drops_what_lies_unread(system: ActorSystem, ended: list[str]) -> None:
    reply = system.spawn(Kitchen, ended).counted()
    reader = aiter(reply)
    assert await anext(reader) == 0
    reply.cancel()
    with pytest.raises(Cancelled):
        await anext(reader)


async def test_an_actor_that_stops_ends_a_thread_that_waits_for_its_reader(
    system: ActorSystem, clock: ManualClock, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    reply = kitchen.counted_on_thread()
    await wait_until(lambda: ended == [str(INSIDE.items)])
    await kitchen.kill()
    with pytest.raises(Unavailable, match="stopped while it ran"):
        async for _ in reply:
            pass
    await wait_until(lambda: ended[1:] == ["counted_on_thread"])


async def test_a_stream_that_is_told_runs_to_its_end_and_nobody_reads(
    system: ActorSystem, ended: list[str]
) -> None:
    kitchen = system.spawn(Kitchen, ended)
    await kitchen.tell("courses", list(range(10 * INSIDE.items)))
    assert await kitchen.ended_so_far() == ["courses"]


# -- the actor's turn ------------------------------------------------------------------------


async def test_a_stream_holds_the_actors_turn(system: ActorSystem, ended: list[str]) -> None:
    kitchen, queue = system.spawn(Kitchen, ended), asyncio.Queue[Any]()
    reader = aiter(kitchen.on_demand(queue))
    queue.put_nowait("soup")
    assert await anext(reader) == "soup"
    following = kitchen.cook()
    assert await system.spawn(Kitchen, ended).cook() == "cooked"
    assert not following.done
    assert system.statistics().in_mailbox == 1
    queue.put_nowait(None)
    assert await following == "cooked"


async def test_concurrency_helps_where_that_hurts(system: ActorSystem, ended: list[str]) -> None:
    kitchen, queue = system.options(concurrency=2).spawn(Kitchen, ended), asyncio.Queue[Any]()
    reader = aiter(kitchen.on_demand(queue))
    queue.put_nowait("soup")
    assert await anext(reader) == "soup"
    assert await kitchen.cook() == "cooked"


# -- sync code -------------------------------------------------------------------------------


def test_sync_code_iterates_with_for(ended: list[str]) -> None:
    with ActorSystem(sinks=()) as system:
        kitchen = system.spawn(Kitchen, ended)
        assert list(kitchen.courses([1, 2, 3])) == [1, 2, 3]
        assert list(kitchen.courses([])) == []
        reader = iter(kitchen.spoil(2, Spoiled("milk")))
        assert [next(reader), next(reader)] == [0, 1]
        with pytest.raises(Spoiled):
            next(reader)
        for item in kitchen.endless():
            if item == 3:
                break
        assert kitchen.cook().result() == "cooked"
        assert ended == ["courses", "courses", "endless"]


async def test_def_handlers_read_streams_with_for(system: ActorSystem, ended: list[str]) -> None:
    reader, kitchen = system.spawn(Kitchen, []), system.spawn(Kitchen, ended)
    assert await reader.read(kitchen, "courses", [1, 2, 3], stop_at=9) == [1, 2, 3]
    assert await reader.read(kitchen, "endless", stop_at=2) == [0, 1]
    await wait_until(lambda: ended == ["courses", "endless"])


async def test_break_ends_a_sync_generator_too(system: ActorSystem, ended: list[str]) -> None:
    kitchen = system.spawn(Kitchen, ended)
    async for item in kitchen.endless_on_thread(threading.Event()):
        if item == 2:
            break
    await wait_until(lambda: ended == ["endless_on_thread"])
    assert await kitchen.cook() == "cooked"
    assert system.statistics().threads == 1

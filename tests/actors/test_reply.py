"""Replies: read many times, from any loop or thread, and never an answer by accident."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    DeadlockError,
    Outcome,
    Ref,
    Reply,
    Unavailable,
)
from actors.reply import failed, settled
from actors.testing import ManualClock, Probe, wait_until


class Sleeper(Actor):
    """Takes its time, streams, and knows what was cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.ended = 0

    async def nap(self, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "rested"

    async def fail(self) -> None:
        raise ValueError("bad dream")

    async def sheep(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                yield number
                await asyncio.sleep(0)
        finally:
            self.ended += 1

    def counted(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def seen(self) -> tuple[int, int]:
        return self.cancelled, self.ended


@pytest.fixture
def sleeper(system: ActorSystem) -> Ref[Any]:
    return system.spawn(Sleeper)


# -- values ------------------------------------------------------------------------------------


async def test_a_reply_can_be_awaited_any_number_of_times(sleeper: Ref[Any]) -> None:
    reply = sleeper.nap(0)

    assert await reply == await reply == "rested"
    assert reply.result() == "rested"
    assert reply.outcome() == Outcome("rested")


async def test_many_readers_get_the_same_value(sleeper: Ref[Any]) -> None:
    reply = sleeper.nap(0.01)

    readers = [asyncio.create_task(_read(reply)) for _ in range(50)]

    assert await asyncio.gather(*readers) == ["rested"] * 50


async def _read(reply: Reply[Any]) -> Any:
    return await reply


async def test_threads_and_other_loops_read_the_same_reply(sleeper: Ref[Any]) -> None:
    reply = sleeper.nap(0.05)
    found: list[Any] = []

    def in_a_thread() -> None:
        found.append(reply.result())

    def in_another_loop() -> None:
        found.append(asyncio.run(_read(reply)))

    threads = [threading.Thread(target=target) for target in [in_a_thread, in_another_loop] * 5]
    for thread in threads:
        thread.start()
    await reply
    await asyncio.to_thread(lambda: [thread.join(5) for thread in threads])

    assert found == ["rested"] * 10


def test_sync_code_uses_the_same_objects() -> None:
    with ActorSystem(sinks=()) as system:
        sleeper = system.spawn(Sleeper)

        assert sleeper.nap(0).result() == "rested"
        assert list(sleeper.sheep(3)) == [0, 1, 2]
        assert list(sleeper.counted(3)) == [0, 1, 2]


# -- errors ------------------------------------------------------------------------------------


async def test_an_error_is_raised_at_every_reading_with_a_traceback_that_does_not_grow(sleeper: Ref[Any]) -> None:
    reply = sleeper.fail()
    lengths = set()

    for _ in range(3):
        with pytest.raises(ValueError, match="bad dream") as caught:
            await reply
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))

    assert len(lengths) == 1


async def test_outcome_gives_the_error_without_raising_it(sleeper: Ref[Any]) -> None:
    reply = sleeper.fail()
    await wait_until(lambda: reply.done)

    outcome = reply.outcome()

    assert not outcome.ok
    assert isinstance(outcome.error, ValueError)
    with pytest.raises(ValueError, match="bad dream"):
        outcome.unwrap()


def test_outcome_unwraps_to_its_value() -> None:
    assert settled(3).outcome().unwrap() == 3
    assert settled(3).outcome().ok
    assert failed(ValueError()).outcome().value is None


def test_using_a_reply_as_a_truth_value_says_await_it() -> None:
    with pytest.raises(TypeError, match="await it"):
        bool(settled(True))


async def test_awaiting_a_stream_names_async_for_and_ends_the_stream(sleeper: Ref[Any]) -> None:
    with pytest.raises(TypeError, match="async for"):
        await sleeper.sheep(1000)

    await wait_until(lambda: _is((0, 1), sleeper.seen()))


async def _is(expected: Any, reply: Reply[Any]) -> bool:
    return bool(await reply == expected)


async def test_iterating_over_a_value_names_await(sleeper: Ref[Any]) -> None:
    with pytest.raises(TypeError, match="await it"):
        async for _ in sleeper.nap(0):
            pass


def test_iterating_over_a_value_in_sync_code_names_result() -> None:
    with ActorSystem(sinks=()) as system, pytest.raises(TypeError, match=r"\.result\(\)"):
        list(system.spawn(Sleeper).nap(0))


async def test_a_failure_nobody_looked_at_is_reported_once(sleeper: Ref[Any], probe: Probe) -> None:
    sleeper.fail()

    await probe.wait_for("actor.exited")
    gc.collect()
    await probe.wait_for("reply.unread")
    gc.collect()
    await asyncio.sleep(0)

    (event,) = probe.details("reply.unread")
    assert event.method == "fail"
    assert isinstance(event.error, ValueError)


async def test_a_failure_somebody_looked_at_is_not_reported(sleeper: Ref[Any], probe: Probe) -> None:
    with pytest.raises(ValueError, match="bad dream"):
        await sleeper.fail()

    gc.collect()
    await asyncio.sleep(0)

    assert probe.of("reply.unread") == []


# -- waiting in threads --------------------------------------------------------------------------


async def test_waiting_on_the_systems_own_loop_fails_at_once(system: ActorSystem, sleeper: Ref[Any]) -> None:
    for reply in [
        sleeper.nap(1),
        sleeper.wait_stopped(),
        sleeper.wait_started(),
    ]:
        with pytest.raises(DeadlockError, match="await it"):
            reply.result()
    with pytest.raises(DeadlockError, match="await it"):
        next(iter(sleeper.sheep(3)))
    with pytest.raises(DeadlockError, match="await it"):
        sleeper.stop().result()
    with pytest.raises(DeadlockError, match="await it"):
        system.stop().result()


def test_a_timeout_of_result_ends_the_wait_and_not_the_call() -> None:
    with ActorSystem(sinks=()) as system:
        sleeper = system.spawn(Sleeper)
        reply = sleeper.nap(0.2)

        with pytest.raises(DeadlineExceeded, match="within 0.01 s") as caught:
            reply.result(timeout=0.01)

        assert isinstance(caught.value, TimeoutError)
        assert reply.result() == "rested"
        assert sleeper.seen().result() == (0, 0)


def test_a_timeout_of_outcome_is_raised_for_it_is_not_the_operations() -> None:
    with ActorSystem(sinks=()) as system:
        reply = system.spawn(Sleeper).nap(5)

        with pytest.raises(DeadlineExceeded):
            reply.outcome(timeout=0.01)
        reply.cancel()


def test_result_ends_by_the_calls_own_deadline() -> None:
    with ActorSystem(sinks=()) as system:
        sleeper = system.spawn(Sleeper).options(timeout=0.05)

        with pytest.raises(DeadlineExceeded, match="did not answer nap"):
            sleeper.nap(5).result()


# -- cancelling ------------------------------------------------------------------------------------


async def test_cancelling_a_reply_reaches_the_handler(system: ActorSystem, sleeper: Ref[Any]) -> None:
    reply = sleeper.nap(60)
    await wait_until(lambda: system.statistics().in_progress)

    reply.cancel()
    reply.cancel()

    with pytest.raises(Cancelled):
        await reply
    assert await sleeper.seen() == (1, 0)


async def test_cancelling_the_task_that_awaits_reaches_the_handler(
    system: ActorSystem, sleeper: Ref[Any]
) -> None:
    task = asyncio.create_task(_read(sleeper.nap(60)))
    await wait_until(lambda: system.statistics().in_progress)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sleeper.seen() == (1, 0)


async def test_cancelling_a_settled_reply_changes_nothing(sleeper: Ref[Any]) -> None:
    reply = sleeper.nap(0)
    await reply

    reply.cancel()

    assert await reply == "rested"


def test_a_reply_is_settled_once_whoever_comes_first() -> None:
    """Many threads settle it at the same time; all readers see one outcome."""
    for _ in range(200):
        reply: Reply[int] = Reply()
        start = threading.Barrier(3)

        def settle(reply: Reply[int] = reply, start: threading.Barrier = start) -> None:
            start.wait()
            reply._resolve(1)

        def fail(reply: Reply[int] = reply, start: threading.Barrier = start) -> None:
            start.wait()
            reply._reject(ValueError())

        threads = [threading.Thread(target=target) for target in (settle, fail)]
        for thread in threads:
            thread.start()
        start.wait()
        first = reply.outcome(5)
        for thread in threads:
            thread.join()

        assert reply.outcome() == first


# -- callbacks ---------------------------------------------------------------------------------------


async def test_done_callbacks_run_once_when_it_is_settled_or_at_once(sleeper: Ref[Any]) -> None:
    seen: list[bool] = []
    reply = sleeper.nap(0)

    reply.add_done_callback(lambda reply: seen.append(reply.done))
    assert seen == []
    await reply
    reply.add_done_callback(lambda reply: seen.append(reply.done))

    assert seen == [True, True]


async def test_a_callback_that_fails_harms_neither_the_reply_nor_the_others(sleeper: Ref[Any]) -> None:
    seen: list[Any] = []
    reply = sleeper.nap(0)

    reply.add_done_callback(lambda reply: 1 / 0)
    reply.add_done_callback(seen.append)

    assert await reply == "rested"
    assert seen == [reply]


async def test_callbacks_of_a_stream_wait_for_its_end(sleeper: Ref[Any]) -> None:
    seen: list[Any] = []
    reply = sleeper.sheep(5)
    reply.add_done_callback(seen.append)

    async for _ in reply:
        assert seen == [] or reply.done

    assert seen == [reply]


# -- streams -------------------------------------------------------------------------------------------


async def test_leaving_a_stream_early_runs_the_generators_finally(sleeper: Ref[Any]) -> None:
    async for number in sleeper.sheep(10**9):
        if number == 3:
            break

    await wait_until(lambda: _is((0, 1), sleeper.seen()))


async def test_cancelling_a_stream_runs_the_generators_finally(sleeper: Ref[Any]) -> None:
    reply = sleeper.stream("sheep", 10**9)
    reader = aiter(reply)
    await anext(reader)

    reply.cancel()

    with pytest.raises(Cancelled):
        while True:
            await anext(reader)
    await wait_until(lambda: _is((0, 1), sleeper.seen()))


async def test_a_stream_nobody_reads_ends_by_the_first_deadline(
    timed: ActorSystem, clock: ManualClock
) -> None:
    sleeper = timed.spawn(Sleeper)
    reply = sleeper.sheep(10**9)
    await wait_until(lambda: reply._items)

    clock.advance(5.0)

    await wait_until(lambda: _is((0, 1), sleeper.seen()))
    with pytest.raises(DeadlineExceeded):
        async for _ in reply:
            pass


async def test_items_of_a_stream_that_came_before_its_error_are_read_first(system: ActorSystem) -> None:
    class Half(Actor):
        async def go(self) -> AsyncIterator[int]:
            yield 1
            yield 2
            raise ValueError("spilt")

    found = []

    with pytest.raises(ValueError, match="spilt"):
        async for item in system.spawn(Half).go():
            found.append(item)

    assert found == [1, 2]


def test_no_item_is_missed_by_a_reader_in_another_thread() -> None:
    """The reader looks, finds nothing, and begins to wait while an item is pushed."""
    for _ in range(300):
        reply: Reply[Any] = Reply()
        found: list[int] = []
        reader = threading.Thread(target=lambda r=reply, f=found: f.extend(r))
        reader.start()
        for number in range(20):
            reply._push(number)
        reply._finish()
        reader.join(5)

        assert found == list(range(20))


def test_a_lost_process_ends_a_stream_that_is_being_read() -> None:
    reply: Reply[Any] = Reply()
    reply._push(1)
    reply._reject(Unavailable("gone"))

    reader = iter(reply)
    assert next(reader) == 1
    with pytest.raises(Unavailable):
        next(reader)

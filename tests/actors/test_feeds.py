"""
Async iterators as arguments, and both directions at once: in one system, and between two.

"There" everything goes through pickles and frames, in memory.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from actors import (
    Actor,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    Ref,
    Refusal,
    SerializationError,
    Unavailable,
)
from actors.stream import BETWEEN, INSIDE
from actors.testing import FaultyTransport, memory_system, wait_until

shade: ContextVar[str] = ContextVar("shade", default="plain")


class Spoiled(Exception):
    """The caller's own."""


class Cook(Actor):
    """Eats streams; `notes` says what happened."""

    concurrency = 4

    def __init__(self, notes: list[Any]) -> None:
        self.notes = notes
        self.gate = asyncio.Event()

    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int:
        async for number in numbers:
            start += number
        return start

    def total_on_thread(self, numbers: Iterator[int]) -> int:
        return sum(numbers)

    async def both(self, left: AsyncIterator[Any], *, right: AsyncIterator[Any]) -> list[tuple[Any, Any]]:
        return [(item, await anext(right)) async for item in left]

    async def first(self, numbers: AsyncIterator[Any]) -> Any:
        return await anext(numbers)

    async def first_and_rest(self, numbers: AsyncIterator[Any]) -> tuple[Any, list[Any]]:
        async for number in numbers:
            head = number
            break
        return head, [item async for item in numbers]

    async def first_then_wait(self, numbers: Any) -> None:
        self.notes.append(await anext(numbers))
        await numbers.aclose()
        await self.gate.wait()

    async def ignore(self, numbers: AsyncIterator[Any]) -> str:
        return "not hungry"

    async def refuse(self, numbers: AsyncIterator[Any]) -> None:
        raise Refusal("not hungry")

    async def wait(self, numbers: AsyncIterator[Any]) -> None:
        self.notes.append(await anext(numbers))
        await self.gate.wait()

    async def tell_how_it_ends(self, numbers: AsyncIterator[Any]) -> None:
        try:
            async for _ in numbers:
                pass
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    def tell_how_it_ends_on_thread(self, numbers: Iterator[Any]) -> None:
        try:
            for number in numbers:
                self.notes.append(number)
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    async def keep(self, numbers: AsyncIterator[Any]) -> None:
        self.kept = numbers

    async def read_kept(self) -> Any:
        return await anext(self.kept)

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        try:
            async for number in numbers:
                yield 2 * number
        finally:
            self.notes.append("doubled closed")

    def doubled_on_thread(self, numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            yield 2 * number

    async def first_half(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        """Half-closed: goes on after its argument has ended."""
        read = [number async for number in numbers]
        for number in reversed(read):
            yield number

    async def pass_on(self, other: Ref[Any], numbers: AsyncIterator[int]) -> int:
        total: int = await other.total(numbers)
        return total

    async def count(self, n: int) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
        finally:
            self.notes.append("count closed")

    async def names(self) -> AsyncIterator[str]:
        for name in ("soup", "fish"):
            yield name

    async def plate(self, item: Any) -> list[Any]:
        return [item]

    async def fed_by_actor(self, other: Ref[Any]) -> tuple[int, str | None]:
        async def numbers() -> AsyncIterator[int]:
            yield 1
            deadline = self.context.deadline
            yield 2 if deadline is not None else 0

        return await other.total(numbers()), self.context.name


class Larder:
    """Makes numbers for ever, and counts them."""

    def __init__(self, item: Any = None) -> None:
        self.made = 0
        self.ended = ""
        self._item = item

    async def numbers(self, until: int | None = None) -> AsyncIterator[Any]:
        try:
            while until is None or self.made < until:
                self.made += 1
                yield self.made - 1 if self._item is None else self._item
        except BaseException as error:
            self.ended = type(error).__name__
            raise
        finally:
            await asyncio.sleep(0)
            self.ended = self.ended or "end"


async def numbers(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


async def failing(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value
    raise Spoiled("milk")


@pytest.fixture
def notes() -> list[Any]:
    return []


@pytest.fixture(params=["here", "there"])
async def cook(request: pytest.FixtureRequest, notes: list[Any]) -> AsyncIterator[Ref[Any]]:
    """A cook of this system, or of another one; nothing of any stream is left afterwards."""
    if request.param == "here":
        async with ActorSystem(sinks=()) as system:
            yield system.spawn(Cook, notes)
            await wait_until(lambda: not left_of_streams(system))
        return
    async with memory_system(sinks=()) as near, memory_system(sinks=()) as far:
        name = far.spawn(Cook, notes).name
        yield near.ref(f"{far.address}#{name}")
        await wait_until(lambda: not left_of_streams(near, far))


def left_of_streams(*systems: ActorSystem) -> list[Any]:
    """What the systems still know of streams and calls."""
    gc.collect()
    left: list[Any] = []
    for system in systems:
        left += [*system._calls.waiting(), *system._feeds._sent, *system._feeds._pumps]
        for peer in system._remote._peers.values() if system._remote is not None else ():
            left += [*peer.serving, *peer.intakes]
    return left


@pytest.fixture
def window(request: pytest.FixtureRequest, cook: Ref[Any]) -> int:
    """Items that may lie unread on the way to the cook."""
    return INSIDE.items if request.node.callspec.params["cook"] == "here" else BETWEEN.items


# -- items, and the end ------------------------------------------------------------------------


async def test_an_async_generator_is_read_item_by_item(cook: Ref[Any]) -> None:
    assert await cook.total(numbers(1, 2, 3)) == 6
    assert await cook.ask(Cook.total, numbers(1, 2), start=4) == 7
    assert await cook.total(numbers(*range(1000))) == sum(range(1000))


async def test_an_empty_stream_ends_at_once(cook: Ref[Any]) -> None:
    assert await cook.total(numbers()) == 0


async def test_two_streams_in_one_call_by_position_and_by_name(cook: Ref[Any]) -> None:
    assert await cook.both(numbers(1, 2), right=numbers("a", "b")) == [(1, "a"), (2, "b")]


async def test_def_handlers_read_with_for(cook: Ref[Any]) -> None:
    assert await cook.total_on_thread(numbers(*range(1000))) == sum(range(1000))


async def test_any_async_iterator_will_do(cook: Ref[Any]) -> None:
    class Countdown:
        left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert await cook.total(Countdown()) == 3


async def test_leaving_a_loop_keeps_the_rest_for_the_next(cook: Ref[Any]) -> None:
    assert await cook.first_and_rest(numbers(1, 2, 3)) == (1, [2, 3])


async def test_a_stream_of_answers_can_be_an_argument(cook: Ref[Any]) -> None:
    """What one actor streams, another reads."""
    assert await cook.first_and_rest(aiter(cook.names())) == ("soup", ["fish"])


async def test_a_handler_passes_its_stream_on(cook: Ref[Any]) -> None:
    assert await cook.pass_on(cook, numbers(1, 2, 3)) == 6


async def test_an_actor_feeds_another_from_its_own_turn(cook: Ref[Any]) -> None:
    """The generator runs in the context of whoever made the call: it knows the actor's deadline."""
    total, _ = await cook.fed_by_actor(cook)
    assert total == 3


async def test_items_may_be_large(cook: Ref[Any]) -> None:
    larder = Larder(item=bytes(BETWEEN.bytes * 2))
    async for _ in cook.doubled_on_thread(larder.numbers(5)):
        pass
    assert larder.made == 5


async def test_an_item_is_sent_as_it_was_when_it_was_yielded(notes: list[Any]) -> None:
    async def growing() -> AsyncIterator[list[int]]:
        plate: list[int] = []
        for number in range(3):
            plate.append(number)
            yield plate

    async with memory_system(sinks=()) as near, memory_system(sinks=()) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        assert await cook.first_and_rest(growing()) == ([0], [[0, 1], [0, 1, 2]])


# -- flow ----------------------------------------------------------------------------------------


async def test_nothing_is_made_before_the_handler_asks(cook: Ref[Any]) -> None:
    larder = Larder()
    assert await cook.ignore(larder.numbers()) == "not hungry"
    assert larder.made == 0


async def test_a_slow_handler_slows_the_caller(cook: Ref[Any], notes: list[Any], window: int) -> None:
    larder = Larder()
    reply = cook.wait(larder.numbers())
    await wait_until(lambda: larder.made == window and notes)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (larder.made, notes) == (window, [0])
    reply.cancel()


async def test_bytes_count_between_processes(notes: list[Any]) -> None:
    larder = Larder(item=bytes(BETWEEN.bytes // 4))
    async with memory_system(sinks=()) as near, memory_system(sinks=()) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        reply = cook.wait(larder.numbers())
        await wait_until(lambda: larder.made >= 4)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert larder.made == 4
        reply.cancel()


# -- leaving early ---------------------------------------------------------------------------------


async def test_a_handler_that_ends_early_ends_the_callers_generator(cook: Ref[Any], window: int) -> None:
    larder = Larder()
    assert await cook.first(larder.numbers()) == 0
    await wait_until(lambda: larder.ended)
    assert larder.made <= window


async def test_a_handler_that_fails_ends_it_too(cook: Ref[Any]) -> None:
    larder = Larder()
    with pytest.raises(Refusal):
        await cook.refuse(larder.numbers())
    reader = larder.numbers()
    assert await anext(reader) == 0  # begun by its maker
    with pytest.raises(Refusal):
        await cook.refuse(reader)
    await wait_until(lambda: larder.ended == "GeneratorExit")


async def test_aclose_ends_it_while_the_handler_goes_on(cook: Ref[Any], notes: list[Any]) -> None:
    larder = Larder()
    reply = cook.first_then_wait(larder.numbers())
    await wait_until(lambda: larder.ended)
    assert notes == [0]
    assert not reply.done
    reply.cancel()


async def test_a_generator_that_waits_is_cancelled_where_it_waits(cook: Ref[Any]) -> None:
    seen: list[str] = []

    async def stuck() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(shade.get())

    token = shade.set("dark")
    assert await cook.first(stuck()) == 1
    shade.reset(token)
    await wait_until(lambda: seen == ["dark"])


@pytest.mark.parametrize("method", ["tell_how_it_ends", "tell_how_it_ends_on_thread"])
async def test_a_cancel_ends_both_sides(cook: Ref[Any], notes: list[Any], method: str) -> None:
    ended: list[str] = []

    async def one_then_nothing() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    reply = cook.ask(method, one_then_nothing())
    await wait_until(lambda: ended == [] and not reply.done and (notes or method == "tell_how_it_ends"))
    await asyncio.sleep(0.02)
    reply.cancel()
    await wait_until(lambda: ended == ["closed"])
    await wait_until(lambda: notes and notes[-1] in ("Cancelled", "CancelledError"))
    assert await cook.plate(1) == [1]


async def test_the_deadline_of_the_call_ends_both_sides(cook: Ref[Any], notes: list[Any]) -> None:
    larder = Larder()
    with pytest.raises(DeadlineExceeded):
        await cook.options(timeout=0.05).wait(larder.numbers())
    await wait_until(lambda: larder.ended == "GeneratorExit")


async def test_a_stream_that_was_kept_ends_with_its_call(cook: Ref[Any]) -> None:
    larder = Larder()
    await cook.keep(larder.numbers())
    with pytest.raises(Cancelled, match="closed"):
        await cook.read_kept()
    assert larder.made == 0


async def test_a_stopping_actor_ends_it(cook: Ref[Any], notes: list[Any]) -> None:
    larder = Larder()
    reply = cook.options(timeout=None).wait(larder.numbers())
    await wait_until(lambda: notes)
    await cook.kill()
    with pytest.raises(Exception, match="stopped"):
        await reply
    await wait_until(lambda: larder.ended == "GeneratorExit")


async def test_a_system_that_stops_runs_the_generators_finally(notes: list[Any]) -> None:
    larder = Larder()
    async with memory_system(sinks=()) as far:
        async with memory_system(sinks=()) as near:
            cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
            reply = cook.options(timeout=None).wait(larder.numbers())
            await wait_until(lambda: notes)
        assert larder.ended == "GeneratorExit"
        assert reply.done


async def test_a_call_to_nobody_ends_the_stream(cook: Ref[Any]) -> None:
    larder = Larder()
    await cook.kill()
    await cook.wait_stopped()
    reader = larder.numbers()
    await anext(reader)
    with pytest.raises(ActorStopped):
        await cook.total(reader)
    await wait_until(lambda: larder.ended == "GeneratorExit")


async def test_a_pump_that_is_closed_before_its_first_step_still_ends_its_iterator(notes: list[Any]) -> None:
    larder = Larder()
    async with ActorSystem(sinks=()) as system:
        reader = larder.numbers()
        await anext(reader)
        reply = system.spawn(Cook, notes).wait(reader)
        [feed] = system._feeds._of_call[reply]
        feed.allow(INSIDE)
        feed.close()
        await wait_until(lambda: larder.ended == "GeneratorExit")
        reply.cancel()


# -- errors ------------------------------------------------------------------------------------------


async def test_the_callers_error_reaches_the_handler_and_comes_back_as_an_answer(
    cook: Ref[Any], notes: list[Any]
) -> None:
    with pytest.raises(Spoiled, match="milk"):
        await cook.tell_how_it_ends(failing(1))
    with pytest.raises(Spoiled, match="milk"):
        await cook.tell_how_it_ends_on_thread(failing(1))
    assert notes == ["Spoiled", 1, "Spoiled"]
    assert await cook.plate("alive") == ["alive"]


async def test_an_item_that_cannot_travel_ends_the_stream_and_nobody_else(notes: list[Any]) -> None:
    async with memory_system(sinks=()) as near, memory_system(sinks=()) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        with pytest.raises(SerializationError, match="an item cannot be pickled"):
            await cook.total(numbers(1, threading.Lock()))
        assert await cook.plate(1) == [1]


async def test_a_system_exit_in_the_callers_generator_stays_there(cook: Ref[Any]) -> None:
    async def leaving() -> AsyncIterator[int]:
        yield 1
        raise SystemExit(1)

    with pytest.raises(Unavailable, match="raised SystemExit"):
        await cook.total(leaving())
    assert await cook.plate(1) == [1]


async def test_a_tell_takes_no_streams(cook: Ref[Any]) -> None:
    with pytest.raises(InvalidArgument, match="travels with an ask or a stream"):
        await cook.tell("total", numbers(1))
    with pytest.raises(InvalidArgument, match="travels with an ask or a stream"):
        await cook.tell("both", numbers(1), right=numbers(1))


async def test_plain_generators_and_nested_streams_do_not_travel(notes: list[Any]) -> None:
    async with memory_system(sinks=()) as near, memory_system(sinks=()) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        with pytest.raises(SerializationError, match="an async one travels"):
            await cook.plate(n for n in (1, 2))
        with pytest.raises(SerializationError, match="by itself"):
            await cook.plate([numbers(1)])


# -- both directions ---------------------------------------------------------------------------------


async def test_ping_pong(cook: Ref[Any]) -> None:
    """Each question is made from the answer before it."""
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def questions() -> AsyncIterator[int]:
        number = 1
        while number < 1000:
            yield number
            number = await answers.get()

    heard = []
    async for answer in cook.doubled(questions()):
        heard.append(answer)
        answers.put_nowait(answer)
    assert heard == [2**n for n in range(1, 11)]


@pytest.mark.parametrize("method", ["doubled", "doubled_on_thread"])
async def test_both_windows_full_is_no_deadlock(cook: Ref[Any], method: str, window: int) -> None:
    larder = Larder()
    reply = cook.ask(method, larder.numbers(20 * window))
    # Nobody reads: a window is full at each end, but for what was not worth telling.
    await wait_until(lambda: larder.made >= window * 5 // 4)
    await asyncio.sleep(0.02)
    assert larder.made <= 2 * window + 1
    assert [item async for item in reply] == [2 * n for n in range(20 * window)]
    await wait_until(lambda: larder.ended == "end")


async def test_a_half_closed_stream_goes_on(cook: Ref[Any]) -> None:
    assert [item async for item in cook.first_half(numbers(1, 2, 3))] == [3, 2, 1]


async def test_break_ends_all_four_ends(cook: Ref[Any], notes: list[Any]) -> None:
    larder = Larder()
    async for item in cook.doubled(larder.numbers()):
        if item == 6:
            break
    await wait_until(lambda: larder.ended)
    await wait_until(lambda: notes == ["doubled closed"])
    assert await cook.plate(1) == [1]


async def test_dropping_a_reply_nobody_has_read_ends_all_four_ends(
    cook: Ref[Any], notes: list[Any], window: int
) -> None:
    larder = Larder()
    reply = cook.doubled(larder.numbers())
    await wait_until(lambda: larder.made >= window)
    del reply
    await wait_until(lambda: larder.ended)
    await wait_until(lambda: notes == ["doubled closed"])


async def test_an_error_of_the_caller_ends_a_two_way_stream_behind_its_items(cook: Ref[Any]) -> None:
    reader = aiter(cook.doubled(failing(1, 2)))
    assert [await anext(reader), await anext(reader)] == [2, 4]
    with pytest.raises(Spoiled):
        await anext(reader)


# -- sync code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"listen": True}])
def test_sync_programs_hand_over_async_generators(notes: list[Any], options: Any) -> None:
    with ActorSystem(sinks=(), **options) as system:
        cook = system.spawn(Cook, notes)
        assert cook.total(numbers(1, 2, 3)).result() == 6
        assert list(cook.doubled(numbers(*range(1000)))) == [2 * n for n in range(1000)]
        larder = Larder()
        for item in cook.doubled(larder.numbers()):
            if item == 4:
                break
        while not larder.ended:
            threading.Event().wait(0.001)
        with pytest.raises(Spoiled):
            cook.total(failing(1)).result()


async def test_a_program_on_another_loop_than_the_systems_runs_its_generators_itself(
    notes: list[Any],
) -> None:
    """What they wait for belongs to that loop."""
    seen: set[int] = set()
    queue: asyncio.Queue[int | None] = asyncio.Queue()

    async def orders() -> AsyncIterator[int]:
        while (number := await queue.get()) is not None:
            seen.add(threading.get_ident())
            yield number

    system = ActorSystem(sinks=())
    await asyncio.to_thread(system.__enter__)
    try:
        reply = system.spawn(Cook, notes).doubled(orders())
        queue.put_nowait(1)
        reader = aiter(reply)
        assert await anext(reader) == 2
        queue.put_nowait(2)
        assert await anext(reader) == 4
        queue.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert seen == {threading.get_ident()}
    finally:
        await asyncio.to_thread(system.__exit__)


# -- by chance -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_ends_first_everything_ends(cook: Ref[Any], notes: list[Any], seed: int) -> None:
    """Two-way streams that end, fail, are left, cancelled and dropped at random, many at a time."""
    chance = random.Random(seed)
    begun: list[int] = []
    ended: list[int] = []

    async def play(number: int) -> None:
        made, read = chance.randrange(200), chance.randrange(200)
        fails = chance.random() < 0.3

        async def source() -> AsyncIterator[int]:
            begun.append(number)
            try:
                for n in range(made):
                    yield n
                    if chance.random() < 0.1:
                        await asyncio.sleep(0)
                if fails:
                    raise Spoiled("milk")
            finally:
                ended.append(number)

        method = chance.choice(["doubled", "doubled_on_thread"])
        reply = cook.options(timeout=20).ask(method, source())
        heard = []
        try:
            async for item in reply:
                heard.append(item)
                if len(heard) == read:
                    if chance.random() < 0.5:
                        reply.cancel()
                    break
            else:
                assert len(heard) == made
                assert not fails
        except Spoiled:
            assert fails
            assert len(heard) == made
        assert heard == [2 * n for n in range(len(heard))]

    await asyncio.gather(*map(play, range(40)))

    await wait_until(lambda: sorted(ended) == sorted(begun))
    assert len(begun) > 20
    assert await cook.plate("alive") == ["alive"]


# -- what is lost on the way -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [64, 200])
async def test_a_lost_frame_is_an_error_and_no_gap(notes: list[Any], count: int) -> None:
    """The first items are lost; what comes next, items or only the end, shows it."""
    faults = FaultyTransport()
    faults.script("pass", "drop")
    async with memory_system(sinks=()) as near, memory_system(sinks=(), transport=faults) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        await cook.plate(1)
        reader = aiter(cook.count(count))
        with pytest.raises(Unavailable, match=r"items of cook-1.count\(\) were lost on their way"):
            await anext(reader)
        await wait_until(lambda: notes == ["count closed"])


async def test_lost_items_of_an_argument_are_an_error_in_the_handler(notes: list[Any]) -> None:
    faults = FaultyTransport()
    faults.script("pass", "drop")
    async with memory_system(sinks=(), transport=faults) as near, memory_system(sinks=()) as far:
        cook = near.ref(f"{far.address}#{far.spawn(Cook, notes).name}")
        larder = Larder()
        with pytest.raises(Unavailable, match="were lost on their way"):
            await cook.total(larder.numbers())
        await wait_until(lambda: larder.ended)

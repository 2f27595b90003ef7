"""
`Reply` as its users see it: read anywhere, any number of times; cancelled, timed out, forgotten.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    DeadlockError,
    InvalidArgument,
    Outcome,
    Reply,
)
from actors.events import Event, ReplyUnread
from actors.testing import wait_until, wait_until_sync


class Burnt(Exception):
    """An answer."""


class Oven(Actor):
    """Bakes, and can be held up by whoever gave it a gate."""

    expected = (Burnt,)

    def __init__(self) -> None:
        self.baked = 0
        self.cancelled = 0

    async def bake(self, dish: str) -> str:
        self.baked += 1
        return f"{dish} {self.baked}"

    async def burn(self) -> None:
        raise Burnt("charcoal")

    async def hold(self, gate: asyncio.Event) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "held"

    async def cancellations(self) -> int:
        return self.cancelled

    async def slices(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number


class Grill(Actor):
    """The same on a thread, for callers without a loop."""

    def hold(self, gate: threading.Event) -> str:
        gate.wait(10)
        return "held"

    def burn(self) -> None:
        raise Burnt("charcoal")


def unread(events: list[Event]) -> list[ReplyUnread]:
    return [event for event in events if isinstance(event, ReplyUnread)]


# -- reading ---------------------------------------------------------------------------


async def test_a_reply_may_be_read_many_times(system: ActorSystem) -> None:
    """The call ran once, however often its reply is read."""
    oven = system.spawn(Oven)
    reply = oven.bake("bread")

    read = [await reply, await reply, reply.result(), reply.outcome().unwrap()]

    assert read == ["bread 1"] * 4
    assert await oven.bake("cake") == "cake 2"


async def test_a_call_is_sent_before_anybody_waits_for_it(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    reply = oven.bake("bread")
    await wait_until(lambda: reply.done)
    assert await oven.bake("cake") == "cake 2"


async def test_many_readers_wait_for_one_reply(system: ActorSystem) -> None:
    oven, gate = system.spawn(Oven), asyncio.Event()
    reply = oven.hold(gate)

    async def read() -> str:
        return await reply  # type: ignore[no-any-return]

    readers = [asyncio.create_task(read()) for _ in range(5)]
    thread = asyncio.create_task(asyncio.to_thread(reply.result))
    await asyncio.sleep(0)
    assert not any(reader.done() for reader in readers)
    gate.set()

    assert await asyncio.gather(*readers, thread) == ["held"] * 6


async def test_an_error_is_raised_to_every_reader(system: ActorSystem) -> None:
    reply = system.spawn(Oven).burn()
    for _ in range(3):
        with pytest.raises(Burnt, match="charcoal"):
            await reply
    with pytest.raises(Burnt):
        reply.result()
    assert isinstance(reply.outcome().error, Burnt)


async def test_a_reply_may_be_awaited_on_another_loop(system: ActorSystem) -> None:
    oven, gate = system.spawn(Oven), asyncio.Event()
    reply = oven.hold(gate)
    waiting = threading.Event()

    async def read_elsewhere() -> str:
        asyncio.get_running_loop().call_soon(waiting.set)
        return await reply  # type: ignore[no-any-return]

    elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, read_elsewhere()))
    await wait_until(waiting.is_set)
    gate.set()

    assert await elsewhere == "held"


async def test_calls_may_be_made_on_another_loop(system: ActorSystem) -> None:
    oven = system.spawn(Oven)

    async def bake_elsewhere() -> list[str]:
        return await asyncio.gather(*(oven.bake("roll") for _ in range(20)))

    baked = await asyncio.to_thread(asyncio.run, bake_elsewhere())

    assert baked == [f"roll {number}" for number in range(1, 21)]


async def test_an_outcome_is_a_value_or_an_error(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    good, bad = oven.bake("bread"), oven.burn()
    await wait_until(lambda: good.done and bad.done)

    assert good.outcome() == Outcome(value="bread 1")
    assert (good.outcome().ok, good.outcome().value, good.outcome().error) == (True, "bread 1", None)
    failure = bad.outcome()
    assert (failure.ok, failure.value, type(failure.error)) == (False, None, Burnt)
    with pytest.raises(Burnt):
        failure.unwrap()
    with pytest.raises(AttributeError):
        failure.value = "mended"  # type: ignore[misc]


async def test_a_reply_is_no_truth_value(system: ActorSystem) -> None:
    """`if ref.is_alive():` would always be true."""
    oven = system.spawn(Oven)
    for reply in (oven.bake("bread"), oven.is_alive()):
        with pytest.raises(TypeError, match="await it"):
            bool(reply)
        await reply


async def test_a_reply_tells_its_state(system: ActorSystem) -> None:
    oven, gate = system.options(name="oven").spawn(Oven), asyncio.Event()
    held, burnt = oven.hold(gate), oven.burn()
    assert repr(held).endswith("oven.hold() pending>")
    gate.set()
    await wait_until(lambda: held.done and burnt.done)
    assert repr(held).endswith("done>")
    assert repr(burnt).endswith("oven.burn() failed>")
    assert burnt.outcome().error is not None


async def test_awaiting_a_stream_names_async_for(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    with pytest.raises(TypeError, match="async for"):
        await oven.slices(3)
    assert await oven.bake("bread") == "bread 1"


async def test_iterating_over_a_value_names_await(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    with pytest.raises(TypeError, match="await it"):
        await anext(aiter(oven.bake("bread")))
    assert await oven.bake("cake") == "cake 2"


def test_sync_code_is_told_the_same_about_streams_and_values() -> None:
    with ActorSystem(sinks=()) as system:
        oven = system.spawn(Oven)
        with pytest.raises(TypeError, match="is a stream"):
            oven.slices(3).result()
        with pytest.raises(TypeError, match="is a value"):
            list(oven.bake("bread"))


# -- waiting in sync code ----------------------------------------------------------------


def test_a_result_that_is_not_there_in_time_leaves_the_call_alone() -> None:
    gate = threading.Event()
    with ActorSystem(sinks=()) as system:
        reply = system.options(name="grill").spawn(Grill).hold(gate)

        with pytest.raises(
            DeadlineExceeded, match=r"grill\.hold\(\) gave no result within 0\.02 s"
        ) as caught:
            reply.result(0.02)
        with pytest.raises(TimeoutError):
            reply.outcome(timeout=0.02)

        assert isinstance(caught.value, TimeoutError)
        assert not reply.done
        gate.set()
        assert reply.result() == "held"


def test_many_threads_wait_for_one_reply() -> None:
    gate = threading.Event()
    with ActorSystem(sinks=()) as system:
        reply = system.spawn(Grill).hold(gate)
        results: list[str] = []
        threads = [threading.Thread(target=lambda: results.append(reply.result())) for _ in range(10)]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join(5)
    assert results == ["held"] * 10


async def test_result_on_the_systems_own_loop_is_refused_at_once(system: ActorSystem) -> None:
    """It could only wait for itself."""
    oven, gate = system.spawn(Oven), asyncio.Event()
    reply = oven.hold(gate)
    for read in (reply.result, reply.outcome):
        with pytest.raises(DeadlockError, match="await it"):
            read()
    gate.set()
    assert await reply == "held"
    assert reply.result() == "held"


async def test_waiting_for_an_order_on_the_systems_own_loop_is_refused_too(system: ActorSystem) -> None:
    oven, gate = system.spawn(Oven), asyncio.Event()
    held = oven.hold(gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    stopped, ended = oven.stop(), oven.wait_stopped()
    started = system.spawn(Oven).wait_started()

    for reply in (stopped, ended, started):
        with pytest.raises(DeadlockError):
            reply.result(0.2)
    gate.set()

    await asyncio.gather(held, stopped, ended, started)


async def test_result_inside_an_async_handler_is_refused(system: ActorSystem) -> None:
    class Asker(Actor):
        async def ask_badly(self, oven: Any) -> str:
            try:
                return oven.bake("bread").result()  # type: ignore[no-any-return]
            except DeadlockError:
                return "refused"

    assert await system.spawn(Asker).ask_badly(system.spawn(Oven)) == "refused"


# -- callbacks ---------------------------------------------------------------------------


async def test_done_callbacks_run_once_when_it_is_settled(system: ActorSystem) -> None:
    oven, gate = system.spawn(Oven), asyncio.Event()
    reply = oven.hold(gate)
    called: list[tuple[int, Reply[Any]]] = []
    for number in range(3):
        reply.add_done_callback(lambda reply, number=number: called.append((number, reply)))
    assert called == []
    gate.set()
    await reply
    reply.cancel()

    assert called == [(0, reply), (1, reply), (2, reply)]


async def test_a_callback_on_a_settled_reply_runs_at_once(system: ActorSystem) -> None:
    reply = system.spawn(Oven).burn()
    await wait_until(lambda: reply.done)
    called: list[Any] = []
    reply.add_done_callback(called.append)
    assert called == [reply]
    assert isinstance(reply.outcome().error, Burnt)


async def test_a_callback_that_fails_keeps_the_outcome_from_nobody(system: ActorSystem) -> None:
    """Other readers are woken, other callbacks run, the actor serves on."""
    oven, gate = system.spawn(Oven), asyncio.Event()
    reply = oven.hold(gate)
    called: list[Any] = []
    reply.add_done_callback(lambda _: 1 / 0)
    reply.add_done_callback(called.append)

    async def read() -> Any:
        return await reply

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    gate.set()

    assert await asyncio.wait_for(reader, 2) == "held"
    assert called == [reply]
    assert await oven.bake("bread") == "bread 1"


# -- cancelling --------------------------------------------------------------------------


async def test_cancelling_a_reply_cancels_the_handler(system: ActorSystem) -> None:
    oven = system.options(name="oven").spawn(Oven)
    reply = oven.hold(asyncio.Event())
    await wait_until(lambda: system.statistics().in_progress == 1)

    reply.cancel()

    with pytest.raises(Cancelled, match=r"oven\.hold\(\)"):
        await reply
    assert await oven.cancellations() == 1


async def test_cancelling_a_settled_reply_does_nothing(system: ActorSystem) -> None:
    reply = system.spawn(Oven).bake("bread")
    await reply
    reply.cancel()
    assert await reply == "bread 1"


async def test_cancelling_the_task_that_awaits_cancels_the_far_end(system: ActorSystem) -> None:
    oven = system.spawn(Oven)

    async def wait_for_it() -> None:
        await oven.hold(asyncio.Event())

    task = asyncio.create_task(wait_for_it())
    await wait_until(lambda: system.statistics().in_progress == 1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await oven.cancellations() == 1


async def test_wait_for_and_timeout_cancel_the_far_end(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(oven.hold(asyncio.Event()), 0.02)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await oven.hold(asyncio.Event())
    assert await oven.cancellations() == 2
    assert await asyncio.wait_for(oven.bake("bread"), 5) == "bread 1"


# -- asyncio's own tools -------------------------------------------------------------------


async def test_gather_runs_calls_side_by_side(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    baked = await asyncio.gather(*(oven.bake("roll") for _ in range(50)))
    assert baked == [f"roll {number}" for number in range(1, 51)]


async def test_gather_gives_errors_as_values_when_asked(system: ActorSystem) -> None:
    oven = system.spawn(Oven)
    bread, burnt = await asyncio.gather(oven.bake("bread"), oven.burn(), return_exceptions=True)
    assert bread == "bread 1"
    assert isinstance(burnt, Burnt)


async def test_a_task_group_waits_for_replies_and_collects_their_errors(system: ActorSystem) -> None:
    oven = system.spawn(Oven)

    async def read(reply: Reply[Any]) -> Any:
        return await reply

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(oven.bake("roll"))) for _ in range(3)]
    assert [task.result() for task in tasks] == ["roll 1", "roll 2", "roll 3"]

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(read(oven.burn()))
    assert caught.group_contains(Burnt)


async def test_as_completed_gives_the_first_that_is_ready(system: ActorSystem) -> None:
    slow, gate = system.spawn(Oven), asyncio.Event()
    waiting = asyncio.as_completed([slow.hold(gate), system.spawn(Oven).bake("bread")], timeout=5)
    assert await next(waiting) == "bread 1"
    gate.set()
    assert await next(waiting) == "held"


# -- forgotten failures ----------------------------------------------------------------------


async def test_a_failure_nobody_looked_at_is_reported_once(system: ActorSystem, events: list[Event]) -> None:
    oven = system.options(name="oven").spawn(Oven)

    async def forget() -> None:
        reply = oven.burn()
        await wait_until(lambda: reply.done)
        gc.collect()
        assert unread(events) == []

    await forget()
    gc.collect()

    (event,) = await wait_until(lambda: unread(events))
    assert (event.target, event.method, type(event.error)) == ("oven", "burn", Burnt)
    await oven.bake("bread")
    gc.collect()
    await oven.bake("bread")
    assert len(unread(events)) == 1


async def test_values_read_failures_and_cancels_are_not_reported(
    system: ActorSystem, events: list[Event]
) -> None:
    oven = system.spawn(Oven)

    async def forget() -> None:
        read, value, cancelled = oven.burn(), oven.bake("bread"), oven.hold(asyncio.Event())
        assert isinstance((await asyncio.gather(read, return_exceptions=True))[0], Burnt)
        cancelled.cancel()
        await wait_until(lambda: value.done and cancelled.done)

    await forget()
    gc.collect()
    await oven.bake("cake")

    assert unread(events) == []


# -- systems as contexts ----------------------------------------------------------------------


async def test_async_with_puts_the_system_on_the_callers_loop() -> None:
    class Where(Actor):
        async def loop(self) -> int:
            return id(asyncio.get_running_loop())

    async with ActorSystem(sinks=()) as system:
        assert await system.spawn(Where).loop() == id(asyncio.get_running_loop())


def test_with_puts_the_system_on_a_thread_of_its_own_that_ends() -> None:
    class Where(Actor):
        async def thread(self) -> threading.Thread:
            return threading.current_thread()

    with ActorSystem(sinks=()) as system:
        thread = system.spawn(Where).thread().result()
        assert thread is not threading.current_thread()
        assert thread.is_alive()
    assert not thread.is_alive()


def test_with_works_inside_a_running_loop_too() -> None:
    async def main() -> str:
        with ActorSystem(sinks=()) as system:
            return await system.spawn(Oven).bake("bread")  # type: ignore[no-any-return]

    assert asyncio.run(main()) == "bread 1"


async def test_a_system_is_opened_once(system: ActorSystem) -> None:
    with pytest.raises(InvalidArgument, match="opened once"):
        async with system:
            pytest.fail("it is open already")


def test_a_closed_system_answers_at_once() -> None:
    """Its loop is gone: whoever asks from another thread must not wait for it."""
    with ActorSystem(sinks=()) as system:
        oven = system.spawn(Oven)
        assert oven.bake("bread").result() == "bread 1"

    began = time.monotonic()
    with pytest.raises(ActorStopped):
        oven.options(timeout=None).bake("cake").result(3)
    with pytest.raises(ActorStopped):
        oven.tell("bake", "cake").result(3)
    assert oven.is_alive().result(3) is False
    assert oven.wait_stopped().result(3).kind == "shutdown"
    assert time.monotonic() - began < 1


def test_calls_under_way_fail_when_their_system_stops() -> None:
    gate = threading.Event()
    outcomes: list[Outcome[Any]] = []
    with ActorSystem(sinks=()) as system:
        grill = system.spawn(Grill)
        running = grill.options(timeout=None).hold(gate)
        wait_until_sync(lambda: system.statistics().in_progress == 1)
        queued = grill.options(timeout=None).hold(gate)
        queued.add_done_callback(lambda _: gate.set())
        system.stop().result()
        outcomes = [running.outcome(3), queued.outcome(3)]
    assert outcomes[0].value == "held"
    assert isinstance(outcomes[1].error, ActorStopped)

"""Idle actors handle what comes from other processes at once, in nobody's turn; nobody may notice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, ActorStopped, ActorSystem, Ref, Unavailable
from actors._memory import MemoryTransport
from actors.testing import wait_until

shade: ContextVar[str] = ContextVar("shade", default="plain")


class Stage(Actor):
    expected = (KeyError,)

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.notes: list[Any] = []

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def task(self) -> tuple[bool, str]:
        task = asyncio.current_task()
        shade.set("dark")
        return task is not None, shade.get()

    async def shade(self) -> str:
        return shade.get()

    async def within(self, seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds):
                await self.gate.wait()
        except TimeoutError:
            return "timeout"
        return "open"

    async def together(self) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.add(n, n)) for n in range(3)]
        return [task.result() for task in tasks]

    async def cancels_itself(self, then_waits: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if not then_waits:
            return "never waited"
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            return "cancelled where it waited"
        return "not cancelled"

    async def wait(self) -> None:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise

    async def open(self) -> list[Any]:
        self.gate.set()
        return self.notes

    async def lacks(self) -> None:
        raise KeyError("soup")

    async def crash(self) -> None:
        raise RuntimeError("boom")

    async def leave(self) -> None:
        self.context.stop()

    async def counts(self) -> tuple[int, int]:
        statistics = self.context.system.statistics()
        return statistics.accepted - statistics.handled, statistics.in_progress

    def on_thread(self) -> str:
        return threading.current_thread().name

    async def numbers(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number


@pytest.fixture(params=["memory", "ipc"])
async def stage(request: pytest.FixtureRequest, run_root: Path) -> AsyncIterator[Ref[Any]]:
    """A stage in another system; it has answered once, so that a runner waits for it."""

    def system() -> ActorSystem:
        if request.param == "memory":
            return ActorSystem(transport=MemoryTransport())
        return ActorSystem(listen=True)

    async with system() as there, system() as here:
        there.options(name="stage", concurrency=2).spawn(Stage)
        ref: Ref[Any] = here.ref(f"{there.address}#stage")
        assert await ref.add(1, 2) == 3
        yield ref


async def test_handlers_have_a_task_and_variables_of_their_own(stage: Ref[Any]) -> None:
    assert await stage.task() == (True, "dark")
    assert await stage.shade() == "plain"


async def test_timeouts_and_task_groups_work(stage: Ref[Any]) -> None:
    assert await stage.within(0.01) == "timeout"
    assert await stage.together() == [0, 2, 4]
    assert await stage.add(2, 2) == 4


async def test_a_cancel_of_its_own_ends_with_its_message(stage: Ref[Any]) -> None:
    for _ in range(3):
        assert await stage.cancels_itself(False) == "never waited"
        assert await stage.cancels_itself(True) == "cancelled where it waited"
        assert await stage.add(2, 2) == 4


async def test_who_waits_lets_the_next_in_and_is_cancelled_by_its_caller(stage: Ref[Any]) -> None:
    waiting = stage.wait()
    assert await stage.add(2, 2) == 4

    waiting.cancel()

    async def noted() -> bool:
        return "cancelled" in await stage.open()

    while not await noted():
        await asyncio.sleep(0)


async def test_errors_that_are_answers_and_crashes(stage: Ref[Any]) -> None:
    with pytest.raises(KeyError, match="soup"):
        await stage.lacks()
    assert await stage.add(2, 2) == 4
    with pytest.raises(RuntimeError, match="boom"):
        await stage.crash()
    await wait_until(lambda: _is_gone(stage))


async def test_a_stop_from_inside_ends_it(stage: Ref[Any]) -> None:
    await stage.leave()

    await wait_until(lambda: _is_gone(stage))


async def test_the_counters_know_what_is_in_progress(stage: Ref[Any]) -> None:
    assert await stage.counts() == (1, 1)


async def test_threads_and_streams(stage: Ref[Any]) -> None:
    assert await stage.on_thread() == "understudy-handler"
    assert [number async for number in stage.numbers()] == [0, 1, 2]
    assert await stage.add(2, 2) == 4


async def test_many_at_once_are_all_answered_in_order(stage: Ref[Any]) -> None:
    sums = await asyncio.gather(*(stage.add(n, n) for n in range(900)))

    assert sums == [2 * n for n in range(900)]


async def test_a_caller_that_dies_with_its_loop_leaves_no_runner_behind(run_root: Path) -> None:
    """What waits for work ends with the system."""
    before = asyncio.all_tasks()
    async with ActorSystem(listen=True) as there, ActorSystem(listen=True) as here:
        there.options(name="stage").spawn(Stage)
        stage: Ref[Any] = here.ref(f"{there.address}#stage")
        await asyncio.gather(*(stage.add(n, n) for n in range(100)))
        assert asyncio.all_tasks() - before

    await wait_until(lambda: not (asyncio.all_tasks() - before))


async def test_a_thread_gets_its_answer_while_the_loop_is_busy(run_root: Path) -> None:
    """Receiving does not need the loop of whoever asks."""
    with ActorSystem(listen=True) as there:
        there.options(name="stage").spawn(Stage)
        async with ActorSystem(listen=True) as here:
            stage: Ref[Any] = here.ref(f"{there.address}#stage")
            assert await stage.add(1, 1) == 2  # so far the loop has read the inbox
            answered: list[Any] = []

            def ask() -> None:
                for _ in range(20):
                    answered.append(stage.add(2, 2).result(5))

            thread = threading.Thread(target=ask)
            thread.start()
            busy_until = time.monotonic() + 10
            while thread.is_alive() and time.monotonic() < busy_until:
                pass  # the loop does nothing else

            assert answered == [4] * 20
            assert await stage.add(3, 3) == 6
            thread.join()


def _is_gone(stage: Ref[Any]) -> Any:
    async def look() -> bool:
        try:
            return not await stage.is_alive()
        except Unavailable:
            return True

    return look()


async def test_what_comes_in_one_go_fills_no_mailbox_of_an_actor_that_waits(
    system: ActorSystem, other: ActorSystem
) -> None:
    """Ten messages in one frame, a mailbox of three: they are handled as they come."""
    other.options(name="small", mailbox=3).spawn(Stage)
    small = system.ref(f"{other.address}#small")
    await small.add(0, 0)

    assert await asyncio.gather(*(small.add(n, n) for n in range(10))) == [2 * n for n in range(10)]


@pytest.mark.parametrize("ends", ["cancel", "kill"])
async def test_who_is_cut_short_in_the_same_turn_as_it_began_hears_of_it(
    system: ActorSystem, other: ActorSystem, ends: str
) -> None:
    """
    Three in one frame: a question, one more that finds the mailbox full, and the end of the first.

    The second makes the actor work at once, in the name of a task that has not run yet.
    """
    await other.options(name="small", mailbox=1).spawn(Stage).wait_started()
    small = system.ref(f"{other.address}#small")
    waits = small.within(60)
    last = small.add(1, 2)

    if ends == "cancel":
        waits.cancel()
        assert await last == 3
    else:
        await small.kill()
        for reply in (waits, last):
            with pytest.raises((ActorStopped, Unavailable)):
                await reply
    await wait_until(lambda: other.statistics().in_progress == 0)

"""What threads may do to each other: nothing anybody notices."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from actors import Actor, ActorError, ActorStopped, ActorSystem, DeadlineExceeded, Reply, Unavailable
from actors._loop import LoopInbox
from actors._threads import ThreadPool
from actors.testing import memory_system, wait_until


class Echo(Actor):
    mailbox = 100_000

    async def echo(self, value: Any) -> Any:
        return value


class Twin(Actor):
    """Waits for another of its kind, on a thread."""

    def chain(self, rest: list[Any]) -> int:
        return 1 + rest[0].options(timeout=30).chain(rest[1:]).result() if rest else 1


def run_in_threads(count: int, work: Any) -> list[Any]:
    """What *work(number)* gave on *count* threads that begin together."""
    found: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        found[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_many_threads_ask_and_each_gets_its_own_answers() -> None:
    with memory_system(sinks=()) as system, memory_system(sinks=()) as other:
        here = system.options(name="echo").spawn(Echo)
        there = other.ref(f"{system.address}#echo")

        def ask(number: int) -> bool:
            values = [(number, turn) for turn in range(100)]
            replies = [(here if turn % 2 else there).echo(value) for turn, value in enumerate(values)]
            return [reply.result(10) for reply in replies] == values

        assert run_in_threads(8, ask) == [True] * 8
        statistics = system.statistics()
        assert statistics.accepted == statistics.handled == 800


def test_a_system_that_stops_answers_whoever_asks_meanwhile() -> None:
    """No ask and no tell is left without an outcome, whenever it comes."""
    for _ in range(20):
        system, other = memory_system(sinks=()), memory_system(sinks=())
        system.__enter__()
        other.__enter__()
        echo = system.options(name="echo").spawn(Echo).options(timeout=None)
        far = other.ref(f"{system.address}#echo").options(timeout=None)
        outcomes: list[Any] = []

        def work(
            number: int,
            system: Any = system,
            echo: Any = echo,
            far: Any = far,
            outcomes: list[Any] = outcomes,
        ) -> None:
            if number == 0:
                time.sleep(0.002)
                system.stop().result(10)
                return
            ref = echo if number % 2 else far
            for turn in range(50):
                send = ref.tell if turn % 3 == 0 else ref.ask
                outcomes.append(send("echo", turn).outcome(10))

        run_in_threads(5, work)
        other.stop().result(10)
        system.join()
        other.join()

        assert len(outcomes) == 200
        assert all(outcome.ok or isinstance(outcome.error, ActorError) for outcome in outcomes)
        assert not any(isinstance(outcome.error, DeadlineExceeded) for outcome in outcomes)


def test_after_its_end_a_system_sends_nothing_anywhere() -> None:
    with memory_system(sinks=()) as far:
        far.options(name="echo").spawn(Echo)
        with memory_system(sinks=()) as system:
            ref = system.ref(f"{far.address}#echo")
            assert ref.echo(1).result() == 1
        before = {thread.name for thread in threading.enumerate()}

        for send in (ref.ask, ref.tell):
            with pytest.raises(Unavailable, match="stopped") as caught:
                send("echo", 2).result(5)
            assert not caught.value.may_have_run
        assert ref.is_alive().result(5) is False
        with pytest.raises(ActorStopped):
            system.spawn(Echo)

        assert {thread.name for thread in threading.enumerate()} <= before


def test_deadlines_set_by_threads_at_the_same_time_are_all_kept() -> None:
    """The earliest decides when the table is looked through, whoever came last."""

    class Deaf(Actor):
        concurrency = 1000

        async def wait(self) -> None:
            await asyncio.sleep(60)

    with ActorSystem(sinks=()) as system:
        deaf = system.spawn(Deaf)
        deaf.wait_started().result()

        def ask(number: int) -> float:
            begun_at = time.monotonic()
            reply: Reply[Any] = deaf.options(timeout=0.05 + number % 2 * 0.3).wait()
            done = threading.Event()
            reply.add_done_callback(lambda _: done.set())
            assert done.wait(5)
            assert isinstance(reply.outcome().error, DeadlineExceeded)
            return time.monotonic() - begun_at

        assert max(run_in_threads(16, ask)[::2]) < 0.3


async def test_a_lost_place_in_the_pool_is_never_waited_for() -> None:
    """A thread lends its place at the moment somebody begins to wait for one."""
    for _ in range(50):
        pool = ThreadPool(LoopInbox(asyncio.get_running_loop()), limit=1)
        first = await pool.lease()
        lender = threading.Thread(target=pool.wait, args=(first, True))
        lender.start()
        second = await asyncio.wait_for(pool.lease(), 5)
        lender.join()
        assert second is not first
        pool.wait(first, False)
        pool.release(first)
        pool.release(second)
        pool.close()


async def test_an_abandoned_thread_that_waited_costs_no_place() -> None:
    pool = ThreadPool(LoopInbox(asyncio.get_running_loop()), limit=2)
    worker = await pool.lease()
    pool.wait(worker, True)
    pool.abandon(worker)
    pool.wait(worker, False)

    held = [await asyncio.wait_for(pool.lease(), 5) for _ in range(2)]
    third = asyncio.ensure_future(pool.lease())
    await asyncio.sleep(0)
    assert not third.done(), "the limit is two"
    pool.release(held[0])
    assert await asyncio.wait_for(third, 5) is held[0]
    pool.release(held[0])
    pool.release(held[1])
    pool.close()


async def test_three_hundred_def_actors_that_wait_for_each_other_do_not_block(system: ActorSystem) -> None:
    twins = [system.spawn(Twin) for _ in range(300)]

    assert await twins[0].options(timeout=30).chain(twins[1:]) == 300
    await wait_until(lambda: system.statistics().in_progress == 0)

"""Understudy: an embedded app, started with the first action that needs it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

from actors import ActorSystem, Ref
from actors.errors import ActorError, Unavailable
from supervisors import Cluster, DynamicSupervisor, ServiceRef, connect
from tests.benchmarks import apps
from tests.benchmarks.apps import Echo, Plain
from tests.benchmarks.load import busy_cores
from tests.benchmarks.processes import idle_percent, thread_count
from tests.benchmarks.timing import (
    ask_p99_us,
    ask_us,
    callers_us,
    echoed_rate,
    gathered_rate,
    seconds_until,
    taken_rate,
)
from tests.benchmarks.worker import PAYLOAD, ROOT, TEXTS, WINDOW, serve


class Understudy:
    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._opened: Cluster | None = None
        self._choir: Cluster | None = None
        self._slowest = 0.0

    async def close(self) -> None:
        await self._stack.aclose()

    async def _cluster(self) -> Cluster:
        if self._opened is None:
            self._opened = await self._stack.enter_async_context(apps.stage.run())
        return self._opened

    async def _echo(self) -> Ref[Echo]:
        return (await self._cluster()).service("echo", Echo).member(0)

    # -- messages between processes ----------------------------------------------------------

    async def ask(self, count: int) -> float:
        echo = await self._echo()
        return await ask_us(lambda: echo.echo(PAYLOAD), count)

    async def ask_service(self, count: int) -> float:
        echo = (await self._cluster()).service("echo", Echo)
        return await ask_us(lambda: echo.echo(PAYLOAD), count)

    async def ask_sync(self, count: int) -> float:
        await self._cluster()
        return await asyncio.to_thread(_sync_ask_us, count)

    async def ask_p99(self, count: int) -> float:
        echo = await self._echo()
        with busy_cores(0.5):
            return await ask_p99_us(lambda: echo.echo(PAYLOAD), count)

    async def in_flight_gather(self, count: int) -> float:
        echo = await self._echo()
        return await gathered_rate(echo.echo, count)

    async def in_flight_service(self, count: int) -> float:
        echo = (await self._cluster()).service("echo", Echo)
        return await gathered_rate(echo.echo, count)

    async def in_flight_replies(self, count: int) -> float:
        """As `ray.get` of a list does it: all are sent, then each is waited for."""
        echo, windows = await self._echo(), max(1, count // WINDOW)
        began_at = time.perf_counter()
        for _ in range(windows):
            for reply in [echo.echo(text) for text in TEXTS]:
                await reply
        return windows * WINDOW / (time.perf_counter() - began_at)

    async def choir_ask(self, count: int, size: int) -> float:
        service = await self._singers(size)
        return await ask_us(lambda: service.echo(PAYLOAD), count)

    async def choir_in_flight(self, count: int, size: int) -> float:
        service = await self._singers(size)
        return await gathered_rate(service.echo, count)

    async def choir_in_flight_us(self, count: int, size: int) -> float:
        return 1e6 / await self.choir_in_flight(count, size)

    async def _singers(self, size: int) -> ServiceRef[Echo]:
        if self._choir is None:
            self._choir = await self._stack.enter_async_context(apps.choir.run())
        return self._choir.service(f"choir-{size}", Echo)

    async def tell(self, count: int) -> float:
        return await _tell_rate(await self._echo(), count)

    async def stream(self, count: int) -> float:
        echo = await self._echo()
        began_at = time.perf_counter()
        taken = 0
        async for _ in echo.items(PAYLOAD, count):
            taken += 1
        assert taken == count
        return count / (time.perf_counter() - began_at)

    async def stream_sync(self, count: int) -> float:
        echo = (await self._cluster()).service("echo", Echo)

        def read() -> float:
            began_at = time.perf_counter()
            assert sum(1 for _ in echo.items(PAYLOAD, count)) == count
            return count / (time.perf_counter() - began_at)

        return await asyncio.to_thread(read)

    async def stream_argument(self, count: int) -> float:
        echo = await self._echo()

        async def items() -> AsyncIterator[str]:
            for _ in range(count):
                yield PAYLOAD

        began_at = time.perf_counter()
        assert await echo.options(timeout=60).take(items()) == count
        return count / (time.perf_counter() - began_at)

    async def array_taken(self, count: int, size: int) -> float:
        echo = await self._echo()
        return await taken_rate(echo.glance, count, size)

    async def array_echoed(self, count: int, size: int) -> float:
        echo = await self._echo()
        return await echoed_rate(echo.echo, count, size)

    async def echo_bytes(self, count: int, size: int) -> float:
        echo, payload = await self._echo(), bytes(size)
        began_at = time.perf_counter()
        for _ in range(count):
            assert len(await echo.echo(payload)) == size
        return (time.perf_counter() - began_at) / count * 1e6

    async def callers(self, count: int, callers: int) -> float:
        echo = await self._echo()
        return await callers_us(lambda: echo.echo(PAYLOAD), count, callers)

    # -- lives -------------------------------------------------------------------------------

    async def create_shared(self, count: int) -> float:
        return await self._create_ms("shared")

    async def create_apart(self, count: int) -> float:
        return await self._create_ms("apart")

    async def _create_ms(self, name: str) -> float:
        cluster = await self._cluster()
        await _with_understudy(cluster)
        began_at = time.perf_counter()
        await cluster.scale(name, 8)
        outcomes = await cluster.service(name).options(timeout=30).broadcast(Echo.echo, PAYLOAD)
        took = (time.perf_counter() - began_at) * 1e3
        await cluster.scale(name, 0)
        assert [outcome.ok for outcome in outcomes.values()] == [True] * 8, outcomes
        return took

    async def kill(self, count: int) -> float:
        cluster = await self._cluster()
        await _with_understudy(cluster)
        return await _kill_ms(cluster, "phoenix")

    async def kills_first(self, count: int) -> float:
        """All of them are killed here; the slowest is told by `kills_slowest`."""
        async with apps.pair.run() as cluster:
            await _with_understudy(cluster, apps.pair.understudies)
            took = []
            for _ in range(count):
                began_at = time.perf_counter()
                took.append(await _kill_ms(cluster, "phoenix"))
                await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - began_at)))
        self._slowest = max(took)
        return took[0]

    async def kills_slowest(self, count: int) -> float:
        return self._slowest

    async def kill_heavy(self, count: int) -> float:
        return await self._kill_of("heavy", None)

    async def kill_warmed(self, count: int) -> float:
        return await self._kill_of("warmed", "warmed")

    async def _kill_of(self, name: str, understudy_of: str | None) -> float:
        cluster = await self._cluster()
        await cluster.scale(name, 1)
        await _with_understudy(cluster, service=understudy_of)
        took = await _kill_ms(cluster, name)
        await cluster.scale(name, 0)
        return took

    async def crash(self, count: int) -> float:
        phoenix = (await self._cluster()).service("phoenix", Echo).member(0)
        took = []
        for _ in range(count):
            began_at = time.perf_counter()
            with contextlib.suppress(ValueError):
                await phoenix.fail()
            await phoenix.echo(PAYLOAD)
            took.append((time.perf_counter() - began_at) * 1e6)
            await asyncio.sleep(0.02)  # until everybody has heard of it: each restart by itself
        return statistics.median(took)

    async def crash_ask(self, count: int) -> float:
        phoenix = (await self._cluster()).service("phoenix", Echo).member(0)
        took = []
        for _ in range(count):
            began_at = time.perf_counter()
            await phoenix.echo(PAYLOAD)
            took.append((time.perf_counter() - began_at) * 1e6)
            await asyncio.sleep(0.02)  # by itself too
        return statistics.median(took)

    async def stage_away(self, count: int) -> float:
        """Seconds that the stage stands still before it is killed: *count*."""
        cluster = await self._cluster()
        echo = cluster.service("echo", Echo)
        stage = (await cluster.ps())["stage"]
        asked = failed = 0
        os.kill(stage["pid"], signal.SIGSTOP)
        kill_at = time.monotonic() + count
        returned: asyncio.Task[None] | None = None
        while returned is None or not returned.done():
            if returned is None and time.monotonic() > kill_at:
                with contextlib.suppress(ProcessLookupError):  # the house may have found it hanging
                    os.kill(stage["pid"], signal.SIGKILL)
                returned = asyncio.create_task(_stage_after(cluster, stage["epoch"]))
            outcomes = await asyncio.gather(*(echo.echo(PAYLOAD) for _ in range(10)), return_exceptions=True)
            asked += len(outcomes)
            failed += sum(isinstance(outcome, BaseException) for outcome in outcomes)
            await asyncio.sleep(0.01)
        await returned
        assert asked > count * 10, f"only {asked} asks"
        return failed

    async def idle(self, count: int) -> float:
        found = await (await self._cluster()).ps()
        return await idle_percent({row["pid"] for row in found["members"]}, count)

    # -- whole processes ---------------------------------------------------------------------

    async def up(self, count: int) -> float:
        return await seconds_until("answered", "-m", "supervisors.cli", "up", "tests/benchmarks/apps.py:trio")

    async def ps_idle(self, count: int) -> float:
        await self._cluster()
        await asyncio.sleep(0.5)  # whatever the last sample has left to do
        return statistics.median([_ps_ms() for _ in range(count)])

    async def ps_busy(self, count: int) -> float:
        await self._cluster()
        with busy_cores(1.0):
            await asyncio.sleep(0.5)
            return statistics.median([_ps_ms() for _ in range(count)])

    # -- in one process ----------------------------------------------------------------------

    async def local_ask(self, count: int) -> float:
        async with ActorSystem() as system:
            echo = system.spawn(Echo)
            await echo.wait_started()
            return await ask_us(lambda: echo.echo(PAYLOAD), count)

    async def crowd_threads(self, count: int) -> float:
        async with ActorSystem() as system:
            refs = [system.spawn(Plain) for _ in range(count)]
            for start in range(0, count, WINDOW):
                for reply in [ref.echo(PAYLOAD) for ref in refs[start : start + WINDOW]]:
                    assert await reply == PAYLOAD
            await asyncio.sleep(10)
            return thread_count(os.getpid())

    async def crowd(self, count: int) -> float:
        return await _crowd_ms(count)

    async def crowd_tenth(self, count: int) -> float:
        return 10 * statistics.median([await _crowd_ms(count // 10) for _ in range(3)])

    async def idle_memory(self, count: int) -> float:
        async with ActorSystem() as system:
            supervisor = system.spawn(DynamicSupervisor, Echo)
            await _started(supervisor, 100)  # what the process needs for the first ones is not theirs
            gc.collect()
            # Not the process's size: what earlier rounds have given back would hide them.
            tracemalloc.start()
            await _started(supervisor, count)
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return taken / count / 1024

    async def local_tell(self, count: int) -> float:
        async with ActorSystem() as system:
            return await _tell_rate(system.spawn(Echo), count)


def _sync_ask_us(count: int) -> float:
    """As a program without a loop asks: a system on a thread of its own, `.result()` on this one."""
    with connect(apps.stage.name) as cluster:
        echo = cluster.service("echo", Echo).member(0)
        echo.echo(PAYLOAD).result()  # the way there is open
        began_at = time.perf_counter()
        for _ in range(count):
            echo.echo(PAYLOAD).result()
        return (time.perf_counter() - began_at) / count * 1e6


async def _tell_rate(echo: Ref[Echo], count: int) -> float:
    wanted = await echo.total() + count
    began_at = time.perf_counter()
    for start in range(0, count, WINDOW):
        for text in TEXTS[: count - start]:
            echo.tell(Echo.count, text)
        await asyncio.sleep(0)
    total = await echo.total()
    took = time.perf_counter() - began_at
    assert total == wanted, f"{total} of {wanted} tells were handled"
    return count / took


async def _with_understudy(cluster: Cluster, count: int = 1, service: str | None = None) -> dict[str, Any]:
    """What `ps` says once *count* stand ready, for *service* or for any."""
    while True:
        found = await cluster.ps()
        ready = [
            row for row in found["understudies"] if row["state"] == "ready" and row["service"] == service
        ]
        if len(ready) >= count:
            return found
        await asyncio.sleep(0.05)


async def _kill_ms(cluster: Cluster, name: str) -> float:
    """From the SIGKILL of the service's first member to its next answer."""
    member = cluster.service(name, Echo).member(0)
    found = await cluster.ps()
    pid = next(row["pid"] for row in found["members"] if row["name"] == f"{name}/0")
    began_at = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            await member.echo(PAYLOAD)
            return (time.perf_counter() - began_at) * 1e3
        except Unavailable:
            await asyncio.sleep(0.001)


async def _stage_after(cluster: Cluster, epoch: int) -> None:
    while True:
        with contextlib.suppress(ActorError):
            if (await cluster.ps())["stage"]["epoch"] > epoch:
                return
        await asyncio.sleep(0.05)


async def _crowd_ms(count: int) -> float:
    async with ActorSystem() as system:
        supervisor = system.spawn(DynamicSupervisor, Echo)
        await supervisor.wait_started()
        began_at = time.perf_counter()
        await _started(supervisor, count)
        await supervisor.stop()
        return (time.perf_counter() - began_at) * 1e3


async def _started(supervisor: Ref[Any], count: int) -> list[Ref[Any]]:
    """A window at a time: what waits in the supervisor's mailbox is not what is measured."""
    refs: list[Ref[Any]] = []
    while len(refs) < count:
        orders = [supervisor.start_child() for _ in range(min(100, count - len(refs)))]
        refs += [await order for order in orders]
    return refs


def _ps_ms() -> float:
    began_at = time.perf_counter()
    command = [sys.executable, "-m", "supervisors.cli", "ps", "--app", apps.stage.name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        # Waiting with a timeout, `subprocess` looks only every 50 ms.
        end = os.pidfd_open(process.pid)
        has_ended, _, _ = select.select([end], [], [], 10)
        took = time.perf_counter() - began_at
        os.close(end)
        if not has_ended:
            process.kill()
    assert process.returncode == 0, f"`understudy ps` ended with {process.returncode}"
    return took * 1e3


if __name__ == "__main__":
    serve(Understudy())

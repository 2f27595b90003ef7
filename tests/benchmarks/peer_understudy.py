"""Understudy: an embedded app, started with the first action that needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy

from actors import ActorSystem, Ref
from actors.errors import Unavailable
from supervisors import Cluster
from tests.benchmarks import apps
from tests.benchmarks.apps import Echo
from tests.benchmarks.timing import ask_us, gathered_rate, seconds_until
from tests.benchmarks.worker import ARRAY_BYTES, PAYLOAD, ROOT, WINDOW, serve


class Understudy:
    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._opened: Cluster | None = None

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

    async def in_flight_gather(self, count: int) -> float:
        echo = await self._echo()
        return await gathered_rate(lambda: echo.echo(PAYLOAD), count)

    async def in_flight_service(self, count: int) -> float:
        echo = (await self._cluster()).service("echo", Echo)
        return await gathered_rate(lambda: echo.echo(PAYLOAD), count)

    async def in_flight_replies(self, count: int) -> float:
        """As `ray.get` of a list does it: all are sent, then each is waited for."""
        echo, windows = await self._echo(), max(1, count // WINDOW)
        began_at = time.perf_counter()
        for _ in range(windows):
            for reply in [echo.echo(PAYLOAD) for _ in range(WINDOW)]:
                await reply
        return windows * WINDOW / (time.perf_counter() - began_at)

    async def tell(self, count: int) -> float:
        return await _tell_rate(await self._echo(), count)

    async def array(self, count: int) -> float:
        echo, array = await self._echo(), numpy.random.rand(ARRAY_BYTES // 8)
        began_at = time.perf_counter()
        for _ in range(count):
            assert (await echo.echo(array)).shape == array.shape
        return 2 * count * ARRAY_BYTES / 1e6 / (time.perf_counter() - began_at)

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
        found = await _with_understudy(cluster)
        phoenix = cluster.service("phoenix", Echo).member(0)
        pid = next(member["pid"] for member in found["members"] if member["name"] == "phoenix/0")
        began_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                await phoenix.echo(PAYLOAD)
                return (time.perf_counter() - began_at) * 1e3
            except Unavailable:
                await asyncio.sleep(0.001)

    # -- whole processes ---------------------------------------------------------------------

    async def up(self, count: int) -> float:
        return await seconds_until("answered", "-m", "supervisors.cli", "up", "tests/benchmarks/apps.py:trio")

    async def ps_idle(self, count: int) -> float:
        await self._cluster()
        await asyncio.sleep(0.5)  # whatever the last sample has left to do
        return statistics.median([_ps_ms() for _ in range(count)])

    async def ps_busy(self, count: int) -> float:
        await self._cluster()
        spin = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
        busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
        try:
            await asyncio.sleep(0.5)
            return statistics.median([_ps_ms() for _ in range(count)])
        finally:
            for process in busy:
                process.kill()
                process.wait()

    # -- in one process ----------------------------------------------------------------------

    async def local_ask(self, count: int) -> float:
        async with ActorSystem() as system:
            echo = system.spawn(Echo)
            await echo.wait_started()
            return await ask_us(lambda: echo.echo(PAYLOAD), count)

    async def local_tell(self, count: int) -> float:
        async with ActorSystem() as system:
            return await _tell_rate(system.spawn(Echo), count)


async def _tell_rate(echo: Ref[Echo], count: int) -> float:
    wanted = await echo.total() + count
    began_at = time.perf_counter()
    for number in range(count):
        echo.tell(Echo.count, PAYLOAD)
        if number % WINDOW == WINDOW - 1:
            await asyncio.sleep(0)
    total = await echo.total()
    took = time.perf_counter() - began_at
    assert total == wanted, f"{total} of {wanted} tells were handled"
    return count / took


async def _with_understudy(cluster: Cluster) -> dict[str, Any]:
    while True:
        found = await cluster.ps()
        if found["understudies"]:
            return found
        await asyncio.sleep(0.05)


def _ps_ms() -> float:
    began_at = time.perf_counter()
    command = [sys.executable, "-m", "supervisors.cli", "ps", "--app", apps.stage.name]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=10)
    return (time.perf_counter() - began_at) * 1e3


if __name__ == "__main__":
    serve(Understudy())

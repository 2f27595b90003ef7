"""xoscar: one actor in a pool's second process, called from the first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import xoscar

from tests.benchmarks.arrays import Array, glance
from tests.benchmarks.timing import ask_us, echoed_rate, gathered_rate, taken_rate
from tests.benchmarks.worker import PAYLOAD, TEXTS, WINDOW, serve


class Echo(xoscar.Actor):
    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def echo(self, value: Any) -> Any:
        return value

    def glance(self, array: Array) -> float:
        return glance(array)

    def count(self, value: Any) -> None:
        self.counted += 1

    @xoscar.generator
    async def items(self, count: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield PAYLOAD

    def total(self) -> int:
        return self.counted


class Xoscar:
    def __init__(self) -> None:
        self._pool: Any = None
        self._opened: Any = None

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.stop()

    async def _echo(self) -> Any:
        if self._opened is None:
            self._pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
            await self._pool.start()
            self._opened = await xoscar.create_actor(
                Echo,
                address=self._pool.external_address,
                uid="echo",
                allocate_strategy=xoscar.allocate_strategy.ProcessIndex(1),
            )
        return self._opened

    async def ask(self, count: int) -> float:
        echo = await self._echo()
        return await ask_us(lambda: echo.echo(PAYLOAD), count)

    async def in_flight(self, count: int) -> float:
        echo = await self._echo()
        return await gathered_rate(echo.echo, count)

    async def tell(self, count: int) -> float:
        echo = await self._echo()
        wanted = await echo.total() + count
        began_at = time.perf_counter()
        for number in range(count):
            await echo.count.tell(TEXTS[number % WINDOW])
        while await echo.total() < wanted:  # tells may still be on their way when the first answer comes
            await asyncio.sleep(0)
        return count / (time.perf_counter() - began_at)

    async def stream(self, count: int) -> float:
        echo = await self._echo()
        began_at = time.perf_counter()
        taken = 0
        async for _ in await echo.items(count):
            taken += 1
        assert taken == count
        return count / (time.perf_counter() - began_at)

    async def array_taken(self, count: int, size: int) -> float:
        echo = await self._echo()
        return await taken_rate(echo.glance, count, size)

    async def array_echoed(self, count: int, size: int) -> float:
        echo = await self._echo()
        return await echoed_rate(echo.echo, count, size)


if __name__ == "__main__":
    serve(Xoscar())

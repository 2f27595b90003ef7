"""Ray: an embedded cluster as `ray.init` makes it, plain actors, messages as actor calls."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import ray

from tests.benchmarks.arrays import Array, filled, glance
from tests.benchmarks.load import busy_cores
from tests.benchmarks.processes import idle_percent
from tests.benchmarks.timing import ask_p99_us, ask_us, callers_us, gathered_rate, p99, seconds_until
from tests.benchmarks.worker import PAYLOAD, TEXTS, WINDOW, serve

_ALONE = """
import ray
ray.init(address="local", include_dashboard=False)
print("up", flush=True)
ray.shutdown()
"""
_AND_ACTORS = """
import ray
ray.init(address="local", include_dashboard=False)
class Echo:
    def echo(self, value):
        return value
actors = [ray.remote(num_cpus=0)(Echo).remote() for _ in range(3)]
ray.get([actor.echo.remote("hello") for actor in actors])
print("up", flush=True)
ray.shutdown()
"""


@ray.remote(num_cpus=0)
class Echo:
    def __init__(self) -> None:
        self.counted = 0

    def echo(self, value: Any) -> Any:
        return value

    def glance(self, array: Array) -> float:
        return glance(array)

    def count(self, value: Any) -> None:
        self.counted += 1

    def total(self) -> int:
        return self.counted

    def items(self, count: int) -> Iterator[str]:
        for _ in range(count):
            yield PAYLOAD

    def pid(self) -> int:
        return os.getpid()


class Ray:
    def __init__(self) -> None:
        self._opened: Any = None
        self._phoenix: Any = None

    async def close(self) -> None:
        ray.shutdown()

    def _echo(self) -> Any:
        _start()
        if self._opened is None:
            self._opened = Echo.remote()
        return self._opened

    # -- messages between processes ----------------------------------------------------------

    async def ask_await(self, count: int) -> float:
        echo = self._echo()
        return await ask_us(lambda: echo.echo.remote(PAYLOAD), count)

    async def ask_get(self, count: int) -> float:
        echo = self._echo()
        began_at = time.perf_counter()
        for _ in range(count):
            ray.get(echo.echo.remote(PAYLOAD))
        return (time.perf_counter() - began_at) / count * 1e6

    async def ask_p99_await(self, count: int) -> float:
        echo = self._echo()
        with busy_cores(0.5):
            return await ask_p99_us(lambda: echo.echo.remote(PAYLOAD), count)

    async def ask_p99_get(self, count: int) -> float:
        echo, took = self._echo(), []
        with busy_cores(0.5):
            for _ in range(count):
                began_at = time.perf_counter()
                ray.get(echo.echo.remote(PAYLOAD))
                took.append(time.perf_counter() - began_at)
        return p99(took) * 1e6

    async def in_flight_gather(self, count: int) -> float:
        echo = self._echo()
        return await gathered_rate(lambda text: _awaited(echo.echo.remote(text)), count)

    async def in_flight_get(self, count: int) -> float:
        echo, windows = self._echo(), max(1, count // WINDOW)
        began_at = time.perf_counter()
        for _ in range(windows):
            ray.get([echo.echo.remote(text) for text in TEXTS])
        return windows * WINDOW / (time.perf_counter() - began_at)

    async def tell(self, count: int) -> float:
        """All at once."""
        return self._tell_rate(count, count)

    async def tell_windows(self, count: int) -> float:
        """As many at a time as the other rows have in flight."""
        return self._tell_rate(count, WINDOW)

    def _tell_rate(self, count: int, window: int) -> float:
        echo = self._echo()
        wanted = ray.get(echo.total.remote()) + count
        began_at = time.perf_counter()
        for start in range(0, count, window):
            # The refs are dropped: only the last one's answer is waited for, calls are handled in order.
            for number in range(min(window, count - start)):
                last = echo.count.remote(TEXTS[number % WINDOW])
            ray.wait([last])
        total = ray.get(echo.total.remote())
        took = time.perf_counter() - began_at
        assert total == wanted, f"{total} of {wanted} calls were handled"
        return count / took

    async def stream_await(self, count: int) -> float:
        items = self._echo().items.options(num_returns="streaming")
        began_at = time.perf_counter()
        taken = 0
        async for item in items.remote(count):
            await item
            taken += 1
        assert taken == count
        return count / (time.perf_counter() - began_at)

    async def stream_get(self, count: int) -> float:
        items = self._echo().items.options(num_returns="streaming")
        began_at = time.perf_counter()
        assert sum(1 for item in items.remote(count) if ray.get(item)) == count
        return count / (time.perf_counter() - began_at)

    async def array_taken(self, count: int, size: int) -> float:
        echo, array = self._echo(), filled(size)
        expected = glance(array)
        began_at = time.perf_counter()
        for _ in range(count):
            assert ray.get(echo.glance.remote(array)) == expected
        return count * size / 1e6 / (time.perf_counter() - began_at)

    async def array_echoed(self, count: int, size: int) -> float:
        echo, array = self._echo(), filled(size)
        expected = glance(array)
        began_at = time.perf_counter()
        for _ in range(count):
            assert glance(ray.get(echo.echo.remote(array))) == expected
        return 2 * count * size / 1e6 / (time.perf_counter() - began_at)

    async def echo_bytes(self, count: int, size: int) -> float:
        echo, payload = self._echo(), bytes(size)
        began_at = time.perf_counter()
        for _ in range(count):
            assert len(ray.get(echo.echo.remote(payload))) == size
        return (time.perf_counter() - began_at) / count * 1e6

    async def callers(self, count: int, callers: int) -> float:
        echo = self._echo()
        return await callers_us(lambda: echo.echo.remote(PAYLOAD), count, callers)

    # -- lives -------------------------------------------------------------------------------

    async def idle(self, count: int) -> float:
        return await idle_percent([ray.get(self._echo().pid.remote())], count)

    async def create(self, count: int) -> float:
        _start()
        began_at = time.perf_counter()
        actors = [Echo.remote() for _ in range(8)]
        ray.get([actor.echo.remote(PAYLOAD) for actor in actors])
        took = (time.perf_counter() - began_at) * 1e3
        for actor in actors:
            ray.kill(actor)
        await asyncio.sleep(1.0)  # until their processes are gone
        return took

    async def kill(self, count: int) -> float:
        _start()
        if self._phoenix is None:
            self._phoenix = Echo.options(max_restarts=-1, max_task_retries=-1).remote()
        pid = ray.get(self._phoenix.pid.remote())
        await asyncio.sleep(1.0)  # no worker is starting for the last life any more
        began_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                ray.get(self._phoenix.echo.remote(PAYLOAD))
                return (time.perf_counter() - began_at) * 1e3
            except ray.exceptions.RayActorError:
                time.sleep(0.001)

    # -- whole processes ---------------------------------------------------------------------

    async def init_alone(self, count: int) -> float:
        return await seconds_until("up", "-c", _ALONE)

    async def init_and_actors(self, count: int) -> float:
        return await seconds_until("up", "-c", _AND_ACTORS)


def _start() -> None:
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False)


async def _awaited(ref: Any) -> Any:
    return await ref


if __name__ == "__main__":
    serve(Ray())

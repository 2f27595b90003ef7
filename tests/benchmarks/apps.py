"""The apps that the benchmarks run; `understudy up` takes this file too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from actors import Actor
from supervisors import App, Cluster, Service
from tests.benchmarks.arrays import Array, glance


class Echo(Actor):
    """Gives back what it gets."""

    mailbox = 200_000

    def __init__(self) -> None:
        self.counted = 0

    async def echo(self, value: Any) -> Any:
        return value

    async def glance(self, array: Array) -> float:
        return glance(array)

    async def count(self, value: Any) -> None:
        self.counted += 1

    async def total(self) -> int:
        return self.counted

    async def items(self, value: Any, count: int) -> AsyncIterator[Any]:
        for _ in range(count):
            yield value

    async def take(self, items: AsyncIterator[Any]) -> int:
        taken = 0
        async for _ in items:
            taken += 1
        return taken

    async def fail(self) -> None:
        raise ValueError("a bug")


class Plain(Actor):
    """Works on a thread that it is lent."""

    def echo(self, value: Any) -> Any:
        return value


class Heavy(Echo):
    """Has something to load before it can work."""

    loaded: ClassVar[bool] = False

    @classmethod
    def warm(cls) -> None:
        time.sleep(1)
        cls.loaded = True

    def __init__(self) -> None:
        super().__init__()
        if not self.loaded:
            self.warm()


stage = App(
    Service("echo", Echo),
    Service("phoenix", Echo, per_host=1, intensity=100_000),  # dies every round, and must not back off
    Service("heavy", Heavy, size=0, per_host=1, intensity=100_000),
    Service("warmed", Heavy, size=0, per_host=1, intensity=100_000, understudies=1),
    Service("shared", Echo, size=0, per_host=8),
    Service("apart", Echo, size=0, per_host=1),
    name="bench",
)

CHOIRS = (1, 2, 10, 100, 1000)

choir = App(
    # Each in two processes, one singer apart.
    *(Service(f"choir-{size}", Echo, size=size, per_host=max(1, size // 2)) for size in CHOIRS),
    name="bench-choir",
)

pair = App(
    Service("phoenix", Echo, per_host=1, intensity=100_000),
    understudies=2,
    name="bench-pair",
)

trio = App(Service("trio", Echo, size=3, per_host=1), name="bench-up")


async def main(cluster: Cluster) -> None:
    """What `understudy up` runs once the app is up."""
    outcomes = await cluster.service("trio").broadcast(Echo.echo, "hello")
    print("answered" if all(outcome.ok for outcome in outcomes.values()) else outcomes, flush=True)

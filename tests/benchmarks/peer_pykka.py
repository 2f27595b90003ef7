"""Pykka: one actor on a thread of this process."""

from __future__ import annotations

import time
from typing import Any

import pykka

from tests.benchmarks.worker import PAYLOAD, serve


class Echo(pykka.ThreadingActor):
    """Takes bare messages, and calls of its methods through a proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def on_receive(self, message: Any) -> Any:
        self.counted += 1
        return message

    def echo(self, value: Any) -> Any:
        return value

    def count(self, value: Any) -> None:
        self.counted += 1

    def total(self) -> int:
        return self.counted


class Pykka:
    async def close(self) -> None:
        pykka.ActorRegistry.stop_all()

    async def ask(self, count: int) -> float:
        echo = Echo.start()
        began_at = time.perf_counter()
        for _ in range(count):
            echo.ask(PAYLOAD)
        took = time.perf_counter() - began_at
        echo.stop()
        return took / count * 1e6

    async def ask_proxy(self, count: int) -> float:
        echo = Echo.start()
        call = echo.proxy().echo
        began_at = time.perf_counter()
        for _ in range(count):
            call(PAYLOAD).get()
        took = time.perf_counter() - began_at
        echo.stop()
        return took / count * 1e6

    async def tell(self, count: int) -> float:
        echo = Echo.start()
        began_at = time.perf_counter()
        for _ in range(count):
            echo.tell(PAYLOAD)
        echo.ask(PAYLOAD)
        took = time.perf_counter() - began_at
        echo.stop()
        return count / took

    async def tell_proxy(self, count: int) -> float:
        echo = Echo.start()
        proxy = echo.proxy()
        tell = proxy.count.defer
        began_at = time.perf_counter()
        for _ in range(count):
            tell(PAYLOAD)
        assert proxy.total().get() == count
        took = time.perf_counter() - began_at
        echo.stop()
        return count / took


if __name__ == "__main__":
    serve(Pykka())

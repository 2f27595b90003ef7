"""Pykka: one actor on a thread of this process."""

from __future__ import annotations

import time
from typing import Any

import pykka

from tests.benchmarks.worker import PAYLOAD, serve


class Echo(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def on_receive(self, message: Any) -> Any:
        self.counted += 1
        return message


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

    async def tell(self, count: int) -> float:
        echo = Echo.start()
        began_at = time.perf_counter()
        for _ in range(count):
            echo.tell(PAYLOAD)
        echo.ask(PAYLOAD)
        took = time.perf_counter() - began_at
        echo.stop()
        return count / took


if __name__ == "__main__":
    serve(Pykka())

"""The far process of tests: actors that both sides know by module and name, and how to serve them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from actors import Actor, ActorSystem, Ref, Terminated


class Burnt(Exception):
    """An error with attributes."""

    def __init__(self, dish: str, degrees: int) -> None:
        super().__init__(dish, degrees)
        self.dish = dish
        self.degrees = degrees


class Unreadable(Exception):
    """An error that pickles but does not unpickle."""

    def __init__(self, dish: str, degrees: int) -> None:
        super().__init__(f"{dish} at {degrees}")


class Cook(Actor):
    """Answers, fails, waits and dies as asked."""

    expected = (Burnt, Unreadable)

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.cancelled = 0
        self.ended: list[str] = []

    async def echo(self, value: Any) -> Any:
        return value

    async def take(self, value: Any) -> None:
        self.taken.append(value)

    async def all_taken(self) -> list[Any]:
        return self.taken

    async def burn(self) -> None:
        try:
            raise ValueError("too hot")
        except ValueError as error:
            raise Burnt("steak", 300) from error

    async def burn_unreadably(self) -> None:
        raise Unreadable("steak", 300)

    async def wait(self, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "waited"

    async def cancellations(self) -> int:
        return self.cancelled

    async def count(self, items: int, pause: float = 0.0) -> AsyncIterator[int]:
        try:
            for number in range(items):
                yield number
                if pause:
                    await asyncio.sleep(pause)
        finally:
            self.ended.append("count")

    async def endings(self) -> list[str]:
        return self.ended

    async def deadline(self) -> float | None:
        deadline = self.context.deadline
        return None if deadline is None else deadline.remaining()

    async def sender(self) -> Ref[Any] | None:
        return self.context.sender

    async def ask_back(self, ref: Ref[Any], method: str, *args: Any) -> Any:
        return await ref.ask(method, *args)

    async def watch(self, ref: Ref[Any]) -> None:
        self.context.watch(ref)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.taken.append((terminated.ref, terminated.exit))

    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def block_process(self, seconds: float) -> None:
        time.sleep(seconds)

    async def spawn(self, name: str) -> Ref[Any]:
        return self.context.system.options(name=name).spawn(Cook)

    async def statistics(self) -> Any:
        stats = self.context.system.statistics()
        return {name: getattr(stats, name) for name in stats.__slots__}


def main(**options: Any) -> None:
    """Serve a `Cook` named cook until stdin ends."""

    async def serve() -> None:
        async with ActorSystem(listen=True, sinks=(), **options) as system:
            system.options(name="cook").spawn(Cook)
            system.options(name="narrow", mailbox=2).spawn(Cook)
            print(system.address, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(serve())

"""The app of the command line's tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from actors import Actor, ActorError, Exit
from supervisors import App, Cluster, Resources, Service


class UnknownDish(LookupError):
    """Not on the menu."""


class Chef(Actor):
    """Cooks at one station."""

    expected = (UnknownDish,)

    async def cook(self, dish: str, times: int = 1) -> str:
        if dish == "unicorn":
            raise UnknownDish(dish)
        return dish * times

    async def courses(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            yield await self.cook(dish)

    async def slowly(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            await asyncio.sleep(0.05)
            yield dish

    async def burn(self) -> None:
        raise RuntimeError("the roux")

    async def add(self, first: float, second: float) -> float:
        return first + second

    async def announce(self, dish: str) -> None:
        """Say it in two ways."""
        print("printed", dish)
        self.context.log.warning("served", dish=dish)

    async def oddity(self) -> Any:
        return {"set": {1}}

    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def on_stop(self, exit: Exit) -> None:
        await asyncio.sleep(float(os.environ.get("BISTRO_CLEANUP", "0")))


app = App(
    Service("kitchen", Chef, size=2, per_host=1, shutdown=30.0),
    Service("pair", Chef, size=2, per_host=2),
    Service("vision", Chef, resources=Resources(gpu=1)),
)


async def main(cluster: Cluster, *arguments: str) -> None:
    print("main got", *arguments, await cluster.service("kitchen").cook("soup"))
    sys.stdout.flush()
    if "--fail" in arguments:
        raise RuntimeError("the head chef left")
    if "--exit" in arguments:
        sys.exit(7)
    while "--stay" in arguments:
        with contextlib.suppress(ActorError):
            await cluster.service("kitchen").cook("more soup")
        await asyncio.sleep(0.05)

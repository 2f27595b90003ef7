"""
The cast: what conformance tests have in common. Children that write down their lives, and ways to end them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import (
    Unavailable,
)
from actors.exit import Exit, Ignore, Terminated
from actors.ref import Ref
from actors.system import ActorSystem
from supervisors.spec import ChildInfo, ChildSpec
from supervisors.supervisor import Supervisor

Notes = list[tuple[str, str]]
"""(what, which child), in the order in which it happened."""

GAVE_UP = Exit("shutdown", "intensity")


class Boom(RuntimeError):
    """What children crash with."""


class Child(Actor):
    """Writes down its life, and ends it in whatever way it is told."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.count = 0
        self._note("init")

    def _note(self, what: str) -> None:
        self.notes.append((what, self.context.name.rpartition("/")[2]))

    async def on_start(self) -> None:
        await asyncio.sleep(0)
        self._note("start")

    async def on_stop(self, exit: Exit) -> None:
        await asyncio.sleep(0)
        self._note(f"stop {exit}")

    async def life(self) -> int:
        return self.context.incarnation

    async def add(self) -> int:
        self.count += 1
        if self.count == 100:
            raise Boom("at 100")
        return self.count

    async def crash(self) -> None:
        raise Boom("on request")

    async def end(self, kind: str, detail: Any = None) -> None:
        self.context.stop(kind, detail)

    async def leave(self) -> None:
        raise SystemExit(0)

    async def wait_for(self, gate: asyncio.Event) -> str:
        self._note("wait")
        await gate.wait()
        return "waited"


class Whim(Child):
    """Starts as *moods* say, one entry a start: "ok", "ignore", "fail" or "hang"; then like the last."""

    def __init__(self, notes: Notes, *moods: str) -> None:
        super().__init__(notes)
        self.moods = moods

    async def on_start(self) -> None:
        starts = self.notes.count(("init", self.context.name.rpartition("/")[2]))
        mood = self.moods[min(starts, len(self.moods)) - 1]
        if mood == "ignore":
            raise Ignore
        if mood == "fail":
            raise Boom("at the start")
        if mood == "hang":
            self._note("hang")
            await asyncio.Event().wait()
        await super().on_start()


class Tidy(Child):
    """Needs time for its cleanup."""

    def __init__(self, notes: Notes, cleaned: asyncio.Event) -> None:
        super().__init__(notes)
        self.cleaned = cleaned

    async def on_stop(self, exit: Exit) -> None:
        self._note("cleaning")
        await self.cleaned.wait()
        await super().on_stop(exit)


class Watcher(Actor):
    """Watches one actor."""

    def __init__(self, target: Ref[Any], seen: list[Terminated]) -> None:
        self.seen = seen
        self.context.watch(target)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.seen.append(terminated)

    async def is_there(self) -> bool:
        return True


Spec = Callable[..., ChildSpec]


async def up(
    system: ActorSystem, *specs: ChildSpec, strategy: str = "one_for_one", intensity: Any = 3, **flags: Any
) -> Ref[Any]:
    """A supervisor named `top` that has started."""
    ref = system.options(name="top").spawn(Supervisor, specs, strategy, intensity, 3600.0, **flags)
    assert await ref.wait_started()
    return ref


async def infos(sup: Ref[Any]) -> dict[str, ChildInfo]:
    return {info.id: info for info in await sup.which_children()}


async def child(sup: Ref[Any], id: str) -> Ref[Any]:
    return (await infos(sup))[id].ref


async def lives(system: ActorSystem, *ids: str) -> list[int]:
    """Which life each child of `top` is in; waits for those that are being restarted."""
    return [await system.find(f"top/{id}").life() for id in ids]


async def crash(ref: Ref[Any]) -> None:
    with pytest.raises(Boom):
        await ref.crash()


def inits(notes: Notes, id: str) -> int:
    return notes.count(("init", id))


ABNORMAL = {"crash": "error (Boom: on request)", "kill": "killed"}
CLEAN = {
    "normal": "normal",
    "shutdown": "shutdown",
    "shutdown with detail": "shutdown (x)",
    "leave": "normal",
}


async def end_life(ref: Ref[Any], how: str) -> None:
    match how:
        case "crash":
            await crash(ref)
        case "kill":
            await ref.kill()
        case "leave":
            with pytest.raises(Unavailable):
                await ref.leave()
        case "shutdown with detail":
            await ref.end("shutdown", "x")
        case _:
            await ref.end(how)


async def _outcome(reply: Any) -> Any:
    try:
        return await reply
    except Boom:
        return "Boom"

"""
The scribe: an actor that writes down what it handles before anything else, and fails as it is told.

How its next start or stop goes wrong stands in a file beside the ledger (`plant`), because a
process that is to fail at its start cannot be told by message.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
from pathlib import Path
from typing import Literal

from actors.actor import Actor
from actors.events import DeadLettered, Event
from actors.exit import Exit
from actors.system import ActorSystem
from supervisors.testing.ledger import Ledger

Hook = Literal["on_start", "on_stop", "life"]
Way = Literal["raise", "hang", "short"]

_ledgers: dict[tuple[str, int], Ledger] = {}


class Planted(RuntimeError):
    """The failure that a test has planted."""


def plant(directory: str | os.PathLike[str], member: str, hook: Hook, way: Way) -> Path:
    """Until the file that is returned is gone, *hook* of *member* raises or hangs, or its lives are short."""
    path = _condition(Path(directory), member, hook)
    path.parent.mkdir(exist_ok=True)
    path.write_text(way)
    return path


def _condition(directory: Path, member: str, hook: Hook) -> Path:
    return directory / "conditions" / f"{member.replace('/', '-')}.{hook}"


class Scribe(Actor):
    """Keeps a ledger in *directory*."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._ledger = _ledger_of(self.context.system, directory)
        context = self.context
        self._ledger.write("life", context.name, incarnation=context.incarnation, pid=os.getpid())

    async def on_start(self) -> None:
        await self._suffer("on_start")
        if self._planted("life"):
            self.context.after(0.01, self.crash)

    async def on_stop(self, exit: Exit) -> None:
        await self._suffer("on_stop")

    def _planted(self, hook: Hook) -> str:
        with contextlib.suppress(FileNotFoundError):
            return _condition(self._directory, self.context.name, hook).read_text()
        return ""

    async def _suffer(self, hook: Hook) -> None:
        way = self._planted(hook)
        if way == "raise":
            raise Planted(f"{hook} of {self.context.name}")
        if way == "hang":
            await asyncio.sleep(1e6)

    # -- messages ------------------------------------------------------------------------

    async def write(self, sender: str, seq: int, seconds: float = 0.0) -> tuple[str, int, int]:
        """Handle one message of the ledger; tells who did: member, incarnation, pid."""
        context = self.context
        pid = os.getpid()
        self._ledger.write("handled", context.name, sender, seq, incarnation=context.incarnation, pid=pid)
        if seconds:
            await asyncio.sleep(seconds)
        return context.name, context.incarnation, pid

    async def note(self, sender: str, seq: int) -> None:
        """`write`, to be told."""
        await self.write(sender, seq)

    async def who(self) -> tuple[str, int, int]:
        """Member, incarnation, pid; stands in no ledger."""
        return self.context.name, self.context.incarnation, os.getpid()

    async def nap(self, seconds: float) -> str:
        """Keep the turn, let others run."""
        await asyncio.sleep(seconds)
        return self.context.name

    async def crash(self) -> None:
        """A bug of the user's."""
        raise Planted(f"a handler of {self.context.name}")

    async def abort(self) -> None:
        """SIGABRT, as a library in C does it."""
        os.abort()

    async def segfault(self) -> None:
        """SIGSEGV."""
        ctypes.string_at(0)

    async def hoard(self, size: int = 1 << 30) -> int:
        """Take more memory than the process may have: a `MemoryError` in a handler."""
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + size // 4, hard))
        try:
            return len(bytearray(size))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _ledger_of(system: ActorSystem, directory: str) -> Ledger:
    """The one ledger of this process; it hears of the dead letters too."""
    key = (directory, id(system))
    ledger = _ledgers.get(key)
    if ledger is None:
        ledger = _ledgers[key] = Ledger(directory)
        kept = ledger

        def saw(event: Event) -> None:
            if isinstance(event, DeadLettered):
                kept.write(
                    "dead_letter", event.target, detail=f"{event.method}: {event.reason}", pid=os.getpid()
                )

        system.subscribe(saw)
    return ledger

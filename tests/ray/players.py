"""The actors of the Ray tests, in a file of their own: hosts load it like an app file."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from actors.actor import Actor
from actors.exit import Exit, Ignore, Terminated
from actors.idempotency import idempotent
from actors.interceptors import Interception, Interceptor
from supervisors import ChildSpec, Supervisor


class UnknownDish(LookupError):
    """Not on the menu."""


class Burnt(RuntimeError):
    """A handler's own bug."""


class Chef(Actor):
    """Cooks, and ends in whatever way it is told."""

    expected = (UnknownDish,)

    def __init__(self, station: str = "grill") -> None:
        self.station = station
        self.cooked = 0

    async def cook(self, dish: str, times: int = 1) -> str:
        if dish == "unicorn":
            raise UnknownDish(dish)
        self.cooked += times
        return f"{dish} from the {self.station}"

    async def count(self) -> int:
        return self.cooked

    async def who(self) -> tuple[str, int, int]:
        """Name, life and process."""
        return self.context.name, self.context.incarnation, os.getpid()

    async def courses(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            yield await self.cook(dish)

    async def prepare(self, dishes: AsyncIterator[str]) -> AsyncIterator[str]:
        async for dish in dishes:
            yield await self.cook(dish)

    async def burn(self) -> None:
        raise Burnt("the roux")

    async def nap(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return self.context.name

    def grind(self, seconds: float) -> str:
        """Keeps a thread, as plain code does."""
        time.sleep(seconds)
        return self.context.name

    async def die(self) -> None:
        os._exit(3)

    async def devices(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    async def echo(self, value: Any) -> Any:
        return value

    async def myself(self) -> Any:
        return self.context.ref

    async def deadline_left(self) -> float | None:
        deadline = self.context.deadline
        return deadline.remaining() if deadline is not None else None


class Waiter(Actor):
    """Goes to other services for what it is asked for."""

    async def serve(self, service: str, dish: str) -> str:
        return f"served: {await self.context.service(service).cook(dish)}"

    async def serve_from(self, kitchen: Any, dish: str) -> str:
        return f"served: {await kitchen.cook(dish)}"

    async def take_orders(self, service: str, dishes: AsyncIterator[str]) -> list[str]:
        """What comes in as a stream goes on as one."""
        return [dish async for dish in self.context.service(service).prepare(dishes)]

    async def burn_in(self, service: str) -> None:
        await self.context.service(service).burn()

    async def meet(self, other: Any) -> str:
        """Who *other* is, by asking it."""
        return (await other.who())[0]  # type: ignore[no-any-return]

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()


class Watcher(Actor):
    """Watches members and tells what it has heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    async def watch(self, ref: Any) -> None:
        self.context.watch(ref)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.heard.append((repr(terminated.ref), terminated.exit.kind))

    async def told(self) -> list[tuple[str, str]]:
        return self.heard


class Stamps(Interceptor):
    """Stamps what passes, in whatever process that is."""

    def __init__(self) -> None:
        self.stamps: list[tuple[str, str, str, dict[str, str], int]] = []

    def _stamp(self, hook: str, call: Interception) -> None:
        self.stamps.append(
            (hook, f"{call.target}.{call.method}", str(call.trace), dict(call.baggage), os.getpid())
        )

    def on_send(self, call: Interception) -> None:
        self._stamp("send", call)

    def on_handle(self, call: Interception) -> None:
        self._stamp("handle", call)

    def on_spawn(self, call: Interception) -> None:
        self._stamp("spawn", call)


class Clerk(Actor):
    """Hands on what it gets, and keeps the stamps."""

    interceptors = (stamps := Stamps(),)

    async def file(self, paper: str, *services: str) -> list[int]:
        """Through the hands of one clerk of each service; their processes."""
        if not services:
            return [os.getpid()]
        return [os.getpid(), *await self.context.service(services[0]).file(paper, *services[1:])]

    async def forward(self, ref: Any, paper: str) -> list[int]:
        return [os.getpid(), *await ref.file(paper)]

    async def stamped(self) -> list[Any]:
        return list(self.stamps.stamps)


class Diarist(Actor):
    """Writes its life into a file, where tests find it after its process has ended."""

    def __init__(self, diary: str, patience: float = 0.0) -> None:
        self.diary = Path(diary)
        self.patience = patience

    def _write(self, line: str) -> None:
        with self.diary.open("a") as file:
            file.write(f"{self.context.name} {line}\n")

    async def on_start(self) -> None:
        self._write("started")

    async def on_stop(self, exit: Exit) -> None:
        await asyncio.sleep(self.patience)
        self._write(f"stopped {exit}")

    async def nap(self, seconds: float) -> str:
        self._write("naps")
        await asyncio.sleep(seconds)
        self._write("awake")
        return self.context.name

    async def pid(self) -> int:
        return os.getpid()


class Brewer(Actor):
    """Its calls may come again; what it does is written down outside of its process."""

    def __init__(self, diary: str) -> None:
        self.diary = Path(diary)

    def _write(self, what: str) -> None:
        word = "again" if self.context.redelivered else "first"
        with self.diary.open("a") as file:
            file.write(f"{what} {self.context.name} {self.context.incarnation} {os.getpid()} {word}\n")

    @idempotent
    async def brew(self, tea: str, gate: str) -> str:
        """Takes until the file *gate* is there."""
        self._write(tea)
        while not Path(gate).exists():
            await asyncio.sleep(0.01)
        return f"{tea} by {self.context.name}"

    @idempotent(key="tea")
    async def pour(self, tea: str) -> str:
        self._write(tea)
        return f"{tea} by {self.context.name}"

    @idempotent
    def choke(self) -> None:
        self._write("choke")
        ctypes.string_at(0)

    async def serve(self, tea: str, gate: str) -> str:
        """As `brew`, but not twice."""
        return await self.brew(tea, gate)

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()


class Stillborn(Actor):
    """Never starts."""

    def __init__(self) -> None:
        raise Burnt("no stove")


class OnceBroken(Actor):
    """Starts as soon as a file is there."""

    def __init__(self, file: str) -> None:
        if not Path(file).exists():
            raise Burnt(f"no {file}")

    async def ready(self) -> bool:
        return True


class Slow(Chef):
    """Takes its time to start again."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def on_start(self) -> None:
        await asyncio.sleep(self.seconds if self.context.incarnation > 1 else 0)


class Reluctant(Actor):
    """Does not want to be started."""

    async def on_start(self) -> None:
        raise Ignore


class Suicidal(Actor):
    """Comes up, and ends its process soon after wherever *cursed* is its name."""

    def __init__(self, cursed: str) -> None:
        self.cursed = cursed

    async def on_start(self) -> None:
        if self.context.name == self.cursed:
            self.context.after(0.01, self.die)

    async def die(self) -> None:
        raise Burnt("again")

    async def who(self) -> str:
        return self.context.name


class Foreman(Actor):
    """Has helpers of its own: a supervisor with two, one of them a supervisor, and one without."""

    async def on_start(self) -> None:
        night = ChildSpec("night", Supervisor, args=([ChildSpec("porter", Chef)], "one_for_all"))
        supervisor = self.context.options(name="helpers").spawn(
            Supervisor, [ChildSpec("cook", Chef), night], "rest_for_one"
        )
        self.context.options(name="runner").spawn(Chef)
        await supervisor.wait_started()

    async def burn(self, helper: str) -> None:
        with contextlib.suppress(Burnt):
            await self.context.system.find(f"{self.context.name}/helpers/{helper}").burn()

    async def burn_down(self) -> None:
        raise Burnt("the whole kitchen")

    async def die(self) -> None:
        os._exit(3)

    async def hire(self, many: int) -> None:
        for _ in range(many):
            self.context.spawn(Chef)


class Saboteur(Actor):
    """Brings its process down, or to a standstill, in every way there is."""

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()

    def read_null(self) -> None:
        ctypes.string_at(0)

    async def abort(self) -> None:
        os.abort()

    def hold_the_gil(self) -> None:
        re.match(r"(a+)+$", "a" * 40 + "b")

    async def block_the_loop(self) -> None:
        time.sleep(60)

    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def grind(self, seconds: float) -> None:
        time.sleep(seconds)

    def spin(self, seconds: float) -> float:
        """Uses a whole CPU, in Python."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(1000))
        return seconds


class Soloist(Actor):
    """Has a part to learn, which an understudy may have done beforehand."""

    part: ClassVar[str] = ""

    @classmethod
    def warm(cls, folder: str) -> None:
        notes = Path(folder) / "warm"
        with notes.open("a") as file:
            file.write(f"{os.getpid()} {threading.current_thread().name}\n")
        if Path(folder, "refuse").exists():
            raise Burnt("no voice")
        while Path(folder, "wait").exists():
            time.sleep(0.02)
        cls.part = f"learned by {os.getpid()}, devices {os.environ.get('CUDA_VISIBLE_DEVICES')!r}"

    def __init__(self, folder: str) -> None:
        self.part = type(self).part

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()

    async def sing(self) -> tuple[str, str | None]:
        """What was learned before this life, and the devices it has now."""
        return self.part, os.environ.get("CUDA_VISIBLE_DEVICES")

    async def score(self) -> int:
        return int(Path("/proc/self/oom_score_adj").read_text())


class Player(Actor):
    """A child of the conformance list: counts, writes its diary, and ends as it is told."""

    expected = (UnknownDish,)
    mailbox = 3

    def __init__(self, diary: str, *moods: str) -> None:
        """*moods*: what its starts come to, in this order, and then like the last; "ok" without any."""
        self.diary = Path(diary)
        self.moods = moods or ("ok",)
        self.count = 0
        self.patience = 0.0
        self._write("init")

    def _write(self, line: str) -> None:
        with self.diary.open("a") as file:
            file.write(f"{time.monotonic()} {self.context.name} {self.context.incarnation} {line}\n")

    async def on_start(self) -> None:
        mood = self.moods[min(self.context.incarnation, len(self.moods)) - 1]
        if mood == "fail":
            raise Burnt("at the start")
        self._write("start")

    async def on_stop(self, exit: Exit) -> None:
        self._write("cleans up")
        await asyncio.sleep(self.patience)
        self._write(f"stop {exit}")

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()

    async def add(self) -> int:
        self.count += 1
        if self.count == 100:
            os._exit(9)
        return self.count

    async def need(self, seconds: float) -> None:
        """Take so long for its cleanup."""
        self.patience = seconds

    async def nap(self, seconds: float) -> None:
        self._write("naps")
        await asyncio.sleep(seconds)

    async def end(self, how: str) -> None:
        if how == "error":
            raise Burnt("on request")
        if how == "kill":
            os._exit(9)
        kind, _, detail = how.partition(" ")
        self.context.stop(kind, detail or None)


class Notary(Actor):
    """Writes down what it is told and asked, outside of its process; a gate holds it up."""

    def __init__(self, diary: str) -> None:
        self.diary = Path(diary)

    def _write(self, case: str, number: Any) -> None:
        word = "again" if self.context.redelivered else "first"
        with self.diary.open("a") as file:
            file.write(f"{case} {number} {self.context.incarnation} {os.getpid()} {word}\n")

    async def note(self, case: str, number: int, seconds: float = 0.0, load: bytes = b"") -> int:
        self._write(case, number)
        await asyncio.sleep(seconds)
        return number

    async def hold(self, case: str, gate: str) -> None:
        """Takes until the file *gate* is there."""
        self._write(case, "held")
        while not Path(gate).exists():
            await asyncio.sleep(0.01)

    def choke(self, case: str) -> None:
        """Takes its process down."""
        self._write(case, "choked")
        ctypes.string_at(0)

    async def count(self, seconds: float) -> AsyncIterator[int]:
        for number in itertools.count():
            yield number
            await asyncio.sleep(seconds)

    async def gather(self, case: str, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            self._write(case, number)
            total += 1
        return total

    async def pass_on(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number

    async def who(self) -> tuple[str, int, int]:
        return self.context.name, self.context.incarnation, os.getpid()

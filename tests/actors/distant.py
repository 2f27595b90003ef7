"""The far side of the tests between processes: its actors, and how to start and end such a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from actors import Actor, ActorSystem, Ref, Terminated, idempotent, tracing
from actors.events import DeadLettered, Event
from actors.interceptors import Ended, Interception, Interceptor
from actors.statistics import SystemStatistics

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Unlucky(Exception):
    """Travels as it is."""


class NeedsTwo(Exception):
    """Pickles, but cannot be unpickled: its constructor wants more than `args` holds."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class HoldsLock(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Echo(Actor):
    """Says what it is told, and notes what happens to it."""

    expected = (Exception,)

    def __init__(self) -> None:
        self.notes: list[Any] = []

    async def same(self, value: Any) -> Any:
        return value

    async def note(self, value: Any) -> None:
        self.notes.append(value)

    async def noted(self) -> list[Any]:
        return self.notes

    async def noted_and(self, value: Any) -> tuple[Any, Any]:
        return self.notes[-1], value

    async def cut(self, value: Any, piece: slice) -> Any:
        return value[piece]

    async def sized(self, body: bytes, size: int) -> tuple[bytes, bytes]:
        return body[:4], body[:1] * size

    async def remaining(self) -> float | None:
        return None if self.context.deadline is None else self.context.deadline.remaining()

    async def sender_name(self) -> str | None:
        return None if self.context.sender is None else repr(self.context.sender)

    async def pass_on(self, ref: Ref[Any], method: str, *args: Any) -> Any:
        return await ref.options(timeout=None).ask(method, *args)

    async def nap(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.notes.append("cut")
            raise

    async def fail(self, error: BaseException) -> None:
        raise error

    async def fail_because(self) -> None:
        try:
            {}["stock"]
        except KeyError as error:
            raise Unlucky("no soup") from error

    async def fail_with_lock(self) -> None:
        raise HoldsLock("it is locked")

    async def fail_with_two(self) -> None:
        raise NeedsTwo("salt", "pepper")

    async def fail_unknown(self) -> None:
        raise module_of_this_process().Broken("nobody else has me")

    async def lock(self) -> Any:
        return threading.Lock()

    async def unknown(self) -> Any:
        return module_of_this_process().Thing()

    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    async def endless(self) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.001)
        finally:
            self.notes.append("stream closed")

    async def arrays(self, n: int, size: int) -> AsyncIterator[Any]:
        import numpy

        for number in range(n):
            yield numpy.full(size, float(number))

    async def zeros(self, size: int) -> Any:
        import numpy

        return numpy.zeros(size)

    async def one_then_nothing(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(30)

    async def one_then_failure(self) -> AsyncIterator[int]:
        yield 1
        raise Unlucky("the second is burnt")


class Mill(Actor):
    """Streams in and out, and says how far it came."""

    concurrency = 2000
    mailbox = 2000

    def __init__(self) -> None:
        self.made = 0
        self.notes: list[str] = []

    async def seen(self) -> tuple[int, list[str]]:
        return self.made, self.notes

    async def grind(self, item: Any = None) -> AsyncIterator[Any]:
        """For ever."""
        try:
            while True:
                self.made += 1
                yield self.made if item is None else item
        finally:
            self.notes.append("grind closed")

    def grind_on_thread(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                yield self.made
        finally:
            self.notes.append("grind closed")

    async def part(self, number: int, count: int) -> AsyncIterator[int]:
        for n in range(count):
            yield number + n
            if n % 7 == 0:
                await asyncio.sleep(0)

    async def one_a_turn(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(0)

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    async def total(self, numbers: AsyncIterator[Any]) -> Any:
        total = 0
        async for number in numbers:
            total += number
        return total

    def total_on_thread(self, numbers: Iterator[Any]) -> Any:
        return sum(numbers)

    async def first(self, numbers: AsyncIterator[Any]) -> Any:
        return await anext(numbers)

    async def drain(self, numbers: AsyncIterator[Any]) -> None:
        """Notes what ended it."""
        await self._noting(numbers)

    async def _noting(self, numbers: AsyncIterator[Any]) -> None:
        try:
            async for _ in numbers:
                self.made += 1
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    def drain_on_thread(self, numbers: Iterator[Any]) -> None:
        try:
            for _ in numbers:
                self.made += 1
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    async def pull(self, ref: Ref[Any], method: str) -> None:
        """Reads a stream of another actor for ever, slowly."""
        async for _ in ref.options(timeout=None).ask(method):
            self.made += 1
            await asyncio.sleep(0.001)

    async def feed(self, ref: Ref[Any], method: str) -> None:
        """Feeds another actor for ever, slowly."""

        async def numbers() -> AsyncIterator[int]:
            while True:
                yield 1
                await asyncio.sleep(0.001)

        await ref.options(timeout=None).ask(method, numbers())


class Brittle(Actor):
    """Any exception is its end."""

    async def crash(self, error: BaseException) -> None:
        raise error

    async def crash_with_two(self) -> None:
        raise NeedsTwo("salt", "pepper")

    async def one_then_lock(self) -> AsyncIterator[Any]:
        yield 1
        yield threading.Lock()


class Till(Actor):
    """Its calls may come again."""

    def __init__(self) -> None:
        self.naps = 0

    @idempotent
    async def nap(self, seconds: float) -> None:
        self.naps += 1
        await asyncio.sleep(seconds)

    async def napping(self) -> int:
        return self.naps


class Bystander(Interceptor):
    """Notes what passes in its process."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _note(self, hook: str, call: Interception) -> Ended:
        self.seen.append(f"{hook} {call.target}.{call.method}")
        return lambda error: self.seen.append(f"ended {error}")

    def on_send(self, call: Interception) -> Ended:
        return self._note("send", call)

    def on_handle(self, call: Interception) -> Ended:
        return self._note("handle", call)

    def on_spawn(self, call: Interception) -> None:
        self._note("spawn", call)


class Guest(Actor):
    """Has an interceptor of its own, wherever it is."""

    interceptors = (bystander := Bystander(),)

    async def visit(self, ref: Ref[Any]) -> None:
        await ref.same("hello")

    async def seen(self) -> list[str]:
        return list(self.bystander.seen)


class Relay(Actor):
    """Says in which trace it works, and asks others to."""

    expected = (Exception,)
    concurrency = 100

    def __init__(self) -> None:
        self.notes: list[Any] = []

    async def here(self) -> tuple[str, dict[str, str]]:
        return str(tracing.current_trace()), dict(tracing.current_baggage())

    def here_on_thread(self) -> tuple[str, dict[str, str]]:
        return str(tracing.current_trace()), dict(tracing.current_baggage())

    async def items(self) -> AsyncIterator[str]:
        yield str(tracing.current_trace())
        await asyncio.sleep(0)
        yield str(tracing.current_trace())

    async def along(self, *refs: Ref[Any]) -> list[Any]:
        """What the others along the way say, the last one first, and this one behind them."""
        below = await refs[0].along(*refs[1:]) if refs else []
        return [*below, await self.here()]

    def along_on_threads(self, *refs: Ref[Any]) -> list[Any]:
        below = refs[0].along_on_threads(*refs[1:]).result() if refs else []
        return [*below, self.here_on_thread()]

    async def note(self) -> None:
        self.notes.append(await self.here())

    async def note_later(self) -> None:
        self.context.after(0, self.note)

    async def tell_on(self, ref: Ref[Any]) -> None:
        ref.tell("note")

    async def tell_on_reliably(self, ref: Ref[Any]) -> None:
        await ref.options(reliable=True).tell("note")

    async def noted(self) -> list[Any]:
        return self.notes

    @idempotent
    async def here_once(self) -> tuple[str, dict[str, str]]:
        return await self.here()


class Stagehand(Actor):
    """Starts others in its process, and says what its system knows."""

    def __init__(self, letters: list[DeadLettered]) -> None:
        self.letters = letters

    async def start(
        self, cls: type, name: str | None = None, mailbox: int = 1000, concurrency: int = 1
    ) -> Any:
        return self.context.options(name=name, mailbox=mailbox, concurrency=concurrency).spawn(cls)

    async def statistics(self) -> SystemStatistics:
        return self.context.system.statistics()

    async def dead_letters(self) -> list[DeadLettered]:
        return self.letters


class Watcher(Actor):
    """Tells a probe of its own process how those it watches end."""

    def __init__(self, probe: Any, *refs: Ref[Any]) -> None:
        self.probe = probe
        self.refs = refs

    async def on_start(self) -> None:
        for ref in self.refs:
            self.context.watch(ref)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.probe.record(terminated)


def module_of_this_process() -> Any:
    """A module that no other process can import, with a class and an exception in it."""
    name = "only_there"
    module = sys.modules.get(name)
    if module is None:
        module = sys.modules[name] = types.ModuleType(name)
        module.Thing = type("Thing", (), {"__module__": name})  # type: ignore[attr-defined]
        module.Broken = type("Broken", (Exception,), {"__module__": name})  # type: ignore[attr-defined]
    return module


class Far:
    """Another process with a listening system: an `Echo` named echo, a `Stagehand` named stagehand."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import distant; distant.main()"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), *sys.path]))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._address = ""

    @property
    def address(self) -> str:
        if not self._address:
            assert self.process.stdout is not None
            self._address = json.loads(self.process.stdout.readline())
        return self._address

    def actor(self, system: ActorSystem, name: str) -> Ref[Any]:
        return system.ref(f"{self.address}#{name}")

    def pause(self) -> None:
        """Stop the process where it is."""
        self.process.send_signal(signal.SIGSTOP)
        while "T (stopped)" not in Path(f"/proc/{self.process.pid}/status").read_text():
            pass

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns once the process is gone."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """End it in order; a second time does nothing."""
        if self.process.poll() is None:
            self.resume()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.process.stdout.close()


def main() -> None:
    """The far process: serves until its standard input ends."""
    asyncio.run(_serve())


async def _serve() -> None:
    letters: list[DeadLettered] = []

    def note(event: Event) -> None:
        if isinstance(event, DeadLettered):
            letters.append(event)

    async with ActorSystem(listen=True, sinks=(note,)) as system:
        system.options(name="echo").spawn(Echo)
        system.options(name="stagehand").spawn(Stagehand, letters)
        print(json.dumps(system.address), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

"""
Everywhere: deadlines, replies and refs do the same wherever a program calls from.

Each place plays the same scene, written once for code that waits and once for code that awaits, with
an actor of its own process and with one of another.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import distant
import pytest
from distant import Echo, Far, Unlucky

from actors import (
    Actor,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    DeadlockError,
    InvalidArgument,
    NotFound,
    Ref,
)
from actors.testing import wait_until

Scene = Callable[[Ref[Any]], Any]

SEEN = {
    "a value": "soup",
    "the same again": "soup",
    "an error": "no luck",
    "an outcome": (False, "no luck"),
    "a late one": ("DeadlineExceeded", True),
    "a cancelled one": "Cancelled",
    "a stream": [0, 1, 2],
    "what is left": True,
    "a copy": True,
}


def scene(echo: Ref[Any]) -> dict[str, Any]:
    """What a program sees that waits."""
    seen: dict[str, Any] = {}
    reply = echo.same("soup")
    seen["a value"] = reply.result()
    seen["the same again"] = reply.result(timeout=1)
    try:
        echo.fail(Unlucky("no luck")).result()
    except Unlucky as error:
        seen["an error"] = str(error)
    outcome = echo.fail(Unlucky("no luck")).outcome()
    seen["an outcome"] = (outcome.ok, str(outcome.error))
    try:
        echo.options(timeout=0.05).nap(30).result()
    except DeadlineExceeded as error:
        seen["a late one"] = (type(error).__name__, isinstance(error, TimeoutError))
    reply = echo.nap(30)
    reply.cancel()
    try:
        reply.result()
    except Cancelled as error:
        seen["a cancelled one"] = type(error).__name__
    seen["a stream"] = list(echo.count(3))
    seen["what is left"] = 0 < echo.options(timeout=3).remaining().result() <= 3
    copy = pickle.loads(pickle.dumps(echo))
    seen["a copy"] = copy == echo and copy.same(copy).result() == echo
    return seen


async def async_scene(echo: Ref[Any]) -> dict[str, Any]:
    """What a program sees that awaits."""
    seen: dict[str, Any] = {}
    reply = echo.same("soup")
    seen["a value"] = await reply
    seen["the same again"] = await reply
    try:
        await echo.fail(Unlucky("no luck"))
    except Unlucky as error:
        seen["an error"] = str(error)
    failed = echo.fail(Unlucky("no luck"))
    await asyncio.wait([asyncio.ensure_future(_ended(failed))])
    outcome = failed.outcome()
    seen["an outcome"] = (outcome.ok, str(outcome.error))
    try:
        await echo.options(timeout=0.05).nap(30)
    except DeadlineExceeded as error:
        seen["a late one"] = (type(error).__name__, isinstance(error, TimeoutError))
    reply = echo.nap(30)
    reply.cancel()
    try:
        await reply
    except Cancelled as error:
        seen["a cancelled one"] = type(error).__name__
    seen["a stream"] = [item async for item in echo.count(3)]
    seen["what is left"] = 0 < await echo.options(timeout=3).remaining() <= 3
    copy = pickle.loads(pickle.dumps(echo))
    seen["a copy"] = copy == echo and await copy.same(copy) == echo
    return seen


async def _ended(reply: Any) -> None:
    try:
        await reply
    except Unlucky:
        pass


class Visitor(Actor):
    """Plays the scene in a handler."""

    concurrency = 10

    async def asynchronously(self, echo: Ref[Any]) -> Any:
        return await async_scene(echo)

    async def in_a_task(self, echo: Ref[Any]) -> Any:
        return await asyncio.create_task(async_scene(echo))

    async def on_a_thread_of_its_own(self, echo: Ref[Any]) -> Any:
        return await asyncio.to_thread(scene, echo)

    async def in_an_executor(self, echo: Ref[Any]) -> Any:
        with ThreadPoolExecutor(1) as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, scene, echo)

    def synchronously(self, echo: Ref[Any]) -> Any:
        return scene(echo)

    def on_a_loop_of_its_own(self, echo: Ref[Any]) -> Any:
        return asyncio.run(async_scene(echo))


HANDLERS = [name for name in vars(Visitor) if not name.startswith("_") and callable(getattr(Visitor, name))]


@pytest.fixture(params=["here", "elsewhere"])
def echo_of(request: pytest.FixtureRequest, lasting: Far) -> Callable[[ActorSystem], Ref[Any]]:
    """An actor of a system's own process, or of another one."""
    if request.param == "here":
        return lambda system: system.spawn(Echo)
    return lambda system: lasting.actor(system, "echo")


def listening() -> ActorSystem:
    return ActorSystem(listen=True, sinks=())


@pytest.mark.parametrize("handler", HANDLERS)
async def test_in_handlers(echo_of: Callable[[ActorSystem], Ref[Any]], handler: str) -> None:
    async with listening() as system:
        visitor = system.spawn(Visitor)

        assert await visitor.options(timeout=None).ask(handler, echo_of(system)) == SEEN


async def test_in_asyncio_programs_on_the_loop_of_the_system(
    echo_of: Callable[[ActorSystem], Ref[Any]],
) -> None:
    async with listening() as system:
        assert await async_scene(echo_of(system)) == SEEN


async def test_in_asyncio_programs_on_other_loops(echo_of: Callable[[ActorSystem], Ref[Any]]) -> None:
    async with listening() as system:
        echo = echo_of(system)
        assert await asyncio.to_thread(asyncio.run, async_scene(echo)) == SEEN


def test_in_programs_without_a_loop(echo_of: Callable[[ActorSystem], Ref[Any]]) -> None:
    with listening() as system:
        assert scene(echo_of(system)) == SEEN
        assert asyncio.run(async_scene(echo_of(system))) == SEEN


def test_in_many_threads_at_once(echo_of: Callable[[ActorSystem], Ref[Any]]) -> None:
    with listening() as system, ThreadPoolExecutor(6) as executor:
        echo = echo_of(system)
        scenes: list[Scene] = [scene, lambda echo: asyncio.run(async_scene(echo))] * 3

        assert list(executor.map(lambda play: play(echo), scenes)) == [SEEN] * 6


class Notebook:
    """A kernel: one loop in this thread for all cells, each run on it until it ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def cell(self, code: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(code)

    def close(self) -> None:
        self._loop.close()


def test_in_notebooks_cell_by_cell(echo_of: Callable[[ActorSystem], Ref[Any]]) -> None:
    """A system of its own thread, opened in one cell and used in others, awaited or waited for."""
    notebook = Notebook()
    names: dict[str, Any] = {}

    async def first() -> None:
        names["system"] = listening().__enter__()
        names["echo"] = echo_of(names["system"])

    async def second() -> Any:
        return await async_scene(names["echo"])

    async def third() -> Any:
        names["reply"] = names["echo"].same("read in the next cell")
        return scene(names["echo"])

    async def fourth() -> Any:
        return await names["reply"], names["reply"].result()

    async def last() -> None:
        names["system"].__exit__(None, None, None)

    notebook.cell(first())
    assert notebook.cell(second()) == SEEN
    assert notebook.cell(third()) == SEEN
    assert notebook.cell(fourth()) == ("read in the next cell", "read in the next cell")
    notebook.cell(last())
    notebook.close()


def test_in_notebooks_with_the_system_on_their_loop(echo_of: Callable[[ActorSystem], Ref[Any]]) -> None:
    """Between two cells their loop stands still; what was sent meanwhile is there in the next one."""
    notebook = Notebook()
    system = listening()
    notebook.cell(system.__aenter__())

    assert notebook.cell(async_scene(echo_of(system))) == SEEN
    reply = system.spawn(Echo).same("between")

    async def later() -> Any:
        return await reply

    assert notebook.cell(later()) == "between"
    notebook.cell(system.__aexit__())
    notebook.close()


# -- deadlines are inherited -------------------------------------------------------------------------


class Middle(Actor):
    """Asks others in the time it has itself."""

    async def asynchronously(self, echo: Ref[Any]) -> Any:
        return await echo.options(timeout=None).remaining()

    async def in_a_task(self, echo: Ref[Any]) -> Any:
        return await asyncio.create_task(self.asynchronously(echo))

    async def on_a_thread(self, echo: Ref[Any]) -> Any:
        return await asyncio.to_thread(lambda: echo.options(timeout=None).remaining().result())

    def synchronously(self, echo: Ref[Any]) -> Any:
        return echo.options(timeout=None).remaining().result()

    def on_a_loop_of_its_own(self, echo: Ref[Any]) -> Any:
        return asyncio.run(self.asynchronously(echo))

    async def late(self, echo: Ref[Any]) -> None:
        await echo.options(timeout=None).nap(30)

    def late_on_a_thread(self, echo: Ref[Any]) -> None:
        echo.options(timeout=None).nap(30).result()


@pytest.mark.parametrize("handler", [name for name in vars(Middle) if name.endswith(("ly", "k", "d", "n"))])
async def test_a_nested_ask_has_what_is_left_whatever_the_handler_runs_on(
    echo_of: Callable[[ActorSystem], Ref[Any]], handler: str
) -> None:
    async with listening() as system:
        middle, echo = system.spawn(Middle), echo_of(system)

        if handler.startswith("late"):
            with pytest.raises(DeadlineExceeded):
                await middle.options(timeout=0.1).ask(handler, echo)
            await wait_until(lambda: _was_cut(echo))
            return
        assert 0 < await middle.options(timeout=3).ask(handler, echo) <= 3
        assert await middle.options(timeout=None).ask(handler, echo) is None


async def _was_cut(echo: Ref[Any]) -> bool:
    return "cut" in await echo.noted()


# -- refs go anywhere --------------------------------------------------------------------------------


def use(ref: Ref[Any], said: Any) -> None:
    """A process of another program: it opens a system and uses what it was given."""
    with listening():
        said.put([ref.same("from a child").result(), *ref.count(2), repr(ref)])


@pytest.fixture(scope="module")
def helpers() -> Iterator[None]:
    """Ends the processes that multiprocessing keeps for its whole life: nothing is to be left behind."""
    yield
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_ref_is_an_argument_of_a_process(run_root: Path, helpers: None, method: str) -> None:
    context = multiprocessing.get_context(method)
    said = context.Queue()
    with listening() as system:
        echo = system.options(name="echo").spawn(Echo)
        child = context.Process(target=use, args=(echo, said))
        child.start()

        assert said.get(timeout=30) == ["from a child", 0, 1, "<Ref echo>"]
        child.join(10)
        assert child.exitcode == 0


PROGRAM = """
import pickle, sys
from actors import ActorSystem, InvalidArgument
ref = pickle.load(sys.stdin.buffer)
try:
    ref.same(1)
except InvalidArgument as error:
    print(error)
with ActorSystem(listen=True, sinks=()) as system:
    print(ref.same("from a file").result(), ref.is_alive().result(), ref == pickle.loads(pickle.dumps(ref)))
    print(ref.options(timeout=1).same(ref).result().name)
"""


def test_a_ref_may_lie_in_a_file_until_a_program_has_a_system_for_it(run_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "echo.pickle"
    with listening() as system:
        file.write_bytes(pickle.dumps(system.options(name="echo").spawn(Echo)))
        with file.open("rb") as stdin:
            ran = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                stdin=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(distant.HERE), str(distant.ROOT)])},
                cwd=distant.ROOT,
            )

    assert ran.stdout.splitlines() == [
        "no ActorSystem is open in this process; open one with `async with ActorSystem()`",
        "from a file True True",
        "echo",
    ], ran.stderr


async def test_a_ref_that_came_from_afar_goes_on_to_anybody(lasting: Far, far: Far) -> None:
    """From the second process to this one, on to a third, and back to where it lives."""
    async with listening() as near:
        second, third = lasting.actor(near, "echo"), far.actor(near, "echo")
        hand = lasting.actor(near, "stagehand")
        born_there = await hand.start(Echo)

        assert await third.pass_on(born_there, "same", "to the third") == "to the third"
        assert await second.pass_on(born_there, "same", "home again") == "home again"
        through_both = await third.same(await second.same(born_there))
        assert through_both == born_there
        assert await third.pass_on(second, "pass_on", through_both, "same", "round") == "round"


async def test_a_ref_of_a_system_that_does_not_listen_says_so_elsewhere(lasting: Far) -> None:
    """Nobody could reach it: there is no address to it."""
    async with ActorSystem(sinks=()) as deaf, listening() as near:
        lost = pickle.loads(pickle.dumps(deaf.options(name="lost").spawn(Echo)))
        lost._system = near

        with pytest.raises(NotFound, match="lost"):
            await lost.same(1)


async def test_refs_are_used_by_threads_that_unpickle_them_themselves(run_root: Path) -> None:
    async with listening() as system:
        data = pickle.dumps(system.spawn(Echo))
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(pickle.loads(data).same(n).result()))
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))

        assert sorted(results) == list(range(5))


def test_a_ref_that_is_unpickled_after_a_system_has_ended_belongs_to_the_next(run_root: Path) -> None:
    """On the thread on which the first one received, too: a program may run loops one after the other."""

    async def main() -> Any:
        async with listening() as system, listening() as other:
            echo = other.ref(f"{system.address}#{system.spawn(Echo).name}")
            return await pickle.loads(pickle.dumps(echo)).same("soup")

    assert [asyncio.run(main()) for _ in range(2)] == ["soup", "soup"]


async def test_waiting_on_the_wrong_side_is_told_at_once(run_root: Path) -> None:
    """What cannot work says what to do, instead of hanging."""
    async with listening() as system:
        echo = system.spawn(Echo)
        with pytest.raises(DeadlockError, match="await it"):
            echo.same(1).result()
        with pytest.raises(InvalidArgument, match="opened once"):
            await system.__aenter__()

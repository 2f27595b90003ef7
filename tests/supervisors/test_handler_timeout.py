"""`handler_timeout`: a plain limit on one handler's run, in one process."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument, StartFailed, Unavailable
from actors.events import ActorExited, HandlerAbandoned, ThreadAbandoned
from actors.exit import Exit
from actors.system import ActorSystem
from supervisors import ChildSpec, DynamicSupervisor, Service, Supervisor

release = threading.Event()


class Cook(Actor):
    handler_timeout = 2.0

    async def nap(self) -> None:
        await asyncio.sleep(math.inf)

    async def shrug(self) -> None:
        """Takes no notice of being cancelled."""
        try:
            await asyncio.sleep(math.inf)
        except asyncio.CancelledError:
            await asyncio.sleep(1.2)  # longer than a cancelled handler may take

    def grind(self) -> None:
        release.wait(10)

    async def courses(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(math.inf)

    async def quick(self) -> str:
        return "done"

    async def life(self) -> int:
        return self.context.incarnation


@pytest.fixture(autouse=True)
def let_go() -> Any:
    release.clear()
    yield
    release.set()


@pytest.mark.parametrize("method", ["nap", "grind"])
async def test_the_caller_is_told_and_the_actor_ends_hung(
    system: ActorSystem, clock: Any, events: list[Any], method: str
) -> None:
    cook = system.spawn(Cook)
    await cook.wait_started()
    waiting = asyncio.ensure_future(_outcome(cook.ask(method)))
    await clock.elapse(1.9)
    assert not waiting.done()

    await clock.elapse(0.2)

    error = await waiting
    assert isinstance(error, Unavailable)
    assert (error.may_have_run, error.reason) == (True, "hung")
    assert str(error) == f"cook-1.{method}() ran longer than its handler_timeout (2 s)"
    exit = await cook.wait_stopped()
    assert exit.kind == "hung"
    assert str(exit.detail).startswith("handler_timeout")
    abandoned = [event for event in events if isinstance(event, ThreadAbandoned)]
    assert len(abandoned) == (method == "grind")


async def _outcome(reply: Any) -> BaseException | None:
    try:
        await reply
    except Exception as error:
        return error
    return None


async def test_a_handler_that_will_not_be_cancelled_is_left_behind_and_told(
    system: ActorSystem, clock: Any, events: list[Any]
) -> None:
    cook = system.spawn(Cook)
    await cook.wait_started()
    waiting = asyncio.ensure_future(_outcome(cook.ask("shrug")))
    await clock.elapse(2.1)

    assert isinstance(await waiting, Unavailable)
    assert (await cook.wait_stopped()).kind == "hung"
    assert [event.actor for event in events if isinstance(event, HandlerAbandoned)] == ["cook-1"]


async def test_a_stream_is_one_run(system: ActorSystem, clock: Any) -> None:
    cook = system.spawn(Cook)
    items = aiter(cook.stream("courses"))
    assert await anext(items) == 1

    await clock.elapse(2.1)

    with pytest.raises(Unavailable):
        await anext(items)


async def test_what_ends_in_time_is_never_touched(system: ActorSystem, clock: Any) -> None:
    cook = system.spawn(Cook)
    assert await cook.quick() == "done"

    await clock.elapse(100)

    assert await cook.quick() == "done"


async def test_a_supervisor_restarts_what_hung(system: ActorSystem, clock: Any) -> None:
    child = ChildSpec("cook", Cook, handler_timeout=1.0)
    supervisor = system.spawn(Supervisor, [child])
    await supervisor.wait_started()
    cook = (await supervisor.which_children())[0].ref
    waiting = asyncio.ensure_future(_outcome(cook.ask("nap")))
    await clock.elapse(1.1)

    assert isinstance(await waiting, Unavailable)
    assert await cook.life() == 2
    last_exit = (await supervisor.which_children())[0].last_exit
    assert last_exit is not None
    assert last_exit.kind == "hung"


async def test_a_dynamic_supervisor_hands_it_to_its_children(system: ActorSystem, clock: Any) -> None:
    supervisor = system.spawn(DynamicSupervisor, Cook, handler_timeout=1.0)
    cook = await supervisor.start_child()
    waiting = asyncio.ensure_future(_outcome(cook.ask("nap")))

    await clock.elapse(1.1)

    assert getattr(await waiting, "reason", None) == "hung"


async def test_a_stop_that_drains_is_not_cut_shorter(
    system: ActorSystem, clock: Any, events: list[Any]
) -> None:
    cook = system.spawn(Cook)
    await cook.wait_started()
    waiting = asyncio.ensure_future(_outcome(cook.options(timeout=60).ask("nap")))
    await clock.elapse(1.0)
    cook.stop()
    await clock.elapse(2.0)
    assert not waiting.done()

    await clock.elapse(5.0)

    assert isinstance(await waiting, Unavailable)
    overran = Exit("killed", "overran its shutdown time")
    assert [event.exit for event in events if isinstance(event, ActorExited)] == [overran]


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "1", True])
async def test_wrong_limits_are_refused_where_they_are_written(system: ActorSystem, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="handler_timeout"):
        system.options(handler_timeout=wrong).spawn(Cook)
    with pytest.raises(InvalidArgument, match=r"ChildSpec handler_timeout="):
        ChildSpec("a", Cook, handler_timeout=wrong)
    with pytest.raises(StartFailed, match=r"DynamicSupervisor handler_timeout="):
        await system.spawn(DynamicSupervisor, Cook, handler_timeout=wrong).wait_started()
    with pytest.raises(InvalidArgument, match=r"Service 'a': handler_timeout="):
        Service("a", Cook, handler_timeout=wrong)
    with pytest.raises(InvalidArgument, match=r"Wrong\.handler_timeout"):
        type("Wrong", (Actor,), {"handler_timeout": wrong})


def test_the_class_gives_the_default() -> None:
    assert Actor.handler_timeout == math.inf
    assert Service("a", Cook).plan().handler_timeout == 2.0
    assert Service("a", Cook, handler_timeout=3.0).plan().handler_timeout == 3.0

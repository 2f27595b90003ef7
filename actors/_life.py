"""
Lives: one incarnation of one actor. Its instance, its running handlers, its timers, its children.

A life is built, runs until something ends it, and is taken down: running handlers get
the shutdown time, `on_stop` runs after a clean end, children end last. The cell
outlives it and may begin another.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._drive import drive
from actors._incoming import again
from actors._message import HookMessage, Message
from actors._threads import Worker
from actors._timers import Timers
from actors.actor import Actor, has_sync_methods
from actors.blame import blame
from actors.context import Context
from actors.errors import StartFailed, Unavailable
from actors.events import ErrorUnanswered, HandlerAbandoned, ThreadAbandoned
from actors.exit import Exit, Ignore

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors.children import Overseer

_CANCEL_GRACE = 1.0
"""Seconds a cancelled handler may take to unwind before it is left to itself."""


class Life:
    """One incarnation. Loop thread only, but for `request_stop` and timers."""

    __slots__ = (
        "_hurried_by",
        "_stopping",
        "_timers",
        "cell",
        "children",
        "context",
        "end_wanted",
        "handled",
        "has_worked",
        "idle",
        "incarnation",
        "instance",
        "is_begun",
        "is_over",
        "numbers",
        "on_stopping",
        "overseer",
        "own_worker",
        "runners",
        "running",
        "serves_early",
        "stepping",
        "task",
        "watches",
    )

    def __init__(self, cell: Cell, incarnation: int) -> None:
        self.cell = cell
        self.incarnation = incarnation
        self.context = Context(self)
        self.instance: Any = None
        self.handled = 0
        """Messages finished without crashing."""
        self.runners = 0
        """Tasks that take messages from the mailbox now."""
        self.running: dict[Message, None] = {}
        """Messages whose handlers wait for something, the oldest first."""
        self.stepping: Message | None = None
        """The message whose handler makes a step at this very moment, if that is its first."""
        self.idle: asyncio.Future[None] | None = None
        """Set when somebody waits for the last runner to end."""
        self.task: asyncio.Task[None] | None = None
        """The task that starts this life."""
        # A dict for its order: the end of one of ten thousand children must not look at the others.
        self.children: dict[Cell, None] = {}
        """What it spawned, the youngest last."""
        self.numbers: dict[str, itertools.count[int]] = {}
        """For the names of children, by class."""
        self.watches: dict[Any, Any] | None = None
        """What undoes each of its watches, by what is watched."""
        self.own_worker: Worker | None = None
        self.end_wanted: Exit | None = None
        """Set by `context.stop` and by a stop that comes while it starts."""
        self.is_begun = False
        """True once its first step was made; a task cancelled before would never run."""
        self.is_over = False
        """True once no more handler runs: it can spawn and watch no longer."""
        self.has_worked = False
        """True once the owner knows that a message was finished."""
        self.serves_early = False
        """True once `on_start` has asked to take messages before it returns."""
        self.on_stopping: Callable[[], None] | None = None
        """Called when an orderly stop begins, before it waits for running handlers."""
        self.overseer: Overseer | None = None
        """What a supervisor knows of its children beyond what they know themselves."""
        self._timers: Timers | None = None
        self._stopping: asyncio.Task[Any] | None = None
        """`on_stop` while it runs."""
        self._hurried_by: Exit | None = None
        """The kill that came while it ended."""

    @property
    def is_busy(self) -> bool:
        """True while a handler runs."""
        return self.stepping is not None or bool(self.running)

    # -- beginning -----------------------------------------------------------------

    async def begin(self) -> None:
        """Build the instance and run `on_start`. `Ignore`, or `StartFailed` with the user's error below."""
        try:
            await self._construct()
            await self._call_hook(self.instance.on_start)
        except (Ignore, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            raise StartFailed(f"{self.cell.name} failed to start: {type(error).__name__}: {error}") from error

    async def _construct(self) -> None:
        cell = self.cell
        instance: Any = cell.cls.__new__(cell.cls)
        instance.context = self.context
        self.instance = instance
        if cell.cls.own_thread or has_sync_methods(cell.cls):
            await self._on_thread(instance.__init__, *cell.args, **cell.kwargs)
        else:
            context = cell.system._fresh_context(HookMessage(self))
            context.run(instance.__init__, *cell.args, **cell.kwargs)

    async def _call_hook(self, hook: Callable[..., Any], *args: Any) -> None:
        run = self.cell.system._fresh_context(HookMessage(self)).run
        if inspect.iscoroutinefunction(hook):
            await drive(run(hook, *args), run)
        else:
            result = await self._on_thread(hook, *args)
            if inspect.isawaitable(result):
                await drive(result.__await__(), run)

    async def _on_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        worker = await self.lease()
        context = self.cell.system._fresh_context(HookMessage(self))
        try:
            result = await worker.run(context, function, *args, **kwargs)
        except asyncio.CancelledError:
            self.abandon(worker)
            raise
        except BaseException:
            self.release(worker)
            raise
        self.release(worker)
        return result

    # -- threads -------------------------------------------------------------------

    async def lease(self) -> Worker:
        """A thread for `def` code of this actor."""
        if self.own_worker is not None:
            return self.own_worker
        worker = await self.cell.system._threads.lease()
        if self.cell.cls.own_thread:
            self.own_worker = worker
        return worker

    def release(self, worker: Worker) -> None:
        """Give a leased thread back, unless it is this actor's own."""
        if worker is not self.own_worker:
            self.cell.system._threads.release(worker)

    def abandon(self, worker: Worker) -> None:
        """Leave a thread to the handler that does not return."""
        if worker is self.own_worker:
            self.own_worker = None
        self.cell.system._threads.abandon(worker)
        self.cell.system._emit(ThreadAbandoned(self.cell.name))

    # -- ending --------------------------------------------------------------------

    def request_stop(self, exit: Exit) -> None:
        """End when the running handler has returned; any thread."""
        self.end_wanted = exit
        self.cell.system._on_loop(self.cell.stop_if_idle, self)

    def hurry(self, exit: Exit) -> None:
        """A kill while it ends: what still runs gets no more time, its children neither."""
        self._hurried_by = exit
        if self.idle is not None:
            _settle(self.idle)
        if self._stopping is not None:
            self._stopping.cancel()
        for child in list(self.children):
            child.end_soon(Exit("killed", "parent"), 0.0)

    async def end(self, exit: Exit, shutdown: float, *, was_started: bool) -> Exit:
        """
        Take this life down, and say what it came to: who overran its shutdown time was killed.

        Never raises: what `on_stop` raises is reported.
        """
        in_order = exit.is_clean and was_started and shutdown > 0
        if in_order and self.on_stopping is not None:
            self.on_stopping()
        if self._timers is not None:
            self._timers.cancel_all()
        clock = self.cell.system.clock
        gives_up_at = clock.now() + shutdown
        was_cut = False
        if self.runners and shutdown > 0 and self._hurried_by is None:
            await self._wait_idle(shutdown)
        if self.runners:
            was_cut = True
            await self._cut_short()
        self.is_over = True
        if in_order and not was_cut and self._hurried_by is None:
            was_cut = not await self._run_on_stop(exit, max(0.0, gives_up_at - clock.now()))
        if was_cut and exit.is_clean:
            exit = self._hurried_by or Exit("killed", "overran its shutdown time")
        await self.end_children(exit)
        if self._timers is not None:
            self._timers.cancel_all()
        self.cell.system._watches.forget(self)
        if self.own_worker is not None:
            worker, self.own_worker = self.own_worker, None
            self.cell.system._threads.release(worker)
        return exit

    async def _wait_idle(self, limit: float) -> None:
        """Wait until no handler runs, at most *limit* seconds of the system's clock."""
        self.idle = idle = asyncio.get_running_loop().create_future()
        timer = (
            None if limit == math.inf else self.cell.system.clock.call_later(limit, partial(_settle, idle))
        )
        try:
            await idle
        finally:
            self.idle = None
            if timer is not None:
                timer.cancel()

    async def _cut_short(self) -> None:
        for message in reversed(list(self.running)):
            if message.receipt is not None:
                again(message)
        for message in list(self.running):
            message.cancelled = message.cancelled or "stop"
            answer, message.answer = message.answer, None
            if answer is not None:
                problem = f"{self.cell.name} was stopped while it ran {message.method}()"
                answer._answer_error(blame(Unavailable(problem, reason="stopped"), self.cell.name))
            if message.task is not None:
                message.task.cancel()  # a thread's handler is abandoned by this
        # Real seconds, whatever the system's clock: a cancelled coroutine only has to unwind.
        self.idle = idle = asyncio.get_running_loop().create_future()
        if self.runners:
            await asyncio.wait([idle], timeout=_CANCEL_GRACE)
        self.idle = None
        if self.runners:
            self.cell.system._emit(HandlerAbandoned(self.cell.name))

    async def _run_on_stop(self, exit: Exit, limit: float) -> bool:
        """Run the hook; False when it was cut short."""
        if type(self.instance).on_stop is Actor.on_stop:
            return True
        self._stopping = work = asyncio.ensure_future(self._caught(self.instance.on_stop, exit))
        timer = (
            None if limit == math.inf else self.cell.system.clock.call_later(limit, partial(_cancel, work))
        )
        try:
            await asyncio.wait([work])
        finally:
            self._stopping = None
            if timer is not None:
                timer.cancel()
            work.cancel()
        if work.cancelled():
            if self._hurried_by is None:
                self._report(f"on_stop took longer than the shutdown time ({limit:g} s were left)", None)
            return False
        if (error := work.result()) is not None:
            self._report("on_stop raised", error)
        return True

    async def _caught(self, hook: Callable[..., Any], *args: Any) -> BaseException | None:
        # A SystemExit that leaves a task ends the whole loop.
        try:
            await self._call_hook(hook, *args)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            return error
        return None

    def _report(self, reason: str, error: BaseException | None) -> None:
        self.cell.system._emit(ErrorUnanswered(self.cell.name, "on_stop", error, reason))

    async def end_children(self, exit: Exit) -> None:
        """Stop what this life started, the youngest first, each within its own shutdown time."""
        reason = exit if exit.is_clean else Exit("shutdown", "parent")
        while self.children:
            child = next(reversed(self.children))
            await child.stop_for_good(reason)
            self.children.pop(child, None)

    @property
    def timers(self) -> Timers:
        """Made on first use."""
        if self._timers is None:
            self._timers = Timers(self)
        return self._timers


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()

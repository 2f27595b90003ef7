"""
Lives: one incarnation of one actor. Its instance, its running handlers, its timers, its children.

A life is built, runs until something ends it, and is taken down: running handlers get
the shutdown time, `on_stop` runs after a clean end, children end last. The cell
outlives it and may begin another.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._drive import drive
from actors._message import Message
from actors._threads import Worker
from actors.actor import has_sync_methods, timer_methods_of
from actors.context import Context, TimerHandle
from actors.errors import StartFailed, Unavailable
from actors.events import ThreadAbandoned
from actors.exit import Exit, Ignore

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors.clock import Timer

_CANCEL_GRACE = 1.0
"""Seconds a cancelled handler may take to unwind before it is left to itself."""


class Life:
    """One incarnation. Loop thread only, but for `request_stop` and timers."""

    __slots__ = (
        "cell",
        "children",
        "context",
        "end_wanted",
        "handled",
        "has_worked",
        "idle",
        "incarnation",
        "instance",
        "is_over",
        "own_worker",
        "runners",
        "running",
        "serves_early",
        "task",
        "timers",
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
        self.running: list[Message] = []
        """Messages whose handlers run now."""
        self.idle: asyncio.Future[None] | None = None
        """Set when somebody waits for the last runner to end."""
        self.task: asyncio.Task[None] | None = None
        """The task that starts this life, later the one that ends it."""
        self.children: list[Cell] = []
        self.timers: dict[Any, _Repeating] | None = None
        self.watches: dict[Any, Any] | None = None
        self.own_worker: Worker | None = None
        self.end_wanted: Exit | None = None
        self.is_over = False
        self.has_worked = False
        """True once the owner knows that a message was finished."""
        self.serves_early = False
        """True once `on_start` has asked to take messages before it returns."""

    # -- beginning -----------------------------------------------------------------

    async def begin(self) -> None:
        """Build the instance and run `on_start`. Raises `Ignore`, `StartFailed` (the user's error as cause)."""
        try:
            await self._construct()
            await self._call_hook(self.instance.on_start)
        except (Ignore, asyncio.CancelledError):
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise StartFailed(f"{self.cell.name} failed to start: {type(error).__name__}: {error}") from error

    async def _construct(self) -> None:
        cell = self.cell
        instance: Any = cell.cls.__new__(cell.cls)
        instance.context = self.context
        self.instance = instance
        build = instance.__init__
        if not (cell.cls.own_thread or has_sync_methods(cell.cls)):
            self._context_run(build, *cell.args, **cell.kwargs)
        else:
            await self._on_thread(build, *cell.args, **cell.kwargs)

    async def _call_hook(self, hook: Callable[..., Any], *args: Any) -> None:
        if inspect.iscoroutinefunction(hook):
            await drive(self._context_run(hook, *args), self._context_run)
        else:
            result = await self._on_thread(hook, *args)
            if inspect.isawaitable(result):
                await result

    def _context_run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.cell.system._fresh_context(_HookMessage(self.cell)).run(function, *args, **kwargs)

    async def _on_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        worker = await self.lease()
        context = self.cell.system._fresh_context(_HookMessage(self.cell))
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

    async def end(self, exit: Exit, shutdown: float, *, was_started: bool) -> None:
        """Take this life down. Never raises: what `on_stop` raises is reported."""
        self._stop_timers()
        clock = self.cell.system.clock
        gives_up_at = clock.now() + shutdown
        if self.runners:
            await self._wait_idle(shutdown)
        if self.runners:
            await self._cut_short()
        self.is_over = True
        if exit.is_clean and was_started and shutdown > 0:
            await self._run_on_stop(exit, max(0.0, gives_up_at - clock.now()))
        self._stop_timers()
        await self.end_children(exit)
        self.cell.system._forget_watches(self)
        if self.own_worker is not None:
            worker, self.own_worker = self.own_worker, None
            self.cell.system._threads.release(worker)

    async def _wait_idle(self, limit: float) -> None:
        """Wait until no handler runs, at most *limit* seconds of the system's clock."""
        if limit <= 0:
            return
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
        for message in list(self.running):
            message.cancelled = message.cancelled or "stop"
            if message.answer is not None:
                message.answer._answer_error(
                    Unavailable(
                        f"{self.cell.name} was stopped while it ran {message.method}()", reason="stopped"
                    )
                )
            if message.task is not None:
                message.task.cancel()  # a thread's handler is abandoned by this
        # Real seconds, whatever the system's clock: a cancelled coroutine only has to unwind.
        self.idle = idle = asyncio.get_running_loop().create_future()
        if self.runners:
            await asyncio.wait([idle], timeout=_CANCEL_GRACE)
        self.idle = None

    async def _run_on_stop(self, exit: Exit, limit: float) -> None:
        from actors.actor import Actor

        if type(self.instance).on_stop is Actor.on_stop:
            return
        work = asyncio.ensure_future(self._call_hook(self.instance.on_stop, exit))
        timer = None if limit == math.inf else self.cell.system.clock.call_later(limit, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            if not work.cancelled():
                work.cancel()
                raise
            self.cell.system._report_failed_stop(
                self.cell, f"on_stop took longer than the shutdown time ({limit:g} s were left)", None
            )
        except Exception as error:
            self.cell.system._report_failed_stop(self.cell, "on_stop raised", error)
        finally:
            if timer is not None:
                timer.cancel()

    async def end_children(self, exit: Exit) -> None:
        """Stop what this life started, the youngest first, each within its own shutdown time."""
        reason = exit if exit.is_clean else Exit("shutdown", "parent")
        while self.children:
            child = self.children[-1]
            await child.stop_for_good(reason)
            if self.children and self.children[-1] is child:
                self.children.pop()

    # -- timers --------------------------------------------------------------------

    def start_timer(
        self, key: Any, delay: float, period: float | None, name: str, args: tuple[Any, ...]
    ) -> TimerHandle:
        """Begin a timer; see `Context.after`."""
        timer = _Repeating(self, key if key is not None else object(), period, name, args)
        self.cell.system._on_loop(timer.begin, delay)
        return TimerHandle(partial(self.cell.system._on_loop, timer.cancel))

    def _stop_timers(self) -> None:
        for timer in list((self.timers or {}).values()):
            timer.cancel()


class _HookMessage(Message):
    """Stands for the runtime itself while `__init__`, `on_start` and `on_stop` run: no sender, no deadline."""

    __slots__ = ()

    def __init__(self, cell: Cell) -> None:
        super().__init__("on_start", (), {}, None)
        self.cell = cell


class _Repeating:
    """A timer of one life: sends a method to its own actor once, or again and again."""

    __slots__ = ("_args", "_key", "_life", "_message", "_method", "_period", "_timer")

    def __init__(
        self, life: Life, key: Any, period: float | None, method: str, args: tuple[Any, ...]
    ) -> None:
        self._life = life
        self._key = key
        self._period = period
        self._method = method
        self._args = args
        self._timer: Timer | None = None
        self._message: Message | None = None

    def begin(self, delay: float) -> None:
        life = self._life
        if life.is_over:
            return
        if life.timers is None:
            life.timers = {}
        if (older := life.timers.get(self._key)) is not None:
            older.cancel()
        life.timers[self._key] = self
        self._timer = life.cell.system.clock.call_later(delay, self._tick)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timers = self._life.timers
        if timers is not None and timers.get(self._key) is self:
            del timers[self._key]

    def _tick(self) -> None:
        life = self._life
        if self._period is None:
            self.cancel()
        else:
            self._timer = life.cell.system.clock.call_later(self._period, self._tick)
        if self._message is None or not self._message.waits:
            self._message = TimerMessage(self._method, self._args, life)
            life.cell.deliver(self._message)


class TimerMessage(Message):
    """A timer's tick. Meant for the life that started the timer, no other."""

    __slots__ = ("life", "waits")

    def __init__(self, method: str, args: tuple[Any, ...], life: Life) -> None:
        super().__init__(method, args, {}, None)
        self.life = life
        self.waits = True
        """True until a handler takes it: a late tick is not followed by another."""

    @property
    def methods(self) -> dict[str, Any]:
        return timer_methods_of(self.life.cell.cls)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

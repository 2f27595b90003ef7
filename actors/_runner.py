"""
Runners: they take messages from a mailbox and run their handlers, one after the other.

A cell sets as many to work as its concurrency allows; each stops when the mailbox is
empty and waits for the next cell that needs one. A handler ends with a value, with an
error that is an answer, with one that is a crash, or cut short; whoever waits is
answered in every case.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import Context as ContextVars
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import foreign
from actors._drive import drive, resume
from actors._message import Message, TimerMessage, current_message
from actors.actor import Method, hook_of, unknown_method
from actors.errors import (
    ActorError,
    ActorStopped,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    Refusal,
    Unavailable,
    UnknownMethod,
)
from actors.events import ErrorUnanswered
from actors.exit import Exit
from actors.reply import is_passed_through, mark_passed_through

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._life import Life
    from actors._threads import Worker
    from actors.system import ActorSystem

_TURN = 64
"""Messages a busy actor handles before others on the loop get their turn."""

_WAITING = 8
"""Runners that may wait for work in one process; a new one costs 8 µs, a waiting one 1.4 KB."""

_NOT_BEGUN = object()
_STREAMED = object()
_END = object()


class Runner:
    """Handles messages for one life at a time, in a task that waits for the next one in between."""

    __slots__ = (
        "_begun",
        "_cell",
        "_cut_from_outside",
        "_life",
        "_rung",
        "_runners",
        "_task",
        "_worker",
    )

    def __init__(self, runners: Runners) -> None:
        self._runners = runners
        self._cell: Cell = None  # type: ignore[assignment]
        self._life: Life = None  # type: ignore[assignment]
        """Whom it works for; None while it waits."""
        self._begun: tuple[Message, Method, Any] | None = None
        """A message whose handler has made its first step elsewhere (`handle_now`)."""
        self._rung: asyncio.Future[None] | None = None
        """What it waits for between two lives."""
        self._worker: Worker | None = None
        self._cut_from_outside = False
        """True when the loop itself is being taken down."""
        self._task = runners.system._task(self._run())

    def engage(self, cell: Cell, life: Life) -> None:
        """Work for *life* until its mailbox is empty."""
        self._cell, self._life = cell, life
        self._ring()

    def dismiss(self) -> None:
        """End; for one that waits."""
        self._cut_from_outside = True
        self._ring()

    def _ring(self) -> None:
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)

    async def _run(self) -> None:
        while await self._is_wanted():
            cell, life = self._cell, self._life
            try:
                await self._burst()
            finally:
                if self._worker is not None:
                    life.release(self._worker)
                    self._worker = None
                self._cell = self._life = None  # type: ignore[assignment]
                cell.runner_ended(life)
            if self._cut_from_outside or not self._runners.take_back(self):
                return

    async def _is_wanted(self) -> bool:
        """Wait for a life to work for; False at the end."""
        while self._life is None and not self._cut_from_outside:
            self._rung = asyncio.get_running_loop().create_future()
            try:
                await self._rung
            except asyncio.CancelledError:
                # Of a handler that made its first step in this task's name, or of the whole loop.
                if self._task.cancelling() and self._begun is None:
                    self._runners.forget(self)
                    return False
                if self._begun is not None:
                    self._task.uncancel()
                    self._task.cancel()  # comes again where the handler waits
        return self._life is not None

    # -- one life ------------------------------------------------------------------------

    def handle_now(self, cell: Cell, life: Life, message: Message) -> None:
        """
        Begin to handle *message* here and now, in no task but in this one's name; it waits so far.

        A handler that never waits is done on return. Saves two turns of the loop and a
        switch of tasks; with answers that leave in the same turn, 65 µs of the 332 that a
        question between two processes took.
        """
        self._cell, self._life = cell, life
        method = self._admit(message)
        rest = None
        if method is not None:
            self._begin(message, method)
            try:
                asyncio.tasks._enter_task(self._runners.loop, self._task)
                try:
                    rest = self._step(message, method)
                finally:
                    asyncio.tasks._leave_task(self._runners.loop, self._task)
            finally:
                if rest is None:
                    self._end(message)
            if rest is not None:
                self._begun = (message, method, rest)
                self._ring()
                return
        self._cell = self._life = None  # type: ignore[assignment]
        cell.runner_ended(life)
        if not self._cut_from_outside:
            self._runners.take_back(self)

    async def _burst(self) -> None:
        """Handle messages until none is left."""
        cell, life = self._cell, self._life
        counts = cell.system._counts
        take, admit, step, end = cell.mailbox.take, self._admit, self._step, self._end
        if self._begun is not None:
            message, method, rest = self._begun
            self._begun = None
            try:
                await self._handle(message, method, rest)
            finally:
                self._end(message)
        turn = 0
        while cell.serves(life) and not self._cut_from_outside:
            taken = take()
            if taken is None:
                return
            found = admit(taken)
            if found is None:
                continue
            self._begin(taken, found)
            try:
                # A handler that never waits is done after its first step: no coroutine of ours for it.
                rest = step(taken, found)
                if rest is not None:
                    await self._handle(taken, found, rest)
            finally:
                end(taken)
            turn += 1
            if turn % _TURN == 0:
                counts.resuming += 1
                await asyncio.sleep(0)
                counts.resuming -= 1

    def _begin(self, message: Message, method: Method) -> None:
        cell, life = self._cell, self._life
        message.life = life
        message.task = self._task
        life.running[message] = None
        cell.system._counts.begun += 1
        if cell.handler_timeout != math.inf:
            overrun = partial(self._overran, message)
            message.watch = cell.system.clock.call_later(cell.handler_timeout, overrun)

    def _step(self, message: Message, method: Method) -> Any:
        """Begin: None when the message is answered, else what is left to await."""
        if method.is_wrapped and (misfit := method.misfit(message.args, message.kwargs)):
            self._answer_failure(message, self._misfit(message, misfit))
            return None
        return self._first_step(message, method) if method.kind == "async" else _NOT_BEGUN

    def _end(self, message: Message) -> None:
        """A message has been handled, however that ended."""
        cell, life, task = self._cell, self._life, self._task
        if message.watch is not None:
            message.watch.cancel()
            message.watch = None
        message.task = message.answer = None  # an error's traceback may keep the message
        if message.receipt is not None:
            message.receipt.ended()
        del life.running[message]
        cell.system._counts.handled += 1
        if task.cancelling():
            # A cancel ends with its message, also when the handler took no notice.
            while task.uncancel():
                pass
        if life.handled and not life.has_worked:
            life.has_worked = True
            cell.owner.child_worked(cell)

    def _admit(self, message: Message) -> Method | None:
        """The method to run for *message*, or None when it has been answered without running."""
        cell, life = self._cell, self._life
        if message.is_special:
            return self._admit_special(message)
        if message.deadline_at != math.inf and message.deadline_at <= cell.system.clock.now():
            cell.dead_letter(message, "expired", _not_in_time(message))
            return None
        if message.pin and message.pin != life.incarnation:
            over = f"incarnation {message.pin} of {cell.name} is over, {life.incarnation} runs"
            cell.dead_letter(message, "incarnation over", ActorStopped(over))
            return None
        method = cell.methods.get(message.method)
        if method is None:
            unknown = UnknownMethod(unknown_method(cell.cls, message.method))
            cell.dead_letter(message, "unknown method", unknown)
            return None
        if message.foreign:
            try:
                message.args = foreign.arguments(message.args[0] if message.args else None)
            except InvalidArgument as error:
                cell.dead_letter(message, "invalid argument", error)
                return None
        return method

    def _admit_special(self, message: Message) -> Method | None:
        cell, life = self._cell, self._life
        if isinstance(message, TimerMessage):
            message.waits = False
            if message.life is life:
                return message.function
            cell.dead_letter(message, "timer of an earlier life", None)
            return None
        return hook_of(cell.cls, "on_terminated")

    def _first_step(self, message: Message, method: Method) -> Any:
        """Begin an async handler: None when it has ended and is answered, else what is left to await."""
        life = self._life
        run = self._runners.base_context.copy().run
        try:
            run(current_message.set, message)
            coroutine = run(method.function, life.instance, *message.args, **message.kwargs)
            future = run(coroutine.send, None)
        except StopIteration as stop:
            life.handled += 1
            if (answer := message.answer) is not None:
                answer._answer(foreign.to_json(stop.value) if message.foreign else stop.value)
            return None
        except asyncio.CancelledError:
            self._cut(message)
            return None
        except BaseException as error:
            self._failed(message, method, error)
            return None
        return resume(coroutine, run, future)

    def _answer(self, message: Message, result: Any) -> None:
        self._life.handled += 1
        if (answer := message.answer) is not None:
            answer._answer(foreign.to_json(result) if message.foreign else result)

    async def _handle(self, message: Message, method: Method, rest: Any) -> None:
        """Run a handler that takes its time, and answer."""
        life = self._life
        try:
            if rest is not _NOT_BEGUN:
                result = await self._suspended(message, rest)
            elif method.kind == "stream":
                run = life.cell.system._fresh_context(message).run
                items = run(method.function, life.instance, *message.args, **message.kwargs)
                await self._stream(message, items, run)
                result = _STREAMED
            else:
                context = life.cell.system._fresh_context(message)
                result = await self._on_thread(message, method, context)
        except asyncio.CancelledError:
            self._cut(message)
        except BaseException as error:
            self._failed(message, method, error)
        else:
            if result is not _STREAMED:
                self._answer(message, result)
                return
            life.handled += 1
            if message.answer is not None:
                message.answer._answer_end()

    async def _suspended(self, message: Message, rest: Any) -> Any:
        """Go on with a handler that awaits; its deadline cancels it from now on."""
        if message.deadline_at == math.inf:
            return await rest
        clock = self._cell.system.clock
        timer = clock.call_later(message.deadline_at - clock.now(), partial(_out_of_time, message))
        try:
            return await rest
        finally:
            timer.cancel()

    async def _stream(self, message: Message, items: Any, run: Any) -> None:
        # The caller's timeout is the one between items, and the caller watches it: what the
        # handler asks of others meanwhile is not bound by the time of the first item.
        message.deadline_at = math.inf
        count = 0
        try:
            while True:
                try:
                    item = await drive(items.__anext__(), run)
                except StopAsyncIteration:
                    return
                self._send_item(message, item)
                count += 1
                if count % _TURN == 0:
                    await asyncio.sleep(0)  # a generator that never waits must still hear of a cancel
        finally:
            await drive(items.aclose(), run)

    async def _on_thread(self, message: Message, method: Method, context: Any) -> Any:
        life = self._life
        if self._worker is None:
            self._worker = await life.lease()
            if message.deadline_at <= self._cell.system.clock.now():
                late = _not_in_time(message)
                mark_passed_through(late)  # an answer: nothing of the actor has run
                raise late
        worker = self._worker
        message.threaded = True
        job = worker.run(context, method.function, life.instance, *message.args, **message.kwargs)
        try:
            result = await job
            if method.kind == "sync_stream":
                await self._sync_stream(message, result, worker, context)
                return _STREAMED
        except asyncio.CancelledError:
            if message.cancelled == "stop" or job.cancelled():
                # Nothing ends a thread from outside: it is left alone.
                self._worker = None
                life.abandon(worker)
            raise
        message.threaded = False
        if asyncio.iscoroutine(result):
            return await self._suspended(message, drive(result, context.run))
        return result

    async def _sync_stream(self, message: Message, items: Any, worker: Worker, context: Any) -> None:
        message.deadline_at = math.inf
        try:
            while not message.cancelled:
                item = await worker.run(context, next, items, _END)
                if item is _END:
                    return
                self._send_item(message, item)
        except asyncio.CancelledError:
            raise  # its thread is abandoned, nothing more can be run there
        except BaseException:
            await worker.run(context, items.close)
            raise
        await worker.run(context, items.close)

    def _send_item(self, message: Message, item: Any) -> None:
        if message.answer is not None:
            message.answer._answer_item(foreign.to_json(item) if message.foreign else item)

    # -- how handlers end otherwise ----------------------------------------------------

    def _cut(self, message: Message) -> None:
        """A handler was cancelled: by its caller, its deadline, a stop, or its own code. Never a crash."""
        task = asyncio.current_task()
        self._cut_from_outside = not message.cancelled and task is not None and task.cancelling() > 0
        if message.answer is not None and message.cancelled not in ("caller", "deadline"):
            # In those two cases nobody waits: the caller has its outcome, and knows its own limit best.
            what = f"{self._cell.name}.{message.method}()"
            message.answer._answer_error(Cancelled(f"{what} was cancelled"))

    def _overran(self, message: Message) -> None:
        """A handler has run for `handler_timeout`: its actor hangs, and ends. `Life.end` cuts it short."""
        cell, life = self._cell, self._life
        if cell.life is not life or not cell.serves(life):
            return  # it ends already, within its shutdown time
        limit = f"its handler_timeout ({cell.handler_timeout:g} s)"
        hung = Unavailable(f"{cell.name}.{message.method}() ran longer than {limit}", reason="hung")
        self._answer_error(message, hung)
        message.answer = None
        if message.receipt is not None:
            message.receipt.ended()  # in the next life it would hang again
            message.receipt = None
        cell.life_ends(life, Exit("hung", f"handler_timeout: {message.method}() ran longer than {limit}"))

    def _failed(self, message: Message, method: Method, error: BaseException) -> None:
        """An exception escaped a handler: an answer, or a crash."""
        cell, life = self._cell, self._life
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise error
        if isinstance(error, SystemExit):
            ended = Unavailable(
                f"{cell.name} ended itself while it ran {message.method}()", reason="SystemExit"
            )
            self._answer_error(message, ended)
            cell.life_ends(life, Exit("normal") if error.code in (None, 0) else Exit("error", error))
            return
        if (
            isinstance(error, TypeError)
            and not method.is_wrapped
            and (misfit := method.misfit(message.args, message.kwargs))
        ):
            error = self._misfit(message, misfit)
        elif not self._is_answer(error):
            self._answer_error(message, error)
            cell.life_ends(life, Exit("error", error))
            return
        self._answer_failure(message, error)

    def _answer_failure(self, message: Message, error: BaseException) -> None:
        """An error that is an answer; the actor lives on."""
        self._life.handled += 1
        if message.answer is None:
            self._cell.system._emit(ErrorUnanswered(self._cell.name, message.method, error))
        self._answer_error(message, error)

    def _misfit(self, message: Message, why: str) -> InvalidArgument:
        return InvalidArgument(f"{self._cell.cls.__name__}.{message.method}(): {why}")

    def _is_answer(self, error: BaseException) -> bool:
        return isinstance(error, (Refusal, *self._cell.cls.expected)) or is_passed_through(error)

    def _answer_error(self, message: Message, error: BaseException) -> None:
        if message.answer is not None:
            message.answer._answer_error(error)


def _not_in_time(message: Message) -> ActorError:
    name = message.cell.name if message.cell is not None else ""
    return DeadlineExceeded(f"{name}.{message.method}() was not started before its deadline")


def _out_of_time(message: Message) -> None:
    if message.task is not None and not message.threaded:
        message.cancelled = message.cancelled or "deadline"
        message.task.cancel()


class Runners:
    """The runners of one system. Loop thread only."""

    def __init__(
        self, system: ActorSystem, loop: asyncio.AbstractEventLoop, base_context: ContextVars
    ) -> None:
        self.system = system
        self.base_context = base_context
        """What the program had set when the system was made; each message starts from there."""
        self.loop = loop
        self._waiting: list[Runner] = []
        self._closed = False

    def set_to_work(self, cell: Cell, life: Life) -> None:
        """Let a runner take messages for *life*."""
        runner = self._waiting.pop() if self._waiting else Runner(self)
        runner.engage(cell, life)

    def one_that_waits(self) -> Runner | None:
        """A runner with nothing to do, for `Runner.handle_now`."""
        return self._waiting.pop() if self._waiting else None

    def take_back(self, runner: Runner) -> bool:
        """True when *runner* may wait for more."""
        if self._closed or len(self._waiting) >= _WAITING:
            return False
        self._waiting.append(runner)
        return True

    def forget(self, runner: Runner) -> None:
        """*runner* ends and waits no longer."""
        if runner in self._waiting:
            self._waiting.remove(runner)

    def close(self) -> None:
        """End all that wait."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for runner in waiting:
            runner.dismiss()

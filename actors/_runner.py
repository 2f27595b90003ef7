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
from time import monotonic
from typing import TYPE_CHECKING, Any

from actors import foreign
from actors._answered import First
from actors._cell import RUNNING
from actors._drive import drive, resume
from actors._message import Message, ReliableMessage, TimerMessage, current_message
from actors._outlet import open_outlet, pour
from actors.actor import Method, hook_of, unknown_method
from actors.blame import blame
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
    from collections.abc import Sequence

    from actors._cell import Cell
    from actors._life import Life
    from actors._threads import Worker
    from actors.system import ActorSystem

_TURN = 0.002
"""Seconds a busy actor handles messages before others on the loop get their turn."""

_LOOK = 8
"""Messages between two looks at the time."""

_ITEMS = 64
"""Items a stream sends before others on the loop get their turn."""

_WAITING = 8
"""Runners that may wait for work in one process; a new one costs 8 µs, a waiting one 1.4 KB."""

_enter_task, _leave_task = asyncio.tasks._enter_task, asyncio.tasks._leave_task

_NOT_BEGUN = object()
_MORE = object()
_STREAMED = object()


class Runner:
    """Handles messages for one life at a time, in a task that waits for the next one in between."""

    __slots__ = (
        "_begun",
        "_cell",
        "_cut_from_outside",
        "_life",
        "_resumes",
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
        """A message whose handler has made its first step elsewhere (`work_now`)."""
        self._resumes = False
        """True when its time was up there with more to do."""
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
                # The whole loop is being taken down. A handler that has begun hears of it where it waits.
                if self._task.cancelling() and self._begun is None:
                    self._runners.forget(self)
                    return False
                if self._begun is not None:
                    self._task.uncancel()
                    self._task.cancel()  # comes again where the handler waits
        return self._life is not None

    # -- one life ------------------------------------------------------------------------

    def work_now(self, gathered: Sequence[tuple[Cell, Life]], first: int, until: float) -> tuple[int, bool]:
        """
        Work for those *gathered* here and now, in no task but in this one's name; it waits so far.

        Begins with the *first* and goes on with the next ones up to the instant *until*, or until a
        handler waits or takes too long: with that the task goes on. Returns how many had their turn,
        and whether nothing of theirs is left to do. Saves two turns of the loop and a switch of tasks;
        with answers that leave in the same turn, 65 µs of the 332 that a question between two processes
        took.
        """
        at = first
        _enter_task(self._runners.loop, self._task)
        try:
            while True:
                cell, life = self._cell, self._life = gathered[at]
                at += 1
                left = self._work()
                if left is not None:
                    break
                cell.runner_ended(life)
                if at == len(gathered) or self._cut_from_outside or monotonic() >= until:
                    break
        finally:
            _leave_task(self._runners.loop, self._task)
        if left is not None:
            if left is _MORE:
                self._resumes = True
                cell.system._counts.resuming += 1
            else:
                self._begun = left
            self._ring()
            return at - first, False
        self._cell = self._life = None  # type: ignore[assignment]
        if not self._cut_from_outside:
            self._runners.take_back(self)
        return at - first, True

    async def _burst(self) -> None:
        """Handle messages until none is left."""
        counts = self._cell.system._counts
        if self._resumes:
            self._resumes = False
            counts.resuming -= 1
        left, self._begun = self._begun, None
        if left is None:
            left = self._work()
        while left is not None:
            if left is _MORE:
                counts.resuming += 1
                await asyncio.sleep(0)
                counts.resuming -= 1
            else:
                message, method, rest = left
                message.task = self._task
                if message.cancelled:
                    self._task.cancel()  # since its first step (`work_now`): it hears of it where it waits
                try:
                    await self._handle(message, method, rest)
                finally:
                    del self._life.running[message]
                    counts.running -= 1
                    self._end(message)
            left = self._work()

    def _work(self) -> Any:
        """
        Handle messages as long as their handlers end with their first step.

        Returns None when there is nothing more to do, `_MORE` when others have their turn first,
        else a message whose handler waits, its method, and what is left to await of it.
        """
        cell, life = self._cell, self._life
        system = cell.system
        counts = system._counts
        mailbox, methods, task, instance = cell.mailbox, cell.methods, self._task, life.instance
        now = system.clock.now
        copy, set_message = self._runners.base_context.copy, current_message.set
        is_timed = cell.handler_timeout != math.inf
        holds = cell.answered is not None or cell.channels is not None
        until = 0.0
        next_look = _LOOK
        while (
            cell.life is life
            and life.end_wanted is None
            and (cell.state == RUNNING or cell.serves(life))
            and not self._cut_from_outside
        ):
            next_look -= 1
            if not next_look:
                next_look = _LOOK
                # The time begins to count with the first look: most are done before.
                if not until:
                    until = monotonic() + _TURN
                elif monotonic() > until:
                    return _MORE
            queue = mailbox.queue
            message: Message | None
            if queue and not mailbox.control and mailbox.waiting_room is None:
                message = queue.popleft()  # `take` written out for the usual case
            elif (message := mailbox.take()) is None:
                return None
            method = methods.get(message.method)
            if (
                method is None
                or message.pin
                or message.foreign
                or (message.deadline_at != math.inf and message.deadline_at <= now())
            ):
                # Anything but the usual case. Timers are pinned and notices name a hook, so both come here:
                # asking each message whether it is special would take 35 ns.
                method = self._admit(message)
                if method is None:
                    continue
            message.life = life
            life.stepping = message
            if is_timed:
                overrun = partial(self._overran, message)
                message.watch = system.clock.call_later(cell.handler_timeout, overrun)
            if holds and message.tag is not None:
                system._hold(message, message.tag)
            rest = None
            try:
                if method.is_wrapped and (misfit := method.misfit(message.args, message.kwargs)):
                    self._answer_failure(message, self._misfit(message, misfit))
                elif method.kind != "async":
                    rest = _NOT_BEGUN
                else:
                    # A handler that never waits is done after its first step: no coroutine of ours for it.
                    run = copy().run
                    try:
                        run(set_message, message)
                        if method.is_wrapped:
                            coroutine = run(method.function, instance, *message.args, **message.kwargs)
                        elif message.kwargs:
                            coroutine = method.function(instance, *message.args, **message.kwargs)
                        elif len(args := message.args) == 1:
                            # Nothing of the user's runs here yet: 0.3 µs less than the first way.
                            coroutine = method.function(instance, args[0])
                        else:
                            coroutine = method.function(instance, *args)
                        future = run(coroutine.send, None)
                    except StopIteration as stop:
                        life.handled += 1
                        if (answer := message.answer) is not None:
                            answer._answer(foreign.to_json(stop.value) if message.foreign else stop.value)
                    except asyncio.CancelledError:
                        self._cut(message)
                    except BaseException as error:
                        self._failed(message, method, error)
                    else:
                        rest = resume(coroutine, run, future)
            finally:
                life.stepping = None
                if rest is None:
                    if holds or is_timed or task.cancelling() or not life.has_worked:
                        self._end(message)
                    else:
                        # `_end` written out for the usual case.
                        message.answer = None
                        counts.handled += 1
            if rest is not None:
                life.running[message] = None
                counts.running += 1
                return message, method, rest
        return None

    def _end(self, message: Message) -> None:
        """A message has been handled, however that ended."""
        life, task = self._life, self._task
        if message.watch is not None:
            message.watch.cancel()
            message.watch = None
        message.task = message.answer = None  # an error's traceback may keep the message
        if self._cell.channels is not None and message.receipt is not None:
            message.receipt.ended()
        self._cell.system._counts.handled += 1
        if task.cancelling():
            # A cancel ends with its message, also when the handler took no notice.
            while task.uncancel():
                pass
        if life.handled and not life.has_worked:
            life.has_worked = True
            self._cell.owner.child_worked(self._cell)

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
                message.answer._answer(None)  # of an outlet: its end

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
        outlet = open_outlet(message)
        following = items.__anext__
        count = 0
        try:
            while True:
                if outlet is not None and not outlet.is_open:
                    await outlet.wait_open()
                awaitable = following()
                try:
                    # `drive`, written out for an item that is there at once.
                    future = run(awaitable.send, None)
                    item = await resume(awaitable, run, future)
                except StopIteration as stop:
                    item = stop.value
                except StopAsyncIteration:
                    return
                if outlet is not None:
                    outlet.put(foreign.to_json(item) if message.foreign else item)
                count += 1
                if count % _ITEMS == 0:
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
        outlet = open_outlet(message)
        try:
            await worker.run(context, pour, items, outlet, message)
        except asyncio.CancelledError:
            if outlet is not None:
                outlet.close()  # should its thread wait for the reader: that one is left alone now
            raise

    # -- how handlers end otherwise ----------------------------------------------------

    def _cut(self, message: Message) -> None:
        """A handler was cancelled: by its caller, its deadline, a stop, or its own code. Never a crash."""
        task = asyncio.current_task()
        self._cut_from_outside = not message.cancelled and task is not None and task.cancelling() > 0
        if message.answer is not None and message.cancelled not in ("caller", "deadline"):
            # In those two cases nobody waits: the caller has its outcome, and knows its own limit best.
            what = f"{self._cell.name}.{message.method}()"
            message.answer._answer_error(Cancelled(f"{what} was cancelled"))
        elif isinstance(message.answer, First):
            message.answer.abandoned()

    def _overran(self, message: Message) -> None:
        """A handler has run for `handler_timeout`: its actor hangs, and ends. `Life.end` cuts it short."""
        cell, life = self._cell, self._life
        if cell.life is not life or not cell.serves(life):
            return  # it ends already, within its shutdown time
        limit = f"its handler_timeout ({cell.handler_timeout:g} s)"
        hung = Unavailable(f"{cell.name}.{message.method}() ran longer than {limit}", reason="hung")
        self._answer_error(message, blame(hung, cell.name))
        message.answer = None
        if isinstance(message, ReliableMessage) and message.receipt is not None:
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
            self._answer_error(message, blame(ended, cell.name))
            cell.life_ends(life, Exit("normal") if error.code in (None, 0) else Exit("error", error))
            return
        if (
            isinstance(error, TypeError)
            and not method.is_wrapped
            and (misfit := method.misfit(message.args, message.kwargs))
        ):
            error = self._misfit(message, misfit)
        elif not self._is_answer(error):
            self._answer_error(message, blame(error, cell.name))
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
        self._gathered: list[tuple[Cell, Life]] | None = None
        """Who is to be served once all that came in together is in the mailboxes."""
        self._closed = False

    def gather(self) -> None:
        """Who is set to work from here on waits for `work_at_once`."""
        self._gathered = []

    def relieve(self, cell: Cell) -> bool:
        """
        Serve *cell*, whose mailbox is full, ahead of the others that were gathered; False when it is none.

        Else what came in one go would fill a mailbox whose actor has nothing else to do.
        """
        for place, one in enumerate(self._gathered or ()):
            if one[0] is cell:
                del self._gathered[place]  # type: ignore[union-attr]
                self._runner().work_now((one,), 0, math.inf)
                return True
        return False

    def _runner(self) -> Runner:
        return self._waiting.pop() if self._waiting else Runner(self)

    def work_at_once(self) -> bool:
        """Serve those that were gathered, as far as time allows; True when nothing is left to do."""
        gathered, self._gathered = self._gathered or (), None
        until = monotonic() + _TURN
        all_done = True
        at, end = 0, len(gathered)
        while at < end and monotonic() < until:
            served, is_done = self._runner().work_now(gathered, at, until)
            at += served
            all_done = all_done and is_done
        for cell, life in gathered[at:]:
            self.set_to_work(cell, life)
            all_done = False
        return all_done

    def set_to_work(self, cell: Cell, life: Life) -> None:
        """Let a runner take messages for *life*."""
        if self._gathered is not None:
            self._gathered.append((cell, life))
            return
        self._runner().engage(cell, life)

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

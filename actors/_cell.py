"""
Cells: the runtime's side of one actor. Its registration, its mailbox, one life after another.

    starting ──► running ──► stopping ──► down ──► (starting …)  or  ended
A cell never decides whether its actor lives again: it reports to its owner and waits
for the order. The mailbox outlives a restart; only the message in the handler is gone.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from actors._drive import drive, resume
from actors._life import Life, TimerMessage
from actors._mailbox import Mailbox
from actors._message import Message, foreign_arguments, foreign_value
from actors.actor import Method, methods_of, unknown_method
from actors.errors import (
    ActorError,
    ActorStopped,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    MailboxFull,
    Refusal,
    StartFailed,
    Unavailable,
    UnknownMethod,
)
from actors.events import ActorExited, ActorStarted, DeadLettered, ErrorUnanswered
from actors.exit import Exit, Ignore, Terminated
from actors.ref import Ref
from actors.reply import Reply, is_passed_through

if TYPE_CHECKING:
    from actors._threads import Worker
    from actors.system import ActorSystem

STARTING, RUNNING, STOPPING, DOWN, ENDED = "starting", "running", "stopping", "down", "ended"

_TURN = 64
"""Messages a busy actor handles before others on the loop get their turn."""


class Owner(Protocol):
    """Whoever decides what becomes of a cell when a life of it ends."""

    def child_started(self, cell: Cell) -> None: ...
    def child_ignored(self, cell: Cell) -> None: ...
    def child_start_failed(self, cell: Cell, exit: Exit) -> None: ...
    def child_worked(self, cell: Cell) -> None:
        """This life has finished its first message without crashing."""

    def child_exited(self, cell: Cell, exit: Exit, handled: int) -> None: ...


class Temporary:
    """The owner of what `spawn` started: one life, then the registration ends."""

    def child_started(self, cell: Cell) -> None: ...
    def child_worked(self, cell: Cell) -> None: ...

    def child_ignored(self, cell: Cell) -> None:
        cell.end(Exit("normal", "ignored"))

    def child_start_failed(self, cell: Cell, exit: Exit) -> None:
        cell.end(exit)

    def child_exited(self, cell: Cell, exit: Exit, handled: int) -> None:
        cell.end(exit)


TEMPORARY = Temporary()


class Cell:
    """One registered actor. Loop thread only."""

    __slots__ = (
        "_refuses",
        "_starting",
        "_stopped",
        "args",
        "cls",
        "concurrency",
        "exit",
        "incarnation",
        "kwargs",
        "life",
        "mailbox",
        "name",
        "owner",
        "parent",
        "roams",
        "shutdown",
        "state",
        "system",
        "uid",
        "watchers",
    )

    def __init__(
        self,
        system: ActorSystem,
        name: str,
        uid: int,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None,
        owner: Owner = TEMPORARY,
        mailbox: int,
        concurrency: int,
        shutdown: float,
        incarnation: int = 0,
        roams: bool = False,
    ) -> None:
        self.system = system
        self.name = name
        self.uid = uid
        self.cls = cls
        self.args = args
        self.kwargs = kwargs
        self.parent = parent
        self.owner = owner
        self.mailbox = Mailbox(mailbox)
        self.concurrency = concurrency
        self.shutdown = shutdown
        self.incarnation = incarnation
        """Lives begun so far; the first is 1."""
        self.roams = roams
        """True for members of services: refs to it ask the directory where it lives."""
        self.life: Life | None = None
        self.state = DOWN
        self.exit: Exit | None = None
        """How the last life ended."""
        self.watchers: dict[Any, Any] | None = None
        self._starting: list[Reply[bool]] | None = None
        self._stopped: list[tuple[Reply[Any], bool]] | None = None
        self._refuses = False
        """True once this registration takes no more messages."""

    def ref(self) -> Ref[Any]:
        """A ref to this registration."""
        cls = self.cls
        return Ref(
            self.system,
            self.name,
            self.uid,
            "" if self.roams else self.system.address,
            timeout=getattr(cls, "ask_timeout", 5.0),
            detached=getattr(cls, "is_supervisor", False),
            cell=self,
        )

    # -- lives ---------------------------------------------------------------------

    def start(self, timeout: float | None = None, incarnation: int | None = None) -> None:
        """Begin the next life; the owner hears how it went. *timeout* seconds, else it has failed."""
        self.incarnation = incarnation if incarnation is not None else self.incarnation + 1
        self.life = life = Life(self, self.incarnation)
        self.state = STARTING
        life.task = self.system._task(self._begin(life, timeout))

    async def _begin(self, life: Life, timeout: float | None) -> None:
        overran = False

        def overrun() -> None:
            nonlocal overran
            overran = True
            if life.task is not None:
                life.task.cancel()

        timer = self.system.clock.call_later(timeout, overrun) if timeout and timeout != math.inf else None
        try:
            await life.begin()
        except Ignore:
            await self._not_started(life, Exit("normal", "ignored"))
            self._tell_starting(False)
            self.owner.child_ignored(self)
        except StartFailed as error:
            await self._start_failed(life, error)
        except asyncio.CancelledError:
            if overran:
                await self._start_failed(life, StartFailed(f"{self.name} did not start within {timeout:g} s"))
            else:
                await self._not_started(life, life.end_wanted or Exit("killed", "order"))
                self._tell_starting(ActorStopped(f"{self.name} was stopped while it started"))
                self.owner.child_exited(self, self.exit or Exit("killed"), 0)
        else:
            self._started(life)
        finally:
            if timer is not None:
                timer.cancel()

    def _started(self, life: Life) -> None:
        life.task = None
        self.state = RUNNING
        self.system._emit(ActorStarted(self.name, life.incarnation))
        self._tell_starting(True)
        self.owner.child_started(self)
        if life.end_wanted is not None:
            self.stop_if_idle(life)
        self.serve()

    async def _start_failed(self, life: Life, error: StartFailed) -> None:
        await self._not_started(life, Exit("start_failed", error.__cause__ or error))
        if self.owner is TEMPORARY:
            for message in self.mailbox.clear():
                self._dead_letter(message, "start failed", error)
        self._tell_starting(error)
        assert self.exit is not None
        self.owner.child_start_failed(self, self.exit)

    async def _not_started(self, life: Life, exit: Exit) -> None:
        await life.end(exit, 0.0, was_started=False)
        self.state = DOWN
        self.exit = exit
        if exit.kind != "normal":
            self.system._emit(ActorExited(self.name, life.incarnation, exit, 0))

    def _tell_starting(self, outcome: bool | BaseException) -> None:
        waiting, self._starting = self._starting, None
        for reply in waiting or ():
            if isinstance(outcome, BaseException):
                reply._reject(outcome)
            else:
                reply._resolve(outcome)

    def stop(self, exit: Exit, shutdown: float, *, hand_back: bool) -> None:
        """
        End the current life; the owner hears when it is over.

        *hand_back*: refuse what waits in the mailbox and all that comes, for the registration
        will end too. *shutdown* 0 is a kill: the running handler is cancelled, `on_stop` does not run.
        """
        life = self.life
        if hand_back:
            self._refuse_all(f"{self.name} is stopping")
        if life is None or self.state in (DOWN, ENDED):
            return
        if self.state == STARTING:
            life.end_wanted = exit
            if life.task is not None:
                life.task.cancel()
        elif self.state == STOPPING:
            if shutdown <= 0 and life.idle is not None and not life.idle.done():
                life.idle.set_result(None)
        else:
            self._take_down(life, exit, shutdown)

    def stop_if_idle(self, life: Life) -> None:
        """Carry out `context.stop` as soon as no handler runs."""
        if self.life is life and self.state == RUNNING and not life.running and life.end_wanted is not None:
            self._take_down(life, life.end_wanted, self.shutdown)

    def _take_down(self, life: Life, exit: Exit, shutdown: float) -> None:
        self.state = STOPPING
        life.task = self.system._task(self._end_life(life, exit, shutdown))

    async def _end_life(self, life: Life, exit: Exit, shutdown: float) -> None:
        await life.end(exit, shutdown, was_started=True)
        life.task = None
        self.mailbox.clear_control()
        self.state = DOWN
        self.exit = exit
        self.system._emit(ActorExited(self.name, life.incarnation, exit, life.handled))
        self._tell_stopped(exit, for_good=False)
        self.owner.child_exited(self, exit, life.handled)

    async def stop_for_good(self, exit: Exit) -> None:
        """Stop within the cell's own shutdown time and end the registration, whoever owns it."""
        self.owner = TEMPORARY
        if self.state == DOWN:
            self.end(exit)
        if self.state != ENDED:
            done = self.wait_stopped()
            self.stop(exit, self.shutdown, hand_back=True)
            await done

    def end(self, exit: Exit) -> None:
        """The registration is over: the name is free, watchers and waiting callers are told."""
        if self.state == ENDED:
            return
        self.state = ENDED
        self.exit = exit
        self._refuse_all(f"{self.name} has ended ({exit})")
        if self.parent is not None and self in self.parent.children:
            self.parent.children.remove(self)
        self.system._ended(self)
        watchers, self.watchers = self.watchers, None
        for notify in (watchers or {}).values():
            notify(Terminated(self.ref()._with(pin=self.incarnation), exit))
        self._tell_stopped(exit, for_good=True)

    def _refuse_all(self, why: str) -> None:
        self._refuses = True
        for message in self.mailbox.clear():
            self._dead_letter(message, "stopped", ActorStopped(why))

    # -- waiting for lives -----------------------------------------------------------

    def wait_started(self) -> Reply[bool]:
        """See `Ref.wait_started`."""
        reply: Reply[bool] = Reply()
        if self.state in (RUNNING, STOPPING):
            reply._resolve(True)
        elif self.state == ENDED:
            reply._reject(ActorStopped(f"{self.name} has ended ({self.exit})"))
        else:
            self._starting = [*(self._starting or ()), reply]
        return reply

    def wait_stopped(self, *, for_good: bool = True) -> Reply[Any]:
        """The exit of the registration, or of the current life."""
        reply: Reply[Any] = Reply()
        if self.state == ENDED:
            reply._resolve(self.exit)
        else:
            self._stopped = [*(self._stopped or ()), (reply, for_good)]
        return reply

    def _tell_stopped(self, exit: Exit, *, for_good: bool) -> None:
        waiting, self._stopped = self._stopped or [], None
        for reply, wants_end in waiting:
            if wants_end and not for_good:
                self._stopped = [*(self._stopped or ()), (reply, wants_end)]
            else:
                reply._resolve(exit)

    @property
    def is_alive(self) -> bool:
        """True while it runs, starts, or waits for its owner's word."""
        return self.state != ENDED

    # -- messages --------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """Take a user message, or refuse it."""
        if self._refuses:
            self._refuse(
                message, "stopped", ActorStopped(f"{self.name} has ended ({self.exit or 'stopping'})")
            )
            return
        message.cell = self
        if not self.mailbox.put(message):
            limit = self.mailbox.limit
            self._refuse(
                message, "mailbox full", MailboxFull(f"{self.name} has {limit} messages waiting, its limit")
            )
            return
        self.system._counts.accepted += 1
        life = self.life
        if life is not None and life.runners < self.concurrency and self._serves(life):
            life.runners += 1
            self.system._task(self._run(life))

    def notify(self, terminated: Terminated) -> None:
        """Put an `on_terminated` in the control lane."""
        if self.state in (RUNNING, STARTING):
            message = Message("on_terminated", (terminated,), {}, None)
            message.cell = self
            self.mailbox.put_control(message)
            self.serve()

    def cancel(self, message: Message) -> None:
        """The caller of *message* no longer waits."""
        message.cancelled = message.cancelled or "caller"
        if self.mailbox.remove(message):
            self._dead_letter(
                message, "cancelled", Cancelled(f"{self.name}.{message.method}() was cancelled")
            )
        elif message.task is not None and not message.threaded:
            message.task.cancel()

    def _serves(self, life: Life) -> bool:
        """True while *life* takes messages."""
        if self.life is not life or life.end_wanted is not None:
            return False
        return self.state == RUNNING or (self.state == STARTING and life.serves_early)

    def serve(self) -> None:
        """Set runners to work on what waits in the mailbox."""
        life = self.life
        if life is None or not self._serves(life):
            return
        wanted = min(self.concurrency - life.runners, len(self.mailbox) or int(self.mailbox.has_work))
        for _ in range(wanted):
            life.runners += 1
            self.system._task(self._run(life))

    async def _run(self, life: Life) -> None:
        """Handle messages until none is left: one burst of one runner."""
        worker: Worker | None = None
        take = self.mailbox.take
        task = asyncio.current_task()
        turn = 0
        try:
            while self._serves(life):
                message = take()
                if message is None:
                    return
                turn += 1
                if turn % _TURN == 0:
                    await asyncio.sleep(0)
                method = self._admit(life, message)
                if method is None:
                    continue
                if method.kind in ("sync", "sync_stream") and worker is None:
                    worker = await life.lease()
                life.running.append(message)
                message.task = task
                try:
                    worker = await self._handle(life, message, method, worker)
                finally:
                    message.task = None
                    life.running.remove(message)
                    self.system._counts.handled += 1
                if life.handled and not life.has_worked:
                    life.has_worked = True
                    self.owner.child_worked(self)
        finally:
            if worker is not None:
                life.release(worker)
            life.runners -= 1
            if life.runners == 0 and life.idle is not None and not life.idle.done():
                life.idle.set_result(None)
            if life.end_wanted is not None:
                self.stop_if_idle(life)
            elif self.mailbox.has_work:
                self.serve()

    def _admit(self, life: Life, message: Message) -> Method | None:
        """The method to run for *message*, or None when it has been answered without running."""
        if message.deadline_at != math.inf and message.deadline_at <= self.system.clock.now():
            overdue = DeadlineExceeded(f"{self.name}.{message.method}() was not started before its deadline")
            self._dead_letter(message, "expired", overdue)
        elif message.pin and message.pin != life.incarnation:
            over = ActorStopped(f"incarnation {message.pin} of {self.name} is over, {life.incarnation} runs")
            self._dead_letter(message, "incarnation over", over)
        elif isinstance(message, TimerMessage):
            message.waits = False
            if message.life is life:
                return message.methods[message.method]  # type: ignore[no-any-return]
            self._dead_letter(message, "timer of an earlier life", None)
        elif message.method == "on_terminated" and message.answer is None:
            return Method("on_terminated", type(life.instance).on_terminated, "async")
        else:
            method = methods_of(self.cls).get(message.method)
            if method is not None:
                return method
            self._dead_letter(
                message, "unknown method", UnknownMethod(unknown_method(self.cls, message.method))
            )
        return None

    async def _handle(
        self, life: Life, message: Message, method: Method, worker: Worker | None
    ) -> Worker | None:
        """Run one handler and answer. Returns the worker, None if its thread had to be abandoned."""
        context = self.system._fresh_context(message)
        run = context.run
        args = message.args
        if message.foreign:
            try:
                args = foreign_arguments(args[0])
            except InvalidArgument as error:
                self._answer_error(message, error)
                return worker
        try:
            if method.kind == "async":
                coroutine = run(method.function, life.instance, *args, **message.kwargs)
                try:
                    future = run(coroutine.send, None)
                except StopIteration as stop:
                    result = stop.value
                else:
                    result = await self._suspended(message, coroutine, run, future)
            elif method.kind == "stream":
                await self._stream(message, run(method.function, life.instance, *args, **message.kwargs), run)
                life.handled += 1
                return worker
            else:
                assert worker is not None
                message.threaded = True
                result = await worker.run(context, method.function, life.instance, *args, **message.kwargs)
                if method.kind == "sync_stream":
                    await self._sync_stream(message, result, worker, context)
                    life.handled += 1
                    return worker
                if asyncio.iscoroutine(result):
                    message.threaded = False
                    result = await drive(result, run)
        except asyncio.CancelledError:
            if message.threaded and worker is not None:
                life.abandon(worker)
                worker = None
            self._cut(life, message)
        except BaseException as error:
            self._failed(life, message, method, args, error)
        else:
            life.handled += 1
            if message.answer is not None and not message.is_tell and not message.cancelled:
                message.answer._answer(foreign_value(result) if message.foreign else result)
        return worker

    async def _suspended(self, message: Message, coroutine: Any, run: Any, future: Any) -> Any:
        """Go on with a handler that awaits; its deadline cancels it from now on."""
        if message.deadline_at == math.inf:
            return await resume(coroutine, run, future)
        clock = self.system.clock
        timer = clock.call_later(message.deadline_at - clock.now(), partial(_out_of_time, message))
        try:
            return await resume(coroutine, run, future)
        finally:
            timer.cancel()

    async def _stream(self, message: Message, items: Any, run: Any) -> None:
        answer = message.answer
        count = 0
        try:
            while True:
                try:
                    item = await drive(items.__anext__(), run)
                except StopAsyncIteration:
                    break
                self._send_item(message, item)
                count += 1
                if count % _TURN == 0:
                    await asyncio.sleep(0)  # a generator that never waits must still hear of a cancel
        finally:
            await drive(items.aclose(), run)
        if answer is not None:
            answer._answer_end()

    async def _sync_stream(self, message: Message, items: Any, worker: Worker, context: Any) -> None:
        end = object()
        while (item := await worker.run(context, next, items, end)) is not end and not message.cancelled:
            self._send_item(message, item)
        if message.cancelled:
            await worker.run(context, items.close)
        elif message.answer is not None:
            message.answer._answer_end()

    def _send_item(self, message: Message, item: Any) -> None:
        if message.answer is not None:
            message.answer._answer_item(foreign_value(item) if message.foreign else item)

    # -- how handlers end otherwise ----------------------------------------------------

    def _cut(self, life: Life, message: Message) -> None:
        """A handler was cancelled: by its caller, its deadline, a stop, or its own code. Never a crash."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if message.cancelled == "deadline":
            error: ActorError = DeadlineExceeded(f"{self.name}.{message.method}() ran out of time")
        elif message.cancelled == "stop":
            error = Unavailable(f"{self.name} was stopped while it ran {message.method}()", reason="stopped")
        else:
            error = Cancelled(f"{self.name}.{message.method}() was cancelled")
        if message.answer is not None:
            message.answer._answer_error(error)

    def _failed(
        self, life: Life, message: Message, method: Method, args: tuple[Any, ...], error: BaseException
    ) -> None:
        """An exception escaped a handler: an answer, or a crash."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, SystemExit):
            exit = Exit("normal") if error.code in (None, 0) else Exit("error", error)
            self._answer_error(
                message,
                Unavailable(f"{self.name} ended itself while it ran {message.method}()", reason="SystemExit"),
            )
            self._ends(life, exit)
            return
        misfit = method.misfit(args, message.kwargs) if isinstance(error, TypeError) else None
        if misfit is not None:
            error = InvalidArgument(f"{self.cls.__name__}.{message.method}(): {misfit}")
        if misfit is not None or self._is_answer(error):
            life.handled += 1
            self._answer_error(message, error)
            if message.answer is None or message.is_tell:
                self.system._emit(ErrorUnanswered(self.name, message.method, error))
            return
        self._answer_error(message, error)
        self._ends(life, Exit("error", error))

    def _is_answer(self, error: BaseException) -> bool:
        return isinstance(error, (Refusal, *self.cls.expected)) or is_passed_through(error)  # type: ignore[attr-defined]

    def _answer_error(self, message: Message, error: BaseException) -> None:
        if message.answer is not None and not message.is_tell:
            message.answer._answer_error(error)

    def _ends(self, life: Life, exit: Exit) -> None:
        if self.life is life and self.state == RUNNING:
            self._take_down(life, exit, self.shutdown if exit.is_clean else 0.0)

    # -- messages that reach nobody ------------------------------------------------------

    def _refuse(self, message: Message, reason: str, error: ActorError) -> None:
        self.system._counts.refused += 1
        self.system._dead_letter(self.name, message, reason)
        if message.answer is not None:
            message.answer._answer_refused(error)

    def _dead_letter(self, message: Message, reason: str, error: ActorError | None) -> None:
        self.system._counts.dead_lettered += 1
        self.system._emit(DeadLettered(self.name, message.sender_name, message.method, reason))
        if message.answer is not None and error is not None:
            message.answer._answer_refused(error)


def _out_of_time(message: Message) -> None:
    if message.task is not None and not message.threaded:
        message.cancelled = message.cancelled or "deadline"
        message.task.cancel()

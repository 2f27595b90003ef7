"""
Cells: the runtime's side of one actor. Its registration, its mailbox, one life after another.

    starting ──► running ──► stopping ──► down ──► (starting …)  or  ended

A cell never decides whether its actor lives again: it reports to its owner and waits
for the order. The mailbox outlives a restart; only the message in the handler is gone.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from actors import _deadlock
from actors._life import Life
from actors._mailbox import Mailbox
from actors._message import Message, Notice
from actors._outlet import Outlet
from actors._overflow import overflowed, withdraw
from actors.actor import Actor, idempotent_methods_of, methods_of, naming_of
from actors.errors import ActorError, ActorStopped, Cancelled, StartFailed
from actors.events import ActorExited, ActorStarted, DeadLettered
from actors.exit import Exit, Ignore, Terminated
from actors.ref import Ref
from actors.reply import Reply

if TYPE_CHECKING:
    from actors._calls import Call
    from actors._incoming import Incoming
    from actors.system import ActorSystem

STARTING, RUNNING, STOPPING, DOWN, ENDED = "starting", "running", "stopping", "down", "ended"

IGNORED = Exit("normal", "ignored")
"""The exit of an actor that said `Ignore`."""


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
        cell.end(IGNORED)

    def child_start_failed(self, cell: Cell, exit: Exit) -> None:
        cell.end(exit)

    def child_exited(self, cell: Cell, exit: Exit, handled: int) -> None:
        cell.end(exit)


TEMPORARY = Temporary()


class Cell:
    """One registered actor. Loop thread only."""

    __slots__ = (
        "_starting",
        "_stopped",
        "_stopped_once",
        "answered",
        "args",
        "channels",
        "cls",
        "concurrency",
        "exit",
        "handler_timeout",
        "incarnation",
        "interceptors",
        "kwargs",
        "life",
        "mailbox",
        "methods",
        "name",
        "overflow",
        "owner",
        "parent",
        "refuses",
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
        cls: type[Actor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None,
        owner: Owner = TEMPORARY,
        mailbox: int,
        overflow: str,
        concurrency: int,
        handler_timeout: float,
        shutdown: float,
        incarnation: int = 0,
        roams: bool = False,
    ) -> None:
        self.system = system
        self.name = name
        self.uid = uid
        self.cls = cls
        self.interceptors = (*system._interceptors, *cls.interceptors) if not cls.is_supervisor else ()
        """What stands around its handlers, and around what they send."""
        self.methods = system._methods_of(cls, self.interceptors) if self.interceptors else methods_of(cls)
        self.answered = system._answered if idempotent_methods_of(cls) else None
        """Knows the calls that were answered before; None without idempotent methods."""
        self.args = args
        self.kwargs = kwargs
        self.parent = parent
        self.owner = owner
        self.mailbox = Mailbox(mailbox)
        self.overflow = overflow
        """What happens to a message when the mailbox is full; see `Actor.overflow`."""
        self.concurrency = concurrency
        self.handler_timeout = handler_timeout
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
        self.channels: OrderedDict[int, Incoming] | None = None
        """Who sends it reliable tells, and how far each has come."""
        self._starting: list[Reply[bool]] | None = None
        self._stopped: list[Reply[Any]] | None = None
        """Who waits for the end of the registration."""
        self._stopped_once: list[Reply[Any]] | None = None
        """Who waits for the end of the current life."""
        self.refuses = False
        """True once this registration takes no more messages."""

    def ref(self) -> Ref[Any]:
        """A ref to this registration."""
        return Ref(
            self.system,
            self.name,
            self.uid,
            "" if self.roams else self.system.address,
            timeout=self.cls.ask_timeout,
            detached=self.cls.is_supervisor,
            naming=naming_of(self.cls) if self.answered is not None else None,
            cell=self,
        )

    # -- a life begins -----------------------------------------------------------------

    def start(self, timeout: float | None = None, incarnation: int | None = None) -> None:
        """Begin the next life; the owner hears how it went. *timeout* seconds, else it has failed."""
        if self.state == ENDED:
            return
        if self.parent is not None and self.parent.is_over:
            self.end(Exit("shutdown", "parent"))
            return
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
            life.is_begun = True
            if life.end_wanted is not None:
                raise asyncio.CancelledError
            await life.begin()
        except Ignore:
            await self._not_started(life, IGNORED, False)
        except StartFailed as error:
            await self._not_started(life, Exit("start_failed", error.__cause__ or error), error)
        except asyncio.CancelledError:
            if overran:
                late = StartFailed(f"{self.name} did not start within {timeout:g} s")
                await self._not_started(life, Exit("start_failed", late), late)
            else:
                stopped = ActorStopped(f"{self.name} was stopped while it started")
                await self._not_started(life, life.end_wanted or Exit("killed", "order"), stopped)
        else:
            self._started(life)
        finally:
            if timer is not None:
                timer.cancel()

    def _started(self, life: Life) -> None:
        life.task = None
        self.state = RUNNING
        self.system._emit(ActorStarted(self.name, life.incarnation))
        waiting, self._starting = self._starting, None
        _tell(waiting, True)
        self.owner.child_started(self)
        self.stop_if_idle(life)
        self.serve()

    async def _not_started(self, life: Life, exit: Exit, outcome: bool | BaseException) -> None:
        self.state = STOPPING
        life.task = None
        await life.end(exit, 0.0, was_started=False)
        # Whoever waited is told last: what they find then is final.
        waiting, self._starting = self._starting, None
        self._went_down(life, exit, was_started=False)
        _tell(waiting, outcome)

    # -- a life ends -------------------------------------------------------------------

    def stop(self, exit: Exit, shutdown: float, *, hand_back: bool) -> None:
        """
        End the current life; the owner hears when it is over.

        *hand_back*: refuse what waits in the mailbox and all that comes, for the registration
        will end too. *shutdown* 0 is a kill: the running handler is cancelled, `on_stop` does not run.
        """
        life = self.life
        if hand_back:
            self._refuse_all(ActorStopped(f"{self.name} is stopping"))
        if life is None or self.state in (DOWN, ENDED):
            return
        if self.state == STARTING:
            life.end_wanted = exit
            if life.is_begun and life.task is not None:
                life.task.cancel()
        elif self.state == RUNNING:
            self._take_down(life, exit, shutdown)
        elif shutdown <= 0:
            life.hurry(exit)

    def stop_if_idle(self, life: Life) -> None:
        """Carry out `context.stop` as soon as no handler runs."""
        if self.life is life and self.state == RUNNING and life.end_wanted is not None and not life.is_busy:
            self._take_down(life, life.end_wanted, self.shutdown)

    def life_ends(self, life: Life, exit: Exit) -> None:
        """A handler has ended its actor: a crash, or `SystemExit`."""
        if self.life is life and self.state in (STARTING, RUNNING):
            self.stop(exit, self.shutdown if exit.is_clean else 0.0, hand_back=False)

    def _take_down(self, life: Life, exit: Exit, shutdown: float) -> None:
        self.state = STOPPING
        self.system._task(self._end_life(life, exit, shutdown))

    async def _end_life(self, life: Life, exit: Exit, shutdown: float) -> None:
        exit = await life.end(exit, shutdown, was_started=True)
        self._went_down(life, exit, was_started=True)

    def _went_down(self, life: Life, exit: Exit, *, was_started: bool) -> None:
        for notice in self.mailbox.clear_control():
            self.dead_letter(notice, "incarnation over", None)
        self.state = DOWN
        self.exit = exit
        if exit is not IGNORED:
            self.system._emit(ActorExited(self.name, life.incarnation, exit, life.handled))
        waiting, self._stopped_once = self._stopped_once, None
        if not was_started and exit is IGNORED:
            self.owner.child_ignored(self)
        elif not was_started and exit.kind == "start_failed":
            self.owner.child_start_failed(self, exit)
        else:
            self.owner.child_exited(self, exit, life.handled)
        _tell(waiting, exit)

    # -- the registration ends -----------------------------------------------------------

    async def stop_for_good(self, exit: Exit) -> None:
        """Stop within the cell's own shutdown time and end the registration, whoever owns it."""
        done = self.wait_stopped()
        self.end_soon(exit, self.shutdown)
        await done

    def end_soon(self, exit: Exit, shutdown: float) -> None:
        """Begin to stop, and end the registration with this life, whoever owns it."""
        self.owner = TEMPORARY
        if self.state == DOWN:
            self.end(exit)
        else:
            self.stop(exit, shutdown, hand_back=True)

    def end(self, exit: Exit) -> None:
        """The registration is over: the name is free, watchers and waiting callers are told."""
        if self.state == ENDED:
            return
        self.state = ENDED
        self.exit = exit
        self._refuse_all(self.gone())
        if self.parent is not None:
            self.parent.children.pop(self, None)
        self.system._ended(self)
        watchers, self.watchers = self.watchers, None
        terminated = Terminated(self.ref()._with(pin=self.incarnation), exit)
        for notify in (watchers or {}).values():
            notify(terminated)
        waiting, self._starting = self._starting, None
        _tell(waiting, self.gone())
        for replies in (self._stopped_once, self._stopped):
            _tell(replies, exit)
        self._stopped_once = self._stopped = None

    def gone(self) -> ActorError:
        """What a caller is told once this registration takes no more messages."""
        return gone(self.name, self.exit) if self.state == ENDED else ActorStopped(f"{self.name} is stopping")

    def _refuse_all(self, error: ActorError) -> None:
        self.refuses = True
        if self.mailbox.waiting_room is not None:
            self.mailbox.waiting_room.close(error)
        for message in self.mailbox.clear():
            self.dead_letter(message, "stopped", error)

    # -- waiting for lives -----------------------------------------------------------

    def wait_started(self) -> Reply[bool]:
        """See `Ref.wait_started`."""
        reply: Reply[bool] = Reply(self.system)
        if self.state in (RUNNING, STOPPING):
            reply._resolve(True)
        elif self.state != ENDED:
            self._starting = [*(self._starting or ()), reply]
        elif self.exit == IGNORED:
            reply._resolve(False)
        else:
            reply._reject(self.gone())
        return reply

    def wait_stopped(self, *, for_good: bool = True) -> Reply[Any]:
        """The exit of the registration, or of the current life."""
        reply: Reply[Any] = Reply(self.system)
        if self.state == ENDED or (self.state == DOWN and not for_good):
            reply._resolve(self.exit)
        elif for_good:
            self._stopped = [*(self._stopped or ()), reply]
        else:
            self._stopped_once = [*(self._stopped_once or ()), reply]
        return reply

    @property
    def is_alive(self) -> bool:
        """True while it runs, starts, or waits for its owner's word."""
        return self.state != ENDED

    @property
    def is_stepping(self) -> bool:
        """True while a handler of it makes its first step."""
        return self.life is not None and self.life.stepping is not None

    # -- messages --------------------------------------------------------------------

    def deliver(self, message: Message) -> bool:
        """Take a user message, or refuse it."""
        message.cell = self
        blockers: Sequence[Call] = ()
        if self.refuses:
            return self._refuse(message, "stopped", self.gone())
        if message.cancelled:
            return self._refuse(message, "cancelled", Cancelled("cancelled before it was taken"))
        if message.chain:
            blockers = _deadlock.blockers(self, message)
            if blockers and (deadlock := _deadlock.found(self, message, blockers)):
                return self._refuse(message, "deadlock", deadlock)
        if self.answered is not None and not self.answered.admits(self, message):
            return True
        if self.mailbox.put(message) or (self.system._runners.relieve(self) and self.mailbox.put(message)):
            self.system._counts.accepted += 1
            life = self.life
            if life is not None and life.runners < self.concurrency and self.serves(life):
                self.set_to_work(life)
        elif not overflowed(self, message):
            return False
        for call in blockers:
            call.suspect(message)
        return True

    def deliver_alike(self, messages: Sequence[Message]) -> None:
        """`deliver` for new messages of one caller, which carry no chain and have this as their cell."""
        taken = 0
        if not self.refuses and self.answered is None:
            taken = self.mailbox.put_all(messages)
        if taken:
            self.system._counts.accepted += taken
            life = self.life
            if life is not None and self.serves(life):
                for _ in range(min(self.concurrency - life.runners, taken)):
                    self.set_to_work(life)
        if taken < len(messages):
            for message in messages[taken:]:
                self.deliver(message)

    def notify(self, key: Any, terminated: Terminated) -> None:
        """Put an `on_terminated` in the control lane."""
        if self.state in (RUNNING, STARTING):
            notice = Notice(key, terminated)
            notice.cell = self
            self.system._counts.accepted += 1
            self.mailbox.put_control(notice)
            self.serve()

    def withdraw(self, key: Any) -> None:
        """Take back the notices of one watch."""
        for notice in self.mailbox.withdraw(key):
            self.dead_letter(notice, "unwatched", None)

    def cancel(self, message: Message) -> None:
        """The caller of *message* no longer waits."""
        message.cancelled = message.cancelled or "caller"
        if message.task is not None:
            if not message.threaded:
                message.task.cancel()
            elif isinstance(message.answer, Outlet):
                message.answer.close()  # its thread may wait for the reader
        elif message.is_parked:
            withdraw(self, message)
        elif self.mailbox.remove(message):
            expired = message.deadline_at <= self.system.clock.now()
            cancelled = Cancelled(f"{self.name}.{message.method}() was cancelled")
            self.dead_letter(message, "expired" if expired else "cancelled", cancelled)

    def serves(self, life: Life) -> bool:
        """True while *life* takes messages."""
        if self.life is not life or life.end_wanted is not None:
            return False
        return self.state == RUNNING or (self.state == STARTING and life.serves_early)

    def serve(self) -> None:
        """Set runners to work on what waits in the mailbox."""
        life = self.life
        if life is not None and self.serves(life):
            for _ in range(min(self.concurrency - life.runners, len(self.mailbox))):
                self.set_to_work(life)

    def set_to_work(self, life: Life) -> None:
        """One more runner takes messages for *life*; the caller has looked whether it may."""
        life.runners += 1
        self.system._runners.set_to_work(self, life)

    def runner_ended(self, life: Life) -> None:
        """A runner of *life* has nothing more to do."""
        life.runners -= 1
        if life.runners == 0 and life.idle is not None and not life.idle.done():
            life.idle.set_result(None)
        if self.life is life:
            if life.end_wanted is not None:
                self.stop_if_idle(life)
            if self.mailbox.has_more:
                self.serve()

    def look_again(self, message: Message) -> None:
        """A call that *message* might wait for is being waited for now."""
        deadlock = _deadlock.found(self, message, _deadlock.blockers(self, message))
        if deadlock is None:
            return
        if message.is_parked and self.mailbox.waiting_room is not None:
            if self.mailbox.waiting_room.remove(message):
                self._refuse(message, "deadlock", deadlock)
        elif self.mailbox.remove(message):
            self.dead_letter(message, "deadlock", deadlock)

    # -- messages that reach nobody ------------------------------------------------------

    def _refuse(self, message: Message, reason: str, error: ActorError) -> bool:
        self.system._counts.refused += 1
        self._reached_nobody(message, reason, error)
        return False

    def refuse_pin(self, message: Message) -> None:
        """*message* was meant for an incarnation that is over."""
        over = ActorStopped(f"incarnation {message.pin} of {self.name} is over")
        self._refuse(message, "incarnation over", over)

    def dead_letter(self, message: Message, reason: str, error: ActorError | None) -> None:
        """A message that was taken will not be handled."""
        self.system._counts.dead_lettered += 1
        self._reached_nobody(message, reason, error)

    def _reached_nobody(self, message: Message, reason: str, error: ActorError | None) -> None:
        self.system._emit(DeadLettered(self.name, message.sender_name, message.method, reason))
        answer, message.answer = message.answer, None
        if answer is not None and error is not None:
            answer._answer_refused(error)
        if message.receipt is not None:
            message.receipt.reached_nobody(error)


def _tell(waiting: list[Reply[Any]] | None, outcome: Any) -> None:
    for reply in waiting or ():
        if isinstance(outcome, BaseException):
            reply._reject(outcome)
        else:
            reply._resolve(outcome)


def gone(name: str, exit: Exit | None) -> ActorError:
    """What a caller is told of an actor that ended with *exit*."""
    if exit is not None and exit.kind == "start_failed":
        failed = StartFailed(f"{name} failed to start: {exit.detail}")
        if isinstance(exit.detail, BaseException):
            failed = StartFailed(f"{name} failed to start: {type(exit.detail).__name__}: {exit.detail}")
            failed.__cause__ = exit.detail
        return failed
    return ActorStopped(f"{name} has ended" + (f" ({exit})" if exit is not None else ""))

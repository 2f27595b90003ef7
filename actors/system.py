"""
Systems: one per process. Owns the cells, routes messages, holds the process's inbox.

Inside the process a message is a method call away from its mailbox: no socket, no
pickle. To other processes it goes through `_peers`. All cells live on one event
loop; refs may be used from any thread.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import events
from actors._calls import Call, Calls
from actors._cell import TEMPORARY, Cell, Owner
from actors._life import Life
from actors._loop import LoopInbox, inbox_of
from actors._message import Message, NoAnswer, current_message
from actors._remote import Remote
from actors._threads import ThreadPool
from actors.actor import check_class
from actors.address import split_target
from actors.clock import Clock, LoopClock
from actors.directory import Directory
from actors.errors import (
    ActorStopped,
    AlreadyStarted,
    InvalidArgument,
    NotFound,
    Unavailable,
    nearest,
)
from actors.exit import Exit, Terminated
from actors.ref import Ref
from actors.reply import Reply, failed, settled
from actors.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Coroutine

_REMEMBERED = 10_000
"""Ended registrations whose names still say `ActorStopped` rather than `NotFound`."""


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """
    Counters of one process. `accepted = handled + in_progress + in_mailbox + dead_lettered`.

    `refused` messages (full, not found, ended) were never accepted and stand outside the balance.
    """

    actors: int
    accepted: int
    handled: int
    in_progress: int
    in_mailbox: int
    dead_lettered: int
    refused: int
    pending_asks: int
    rejected_frames: int
    threads: int


class _Counts:
    __slots__ = ("accepted", "dead_lettered", "handled", "refused")

    def __init__(self) -> None:
        self.accepted = self.handled = self.dead_lettered = self.refused = 0


_systems: list[ActorSystem] = []


def current_system() -> ActorSystem:
    """The system of the actor that runs here, else the one opened last in this process."""
    message = current_message.get()
    if message is not None and message.cell is not None:
        return message.cell.system
    if _systems:
        return _systems[-1]
    raise InvalidArgument("no ActorSystem is open in this process; open one with `async with ActorSystem()`")


class ActorSystem:
    """
    The actors of one process.

    `async with ActorSystem()` puts them on the running loop, `with ActorSystem()` on a
    thread of their own. `listen=True` opens an inbox, so that processes without Ray can
    talk: `system.address`, `other.ref(f"{address}#{name}")`.
    """

    def __init__(
        self,
        *,
        listen: bool = False,
        transport: Transport | None = None,
        key: bytes | None = None,
        directory: Directory | None = None,
        clock: Clock | None = None,
        sinks: tuple[events.Sink, ...] = (events.log_sink,),
        foreign: bool = False,
    ) -> None:
        self.directory = directory
        self._given_clock = clock
        self._listens = listen or transport is not None
        self._transport = transport
        self._key = key
        self._foreign = foreign
        """A foreign door: speaks JSON and never unpickles."""
        self._sinks: list[events.Sink] = list(sinks)
        self._counts = _Counts()
        self._cells: dict[str, Cell] = {}
        self._top: list[Cell] = []
        self._gone: OrderedDict[str, tuple[int, Exit]] = OrderedDict()
        self._numbers: dict[str, itertools.count[int]] = {}
        self._names_lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._base_context = copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._own_thread: threading.Thread | None = None
        self._remote: Remote | None = None
        self._closed = False

    # -- opening and closing -----------------------------------------------------------

    async def __aenter__(self) -> ActorSystem:
        self._open(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def __enter__(self) -> ActorSystem:
        ready = threading.Event()
        self._own_thread = threading.Thread(
            target=self._run_loop, args=(ready,), name="understudy-system", daemon=True
        )
        self._own_thread.start()
        ready.wait()
        if self._closed:
            raise self._open_error
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop().result()
        self.join()

    def join(self) -> None:
        """Wait until the system's own thread has ended; for `with`, after `stop`."""
        if self._own_thread is not None and self._own_thread is not threading.current_thread():
            self._own_thread.join()

    def _run_loop(self, ready: threading.Event) -> None:
        loop = _new_loop()
        asyncio.set_event_loop(loop)
        try:
            try:
                self._open(loop)
            except BaseException as error:
                self._open_error = error
                self._closed = True
                return
            finally:
                ready.set()
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    _open_error: BaseException = RuntimeError("the system did not open")

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None or self._closed:
            raise InvalidArgument("an ActorSystem is opened once; make a new one")
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._inbox: LoopInbox = inbox_of(loop)
        self.clock: Clock = self._given_clock or LoopClock(loop)
        self._calls = Calls(self.clock, self._on_loop)
        self._calls.on_cancelled = self._caller_gone
        self._threads = ThreadPool(self._inbox)
        if self._listens:
            self._remote = Remote(self, self._transport, self._key, foreign=self._foreign)
            self._remote.open()
        _systems.append(self)

    def stop(self) -> Reply[None]:
        """End all actors in reverse order of their start, each within its shutdown time, then the inbox. No deadline."""
        done: Reply[None] = Reply()
        if self._closed or self._loop is None:
            done._resolve(None)
        else:
            self._on_loop(lambda: self._task(self._stop(done)))
        return done

    async def _stop(self, done: Reply[None]) -> None:
        while self._top:
            await self._top[-1].stop_for_good(Exit("shutdown"))
        if self._remote is not None:
            await self._remote.flush_out()
            self._remote.close()
        for call in self._calls.waiting():
            self._calls.fail(
                call,
                Unavailable(f"{call._describe()}: this process's system stopped", reason="system stopped"),
            )
        self._calls.close()
        self._threads.close()
        self._closed = True
        if self in _systems:
            _systems.remove(self)
        done._resolve(None)
        if self._own_thread is not None and self._loop is not None:
            self._loop.call_soon(self._loop.stop)

    # -- what users call ---------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where this process listens; empty without `listen=True`."""
        return self._remote.address if self._remote is not None else ""

    def spawn(self, cls: type, /, *args: Any, **kwargs: Any) -> Ref[Any]:
        """Start an actor and return at once; it is gone when it ends. Asks wait for its `on_start`."""
        return self._spawn(cls, args, kwargs)

    def options(
        self, *, name: str | None = None, mailbox: int | None = None, concurrency: int | None = None
    ) -> SpawnOptions:
        """`spawn` with options of ours beside the user's arguments."""
        return SpawnOptions(self, {"name": name, "mailbox": mailbox, "concurrency": concurrency})

    def find(self, name: str) -> Ref[Any]:
        """The actor of that name in this process. `NotFound` otherwise."""
        cell = self._cells.get(name)
        if cell is None:
            raise NotFound(f"no actor is named {name!r}{nearest(name, self._cells)}")
        return cell.ref()

    def ref(self, target: str) -> Ref[Any]:
        """A ref to `"<address>#<name>"`: whoever has that name there when a message arrives."""
        address, name = split_target(target)
        return Ref(self, name, 0, address)

    def service(self, name: str) -> Any:
        """The service *name* of this process's app. `NotFound` without an app."""
        if self.directory is None:
            raise NotFound(f"service {name!r}: this process belongs to no app")
        return self.directory.service(name)

    def statistics(self) -> SystemStatistics:
        """Counters of this process, now."""
        cells = list(self._cells.values())
        return SystemStatistics(
            actors=len(cells),
            accepted=self._counts.accepted,
            handled=self._counts.handled,
            in_progress=sum(len(cell.life.running) for cell in cells if cell.life is not None),
            in_mailbox=sum(len(cell.mailbox) for cell in cells),
            dead_lettered=self._counts.dead_lettered,
            refused=self._counts.refused,
            pending_asks=len(self._calls),
            rejected_frames=self._remote.rejected_frames if self._remote is not None else 0,
            threads=self._threads.threads,
        )

    def subscribe(self, sink: events.Sink) -> Callable[[], None]:
        """Call *sink* with every event from now on, on the system's loop; returns what ends it."""
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink) if sink in self._sinks else None

    def emit(self, event: events.Event) -> None:
        """Tell all sinks; any thread."""
        self._on_loop(self._emit, event)

    # -- spawning ----------------------------------------------------------------------

    def _spawn(
        self,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None = None,
        name: str | None = None,
        mailbox: int | None = None,
        concurrency: int | None = None,
    ) -> Ref[Any]:
        check_class(cls, args, kwargs)
        if self._loop is None or self._closed:
            raise ActorStopped("this ActorSystem is not open")
        if parent is not None and parent.is_over:
            raise ActorStopped(f"{parent.cell.name} has ended; it can start no children")
        if name is None:
            name = self._next_name(cls, parent)
        if parent is not None:
            name = f"{parent.cell.name}/{name}"
        cell = self._register(
            name, cls, args, kwargs, parent=parent, mailbox=mailbox, concurrency=concurrency
        )
        self._on_loop(cell.start)
        return cell.ref()

    def _next_name(self, cls: type, parent: Life | None) -> str:
        base = cls.__name__.lower()
        scope = f"{parent.cell.name}/{base}" if parent is not None else base
        return f"{base}-{next(self._numbers.setdefault(scope, itertools.count(1)))}"

    def _register(
        self,
        name: str,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None = None,
        owner: Owner = TEMPORARY,
        mailbox: int | None = None,
        concurrency: int | None = None,
        shutdown: float | None = None,
        uid: int | None = None,
        incarnation: int = 0,
        roams: bool = False,
    ) -> Cell:
        """Take a name for a new cell. `AlreadyStarted` when it is taken, `InvalidArgument` for wrong options."""
        for option, value in (("mailbox", mailbox), ("concurrency", concurrency)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidArgument(f"{option}={value!r} must be an integer of at least 1")
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"name={name!r} must be a word")
        if shutdown is None:
            shutdown = math.inf if getattr(cls, "is_supervisor", False) else 5.0
        cell = Cell(
            self,
            name,
            uid if uid is not None else random.getrandbits(63) or 1,
            cls,
            args,
            kwargs,
            parent=parent,
            owner=owner,
            mailbox=mailbox or cls.mailbox,  # type: ignore[attr-defined]
            concurrency=concurrency or cls.concurrency,  # type: ignore[attr-defined]
            shutdown=shutdown,
            incarnation=incarnation,
            roams=roams,
        )
        with self._names_lock:
            taken = self._cells.get(name)
            if taken is not None:
                raise AlreadyStarted(f"{name} is running already", taken.ref())
            self._cells[name] = cell
        (self._top if parent is None else parent.children).append(cell)
        return cell

    def _ended(self, cell: Cell) -> None:
        if self._cells.get(cell.name) is cell:
            del self._cells[cell.name]
        if cell in self._top:
            self._top.remove(cell)
        self._gone[cell.name] = (cell.uid, cell.exit or Exit("normal"))
        self._gone.move_to_end(cell.name)
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    # -- sending -----------------------------------------------------------------------

    def _ask(self, ref: Ref[Any], method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reply[Any]:
        call = Call(self, ref, method, ref._timeout)
        call.given_timeout = ref._timeout_given
        sender = current_message.get()
        self._set_deadline(call, ref, sender)
        self._calls.add(call)
        self._dispatch(call, ref, args, kwargs, sender)
        return call

    def _set_deadline(self, call: Call, ref: Ref[Any], sender: Message | None) -> None:
        if ref._timeout is not None:
            call.deadline_at = self.clock.now() + ref._timeout
        if sender is not None and sender.deadline_at < call.deadline_at and not ref._detached:
            call.deadline_at = sender.deadline_at
            call.timeout = None

    def _dispatch(
        self, call: Call, ref: Ref[Any], args: tuple[Any, ...], kwargs: dict[str, Any], sender: Message | None
    ) -> None:
        """Send a registered call to where *ref* lives."""
        cell = ref._cell
        if cell is None:
            try:
                cell = self._locate(ref)
            except Exception as error:
                self._calls.refuse(call, error)
                return
        if isinstance(cell, str):
            assert self._remote is not None
            call.peer = None
            self._remote.ask(call, cell, ref, args, kwargs, sender)
            return
        message = Message(
            method=call.method,
            args=args,
            kwargs=kwargs,
            answer=call,
            sender=sender.cell if sender is not None else None,
            deadline_at=call.deadline_at,
        )
        message.pin = ref._pin
        call.message = message
        call.target = ref
        if threading.get_ident() == self._loop_thread:
            self._deliver(cell, message, ref)
        else:
            self._inbox.post(self._deliver, cell, message, ref)

    def _locate(self, ref: Ref[Any]) -> Any:
        """The cell a ref means, or the address of the process that has it."""
        home = ref._home
        if not home:
            if self.directory is None:
                return self._cell_of(ref._name, ref._uid)
            home = self.directory.locate(ref._name, ref._uid)
        if home == self.address:
            return self._cell_of(ref._name, ref._uid)
        if self._remote is None:
            raise Unavailable(
                f"{ref._name} lives in another process and this system does not listen",
                may_have_run=False,
                reason="no inbox",
            )
        return home

    def _cell_of(self, name: str, uid: int) -> Cell:
        cell = self._cells.get(name)
        if cell is not None and uid in (0, cell.uid):
            return cell
        gone = self._gone.get(name)
        if cell is not None or (gone is not None and uid in (0, gone[0])):
            exit = gone[1] if gone is not None else None
            raise ActorStopped(f"{name} has ended" + (f" ({exit})" if exit is not None else ""))
        raise NotFound(f"no actor is named {name!r}{nearest(name, self._cells)}")

    def _deliver(self, cell: Cell, message: Message, ref: Ref[Any]) -> None:
        if message.pin and message.pin < cell.incarnation:
            cell._refuse(
                message, "incarnation over", ActorStopped(f"incarnation {message.pin} of {cell.name} is over")
            )
        else:
            cell.deliver(message)

    def _tell(self, ref: Ref[Any], method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reply[None]:
        sender = current_message.get()
        try:
            cell = ref._cell or self._locate(ref)
        except Exception as error:
            return self._lost_tell(ref, method, sender, error)
        if isinstance(cell, str):
            assert self._remote is not None
            return self._remote.tell(cell, ref, method, args, kwargs, sender)
        message = Message(method, args, kwargs, None, sender.cell if sender is not None else None)
        message.is_tell = True
        message.pin = ref._pin
        reply: Reply[None] = Reply()
        message.answer = _TellAnswer(reply)
        if threading.get_ident() == self._loop_thread:
            self._deliver_tell(cell, message, ref, reply)
        else:
            self._inbox.post(self._deliver_tell, cell, message, ref, reply)
        return reply

    def _deliver_tell(self, cell: Cell, message: Message, ref: Ref[Any], reply: Reply[None]) -> None:
        self._deliver(cell, message, ref)
        reply._resolve(None)  # nothing happens when it was refused

    def _lost_tell(
        self, ref: Ref[Any], method: str, sender: Message | None, error: BaseException
    ) -> Reply[None]:
        self._counts.refused += 1
        name = sender.cell.name if sender is not None and sender.cell is not None else None
        self._emit(events.DeadLettered(ref._name, name, method, type(error).__name__))
        return failed(error)

    def _caller_gone(self, call: Call) -> None:
        """A call ended here by cancel or deadline: tell the far end."""
        if call.message is not None:
            message = call.message
            if message.cell is not None:
                self._on_loop(message.cell.cancel, message)
            else:
                message.cancelled = "caller"
        elif call.peer is not None and self._remote is not None:
            self._remote.cancel(call)

    def _send_back(self, peer: Any, kind: int, codec: int, call_id: int, body: bytes) -> None:
        assert self._remote is not None
        self._remote.send_back(peer, kind, codec, call_id, body)

    # -- controls: what overtakes every user message -----------------------------------------

    def _control(
        self, ref: Ref[Any], verb: str, args: tuple[Any, ...], timeout: float | None = None
    ) -> Reply[Any]:
        """Carry out a verb of `_CONTROLS` where the actor lives. Orders inherit no deadline."""
        plain = ref._with(timeout=timeout, timeout_given=True, detached=timeout is None)
        try:
            place = ref._cell or self._locate(ref)
        except Exception as error:
            return _absent(verb, error)
        if isinstance(place, str):
            return self._ask(plain, verb, args, {})
        reply: Reply[Any] = Reply()
        self._on_loop(self._carry_out, place, verb, args, ref._pin, reply)
        return reply

    def _carry_out(self, cell: Cell, verb: str, args: tuple[Any, ...], pin: int, reply: Reply[Any]) -> None:
        if pin and pin != cell.incarnation:
            outcome = _absent(verb, ActorStopped(f"incarnation {pin} of {cell.name} is over"))
        else:
            outcome = _CONTROLS[verb](cell, *args)
        outcome.add_done_callback(partial(_copy, reply))

    def _incarnation_of(self, ref: Ref[Any]) -> int:
        place = ref._cell or self._locate(ref)
        if isinstance(place, Cell):
            return place.incarnation
        if self.directory is None or ref._home:
            raise InvalidArgument(f"{ref!r} lives in another process; only that process can pin it")
        return self.directory.incarnation_of(ref._name, ref._uid)

    def _home_of(self, ref: Ref[Any]) -> str:
        if ref._cell is None or ref._cell.roams:
            return ""  # the directory knows where it lives after the next restart
        return self.address

    # -- watching ----------------------------------------------------------------------

    def _watch(self, life: Life, ref: Ref[Any]) -> None:
        self._on_loop(self._begin_watch, life, ref)

    def _begin_watch(self, life: Life, ref: Ref[Any]) -> None:
        if life.watches is None:
            life.watches = {}
        key = (ref._name, ref._uid)
        if key in life.watches or life.is_over:
            return
        notify = partial(self._watched_ended, life, key)
        try:
            place = ref._cell or self._locate(ref)
        except Exception as error:
            life.watches[key] = lambda: None
            exit = Exit("not_found") if not isinstance(error, Unavailable) else Exit("killed", error.reason)
            notify(Terminated(ref, exit))
            return
        if isinstance(place, Cell):
            life.watches[key] = self._watch_cell(place, (life, key), notify, ref)
        elif not ref._home and self.directory is not None:
            life.watches[key] = self.directory.watch(
                ref._name, ref._uid, lambda exit: notify(Terminated(ref, exit))
            )
        else:
            assert self._remote is not None
            life.watches[key] = self._remote.watch(place, ref, notify)

    def _watch_cell(
        self, cell: Cell, key: Any, notify: Callable[[Terminated], None], ref: Ref[Any]
    ) -> Callable[[], None]:
        if cell.state == "ended":
            notify(Terminated(ref, Exit("not_found")))
            return lambda: None
        if cell.watchers is None:
            cell.watchers = {}
        watchers = cell.watchers
        watchers[key] = notify
        return lambda: watchers.pop(key, None)

    def _watched_ended(self, life: Life, key: Any, terminated: Terminated) -> None:
        if life.watches is not None and life.watches.pop(key, None) is not None and life.cell.life is life:
            life.cell.notify(terminated)

    def _unwatch(self, life: Life, ref: Ref[Any]) -> None:
        self._on_loop(self._end_watch, life, (ref._name, ref._uid))

    def _end_watch(self, life: Life, key: Any) -> None:
        undo = (life.watches or {}).pop(key, None)
        if undo is not None:
            undo()

    def _forget_watches(self, life: Life) -> None:
        watches, life.watches = life.watches, None
        for undo in (watches or {}).values():
            undo()

    # -- plumbing ------------------------------------------------------------------------

    def _is_loop_thread(self) -> bool:
        # Not `asyncio.get_running_loop`: it asks the kernel for the pid each time, 12 % of an ask.
        return threading.get_ident() == self._loop_thread

    def _on_loop(self, callback: Callable[..., Any], *args: Any) -> None:
        """Run on the loop: at once when already there, else soon."""
        if threading.get_ident() == self._loop_thread:
            callback(*args)
        else:
            self._inbox.post(callback, *args)

    def _task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        assert self._loop is not None
        task = self._loop.create_task(coroutine, context=self._base_context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _fresh_context(self, message: Message) -> ContextVars:
        """Context variables of one message: the program's own, nothing of other messages."""
        context = self._base_context.copy()
        context.run(current_message.set, message)
        return context

    def _emit(self, event: events.Event) -> None:
        for sink in self._sinks:
            try:
                sink(event)
            except Exception as error:
                if self._loop is not None:
                    self._loop.call_exception_handler(
                        {"message": f"event sink {sink!r} failed", "exception": error}
                    )

    def _dead_letter(self, target: str, message: Message, reason: str) -> None:
        self._emit(events.DeadLettered(target, message.sender_name, message.method, reason))

    def _report_unread(self, event: events.ReplyUnread) -> None:
        if not self._closed:
            self._inbox.post(self._emit, event)

    def _report_failed_stop(self, cell: Cell, reason: str, error: BaseException | None) -> None:
        self._emit(events.ErrorUnanswered(cell.name, "on_stop", error, reason))


class SpawnOptions:
    """`system.options(…)`: `spawn` with a name or limits."""

    __slots__ = ("_options", "_system")

    def __init__(self, system: ActorSystem, options: dict[str, Any]) -> None:
        self._system = system
        self._options = options

    def spawn(self, cls: type, /, *args: Any, **kwargs: Any) -> Ref[Any]:
        """`ActorSystem.spawn` with these options."""
        return self._system._spawn(cls, args, kwargs, **self._options)


class _TellAnswer(NoAnswer):
    """Where the refusal of a tell goes: the reply that its sender may look at."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply[None]) -> None:
        self._reply = reply

    def _answer_refused(self, error: BaseException) -> None:
        self._reply._reject(error)


def _is_alive(cell: Cell) -> Reply[Any]:
    return settled(cell.is_alive)


def _stop(cell: Cell, kind: str) -> Reply[Any]:
    return _ordered(cell, Exit(kind), cell.shutdown)  # type: ignore[arg-type]


def _kill(cell: Cell) -> Reply[Any]:
    return _ordered(cell, Exit("killed"), 0.0)


def _ordered(cell: Cell, exit: Exit, shutdown: float) -> Reply[Any]:
    if cell.state == "ended":
        return failed(ActorStopped(f"{cell.name} has ended ({cell.exit})"))
    done: Reply[Any] = Reply()
    cell.wait_stopped(for_good=cell.state == "down").add_done_callback(lambda _: done._resolve(None))
    cell.stop(exit, shutdown, hand_back=cell.owner is TEMPORARY)
    return done


_CONTROLS: dict[str, Callable[..., Reply[Any]]] = {
    "$is_alive": _is_alive,
    "$wait_started": Cell.wait_started,
    "$wait_stopped": Cell.wait_stopped,
    "$stop": _stop,
    "$kill": _kill,
}


def _absent(verb: str, error: BaseException) -> Reply[Any]:
    """What a control verb says of an actor that is not there."""
    if verb == "$is_alive":
        return settled(False)
    if verb == "$wait_stopped" and isinstance(error, (ActorStopped, NotFound)):
        return settled(Exit("not_found"))
    return failed(error)


def _copy(target: Reply[Any], source: Reply[Any]) -> None:
    source._read = True
    if source._error is not None:
        target._reject(source._error)
    else:
        target._resolve(source._value)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop

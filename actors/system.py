"""
Systems: one per process. Owns the cells, starts actors, holds the process's inbox.

Messages leave through `_sending`, come in through `_remote`. All cells live on one event
loop; refs may be used from any thread.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context as ContextVars
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from actors import _passage, events
from actors._answered import Answered
from actors._calls import Call, Calls
from actors._cell import ENDED, TEMPORARY, Cell, Owner
from actors._feeds import Feeds
from actors._life import Life
from actors._loop import LoopInbox, inbox_of
from actors._message import Message, current_message
from actors._names import Names
from actors._reliable import Reliable
from actors._remote import Remote
from actors._runner import Runners
from actors._sending import Sending
from actors._threads import ThreadPool
from actors._watches import Watches
from actors.actor import (
    Actor,
    Method,
    Overflow,
    check_class,
    check_handler_timeout,
    check_interceptors,
    check_overflow,
    methods_of,
)
from actors.address import new_host_id, split_target
from actors.clock import Clock, LoopClock
from actors.directory import Directory
from actors.errors import ActorStopped, InvalidArgument, NotFound, Unavailable
from actors.exit import Exit
from actors.ref import Ref
from actors.remains import Held, Tag
from actors.reply import Reply
from actors.retry import RetryBudgets
from actors.statistics import Counts, SystemStatistics
from actors.tracing import look_for_opentelemetry, without_span
from actors.transport import Transport
from actors.wire import Kind

if TYPE_CHECKING:
    from actors._reception import Reception
    from actors.interceptors import Interceptor

A = TypeVar("A")
P = ParamSpec("P")


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
    talk: `system.address`, `other.ref(f"{address}#{name}")`. *interceptors* stand around
    whatever this process sends, handles and spawns; see `actors.interceptors`.
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
        crash_file: str = "",
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.directory = directory
        self._crash_file = crash_file
        """Where this process writes its stack when a fatal signal ends it."""
        self._given_clock = clock
        self._listens = listen or transport is not None
        self._transport = transport
        self._key = key
        self._foreign = foreign
        """A foreign door: speaks JSON and never unpickles."""
        self._sinks: list[events.Sink] = list(sinks)
        self._id = new_host_id()
        """Tells this system from all others, in chains of asks."""
        self._counts = Counts()
        self._names = Names()
        self._top: dict[Cell, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._interceptors = check_interceptors("ActorSystem.", tuple(interceptors))
        self._intercepted: dict[type[Actor], dict[str, Method]] = {}
        """The methods of actor classes inside their interceptors."""
        self._base_context = without_span(copy_context())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._own_thread: threading.Thread | None = None
        self._remote: Remote | None = None
        self._reliable = Reliable(self)
        self._watches = Watches(self)
        self._sending = Sending(self)
        self._feeds = Feeds(self)
        self._answered = Answered(self)
        self._retry_budgets = RetryBudgets()
        self._stopped: Reply[None] = Reply(self)
        self._stopping = threading.Lock()
        """Taken for good by the first stop."""
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
        self._runners = Runners(self, loop, self._base_context)
        if self._listens:
            self._remote = Remote(self, self._transport, self._key, foreign=self._foreign)
            self._remote.open(loop)
        look_for_opentelemetry()
        _systems.append(self)

    def stop(self) -> Reply[None]:
        """
        End all actors in reverse order of their start, each within its shutdown time, then the inbox.

        No deadline. Stopping twice is stopping once.
        """
        if self._stopping.acquire(blocking=False):
            if self._loop is None:
                self._closed = True
                self._stopped._resolve(None)
            else:
                self._on_loop(lambda: self._task(self._stop()))
        return self._stopped

    async def _stop(self) -> None:
        while self._top:
            await next(reversed(self._top)).stop_for_good(Exit("shutdown"))
        if self._remote is not None:
            await self._remote.flush_out()
            self._remote.close()
        # Before the calls are failed: who adds one later looks at this afterwards.
        self._closed = True
        for call in self._calls.waiting():
            self._calls.fail(call, self._unreachable(call.target))
        await self._feeds.wait_ended()
        self._calls.close()
        self._reliable.close()
        self._runners.close()
        self._threads.close()
        if self in _systems:
            _systems.remove(self)
        self._stopped._resolve(None)
        if self._own_thread is not None and self._loop is not None:
            self._loop.call_soon(self._loop.stop)

    @property
    def has_own_time(self) -> bool:
        """True with a clock of its own: then only that clock knows what is due."""
        return self._given_clock is not None

    def _unreachable(self, ref: Ref[Any]) -> Exception:
        """What a message is told that is sent after the end."""
        cell = ref._cell
        if cell is not None:
            return cell.gone()
        text = f"{ref._name} cannot be reached: this process's system stopped"
        return Unavailable(text, may_have_run=False, reason="system stopped")

    # -- what users call ---------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where this process listens; empty without `listen=True`."""
        return self._remote.address if self._remote is not None else ""

    def spawn(self, cls: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Ref[A]:
        """Start an actor and return at once; it is gone when it ends. Asks wait for its `on_start`."""
        return self._spawn(cls, args, kwargs)

    def options(
        self,
        *,
        name: str | None = None,
        mailbox: int | None = None,
        overflow: Overflow | None = None,
        concurrency: int | None = None,
        handler_timeout: float | None = None,
    ) -> SpawnOptions:
        """`spawn` with options of ours beside the user's arguments; None leaves it to the class."""
        limits = {"mailbox": mailbox, "overflow": overflow, "concurrency": concurrency}
        return SpawnOptions(self, {"name": name, **limits, "handler_timeout": handler_timeout})

    def find(self, name: str) -> Ref[Any]:
        """The actor of that name in this process. `NotFound` otherwise."""
        return self._names.find(name).ref()

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
        counts = self._counts
        cells = list(self._names.cells.values())
        return SystemStatistics(
            actors=len(cells),
            accepted=counts.accepted,
            handled=counts.handled,
            in_progress=counts.running + sum(cell.is_stepping for cell in cells),
            in_mailbox=sum(len(cell.mailbox) for cell in cells),
            dead_lettered=counts.dead_lettered,
            refused=counts.refused,
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
        cls: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None = None,
        name: str | None = None,
        mailbox: int | None = None,
        overflow: str | None = None,
        concurrency: int | None = None,
        handler_timeout: float | None = None,
    ) -> Ref[Any]:
        check_class(cls, args, kwargs)
        if self._loop is None or self._closed:
            raise ActorStopped("this ActorSystem is not open")
        if parent is None and self._stopping.locked():
            raise ActorStopped("this ActorSystem is stopping")
        if parent is not None and parent.is_over:
            raise ActorStopped(f"{parent.cell.name} has ended; it can start no children")
        if name is None:
            name = self._names.invent(cls.__name__.lower(), parent)
        elif parent is not None:
            name = f"{parent.cell.name}/{name}"
        cell = self._register(
            name,
            cls,
            args,
            kwargs,
            parent=parent,
            mailbox=mailbox,
            overflow=overflow,
            concurrency=concurrency,
            handler_timeout=handler_timeout,
        )
        self._on_loop(cell.start)
        return cell.ref()

    def _register(
        self,
        name: str,
        cls: type[Actor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        parent: Life | None = None,
        owner: Owner = TEMPORARY,
        mailbox: int | None = None,
        overflow: str | None = None,
        concurrency: int | None = None,
        handler_timeout: float | None = None,
        shutdown: float | None = None,
        uid: int | None = None,
        incarnation: int = 0,
        roams: bool = False,
    ) -> Cell:
        """Take a name for a new cell. `AlreadyStarted` when it is taken, `InvalidArgument` for options."""
        for option, value in (("mailbox", mailbox), ("concurrency", concurrency)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidArgument(f"{option}={value!r} must be an integer of at least 1")
        if overflow is not None:
            check_overflow("", overflow)
        if handler_timeout is not None:
            check_handler_timeout("", handler_timeout)
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"name={name!r} must be a word")
        if shutdown is None:
            shutdown = math.inf if cls.is_supervisor else 5.0
        cell = Cell(
            self,
            name,
            uid if uid is not None else random.getrandbits(63) or 1,
            cls,
            args,
            kwargs,
            parent=parent,
            owner=owner,
            mailbox=mailbox or cls.mailbox,
            overflow=overflow or cls.overflow,
            concurrency=concurrency or cls.concurrency,
            handler_timeout=handler_timeout or cls.handler_timeout,
            shutdown=shutdown,
            incarnation=incarnation,
            roams=roams,
        )
        registered = _passage.spawning(cell) if cell.interceptors else None
        self._names.take(cell)
        (self._top if parent is None else parent.children)[cell] = None
        if registered is not None:
            registered()
        return cell

    def _methods_of(self, cls: type[Actor], interceptors: tuple[Interceptor, ...]) -> dict[str, Method]:
        """The messages of *cls*, each inside *interceptors*."""
        methods = self._intercepted.get(cls)
        if methods is None:
            methods = {name: _passage.around(one, interceptors) for name, one in methods_of(cls).items()}
            self._intercepted[cls] = methods
        return methods

    def _ended(self, cell: Cell) -> None:
        self._names.free(cell)
        self._top.pop(cell, None)

    def _hold(self, message: Message, tag: Tag) -> None:
        """*message* is being handled from now on until its `watch` is cancelled."""
        if self._remote is not None and self._remote.in_hand is not None:
            message.watch = Held(self._remote.in_hand, tag, message.watch)

    # -- where actors live ---------------------------------------------------------------

    def _place(self, ref: Ref[Any]) -> Cell | str:
        """The cell a ref means, or the address of the process that has it; raises when there is neither."""
        cell = ref._cell
        if cell is not None and not (cell.roams and cell.state == ENDED):
            return cell
        if self._closed:
            raise self._unreachable(ref)
        home = ref._home
        if not home and self.directory is not None:
            home = self.directory.locate(ref._name, ref._uid)
        if not home or home == self.address:
            return self._cell_of(ref._name, ref._uid)
        if self._remote is None:
            raise Unavailable(
                f"{ref._name} lives in another process and this system does not listen",
                may_have_run=False,
                reason="no inbox",
            )
        return home

    def _cell_of(self, name: str, uid: int) -> Cell:
        return self._names.cell_of(name, uid)

    def _incarnation_of(self, ref: Ref[Any]) -> int:
        place = self._place(ref)
        if isinstance(place, Cell):
            return place.incarnation or 1  # its loop is about to begin the first
        if self.directory is None or ref._home:
            raise InvalidArgument(f"{ref!r} lives in another process; only that process can pin it")
        return self.directory.incarnation_of(ref._name, ref._uid)

    def _home_of(self, ref: Ref[Any]) -> str:
        if ref._cell is None or ref._cell.roams:
            return ""  # the directory knows where it lives after the next restart
        return self.address

    def _stream_dropped(self, call_id: int, message: Message | None, peer: Any) -> None:
        """Nobody holds a stream any more, and nobody has read it."""
        if message is not None:
            _withdraw(message)
        elif peer is not None and self._remote is not None:
            self._remote.send(peer, Kind.CANCEL, call_id, b"")

    def _caller_gone(self, call: Call) -> None:
        """A call ended here by cancel or deadline: tell the far end."""
        if call.message is not None:
            self._on_loop(_withdraw, call.message)
        elif call.peer is not None and self._remote is not None:
            self._remote.cancel(call)

    def _send_back(self, peer: Any, kind: int, codec: int, call_id: int, body: bytes) -> None:
        assert self._remote is not None
        self._remote.send_back(peer, kind, codec, call_id, body)

    # -- plumbing ------------------------------------------------------------------------

    def _is_loop_thread(self) -> bool:
        # Not `asyncio.get_running_loop`: it asks the kernel for the pid each time, 12 % of an ask.
        return threading.get_ident() == self._loop_thread and not self._closed

    def _awaited_elsewhere(self) -> None:
        """A thread other than the loop's waits for a reply: what the loop does must not delay it."""
        if self._remote is not None:
            self._remote.reception.apart(for_good=True)

    @property
    def _reception(self) -> Reception | None:
        """Who receives what comes from other processes; None for a system without."""
        return None if self._remote is None else self._remote.reception

    def _receives_here(self) -> bool:
        """True on the thread that is receiving, in a callback of what came."""
        return self._remote is not None and self._remote.receives_here()

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

    def _report_unread(self, event: events.ReplyUnread) -> None:
        if not self._closed:
            self._inbox.post(self._emit, event)


class SpawnOptions:
    """`system.options(…)`: `spawn` with a name or limits."""

    __slots__ = ("_options", "_system")

    def __init__(self, system: ActorSystem, options: dict[str, Any]) -> None:
        self._system = system
        self._options = options

    def spawn(self, cls: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Ref[A]:
        """`ActorSystem.spawn` with these options."""
        return self._system._spawn(cls, args, kwargs, **self._options)


def _withdraw(message: Message) -> None:
    """Nobody waits for *message* any more, wherever it is."""
    message.cancelled = message.cancelled or "caller"
    if message.cell is not None:
        message.cell.cancel(message)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop

"""
Contexts: what an actor knows about itself and may ask of the runtime, as `self.context`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from actors._message import current_message
from actors.actor import timer_methods_of
from actors.deadline import Deadline
from actors.errors import ActorStopped, InvalidArgument, nearest
from actors.exit import Exit
from actors.ref import Ref, method_name

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._life import Life
    from actors.system import ActorSystem

A = TypeVar("A")
P = ParamSpec("P")


def current_actor() -> tuple[str, int] | None:
    """Name and incarnation of the actor whose code runs here; None outside of all actors."""
    message = current_message.get()
    life = message.life if message is not None else None
    return (life.cell.name, life.incarnation) if life is not None else None


class Context:
    """One life of one actor, seen from inside. Belongs to that life: a restart makes a new one."""

    __slots__ = ("_life", "_log")

    def __init__(self, life: Life) -> None:
        self._life = life
        self._log: Any = None

    # -- who and when ----------------------------------------------------------------

    @property
    def ref(self) -> Ref[Any]:
        """This actor, across its restarts."""
        return self._cell.ref()

    @property
    def name(self) -> str:
        """This actor's name."""
        return self._cell.name

    @property
    def incarnation(self) -> int:
        """Which life this is: 1, 2, 3, …"""
        return self._life.incarnation

    @property
    def parent(self) -> Ref[Any] | None:
        """Who started this actor, None at the top."""
        parent = self._cell.parent
        return parent.cell.ref() if parent is not None else None

    @property
    def sender(self) -> Ref[Any] | None:
        """Who sent the message being handled, pinned; None when no actor did."""
        message = current_message.get()
        return message.sender_ref(self.system) if message is not None else None

    @property
    def deadline(self) -> Deadline | None:
        """When the answer to the message being handled is due; None when never."""
        message = current_message.get()
        if message is None or message.deadline_at == math.inf:
            return None
        return Deadline(message.deadline_at, self.system.clock.now)

    @property
    def redelivered(self) -> bool:
        """
        True when the message being handled was sent before, and may have been handled: here or elsewhere.

        Only for calls of `@idempotent` methods and for reliable tells: nothing else is sent again when it
        may have run.
        """
        message = current_message.get()
        return message is not None and message.redelivered

    @property
    def log(self) -> Any:
        """A structlog logger bound to this actor."""
        if self._log is None:
            from actors.events import logger

            self._log = logger(actor=self.name, incarnation=self.incarnation)
        return self._log

    @property
    def system(self) -> ActorSystem:
        """The system of this process."""
        return self._cell.system

    # -- other actors ------------------------------------------------------------------

    def spawn(self, cls: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Ref[A]:
        """
        Start a temporary child and return at once.

        It ends with this actor, and is gone when it ends; who wants restarts spawns a
        `Supervisor`. `AlreadyStarted` for a taken name.
        """
        return self._spawn(cls, args, kwargs)

    def options(self, **options: Any) -> ContextOptions:
        """`spawn` with `name=, mailbox=, overflow=, concurrency=, handler_timeout=`; timers with `key=`."""
        return ContextOptions(self, options)

    def watch(self, ref: Ref[Any]) -> None:
        """
        Have `on_terminated` called, once, when *ref* has ended for good.

        At once for what has ended already or never was. Watching twice is watching once.
        """
        self.system._watches.begin(self._life, ref)

    def unwatch(self, ref: Ref[Any]) -> None:
        """Undo `watch`; a notice that waits in the mailbox is dropped too."""
        self.system._watches.end(self._life, ref)

    def service(self, name: str) -> Any:
        """The service *name* of this actor's app. `NotFound` at once when there is none."""
        return self.system.service(name)

    # -- itself ------------------------------------------------------------------------

    def after(self, delay: float, method: Any, /, *args: Any) -> TimerHandle:
        """
        Send *method* (bound method or name, private ones too) to oneself in *delay* seconds.

        A timer belongs to this life and ends with it.
        """
        return self._start_timer(None, delay, None, method, args)

    def every(self, period: float, method: Any, /, *args: Any) -> TimerHandle:
        """Send *method* to oneself every *period* seconds. A tick that still waits is not sent twice."""
        return self._start_timer(None, period, period, method, args)

    def serve_early(self) -> None:
        """Take messages from now on although `on_start` has not returned: supervisors start others in it."""
        self._life.serves_early = True
        self._cell.serve()

    def stop(self, kind: str = "normal", detail: Any = None) -> None:
        """End this actor once the running handler has returned and its answer is sent."""
        self._life.request_stop(Exit(kind, detail))  # type: ignore[arg-type]

    @property
    def _cell(self) -> Cell:
        return self._life.cell

    def _spawn(self, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any) -> Ref[Any]:
        return self.system._spawn(cls, args, kwargs, parent=self._life, **options)

    def _start_timer(
        self, key: Any, delay: float, period: float | None, method: Any, args: tuple[Any, ...]
    ) -> TimerHandle:
        word = "delay" if period is None else "period"
        if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < math.inf:
            raise InvalidArgument(f"{word}={delay!r} must be seconds, 0 or more")
        if period == 0:
            raise InvalidArgument(f"period={period!r} must be above 0")
        name = method_name(method)
        known = timer_methods_of(self._cell.cls)
        if name not in known:
            raise InvalidArgument(
                f"{self._cell.cls.__name__} has no method {name!r} for a timer{nearest(name, known)}"
            )
        if self._life.is_over:
            raise ActorStopped(f"{self.name} has ended; it can start no timers")
        return self._life.timers.start(key, delay, period, known[name], args)


class ContextOptions:
    """`context.options(…)`: the same verbs with options of ours beside the user's arguments."""

    __slots__ = ("_context", "_options")

    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        known = ("name", "mailbox", "overflow", "concurrency", "handler_timeout", "key")
        for option in options:
            if option not in known:
                raise InvalidArgument(f"options({option}=…) is unknown{nearest(option, known)}")
        self._context = context
        self._options = options

    def spawn(self, cls: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Ref[A]:
        """`Context.spawn` with these options."""
        options = {name: value for name, value in self._options.items() if name != "key"}
        return self._context._spawn(cls, args, kwargs, **options)

    def after(self, delay: float, method: Any, /, *args: Any) -> TimerHandle:
        """`Context.after`; a timer of the same *key* is replaced."""
        return self._context._start_timer(self._options.get("key"), delay, None, method, args)

    def every(self, period: float, method: Any, /, *args: Any) -> TimerHandle:
        """`Context.every`; a timer of the same *key* is replaced."""
        return self._context._start_timer(self._options.get("key"), period, period, method, args)


class TimerHandle:
    """A running timer."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Send no more. A tick that waits in the mailbox is still handled."""
        self._cancel()

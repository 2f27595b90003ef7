"""
Refs: how actors are named and called, from any process of the app.

A `Ref` is logical: a name and the uid of its registration. It survives restarts and
travels in messages; `pinned()` binds it to one incarnation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from actors.errors import InvalidArgument, nearest
from actors.exit import Exit
from actors.idempotency import Naming, idempotency_of, unnamed, with_key
from actors.reply import Reply, failed

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._way import NearWay, Way
    from actors.system import ActorSystem

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

_UNCHANGED: Any = object()

decoding = threading.local()
"""`decoding.system`: where refs that are being unpickled on this thread belong."""


class Ref(Generic[A]):
    """
    A handle on one actor. Public methods of its class can be called on it directly.

    Every operation returns a `Reply` and has been sent when it returns. Two refs are
    equal when name, registration and pin are equal.
    """

    __slots__ = (
        "__dict__",
        "_cell",
        "_detached",
        "_home",
        "_name",
        "_naming",
        "_pin",
        "_reliable",
        "_system",
        "_timeout",
        "_timeout_given",
        "_uid",
        "_way",
    )

    def __init__(
        self,
        system: ActorSystem | None,
        name: str,
        uid: int,
        home: str,
        *,
        pin: int = 0,
        timeout: float | None = 5.0,
        timeout_given: bool = False,
        detached: bool = False,
        naming: Naming | None = None,
        reliable: bool = False,
        cell: Cell | None = None,
    ) -> None:
        self._system = system
        self._name = name
        self._uid = uid
        """0: whoever has the name now."""
        self._home = home
        """The address of the process it lives in; empty when the system's directory knows."""
        self._pin = pin
        self._timeout = timeout
        self._timeout_given = timeout_given
        self._detached = detached
        """True for orders: they inherit no deadline."""
        self._naming = naming
        """Which methods are idempotent, as far as is known."""
        self._reliable = reliable
        """True when its tells are numbered, acknowledged and sent again."""
        self._cell = cell
        self._way: Way | NearWay | None = None
        """Of its last plain message."""

    # -- messages ------------------------------------------------------------------

    def __getattr__(self, method: str) -> Callable[..., Reply[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        # Found at once from now on: this way here takes 0.5 µs, for Python raises an error first.
        # The twin is there because a method that held this very ref would make a cycle of both.
        found = self.__dict__[method] = _Method(self._twin(), method)
        return found

    @overload
    def ask(
        self,
        method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Reply[R]: ...
    @overload
    def ask(
        self, method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[R]: ...
    @overload
    def ask(self, method: str, /, *args: Any, **kwargs: Any) -> Reply[Any]: ...
    def ask(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[Any]:
        """
        Call *method* (the function, or its name) and get its outcome.

        Fails with the handler's exception, or with `DeadlineExceeded`, `Unavailable`,
        `ActorStopped`, `NotFound`, `UnknownMethod`, `InvalidArgument`, `MailboxFull`,
        `StartFailed`, `SerializationError`. The timeout is the class's `ask_timeout`
        (5 s), or what `options(timeout=…)` says.

        An async iterator among the arguments travels item by item, as the handler reads it
        (`async for`, in `def` handlers `for`). It runs here, in the caller's context; it is
        closed when the call has its outcome, and what it raises, the handler gets.
        """
        way = self._way
        if way is not None and way.said is method and not kwargs and (call := way.ask(args)) is not None:
            return call
        ref = self if type(method) is str or idempotency_of(method) is None else self._knowing(method)
        return self._bound()._sending.ask(ref, method_name(method), args, kwargs, said=method)

    def _knowing(self, method: Any) -> Ref[A]:
        """This ref, which knows from now on that *method* is idempotent."""
        naming = self._naming or Naming()
        return self._with(naming=Naming(naming.methods | {method_name(method)}, naming.key))

    @overload
    def tell(
        self, method: Callable[Concatenate[A, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[None]: ...
    @overload
    def tell(self, method: str, /, *args: Any, **kwargs: Any) -> Reply[None]: ...
    def tell(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[None]:
        """
        Send *method* and forget it: at most once, in order per sender and receiver.

        The reply resolves when the mailbox took the message and fails when it did not;
        nobody has to look at it: an unread refusal is a dead letter. It never blocks, also where the
        receiver's `overflow` is "block": who sends much waits for the replies.
        """
        way = self._way
        if way is not None and way.said is method and not kwargs and (told := way.tell(args)) is not None:
            return told
        if self._naming is not None and self._naming.key is not None:
            return failed(unnamed(method_name(method)))
        return self._bound()._sending.tell(self, method_name(method), args, kwargs, said=method)

    @overload
    def stream(
        self, method: Callable[Concatenate[A, P], AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[R]: ...
    @overload
    def stream(
        self, method: Callable[Concatenate[A, P], Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[R]: ...
    @overload
    def stream(self, method: str, /, *args: Any, **kwargs: Any) -> Reply[Any]: ...
    def stream(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[Any]:
        """
        Call a method that is a stream; read the reply with `async for` or `for`, once.

        The timeout (30 s) is between items, while none lies unread. Leaving the loop early ends
        the stream at the far end. A slow reader slows the writer: at most 512 items or 1 MiB
        lie unread between processes, 32 items inside one. Arguments as in `ask`.
        """
        return self._bound()._sending.ask(self, method_name(method), args, kwargs, streams=True)

    def options(
        self,
        *,
        timeout: float | None = _UNCHANGED,
        idempotency_key: str = _UNCHANGED,
        reliable: bool = _UNCHANGED,
    ) -> Ref[A]:
        """
        The same ref with another *timeout* (seconds; None waits for ever) for its asks and streams.

        Asks with one *idempotency_key* are one call, of an `@idempotent` method; any other refuses
        it with `InvalidArgument`.

        With *reliable* its tells are numbered and sent again until their handler has ended, over broken
        pipes and restarts, to the actor's next incarnation too; handed on once and in order as long
        as the receiver's process lives. What may have run before says so (`context.redelivered`). The
        reply resolves when the handler has ended, however; it fails with `MailboxFull` beyond 256
        (or 16 MB) of them that have not, with `DeadlineExceeded` after the *timeout*, where one is given,
        when the actor has ended for good (`Unavailable` if it may have run before that), and with
        `Unavailable` when it was in the handler twice as the process died: it is poison. They wait for
        room whatever the receiver's `overflow`, and end with the actor that sent them. Asks stay as
        they are.
        """
        changes: dict[str, Any] = {}
        if timeout is not _UNCHANGED:
            check_timeout(timeout)
            changes.update(timeout=timeout, timeout_given=True)
        if idempotency_key is not _UNCHANGED:
            changes["naming"] = with_key(self._naming, idempotency_key)
        if reliable is not _UNCHANGED:
            check_reliable(reliable)
            changes.update(reliable=reliable)
        return self._with(**changes) if changes else self

    @property
    def name(self) -> str:
        """The actor's name."""
        return self._name

    # -- the actor itself ------------------------------------------------------------

    def pinned(self) -> Ref[A]:
        """
        A ref to this incarnation alone: calls to a later one fail with `ActorStopped`.

        The actor must be known here: `InvalidArgument` for a ref made of an address and a name.
        """
        incarnation = self._pin or self._bound()._incarnation_of(self)
        return self._with(pin=incarnation)

    def is_alive(self) -> Reply[bool]:
        """Whether the actor runs, or is being restarted. Never fails for one that is gone: that is False."""
        return self._control("$is_alive")

    def wait_started(self) -> Reply[bool]:
        """True when `on_start` has returned, False when it said `Ignore`; else `StartFailed`. No deadline."""
        return self._control("$wait_started")

    def wait_stopped(self) -> Reply[Exit]:
        """The exit with which the actor ended for good; at once for one that has. No deadline."""
        return self._control("$wait_stopped")

    def stop(self, kind: str = "shutdown") -> Reply[None]:
        """
        End the actor in order: the running handler may finish within the shutdown time, `on_stop` runs.

        Resolves when this life has ended. An exit like any other: a supervisor restarts the
        actor if its restart type says so.
        """
        return self._control("$stop", str(Exit(kind).kind))  # type: ignore[arg-type]

    def kill(self) -> Reply[None]:
        """End the actor at once, without `on_stop`; the running handler is cancelled."""
        return self._control("$kill")

    def _control(self, verb: str, *args: Any) -> Reply[Any]:
        from actors._controls import control

        return control(self._bound(), self, verb, args)

    # -- identity ----------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ref):
            return NotImplemented
        return (self._name, self._uid, self._pin) == (other._name, other._uid, other._pin)

    def __hash__(self) -> int:
        return hash((self._name, self._uid, self._pin))

    def __repr__(self) -> str:
        pin = f"@{self._pin}" if self._pin else ""
        return f"<Ref {self._name}{pin}>"

    def __reduce__(self) -> tuple[Any, ...]:
        home = self._home or (self._bound()._home_of(self) if self._system is not None else "")
        flags: tuple[Any, ...] = (
            self._pin,
            self._timeout,
            self._timeout_given,
            self._detached,
            self._reliable,
        )
        if self._naming is not None:
            flags = (*flags, tuple(self._naming))
        return _unpickled, (self._name, self._uid, home, flags)

    def _with(self, **changes: Any) -> Ref[A]:
        values = {
            "pin": self._pin,
            "timeout": self._timeout,
            "timeout_given": self._timeout_given,
            "detached": self._detached,
            "naming": self._naming,
            "reliable": self._reliable,
            "cell": self._cell,
            **changes,
        }
        return type(self)(self._system, self._name, self._uid, self._home, **values)

    def _twin(self) -> Ref[A]:
        twin: Ref[A] = Ref.__new__(type(self))
        twin._system, twin._name, twin._uid, twin._home = self._system, self._name, self._uid, self._home
        twin._pin, twin._timeout, twin._timeout_given = self._pin, self._timeout, self._timeout_given
        twin._detached, twin._cell, twin._way = self._detached, self._cell, None
        twin._naming, twin._reliable = self._naming, self._reliable
        return twin

    def _at(self, method: str) -> Ref[A]:
        """This ref, as it is known at *method*: a twin that remembers the way there."""
        found = self.__dict__.get(method) or getattr(self, method, None)
        return found._ref if type(found) is _Method else self  # no method has such a name

    def _bound(self) -> ActorSystem:
        if self._system is None:
            from actors.system import current_system

            self._system = current_system()
        return self._system


class _Method:
    """`ref.cook`: a method of an actor, ready to be called."""

    __slots__ = ("_name", "_ref", "_way")

    def __init__(self, ref: Ref[Any], name: str) -> None:
        self._ref = ref
        self._name = name
        self._way: Way | NearWay | None = None
        """That of the ref, at hand."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Reply[Any]:
        way = self._way
        if way is not None and not kwargs and (call := way.ask(args)) is not None:
            return call
        ref = self._ref
        reply = (ref._system or ref._bound())._sending.ask(ref, self._name, args, kwargs)
        self._way = ref._way
        return reply

    def __repr__(self) -> str:
        return f"<method {self._ref._name}.{self._name}>"

    def __getattr__(self, attribute: str) -> Any:
        # `ref.name` where an attribute was meant: say what refs have.
        hint = nearest(
            self._name, ("options", "pinned", "stop", "kill", "is_alive", "wait_started", "wait_stopped")
        )
        raise AttributeError(f"{self._name!r} of {self._ref!r} is a remote method; call it to send it{hint}")


def _unpickled(name: str, uid: int, home: str, flags: tuple[Any, ...]) -> Ref[Any]:
    pin, timeout, given, detached, reliable, *rest = flags
    system: ActorSystem | None = getattr(decoding, "system", None)
    if system is not None and system._closed:
        system = None  # it has read what came on this thread before
    naming = Naming(*rest[0]) if rest else None
    return Ref(
        system,
        name,
        uid,
        home,
        pin=pin,
        timeout=timeout,
        timeout_given=given,
        detached=detached,
        naming=naming,
        reliable=reliable,
    )


def as_order(ref: Ref[A]) -> Ref[A]:
    """*ref* for orders: what it asks has no deadline and inherits none."""
    return ref._with(timeout=None, timeout_given=True, detached=True)


def method_name(method: Any) -> str:
    """The name of a method given as function or string. `InvalidArgument` for anything else."""
    if type(method) is str:
        return method
    name = getattr(method, "__name__", None)
    if not callable(method) or not isinstance(name, str):
        raise InvalidArgument(f"method={method!r} is neither a method of the actor's class nor its name")
    return name


def check_reliable(reliable: Any) -> None:
    """`InvalidArgument` unless *reliable* is True or False."""
    if not isinstance(reliable, bool):
        raise InvalidArgument(f"reliable={reliable!r} is neither True nor False")


def check_timeout(timeout: Any) -> None:
    """`InvalidArgument` unless *timeout* is None or a number of seconds above 0."""
    if timeout is None:
        return
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, (int, float))
        or math.isnan(timeout)
        or timeout <= 0
    ):
        raise InvalidArgument(
            f"timeout={timeout!r} must be a number of seconds above 0, or None to wait for ever"
        )

"""
Routed refs: one handle on a group of equal actors. Each message goes to a member that a router picks.

What certainly never ran (unsent, target draining, stopped or known dead) goes to another
member by itself, within the deadline; what may have run is never sent again. While
nobody is there but somebody is expected, a message waits at its sender.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from actors._calls import Call
from actors._message import Message, current_message
from actors.errors import ActorStopped, Unavailable
from actors.ref import Ref, check_reliable, check_timeout, method_name
from actors.reply import Reply

if TYPE_CHECKING:
    from actors.system import ActorSystem

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

_UNCHANGED: Any = object()


class Router(Protocol):
    """Knows the members of one group and how busy they are, as far as this process can tell."""

    def pick(self, key: str | None, refused: Collection[tuple[str, str]]) -> Ref[Any] | None:
        """
        The member for the next message; None when one has to be waited for.

        *refused* names members and the processes in which they have just declined it. Raises
        `Unavailable` (never ran), `ServiceFailed` or `NotFound` when there is nobody to wait for.
        Any thread.
        """

    def begun(self, member: str) -> None:
        """A call to *member* was sent."""

    def ended(self, member: str) -> None:
        """A call to *member* has its outcome."""

    def when_changed(self, callback: Callable[[], None]) -> None:
        """Call *callback* once, on the system's loop, after the next change of the group."""


class Routed(Generic[A]):
    """A ref to a group. Its public methods are those of the members' class, as on a `Ref`."""

    __slots__ = ("_key", "_reliable", "_router", "_system", "_timeout", "_timeout_given")

    def __init__(
        self,
        system: ActorSystem,
        router: Router,
        *,
        timeout: float | None,
        timeout_given: bool = False,
        key: str | None = None,
        reliable: bool = False,
    ) -> None:
        self._system = system
        self._router = router
        self._timeout = timeout
        self._timeout_given = timeout_given
        self._key = key
        self._reliable = reliable

    def __getattr__(self, method: str) -> Callable[..., Reply[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return _RoutedMethod(self, method)

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
        """Call *method* on one member; see `Ref.ask`."""
        return self._ask(method_name(method), args, kwargs)

    @overload
    def tell(
        self, method: Callable[Concatenate[A, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[None]: ...
    @overload
    def tell(self, method: str, /, *args: Any, **kwargs: Any) -> Reply[None]: ...
    def tell(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[None]:
        """Send *method* to one member and forget it; see `Ref.tell`. It is never sent to another."""
        try:
            ref = self._router.pick(self._key, ())
            if ref is None:
                raise Unavailable(
                    f"{self!r} has no member running now", may_have_run=False, reason="no member"
                )
        except Exception as error:
            return self._system._lost_tell(self._nobody(), method_name(method), current_message.get(), error)
        if self._reliable:
            # Not where the member lives now: it may live elsewhere before all is acknowledged.
            given = {"timeout": self._timeout, "timeout_given": self._timeout_given}
            ref = Ref(self._system, ref._name, ref._uid, "", reliable=True, **given)  # type: ignore[arg-type]
        return self._system._tell(ref, method_name(method), args, kwargs)

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
        """Call a method that is a stream; see `Ref.stream`."""
        return self._ask(method_name(method), args, kwargs, streams=True)

    def options(
        self,
        *,
        timeout: float | None = _UNCHANGED,
        key: str | None = _UNCHANGED,
        reliable: bool = _UNCHANGED,
    ) -> Any:
        """
        The same group with another *timeout* (seconds), with *key*, or with *reliable* tells (`Ref.options`).

        One key, one member while membership lasts. In order are the reliable tells to one member:
        give them one key, where that matters.
        """
        changes: dict[str, Any] = {
            "timeout": self._timeout,
            "timeout_given": self._timeout_given,
            "key": self._key,
            "reliable": self._reliable,
        }
        if timeout is not _UNCHANGED:
            check_timeout(timeout)
            changes.update(timeout=timeout, timeout_given=True)
        if key is not _UNCHANGED:
            changes["key"] = key
        if reliable is not _UNCHANGED:
            check_reliable(reliable)
            changes["reliable"] = reliable
        return self._with(**changes)

    def _with(self, **changes: Any) -> Any:
        return type(self)(self._system, self._router, **changes)

    def _nobody(self) -> Ref[Any]:
        return Ref(self._system, repr(self), 0, "")

    def _ask(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, streams: bool = False
    ) -> Reply[Any]:
        system = self._system
        sender = current_message.get()
        ref: Ref[Any] = Ref(system, repr(self), 0, "", timeout=self._timeout)
        call = Call(system, ref, method, self._timeout)
        call.given_timeout = self._timeout_given
        system._set_deadline(call, ref, sender, streams=streams)
        _Route(self, call, args, kwargs, sender).go()
        return call


class _RoutedMethod:
    """`service.cook`: a method of any member, ready to be called."""

    __slots__ = ("_name", "_routed")

    def __init__(self, routed: Routed[Any], name: str) -> None:
        self._routed = routed
        self._name = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Reply[Any]:
        return self._routed._ask(self._name, args, kwargs)

    def __repr__(self) -> str:
        return f"<method {self._routed!r}.{self._name}>"


class _Route:
    """The way of one call: the members it has tried, and what to send to the next."""

    __slots__ = ("_args", "_call", "_home", "_kwargs", "_member", "_refused", "_routed", "_sender")

    def __init__(
        self,
        routed: Routed[Any],
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> None:
        self._routed = routed
        self._call = call
        self._args = args
        self._kwargs = kwargs
        self._sender = sender
        self._refused: tuple[tuple[str, str], ...] = ()
        self._member = self._home = ""
        call.reroute = self._refused_by

    def go(self) -> None:
        """Send the call to a member, or wait for one."""
        call = self._call
        router = self._routed._router
        system = self._routed._system
        try:
            ref = router.pick(self._routed._key, self._refused)
        except Exception as error:
            call.reroute = None
            call._reject(error)
            return
        system._calls.add(call)
        if ref is None:
            # Whoever refused may take it later: a member that restarts comes back under its name.
            self._refused = ()
            router.when_changed(self._look_again)
            return
        call.target = ref
        self._member, self._home = ref._name, ref._home
        router.begun(ref._name)
        call.add_done_callback(self._settled)
        system._dispatch(call, ref, self._args, self._kwargs, self._sender)

    def _look_again(self) -> None:
        if self._routed._system._calls.take(self._call.call_id) is not None:
            self.go()

    def _refused_by(self, call: Call, error: BaseException) -> bool:
        """`Calls.refuse` asks: True when the call goes another way."""
        never_ran = isinstance(error, ActorStopped) or (
            isinstance(error, Unavailable) and not error.may_have_run
        )
        if not never_ran or call._done:
            return False
        self._refused = (*self._refused, (self._member, self._home))
        self._leave_member()
        call.peer = None
        call.message = None
        self.go()
        return True

    def _settled(self, call: Reply[Any]) -> None:
        self._leave_member()

    def _leave_member(self) -> None:
        member, self._member = self._member, ""
        if member:
            self._routed._router.ended(member)

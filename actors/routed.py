"""
Routed refs: one handle on a group of equal actors. Each message goes to a member that a router picks.

What certainly never ran (unsent, target draining, stopped or known dead) goes to another
member by itself, within the deadline; what may have run is never sent again. While
nobody is there but somebody is expected, a message waits at its sender.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from actors import _passage
from actors._calls import Call
from actors._message import Message, current_message
from actors._named import Attempts, NamedCall, never_ran
from actors.errors import Unavailable
from actors.idempotency import unnamed, with_key
from actors.ref import Ref, check_reliable, check_timeout, method_name
from actors.reply import Reply, failed
from actors.retry import RetryBudget
from actors.tracing import carriage

if TYPE_CHECKING:
    from actors.system import ActorSystem

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

_UNCHANGED: Any = object()


class Router(Protocol):
    """Knows the members of one group and how busy they are, as far as this process can tell."""

    @property
    def idempotent(self) -> Collection[str]:
        """Methods of the members that may be called again when nobody knows whether they ran."""

    @property
    def retries(self) -> RetryBudget:
        """How much of that there may be."""

    def pick(
        self, key: str | None, refused: Collection[tuple[str, str]], *, is_followed: bool = False
    ) -> Ref[Any] | None:
        """
        The member for the next message; None when one has to be waited for.

        *refused* names members and the processes in which they have just declined it. With
        *is_followed* the outcome will be told, so it may find out about a member that has failed
        before. Raises `Unavailable` (never ran), `ServiceFailed` or `NotFound` when there is
        nobody to wait for. Any thread.
        """

    def expected(self, key: str | None) -> Ref[Any] | None:
        """
        The member that a message for *key* is kept for where `pick` had None; None when there is none.

        Any thread.
        """

    def begun(self, member: str) -> int:
        """A call to *member* was sent; what this returns is to be told with its outcome."""

    def ended(self, member: str, known: int, error: BaseException | None) -> None:
        """A call to *member* has its outcome. *known* is what `begun` returned."""

    @property
    def changes(self) -> int:
        """How often the group has changed so far. Any thread."""

    def when_changed(self, callback: Callable[[], None], since: int) -> bool:
        """
        Call *callback* once, on the system's loop, after the next change of the group.

        False, and no call, when it has changed *since* already. Any thread.
        """


class Routed(Generic[A]):
    """A ref to a group. Its public methods are those of the members' class, as on a `Ref`."""

    __slots__ = (
        "__dict__",
        "_idempotency_key",
        "_key",
        "_reliable",
        "_router",
        "_system",
        "_timeout",
        "_timeout_given",
        "_unmet",
    )

    def __init__(
        self,
        system: ActorSystem,
        router: Router,
        *,
        timeout: float | None,
        timeout_given: bool = False,
        key: str | None = None,
        idempotency_key: str | None = None,
        reliable: bool = False,
    ) -> None:
        self._system = system
        self._router = router
        self._timeout = timeout
        self._timeout_given = timeout_given
        self._key = key
        self._idempotency_key = idempotency_key
        self._reliable = reliable
        self._unmet: Ref[Any] | None = None

    def __getattr__(self, method: str) -> Callable[..., Reply[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        # As on a `Ref`: found at once from now on, and no cycle.
        found = self.__dict__[method] = _RoutedMethod(self._with(), method)
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
        """Call *method* on one member; see `Ref.ask`."""
        return self._ask(method_name(method), args, kwargs)

    @overload
    def tell(
        self, method: Callable[Concatenate[A, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[None]: ...
    @overload
    def tell(self, method: str, /, *args: Any, **kwargs: Any) -> Reply[None]: ...
    def tell(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[None]:
        """
        Send *method* to one member and forget it; see `Ref.tell`. It is never sent to another.

        Where none runs it fails at once (`Unavailable`, never ran); a reliable one is kept for one
        that starts or restarts.
        """
        if self._idempotency_key is not None:
            return failed(unnamed(method_name(method)))
        try:
            ref = self._router.pick(self._key, ())
            if ref is None and self._reliable:
                ref = self._router.expected(self._key)
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
        idempotency_key: str = _UNCHANGED,
        reliable: bool = _UNCHANGED,
    ) -> Any:
        """
        The same group with another *timeout* (seconds), or with *key*: one key, one member.

        A key stays with its member while that belongs to the service. Asks with one
        *idempotency_key* are one call of an `@idempotent` method; they go to the member that would
        remember it, while that runs. Any other method refuses it with `InvalidArgument`.

        With *reliable* tells are (`Ref.options`). In order are those to one member: give them one key,
        where that matters.
        """
        changes: dict[str, Any] = {}
        if timeout is not _UNCHANGED:
            check_timeout(timeout)
            changes.update(timeout=timeout, timeout_given=True)
        if key is not _UNCHANGED:
            changes["key"] = key
        if idempotency_key is not _UNCHANGED:
            changes["idempotency_key"] = with_key(None, idempotency_key).key
        if reliable is not _UNCHANGED:
            check_reliable(reliable)
            changes["reliable"] = reliable
        return self._with(**changes)

    def _with(self, **changes: Any) -> Any:
        values = {
            "timeout": self._timeout,
            "timeout_given": self._timeout_given,
            "key": self._key,
            "idempotency_key": self._idempotency_key,
            "reliable": self._reliable,
            **changes,
        }
        return type(self)(self._system, self._router, **values)

    def _nobody(self) -> Ref[Any]:
        """Whom a message is for until a member is found."""
        if self._unmet is None:
            self._unmet = Ref(self._system, repr(self), 0, "", timeout=self._timeout)
        return self._unmet

    def _ask(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, streams: bool = False
    ) -> Reply[Any]:
        system = self._system
        sender = current_message.get()
        ref = self._nobody()
        if self._idempotency_key is None and method not in self._router.idempotent:
            call = Call(system, ref, method, self._timeout)
        else:
            call = NamedCall(system, ref, method, self._timeout, self._idempotency_key)
        call.given_timeout = self._timeout_given
        system._set_deadline(call, ref, sender, streams=streams)
        if carriage.on and not _passage.may_leave(system, call, ref, args, kwargs, sender):
            return call
        if isinstance(call, NamedCall):
            _NamedRoute(self, call, args, kwargs, sender).go()
        else:
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

    __slots__ = (
        "_args",
        "_call",
        "_home",
        "_known",
        "_kwargs",
        "_looked_at",
        "_member",
        "_refused",
        "_routed",
        "_sender",
    )

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
        self._looked_at = 0
        """Changes of the group when the members were looked at of whom some have refused."""
        call.reroute = self._refused_by
        # As `add_done_callback`: nobody settles it yet. Interceptors may want to hear of its end too.
        call._callbacks = [self._settled] if call._callbacks is None else [*call._callbacks, self._settled]

    def go(self) -> None:
        """Send the call to a member, or wait for one."""
        call = self._call
        router = self._routed._router
        system = self._routed._system
        while True:
            if not self._refused:
                self._looked_at = router.changes
            try:
                ref = self._pick(router)
            except Exception as error:
                call.reroute = None
                call._reject(error)
                return
            system._calls.add(call)
            if ref is not None:
                break
            # Whoever refused may take it later: a member that restarts comes back under its name,
            # and the news of that may have come before its refusal.
            self._refused = ()
            if router.when_changed(self._look_again, self._looked_at):
                return
            if system._calls.take(call.call_id) is None:
                return  # its time was up meanwhile
        call.target = ref
        self._member, self._home = ref._name, ref._home
        self._known = router.begun(ref._name)
        if call._done:
            self._leave_member(call._error)  # its time is up already
        system._dispatch(call, ref, self._args, self._kwargs, self._sender)

    def _pick(self, router: Router) -> Ref[Any] | None:
        return router.pick(self._routed._key, self._refused, is_followed=True)

    def _look_again(self) -> None:
        if self._routed._system._calls.take(self._call.call_id) is not None:
            self.go()

    def _refused_by(self, call: Call, error: BaseException) -> bool:
        """`Calls.refuse` asks: True when the call goes another way."""
        if not never_ran(error) or call._done:
            return False
        self._refused = (*self._refused, (self._member, self._home))
        self._leave_member(error)
        call.peer = None
        call.message = None
        self.go()
        return True

    def _settled(self, call: Reply[Any]) -> None:
        self._leave_member(call._error)

    def _leave_member(self, error: BaseException | None) -> None:
        member, self._member = self._member, ""
        if member:
            self._routed._router.ended(member, self._known, error)


class _NamedRoute(_Route):
    """The way of a call that may be sent again: then to another member, if there is one."""

    __slots__ = ("_attempts", "_failed_at")

    def __init__(
        self,
        routed: Routed[Any],
        call: NamedCall,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> None:
        super().__init__(routed, call, args, kwargs, sender)
        self._attempts = Attempts(call, routed._router.retries, self.go, self._failed)
        self._failed_at: tuple[tuple[str, str], ...] = ()

    def _failed(self, error: BaseException) -> None:
        self._failed_at = ((self._member, self._home),)
        self._leave_member(error)

    def _pick(self, router: Router) -> Ref[Any] | None:
        routed = self._routed
        if self._failed_at:
            elsewhere = router.pick(routed._key, (*self._refused, *self._failed_at))
            if elsewhere is not None:
                return elsewhere
        elif routed._idempotency_key is not None and routed._key is None and not self._refused:
            # Where another call of that name would be remembered. If nobody is there now: anywhere.
            with contextlib.suppress(Unavailable):
                if (home := router.pick(routed._idempotency_key, ())) is not None:
                    return home
        return super()._pick(router)

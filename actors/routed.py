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
from actors._message import current_message
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
            return self._system._sending.lost_tell(
                self._nobody(), method_name(method), current_message.get(), error
            )
        if self._reliable:
            # Not where the member lives now: it may live elsewhere before all is acknowledged.
            given = {"timeout": self._timeout, "timeout_given": self._timeout_given}
            ref = Ref(self._system, ref._name, ref._uid, "", reliable=True, **given)  # type: ignore[arg-type]
        return self._system._sending.tell(ref, method_name(method), args, kwargs)

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
        call: _RoutedCall | _NamedRoutedCall
        if self._idempotency_key is None and method not in self._router.idempotent:
            call = _RoutedCall(self, method, args, kwargs)
        else:
            call = _NamedRoutedCall(self, method, args, kwargs)
        if streams or sender is not None:
            system._sending.set_deadline(call, call.target, sender, streams=streams)
        elif call.timeout is not None:
            call.deadline_at = system.clock.now() + call.timeout
        if not carriage.on or _passage.may_leave(system, call, call.target, args, kwargs, sender):
            call.go()
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


class _Routing(Call):
    """The way of one call: the members it has tried, and what to send to the next."""

    _routed: Routed[Any]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]
    _refused: tuple[tuple[str, str], ...]
    """Who has just declined it, and in which process."""
    _member: str
    _home: str
    _known: int
    _looked_at: int
    """Changes of the group when the members were looked at of whom some have refused."""

    def _set_out(self, routed: Routed[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.given_timeout = routed._timeout_given
        self._routed = routed
        self._args = args
        self._kwargs = kwargs
        self._refused = ()
        self._member = ""
        self._callbacks = []  # there is one at least: `_call_back`

    def go(self) -> None:
        """Send the call to a member, or wait for one."""
        router = self._routed._router
        system = self.system
        while True:
            if not self._refused:
                self._looked_at = router.changes
            try:
                ref = self._pick(router)
            except Exception as error:
                self._reject(error)
                return
            system._calls.add(self)
            if ref is not None:
                break
            # Whoever refused may take it later: a member that restarts comes back under its name,
            # and the news of that may have come before its refusal.
            self._refused = ()
            if router.when_changed(self._look_again, self._looked_at):
                return
            if system._calls.take(self.call_id) is None:
                return  # its time was up meanwhile
        self.target = ref = ref._at(self.method)
        self._member = member = ref._name
        self._home = ref._home
        self._known = router.begun(member)
        if self._done:
            self._leave_member(self._error)  # its time is up already
        way = ref._way
        if way is None or self._kwargs or not way.forward(self, self._args):
            system._sending.dispatch(self, ref, self._args, self._kwargs, self.asker)
            if ref._home and self.asker is None and self.tag is None:
                system._sending.know_way(ref, self.method, None, ref._home, system._sending.directory_version)

    def _pick(self, router: Router) -> Ref[Any] | None:
        return router.pick(self._routed._key, self._refused, is_followed=True)

    def _look_again(self) -> None:
        if self.system._calls.take(self.call_id) is not None:
            self.go()

    def reroute(self, error: BaseException) -> bool:
        if not never_ran(error) or self._done:
            return False
        self._refused = (*self._refused, (self._member, self._home))
        self._leave_member(error)
        self.peer = None
        self.message = None
        self.go()
        return True

    def _call_back(self) -> None:
        self._leave_member(self._error)
        if self._callbacks:
            super()._call_back()

    def _leave_member(self, error: BaseException | None) -> None:
        member, self._member = self._member, ""
        if member:
            self._routed._router.ended(member, self._known, error)


class _RoutedCall(_Routing):
    """An ask of whichever member."""

    def __init__(
        self, routed: Routed[Any], method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        target = routed._unmet or routed._nobody()
        Call.__init__(self, routed._system, target, method, routed._timeout)
        self._set_out(routed, args, kwargs)


class _NamedRoutedCall(_Routing, NamedCall):
    """One that may be sent again: then to another member, if there is one."""

    def __init__(
        self, routed: Routed[Any], method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        target, key = routed._nobody(), routed._idempotency_key
        NamedCall.__init__(self, routed._system, target, method, routed._timeout, key)
        self._set_out(routed, args, kwargs)
        self._failed_at: tuple[tuple[str, str], ...] = ()
        Attempts(self, routed._router.retries, self.go, self._failed)

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

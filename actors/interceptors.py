"""
Interceptors: code of the user's around every send, every handler and every spawn.

    class Timing(Interceptor):
        def on_handle(self, call):
            began = time.monotonic()
            return lambda error: record(call.method, time.monotonic() - began, error)

    ActorSystem(interceptors=[Timing()])     # whatever this process sends, handles and spawns

    class Chef(Actor):
        interceptors = (Timing(),)           # whatever a Chef sends and handles, and its spawn, anywhere

Of an app the second form is the one: a class takes its interceptors along into every host, so that
neither the stage nor a blank host has to open what is the user's. A base class serves all services.
What a program sends to an app from outside passes those it gave to `connect` or `App.run`.

Those of the system come first and stand outside those of the class. Orders, supervisors, timers and
hooks pass none: a mistake in an interceptor must not keep anybody from being restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from actors.deadline import Deadline
from actors.errors import InvalidArgument
from actors.ref import check_timeout
from actors.traces import Trace, write_baggage

if TYPE_CHECKING:
    from actors.tracing import Metadata

Ended = Callable[[BaseException | None], object]
"""Told how it ended: with None, or with the error."""

What = Literal["ask", "tell", "spawn"]


class Interceptor:
    """
    Base of all interceptors. Each hook may look at what passes, change what it carries, and refuse it.

    To refuse, raise: a `Refusal`, or any other error. That is the outcome, and nothing is sent,
    handled or spawned. What a hook returns, if not None, is called with the outcome. Hooks must not
    block, and what they send themselves passes no interceptor.
    """

    def on_send(self, call: Interception) -> Ended | None:
        """
        An ask, a stream or a tell is about to leave; on the thread that sends it.

        The outcome of a tell is that it was taken; of a reliable one, that its handler has ended. A call
        that is sent again does not pass again.
        """

    def on_handle(self, call: Interception) -> Ended | None:
        """
        A handler is about to run: in its context, so that it sees what is set in context variables
        here, and on its thread. What is raised here is an answer and no crash.
        """

    def on_spawn(self, call: Interception) -> Ended | None:
        """
        An actor is about to be registered, for the first of its lives. The outcome is that of its start.

        `method` is its class's name. What is raised here comes out of `spawn`, or is a failed start
        for its supervisor; other than errors of ours it comes as a `Refusal`.
        """


class Interception:
    """What passes an interceptor."""

    __slots__ = (
        "_deadline_at",
        "_metadata",
        "_now",
        "_takes_limit",
        "args",
        "kwargs",
        "method",
        "sender",
        "target",
        "what",
    )

    def __init__(
        self,
        what: What,
        target: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        sender: str | None,
        metadata: Metadata,
        now: Callable[[], float],
        deadline_at: float = math.inf,
        *,
        takes_limit: bool = False,
    ) -> None:
        self.what: What = what
        self.target = target
        """The name of the actor; of the service, where one of its members will be picked."""
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.sender = sender
        """The name of the actor that sends or spawns; None when none does."""
        self._metadata = metadata
        self._now = now
        self._deadline_at = deadline_at
        self._takes_limit = takes_limit

    @property
    def deadline(self) -> Deadline | None:
        """When the outcome is due; None when never."""
        return None if self._deadline_at == math.inf else Deadline(self._deadline_at, self._now)

    def limit(self, seconds: float) -> None:
        """
        Have an ask's outcome due in *seconds* at the latest; a deadline that is nearer stays.

        For `on_send` of an ask, streams included, the whole of them; elsewhere `InvalidArgument`.
        """
        check_timeout(seconds)
        if not self._takes_limit:
            raise InvalidArgument(f"limit({seconds!r}): only an ask that is being sent can be limited")
        self._deadline_at = min(self._deadline_at, self._now() + seconds)

    @property
    def trace(self) -> Trace | None:
        """The span that sends it, None for none. A handler's own span is its `current_trace()`."""
        return self._metadata.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self._metadata.trace = trace

    @property
    def baggage(self) -> Mapping[str, str]:
        """What is carried by it, and by all that is sent for its sake. To change it, assign another."""
        return MappingProxyType(dict(self._metadata.baggage))

    @baggage.setter
    def baggage(self, baggage: Mapping[str, str]) -> None:
        write_baggage(baggage)
        self._metadata.baggage = dict(baggage)

    def __repr__(self) -> str:
        return f"<{self.what} {self.target}.{self.method}>"

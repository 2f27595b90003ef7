"""
Tracing: the trace and the baggage that belong to what runs here, and to what it sends.

    with tracing.carrying(Trace.new(), baggage={"tenant": "7"}):
        await kitchen.cook("steak")          # and whatever the chef asks of others for it

They travel with asks, streams and tells, reliable ones too, from handler to handler. Each handler is
a span of its own in its caller's trace. Timers and `on_start` begin none. Where a program uses
OpenTelemetry its current span counts; nothing here depends on it. As long as a process has nothing
to carry, its calls pay for one look at a flag.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context as ContextVars
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from actors._message import Message, current_message
from actors.traces import Trace, read_baggage, write_baggage

Baggage = Mapping[str, str]

NO_BAGGAGE: Baggage = MappingProxyType({})


class _Carriage:
    """Whether calls of this process may have anything to carry, or interceptors to pass."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


carriage = _Carriage()


class Metadata:
    """What one message carries."""

    __slots__ = ("_own", "_trace", "baggage")

    def __init__(self, trace: Trace | None = None, baggage: Baggage = NO_BAGGAGE) -> None:
        self._trace = trace
        self._own: Trace | None = None
        self.baggage = baggage

    @property
    def trace(self) -> Trace | None:
        """The span that sent it."""
        return self._trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self._trace, self._own = trace, None

    @property
    def own(self) -> Trace | None:
        """The span of its handler."""
        if self._own is None and self._trace is not None:
            self._own = self._trace.child()
        return self._own

    def copy(self) -> Metadata:
        """The same for another run of the handler, which is another span."""
        return Metadata(self._trace, self.baggage)

    def to_plain(self) -> dict[str, str] | None:
        """As it travels, in any codec; None when there is nothing."""
        plain = {}
        if self._trace is not None:
            plain["traceparent"] = str(self._trace)
        if self.baggage:
            plain["baggage"] = write_baggage(self.baggage)
        return plain or None


def metadata_of(plain: Any) -> Metadata | None:
    """What `Metadata.to_plain` wrote, or a foreign door. `TypeError` unless it is a mapping; else lenient."""
    if not isinstance(plain, dict):
        raise TypeError(f"metadata is a mapping, not {type(plain).__name__}")
    trace, baggage = Trace.parse(plain.get("traceparent")), read_baggage(plain.get("baggage"))
    if trace is None and not baggage:
        return None
    carriage.on = True
    return Metadata(trace, baggage)


class _Own(NamedTuple):
    message: Message | None
    """In whose handler it was set. Elsewhere it does not count, wherever its context was copied to."""
    trace: Trace | None
    baggage: Baggage


_own: ContextVar[_Own | None] = ContextVar("understudy_carried", default=None)


@contextmanager
def carrying(trace: Trace | None = None, *, baggage: Baggage | None = None) -> Iterator[None]:
    """
    What is sent in this block carries *trace*, and *baggage* beside what is carried already.

    In threads, tasks and handlers alike. `InvalidArgument` for baggage that is none, or beyond 180
    items or 8192 bytes.
    """
    items = {**current_baggage(), **(baggage or {})}
    write_baggage(items)
    carriage.on = True
    token = _own.set(_Own(current_message.get(), trace or current_trace(), items))
    try:
        yield
    finally:
        _own.reset(token)


def current_trace() -> Trace | None:
    """The span at work here: that of `carrying`, of OpenTelemetry, or of the handler. None for none."""
    message, own = current_message.get(), _own.get()
    if own is not None and own.message is message and own.trace is not None:
        return own.trace
    if (span := _opentelemetry_span()) is not None:
        return span
    return message.metadata.own if message is not None and message.metadata is not None else None


def current_baggage() -> Baggage:
    """The baggage carried here."""
    message, own = current_message.get(), _own.get()
    if own is not None and own.message is message:
        return own.baggage
    return message.metadata.baggage if message is not None and message.metadata is not None else NO_BAGGAGE


def metadata_now() -> Metadata | None:
    """What a message sent here and now carries."""
    trace, baggage = current_trace(), current_baggage()
    return None if trace is None and not baggage else Metadata(trace, baggage)


# -- OpenTelemetry -----------------------------------------------------------------------------------


@cache
def look_for_opentelemetry() -> None:
    """Reckon with its spans where it is installed."""
    if "opentelemetry.trace" in sys.modules or importlib.util.find_spec("opentelemetry") is not None:
        carriage.on = True


def without_span(context: ContextVars) -> ContextVars:
    """*context*, and in it no span of OpenTelemetry: one that began a program is not that of its handlers."""
    api: Any = sys.modules.get("opentelemetry.context")
    if api is not None:
        context.run(api.attach, api.Context())
    return context


def _opentelemetry_span() -> Trace | None:
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    span = api.get_current_span().get_span_context()
    return (
        Trace(f"{span.trace_id:032x}", f"{span.span_id:016x}", int(span.trace_flags))
        if span.is_valid
        else None
    )

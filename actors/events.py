"""
Events: facts about actors and messages, in the past tense, for whoever subscribes.

A sink is any callable that takes an `Event`. `log_sink` is the default one: it
writes what an operator should see to the log and leaves the rest alone.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

from actors.exit import Exit
from actors.throttle import Throttle
from actors.tracebacks import users_traceback


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `kind` is its stable name, `noun.past_verb`."""

    kind: ClassVar[str] = "event"

    @property
    def level(self) -> str:
        """How it is logged: `warning`, `error`, or empty for not at all."""
        return ""

    def fields(self) -> dict[str, Any]:
        """Its fields as a plain dict, for logs and tools."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Base of those that an operator should see."""

    @property
    def level(self) -> str:
        return "warning"


Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ActorStarted(Event):
    kind: ClassVar[str] = "actor.started"
    actor: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ActorExited(Event):
    """One life ended. Whether another follows is its supervisor's business."""

    kind: ClassVar[str] = "actor.exited"
    actor: str
    incarnation: int
    exit: Exit
    handled: int
    """Messages this life finished without crashing."""

    @property
    def level(self) -> str:
        return "" if self.exit.is_clean else "error"


@dataclass(frozen=True, slots=True)
class DeadLettered(Warned):
    """A message that reached nobody. Its payload is not kept."""

    kind: ClassVar[str] = "message.dead_lettered"
    target: str
    sender: str | None
    method: str
    reason: str
    detail: str = ""
    """Of a `poison` one: the stack of the process that died with it, if that left one."""

    def fields(self) -> dict[str, Any]:
        fields = Event.fields(self)
        if not self.detail:
            del fields["detail"]
        return fields


@dataclass(frozen=True, slots=True)
class FrameRejected(Warned):
    """Bytes on our socket that were dropped before anything in them was decoded."""

    kind: ClassVar[str] = "frame.rejected"
    reason: str
    size: int


@dataclass(frozen=True, slots=True)
class PeerLost(Event):
    """The pipe to another process closed."""

    kind: ClassVar[str] = "peer.lost"
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplyUnread(Warned):
    """A call failed and nobody looked at its `Reply`."""

    kind: ClassVar[str] = "reply.unread"
    target: str
    method: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class ErrorUnanswered(Warned):
    """An error that would have been an answer, had anybody asked: from a tell, a timer, or `on_stop`."""

    kind: ClassVar[str] = "error.unanswered"
    actor: str
    method: str
    error: BaseException | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ThreadAbandoned(Warned):
    """A `def` handler outlived its actor's shutdown time; its thread goes on until it returns."""

    kind: ClassVar[str] = "thread.abandoned"
    actor: str


@dataclass(frozen=True, slots=True)
class HandlerAbandoned(Warned):
    """An `async` handler was cancelled and did not end; it goes on until it does."""

    kind: ClassVar[str] = "handler.abandoned"
    actor: str


_throttle = Throttle()


def log_sink(event: Event) -> None:
    """
    Log crashes, reports, dead letters, rejected frames and unread failures; ignore the ordinary course.

    Of equal lines about the same actor the first five, then one a second with the number left out.
    """
    if not event.level:
        return
    about = next((getattr(event, key) for key in _ABOUT if hasattr(event, key)), None)
    kind = event.kind, getattr(event, "context", None), about
    left_out = _throttle.admit(kind, time.monotonic())
    if left_out is None:
        return  # before anything is formatted: a traceback takes 80 µs
    fields = _crash_fields(event) if isinstance(event, ActorExited) else event.fields()
    if left_out:
        fields["left_out"] = left_out
    getattr(logger(), event.level)(event.kind, **fields)


_ABOUT = ("actor", "child", "target")


def _crash_fields(event: ActorExited) -> dict[str, Any]:
    fields = {"actor": event.actor, "incarnation": event.incarnation, "reason": str(event.exit)}
    if isinstance(event.exit.detail, BaseException):
        fields["traceback"] = "\n" + users_traceback(event.exit.detail)
    return fields


_take_fields: Callable[[dict[str, Any]], None] | None = None


def log_to(take_fields: Callable[[dict[str, Any]], None]) -> None:
    """From now on log lines go to *take_fields*, unless the program has a structlog set-up of its own."""
    global _take_fields
    _take_fields = take_fields


def logger(**values: Any) -> Any:
    """A structlog logger: the program's own set-up when it has one, else readable lines on stderr."""
    import structlog  # 60 ms: loaded when the first line is due, not at import

    if structlog.is_configured():
        return structlog.get_logger().bind(**values)
    if _take_fields is not None:
        return structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                _hand_over,
            ],
            **values,
        )
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        **values,
    )


def _hand_over(logger: Any, method: str, fields: MutableMapping[str, Any]) -> Any:
    """The last of the processors, where lines go to a function."""
    import structlog

    assert _take_fields is not None
    _take_fields(dict(fields))
    raise structlog.DropEvent

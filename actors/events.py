"""
Events: facts about actors and messages, in the past tense, for whoever subscribes.

A sink is any callable that takes an `Event`. `log_sink` is the default one: it
writes what an operator should see to the log and leaves the rest alone.
"""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from actors.exit import Exit


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `kind` is its stable name, `noun.past_verb`."""

    kind: ClassVar[str] = "event"

    def fields(self) -> dict[str, Any]:
        """Its fields as a plain dict, for logs and tools."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


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


@dataclass(frozen=True, slots=True)
class DeadLettered(Event):
    """A message that reached nobody. Its payload is not kept."""

    kind: ClassVar[str] = "message.dead_lettered"
    target: str
    sender: str | None
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class FrameRejected(Event):
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
class ReplyUnread(Event):
    """A call failed and nobody looked at its `Reply`."""

    kind: ClassVar[str] = "reply.unread"
    target: str
    method: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class ErrorUnanswered(Event):
    """An error that would have been an answer, had anybody asked: from a tell, a timer, or `on_stop`."""

    kind: ClassVar[str] = "error.unanswered"
    actor: str
    method: str
    error: BaseException | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ThreadAbandoned(Event):
    """A `def` handler outlived its actor's shutdown time; its thread goes on until it returns."""

    kind: ClassVar[str] = "thread.abandoned"
    actor: str


@dataclass(frozen=True, slots=True)
class HandlerAbandoned(Event):
    """An `async` handler was cancelled and did not end; it goes on until it does."""

    kind: ClassVar[str] = "handler.abandoned"
    actor: str


def log_sink(event: Event) -> None:
    """Log crashes, dead letters, rejected frames and unread failures; ignore the ordinary course."""
    if isinstance(event, ActorExited):
        if event.exit.is_clean:
            return
        error = event.exit.detail if isinstance(event.exit.detail, BaseException) else None
        fields = {"actor": event.actor, "incarnation": event.incarnation, "reason": str(event.exit)}
        if error is not None:
            fields["traceback"] = "\n" + "".join(traceback.format_exception(error)).rstrip()
        logger().error(event.kind, **fields)
    elif isinstance(event, (DeadLettered, ErrorUnanswered, FrameRejected, ReplyUnread, ThreadAbandoned)):
        logger().warning(event.kind, **event.fields())


def logger(**values: Any) -> Any:
    """A structlog logger: the program's own set-up when it has one, else readable lines on stderr."""
    import structlog  # 60 ms: loaded when the first line is due, not at import

    if structlog.is_configured():
        return structlog.get_logger().bind(**values)
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

"""
Actions: what a supervision wants done, in the order of the list it returns.

Nothing here waits: what a `Start` or a `Halt` led to comes back later as a fact.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from actors.errors import ActorError
from actors.exit import Exit
from supervisors.spec import Shutdown

Incident = Literal[
    "child_exited",
    "start_failed",
    "restarting",
    "backing_off",
    "shutdown_overrun",
    "shutdown_failed",
    "cause_known",
    "gave_up",
    "auto_shutdown",
]


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a new life of this child."""

    id: str


@dataclass(frozen=True, slots=True)
class Halt:
    """End the child's life, the one that is only starting included."""

    id: str
    shutdown: Shutdown


@dataclass(frozen=True, slots=True)
class Forget:
    """
    The child's registration is over: no life runs and no restart is to come.

    Watchers learn the end, what waits in the mailbox is refused. The spec may stay;
    a `Start` after this is a new registration.
    """

    id: str


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Say `RetryDue` after *delay* seconds; 0 means behind the messages that already wait."""

    id: str
    delay: float


@dataclass(frozen=True, slots=True)
class CancelRetry:
    """The last `RetryAfter` of this child is void."""

    id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of an order: the child's id where one was started, else nothing, or an error."""

    order: Hashable
    value: str | None = None
    error: ActorError | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Something worth a log line."""

    what: Incident
    id: str
    exit: Exit | None = None
    restarts: int = 0
    """Restarts of this child so far, one that begins now included."""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """The supervision is over and none of its children runs."""

    exit: Exit


Action = Start | Halt | Forget | RetryAfter | CancelRetry | Answer | Report | Finished

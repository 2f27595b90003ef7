"""
Actors: messages, mailboxes and lives inside one process and between processes.

Knows nothing of Ray, services or supervisors; see `supervisors` for those.

Names load when they are first used: a command-line tool needs few of them, and loads none of
Ray, psutil, structlog and cloudpickle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.actor import Actor
    from actors.context import Context
    from actors.deadline import Deadline
    from actors.errors import (
        ActorError,
        ActorStopped,
        AlreadyPresent,
        AlreadyStarted,
        Cancelled,
        DeadlineExceeded,
        DeadlockError,
        InvalidArgument,
        MailboxFull,
        NotFound,
        Refusal,
        SerializationError,
        ServiceFailed,
        StartFailed,
        Unauthenticated,
        Unavailable,
        UnknownMethod,
    )
    from actors.exit import Exit, Ignore, Terminated
    from actors.idempotency import idempotent
    from actors.ref import Ref
    from actors.reply import Outcome, Reply
    from actors.system import ActorSystem

_HOMES = {
    "Actor": "actors.actor",
    "ActorError": "actors.errors",
    "ActorStopped": "actors.errors",
    "ActorSystem": "actors.system",
    "AlreadyPresent": "actors.errors",
    "AlreadyStarted": "actors.errors",
    "Cancelled": "actors.errors",
    "Context": "actors.context",
    "Deadline": "actors.deadline",
    "DeadlineExceeded": "actors.errors",
    "DeadlockError": "actors.errors",
    "Exit": "actors.exit",
    "Ignore": "actors.exit",
    "InvalidArgument": "actors.errors",
    "MailboxFull": "actors.errors",
    "NotFound": "actors.errors",
    "Outcome": "actors.reply",
    "Ref": "actors.ref",
    "Refusal": "actors.errors",
    "Reply": "actors.reply",
    "SerializationError": "actors.errors",
    "ServiceFailed": "actors.errors",
    "StartFailed": "actors.errors",
    "Terminated": "actors.exit",
    "Unauthenticated": "actors.errors",
    "Unavailable": "actors.errors",
    "UnknownMethod": "actors.errors",
    "idempotent": "actors.idempotency",
}

__all__ = [
    "Actor",
    "ActorError",
    "ActorStopped",
    "ActorSystem",
    "AlreadyPresent",
    "AlreadyStarted",
    "Cancelled",
    "Context",
    "Deadline",
    "DeadlineExceeded",
    "DeadlockError",
    "Exit",
    "Ignore",
    "InvalidArgument",
    "MailboxFull",
    "NotFound",
    "Outcome",
    "Ref",
    "Refusal",
    "Reply",
    "SerializationError",
    "ServiceFailed",
    "StartFailed",
    "Terminated",
    "Unauthenticated",
    "Unavailable",
    "UnknownMethod",
    "idempotent",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""
Actors: messages, mailboxes and lives inside one process and between processes.

Knows nothing of Ray, services or supervisors; see `supervisors` for those.
"""

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
from actors.ref import Ref
from actors.reply import Outcome, Reply
from actors.system import ActorSystem

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
]

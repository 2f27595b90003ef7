"""
The error tree: everything that can go wrong with a message, one class per situation.

    ActorError                 UNKNOWN
    ├── DeadlineExceeded       DEADLINE_EXCEEDED    (also a TimeoutError)
    ├── Unavailable            UNAVAILABLE
    │   └── ServiceFailed      UNAVAILABLE
    ├── ActorStopped           FAILED_PRECONDITION
    ├── NotFound               NOT_FOUND            (also a LookupError)
    ├── UnknownMethod          UNIMPLEMENTED
    ├── InvalidArgument        INVALID_ARGUMENT     (also a ValueError)
    ├── AlreadyStarted         ALREADY_EXISTS
    ├── AlreadyPresent         ALREADY_EXISTS
    ├── MailboxFull            RESOURCE_EXHAUSTED
    ├── Cancelled              CANCELLED
    ├── SerializationError     INTERNAL
    ├── Unauthenticated        UNAUTHENTICATED
    ├── Refusal                FAILED_PRECONDITION
    ├── DeadlockError          ABORTED
    └── StartFailed            FAILED_PRECONDITION

Status names are gRPC's. Every class survives pickling with its attributes.
An exception that a handler raised itself reaches the caller as its own type,
not as one of these.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from typing import Any


class ActorError(Exception):
    """Base of all errors of this runtime; also stands in for a remote exception that could not travel."""

    status = "UNKNOWN"
    type_name: str | None = None
    """The class of the exception it stands in for."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments than BaseException.args holds, so an
        # error is rebuilt without its constructor: text and attributes as they were.
        return rebuilt, (type(self), self.args, self.__dict__.copy())


def rebuilt(cls: type[ActorError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ActorError:
    """An error as it was somewhere else, made without its constructor."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class DeadlineExceeded(ActorError, TimeoutError):
    """No answer came in time. The call may have run, or may still be running."""

    status = "DEADLINE_EXCEEDED"


class Unavailable(ActorError):
    """
    The target's process died, or could not be reached.

    `may_have_run` is False when the call certainly never ran, so sending it
    again is safe. You do *not* get this for an actor that ended in order
    (`ActorStopped`) or that never existed (`NotFound`).
    """

    status = "UNAVAILABLE"
    may_have_run = True
    reason = ""

    def __init__(self, message: str = "unavailable", *, may_have_run: bool = True, reason: str = "") -> None:
        super().__init__(message)
        self.may_have_run = may_have_run
        self.reason = reason or message


class ServiceFailed(Unavailable):
    """The service's supervisor gave up; the call never ran. An operator's `reset` revives the service."""

    def __init__(self, message: str = "service failed", *, reason: str = "") -> None:
        super().__init__(message, may_have_run=False, reason=reason)


class ActorStopped(ActorError):
    """The actor was known and has ended for good; the call never ran."""

    status = "FAILED_PRECONDITION"


class NotFound(ActorError, LookupError):
    """Nobody has, or ever had, that name."""

    status = "NOT_FOUND"


class UnknownMethod(ActorError):
    """The actor is there but has no public method of that name."""

    status = "UNIMPLEMENTED"


class InvalidArgument(ActorError, ValueError):
    """Arguments that do not fit the method, or a wrong value in a spec, a flag or an option."""

    status = "INVALID_ARGUMENT"


class AlreadyStarted(ActorError):
    """That name runs already; `ref` is who has it (None when it is not of this process)."""

    status = "ALREADY_EXISTS"
    ref: Any = None

    def __init__(self, message: str = "already started", ref: Any = None) -> None:
        super().__init__(message)
        self.ref = ref


class AlreadyPresent(ActorError):
    """A child of that id is known to the supervisor but not running: restart or delete it instead."""

    status = "ALREADY_EXISTS"


class MailboxFull(ActorError):
    """The receiver's mailbox, or the way to it, is at its limit; the message was not taken."""

    status = "RESOURCE_EXHAUSTED"


class Cancelled(ActorError):
    """The caller cancelled the call. The handler, if it had begun, is cancelled at its next await."""

    status = "CANCELLED"


class SerializationError(ActorError):
    """Something cannot be pickled, or the receiver cannot unpickle it (a class it does not have)."""

    status = "INTERNAL"


class Unauthenticated(ActorError):
    """The two sides do not share a key."""

    status = "UNAUTHENTICATED"


class Refusal(ActorError):
    """Raised by an actor to say no: an answer to the caller, never a crash."""

    status = "FAILED_PRECONDITION"


class DeadlockError(ActorError):
    """The ask would have waited for itself through a chain of asks."""

    status = "ABORTED"


class StartFailed(ActorError):
    """`__init__` or `on_start` raised, or overran its time; the user's exception is the cause."""

    status = "FAILED_PRECONDITION"


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name most like *word*, else the empty string."""
    # Of the first thousand: ten thousand names hold up the loop for 200 ms.
    close = difflib.get_close_matches(word, itertools.islice(known, 1000), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""

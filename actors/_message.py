"""
Messages: what lies in a mailbox, whether it came from this process or another.

A message knows how to answer its sender; a tell's answers go nowhere, its refusals do.
"""

from __future__ import annotations

import json
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from actors import pickling
from actors.errors import ActorError, InvalidArgument, SerializationError
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    import asyncio

    from actors._cell import Cell
    from actors._peers import Peer
    from actors.system import ActorSystem


class Answer(Protocol):
    """The way back to whoever sent a message: one value, one error, or items and an end."""

    def _answer(self, value: Any) -> None: ...
    def _answer_error(self, error: BaseException) -> None: ...
    def _answer_refused(self, error: BaseException) -> None:
        """It certainly never ran, so it may go to somebody else."""

    def _answer_item(self, item: Any) -> None: ...
    def _answer_end(self) -> None: ...


class Message:
    """One message to one actor."""

    __slots__ = (
        "answer",
        "args",
        "cancelled",
        "cell",
        "deadline_at",
        "foreign",
        "is_tell",
        "kwargs",
        "method",
        "pin",
        "sender",
        "task",
        "threaded",
    )

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answer: Answer | None,
        sender: Any = None,
        deadline_at: float = math.inf,
    ) -> None:
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.answer = answer
        """None where nobody cares, as for timers."""
        self.sender = sender
        """The sending `Cell`, a pinned `Ref` from another process, or None."""
        self.deadline_at = deadline_at
        self.is_tell = False
        self.pin = 0
        """The only incarnation that may handle it; 0 for any."""
        self.threaded = False
        """True while a thread works on it: nothing can interrupt that."""
        self.foreign = False
        """True when args is JSON text and the answer must be."""
        self.cell: Cell | None = None
        self.task: asyncio.Task[Any] | None = None
        """The task whose handler works on it now."""
        self.cancelled = ""
        """Why it should not run on: `caller`, `deadline`, or empty."""

    @property
    def sender_name(self) -> str | None:
        """Who sent it, for dead letters."""
        sender = self.sender
        if sender is None:
            return None
        # A Ref takes any plain attribute for a method of its actor.
        name = sender._name if hasattr(sender, "_name") else sender.name
        return str(name)


current_message: ContextVar[Message | None] = ContextVar("understudy_message", default=None)
"""The message whose handler is running here: sender, deadline, and whose actor it is."""


class NoAnswer:
    """Nobody waits for the outcome of a tell. Its refusals matter to those who override this."""

    __slots__ = ()

    def _answer(self, value: Any) -> None: ...
    def _answer_error(self, error: BaseException) -> None: ...
    def _answer_refused(self, error: BaseException) -> None: ...
    def _answer_item(self, item: Any) -> None: ...
    def _answer_end(self) -> None: ...


class RemoteAnswer:
    """The way back to a caller in another process."""

    __slots__ = ("_call_id", "_codec", "_peer", "_system")

    def __init__(self, system: ActorSystem, peer: Peer, call_id: int, codec: int) -> None:
        self._system = system
        self._peer = peer
        self._call_id = call_id
        self._codec = codec

    def _answer(self, value: Any) -> None:
        self._finish(Kind.VALUE, value)

    def _answer_end(self) -> None:
        self._finish(Kind.END, None)

    def _answer_item(self, item: Any) -> None:
        self._send(Kind.ITEM, self._encode(item))

    def _answer_error(self, error: BaseException) -> None:
        self._peer.serving.pop(self._call_id, None)
        self._send(Kind.ERROR, self._encode_error(error))

    def _answer_refused(self, error: BaseException) -> None:
        self._peer.serving.pop(self._call_id, None)
        self._send(Kind.REFUSED_ASK, self._encode_error(error))

    def _finish(self, kind: Kind, value: Any) -> None:
        self._peer.serving.pop(self._call_id, None)
        try:
            body = self._encode(value)
        except Exception as error:
            problem = SerializationError(f"the result cannot be pickled: {pickling._shown(value)} ({error})")
            self._send(Kind.ERROR, self._encode_error(problem))
        else:
            self._send(kind, body)

    def _encode(self, value: Any) -> bytes:
        if self._codec == Codec.JSON:
            return json.dumps(value, default=lambda odd: {"repr": repr(odd)}).encode()
        return pickling.dumps(value)

    def _encode_error(self, error: BaseException) -> bytes:
        return (
            json.dumps(plain_error(error)).encode()
            if self._codec == Codec.JSON
            else pickling.dumps(pickling.encode_error(error))
        )

    def _send(self, kind: Kind, body: bytes) -> None:
        self._system._send_back(self._peer, kind, self._codec, self._call_id, body)


class RemoteTell(NoAnswer):
    """The way back for a tell from another process: refusals go back one by one."""

    __slots__ = ("_peer", "_system", "_tell_id")

    def __init__(self, system: ActorSystem, peer: Peer, tell_id: int) -> None:
        self._system = system
        self._peer = peer
        self._tell_id = tell_id

    def _answer_refused(self, error: BaseException) -> None:
        self._system._send_back(
            self._peer,
            Kind.REFUSED,
            Codec.PICKLE,
            self._tell_id,
            pickling.dumps(pickling.encode_error(error)),
        )


def plain_error(error: BaseException) -> dict[str, Any]:
    """An error as plain data for doors that do not unpickle."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status", "UNKNOWN"),
        "ours": isinstance(error, ActorError),
        "may_have_run": getattr(error, "may_have_run", None),
    }


def foreign_arguments(text: str) -> tuple[Any, ...]:
    """The arguments in a foreign call's JSON: an array. `InvalidArgument` says what is wrong with it."""
    try:
        args = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"the arguments are not JSON: {error}") from None
    if not isinstance(args, list):
        raise InvalidArgument(f"the arguments must be a JSON array, not {text[:40]}")
    return tuple(args)


def foreign_value(value: Any) -> str:
    """A result as JSON text; what JSON cannot say becomes `{"repr": …}`."""
    return json.dumps(value, default=lambda odd: {"repr": repr(odd)})

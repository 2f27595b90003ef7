"""
Answered: what idempotent calls were answered, so that the same call is not handled twice.

One memory for all actors of a process, bounded in time, count and bytes. Answers are kept as
pickles: what an actor does afterwards with an object it has given out does not change them. A call
that comes while the first of its name still runs joins it. Crashes are not kept: the state such
an answer would speak of is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from actors import pickling
from actors._message import NoAnswer
from actors.errors import ActorError, InvalidArgument, Refusal
from actors.ref import decoding
from actors.reply import is_passed_through

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._message import Answer, Message
    from actors._outlet import Outlet
    from actors.system import ActorSystem

KEPT_TIME = 300.0
"""Seconds."""
KEPT_COUNT = 10_000
KEPT_BYTES = 16 * 1024 * 1024
KEPT_EACH = 64 * 1024
"""Bytes of one answer; after a larger one the same call runs again."""

_Name = tuple[Any, ...]


class _Kept(NamedTuple):
    at: float
    is_error: bool
    data: bytes


class Answered:
    """The answers of one process's idempotent calls, and those under way. Loop thread only."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._kept: dict[_Name, _Kept] = {}
        """The oldest first."""
        self._bytes = 0
        self._running: dict[_Name, First] = {}

    def admits(self, cell: Cell, message: Message) -> bool:
        """True when *message* is to be handled; else it was answered, refused, or waits for the same call."""
        method = cell.methods.get(message.method)
        if method is None or method.idempotency is None or message.foreign:
            return True
        answer = message.answer
        if answer is None or isinstance(answer, NoAnswer):
            return True
        tag = message.tag
        try:
            if tag is not None and tag.key is not None:
                name: _Name = (cell.uid, method.name, tag.key)
            elif method.idempotency.key is not None:
                name = (cell.uid, method.name, method.idempotency.key_of(message.args, message.kwargs))
            elif tag is not None:
                name = (cell.uid, method.name, tag.origin, tag.number)
            else:
                return True  # its caller does not know that it could come again
        except InvalidArgument as error:
            what = f"{cell.cls.__name__}.{method.name}(): {error}"
            cell._refuse(message, "invalid argument", InvalidArgument(what))
            return False
        counts = self._system._counts
        kept = self._find(name)
        if kept is not None:
            counts.accepted += 1
            counts.handled += 1
            self._answer(answer, kept)
            return False
        first = self._running.get(name)
        if first is not None and first.may_be_joined:
            counts.accepted += 1
            counts.running += 1
            first.joined.append(message)
            return False
        message.answer = self._running[name] = First(self, name, message, answer)
        return True

    def _find(self, name: _Name) -> _Kept | None:
        oldest = self._system.clock.now() - KEPT_TIME
        for known, kept in self._kept.items():
            if kept.at >= oldest:
                break
            self._forget(known)
            return self._find(name)
        return self._kept.get(name)

    def _forget(self, name: _Name) -> None:
        self._bytes -= len(self._kept.pop(name).data)

    def _answer(self, answer: Answer, kept: _Kept) -> None:
        decoding.system = self._system
        value = pickling.loads(kept.data)
        if kept.is_error:
            answer._answer_error(pickling.decode_error(value))
        else:
            answer._answer(value)

    def keep(self, name: _Name, value: Any, *, is_error: bool = False) -> None:
        """Remember an answer, unless it is too large or cannot be pickled."""
        try:
            data, buffers = pickling.dumps_apart(value, KEPT_EACH)
        except Exception:
            return  # nobody outside of this process can have got it either
        if buffers or len(data) > KEPT_EACH:
            return
        self._kept[name] = _Kept(self._system.clock.now(), is_error, data)
        self._bytes += len(data)
        while len(self._kept) > KEPT_COUNT or self._bytes > KEPT_BYTES:
            self._forget(next(iter(self._kept)))

    def ended(self, first: First) -> None:
        """*first* does not run any more."""
        if self._running.get(first.name) is first:
            del self._running[first.name]


def deliver_named(cell: Cell, message: Message) -> None:
    """`Cell.deliver` for a message with a tag: what must not run twice refuses it."""
    method = cell.methods.get(message.method)
    if method is not None and method.idempotency is None:
        what = f"{cell.cls.__name__}.{method.name}() is not @idempotent: it takes no idempotency_key"
        cell._refuse(message, "invalid argument", InvalidArgument(what))
    else:
        cell.deliver(message)


class First:
    """The way back of the first call of its name, and of all that came while it ran (`_message.Answer`)."""

    __slots__ = ("_answered", "_message", "_way", "joined", "name")

    def __init__(self, answered: Answered, name: _Name, message: Message, way: Answer) -> None:
        self._answered = answered
        self._message = message
        self._way = way
        self.name = name
        self.joined: list[Message] = []

    @property
    def may_be_joined(self) -> bool:
        """False once it is being cut short: it will have no answer."""
        return not self._message.cancelled

    def _answer(self, value: Any) -> None:
        self._answered.keep(self.name, value)
        self._way._answer(value)
        for way in self._ways():
            way._answer(value)

    def _answer_error(self, error: BaseException) -> None:
        cell = self._message.cell
        expected = cell.cls.expected if cell is not None else ()
        is_answer = isinstance(error, Refusal) or (
            isinstance(error, expected) and not isinstance(error, ActorError)
        )
        if is_answer and not is_passed_through(error):
            self._answered.keep(self.name, pickling.encode_error(error), is_error=True)
        self._way._answer_error(error)
        for way in self._ways():
            way._answer_error(error)

    def _answer_refused(self, error: BaseException) -> None:
        # It never ran. What stood in its way need not stand in the way of the others.
        joined = self._leave()
        self._way._answer_refused(error)
        self._deliver(joined)

    def abandoned(self) -> None:
        """It was cut short for its own caller, who has gone; the others have not."""
        self._deliver(self._leave())

    def _open_outlet(self) -> Outlet | None:
        raise AssertionError("a stream is never idempotent")

    def _leave(self) -> list[Message]:
        self._answered.ended(self)
        joined, self.joined = self.joined, []
        return joined

    def _ways(self) -> list[Answer]:
        """The ways back of those that have joined; their messages are handled by that."""
        joined = self._leave()
        counts = self._answered._system._counts
        counts.running -= len(joined)
        counts.handled += len(joined)
        return [message.answer for message in joined if message.answer is not None]

    def _deliver(self, joined: list[Message]) -> None:
        counts = self._answered._system._counts
        counts.accepted -= len(joined)
        counts.running -= len(joined)
        for message in joined:
            if message.cell is not None:
                message.cell.deliver(message)

"""
Calls: asks that are under way, and who waits for what.

Every ask of a process stands in one table until its outcome is known; whoever
takes it out of the table settles it, so there is exactly one outcome. One timer
watches all deadlines.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from actors import foreign
from actors.blame import blame
from actors.clock import Clock, Timer
from actors.errors import Cancelled, DeadlineExceeded, Unavailable
from actors.events import DeadLettered, ReplyUnread
from actors.reply import Reply
from actors.stream import BETWEEN, INSIDE, Limits, Window, pack_limits
from actors.wire import Kind

if TYPE_CHECKING:
    from actors._message import Message
    from actors._outlet import Outlet
    from actors._peers import Peer
    from actors.ref import Ref
    from actors.remains import Tag
    from actors.system import ActorSystem
    from actors.tracing import Metadata

STREAM_TIMEOUT = 30.0
"""Seconds between two items of a stream, unless the caller says otherwise."""


class Call(Reply[Any]):
    """An ask under way: the caller's reply, and all that is needed to settle it."""

    __slots__ = (
        "_is_loose",
        "_streams",
        "_suspects",
        "asker",
        "bound_at",
        "call_id",
        "deadline_at",
        "given_timeout",
        "message",
        "metadata",
        "method",
        "peer",
        "system",
        "target",
        "timeout",
    )

    tag: Tag | None = None
    """Its name, where it can be sent again (`_named.NamedCall`)."""

    def __init__(self, system: ActorSystem, target: Ref[Any], method: str, timeout: float | None) -> None:
        # `Reply.__init__` written out: this runs for every ask.
        self._system = self.system = system
        self._done = self._read = False
        self._value = self._error = self._items = self._callbacks = self._waiters = None
        self.target = target
        self.method = method
        self.timeout = timeout
        self.given_timeout = False
        self.deadline_at = self.bound_at = math.inf
        # `bound_at`: the deadline of the message in whose handler it was made; no item of a stream moves it.
        self.call_id = 0
        self.asker: Message | None = None
        """The message in whose handler it was made."""
        self.peer: Peer | None = None
        """The process it was sent to; None inside this process."""
        self.message: Message | None = None
        """The local message, so that a cancel finds it."""
        self.metadata: Metadata | None = None
        """What it carries beside its arguments."""
        self._streams = False
        """True once somebody reads it item by item."""
        self._is_loose = False
        """True for a stream that nobody reads yet: it ends when its caller drops it."""
        self._suspects: list[Message] | None = None
        """Messages that wait for it, should it ever be waited for."""

    def cancel(self) -> None:
        if not self._done:
            self.system._calls.cancel(self)
            if self._items is not None:
                self._items.clear()  # nobody wants what lies there unread either
                self._batch.clear()

    def retry(self, error: BaseException) -> bool:
        """Asked, with a tag, before *error* settles it: True when it is sent again instead."""
        return False

    def reroute(self, error: BaseException) -> bool:
        """Asked before a refusal settles it: True when it has gone another way instead."""
        return False

    def never_sent(self, reason: str) -> None:
        """Its envelope did not leave this process (`_peers.Unsent`)."""
        error = Unavailable(f"{self._describe()} was never sent: {reason}", may_have_run=False, reason=reason)
        self.system._calls.refuse(self, blame(error, self.target._name))

    @property
    def receiver(self) -> str:
        """In whose mailbox it wants room (`_peers.Addressed`): controls overtake, they need none."""
        return "" if self.method[0] == "$" else self.target._name

    @property
    def is_awaited(self) -> bool:
        """True while somebody waits for it."""
        return bool(self._waiters)

    def suspect(self, message: Message) -> None:
        """*message* waits for itself as soon as somebody waits for this call."""
        self._suspects = [*(self._suspects or ()), message]
        if self._waiters:
            self._look_at_suspects()

    def _add_waiter(self, wake: Callable[[], None]) -> None:
        super()._add_waiter(wake)
        if self._suspects is not None:
            self.system._on_loop(self._look_at_suspects)

    def _look_at_suspects(self) -> None:
        for message in self._suspects or ():
            if message.cell is not None:
                message.cell.look_again(message)

    def _resolve(self, value: Any) -> None:
        # No lock: whoever took it out of the table is the only one to settle it.
        self._value = value
        self._done = True
        if self._waiters:
            self._wake()
        if self._callbacks is not None:
            self._call_back()

    # -- the way back, when the target lives in this process (`_message.Answer`) ----

    def _answer(self, value: Any) -> None:
        if self.system._calls.take(self.call_id) is not None:
            self._resolve(value)

    def _answer_error(self, error: BaseException) -> None:
        self.system._calls.fail(self, error)

    def _answer_refused(self, error: BaseException) -> None:
        self.system._calls.refuse(self, error)

    def _open_outlet(self) -> Outlet | None:
        from actors._outlet import CallPipe, Outlet

        return Outlet(CallPipe(self), INSIDE)

    def _answer_items(self, items: list[Any], size: int, first: int | None = None) -> bool:
        """Items that came; False when some before them are missing (`Reply._push`)."""
        if self._items is None:
            self._open_items(Window(BETWEEN if self.message is None else INSIDE))
        if not (self._streams or self._is_loose):
            # Until somebody reads, the first deadline stands and only the caller holds it.
            self._is_loose = True
            self.system._calls.loosen(self)
        if not self._push(items, size, first):
            self.system._calls.take(self.call_id)
            return False
        if self._streams:
            self.deadline_at = self.bound_at  # the reader's turn: the far end owes nothing
        return True

    def _answer_end(self, total: int | None = None) -> None:
        if self.system._calls.take(self.call_id) is not None:
            self._finish(total)

    # -- reading ---------------------------------------------------------------------

    def _begin_reading(self) -> None:
        if not self._done:
            self._streams = True
            self._expect_item()
            if self.message is not None and self.message.life is None:
                self.message.deadline_at = self.deadline_at  # it still waits for its actor

    def _taken(self, items: int, size: int) -> None:
        if self._window.read(items, size) and not self._done:
            self._raise_limits()
        if not self._items:
            self._expect_item()

    def _raise_limits(self) -> None:
        limits = self._window.raised()
        if self.message is not None:
            self.system._on_loop(_allow, self.message, limits)
        elif self.peer is not None and self.system._remote is not None:
            self.system._remote.send(self.peer, Kind.READ, self.call_id, pack_limits(limits))

    def _expect_item(self) -> None:
        """Nothing lies here unread: from now on the far end owes the next item, or the end."""
        timeout = self.timeout = self.timeout if self.given_timeout else STREAM_TIMEOUT
        due_at = math.inf if timeout is None else self.system.clock.now() + timeout
        self.deadline_at = min(due_at, self.bound_at)
        if self._items:
            self.deadline_at = self.bound_at  # one came meanwhile, from another thread
        elif not self._done:
            self.system._calls.watch(self.deadline_at)

    def _drop(self) -> None:
        self.system._inbox.post(self.cancel)

    def _describe(self) -> str:
        return f"{self.target._name}.{self.method.removeprefix(foreign.MARK)}()"

    def _due_at(self) -> float | None:
        if self.deadline_at == math.inf or self.system.has_own_time:
            return None
        return self.deadline_at

    def _comes_from_afar(self) -> bool:
        return self.peer is not None

    def _expire_if_due(self) -> None:
        if self.deadline_at <= self.system.clock.now():
            self.system._calls.expire(self)

    def __del__(self) -> None:
        if self._is_loose and not self._done:
            self.system._inbox.post(self.system._stream_dropped, self.call_id, self.message, self.peer)
        elif (
            self._done
            and self._error is not None
            and not self._read
            and not isinstance(self._error, Cancelled)
        ):
            self.system._report_unread(ReplyUnread(self.target._name, self.method, self._error))


def _allow(message: Message, limits: Limits) -> None:
    """The reader of a stream of this process allows more; loop thread only."""
    from actors._outlet import Outlet

    if isinstance(message.answer, Outlet):
        message.answer.allow(limits)


class SentTell(Reply[None]):
    """A tell on its way to another process, until the far end has taken it."""

    __slots__ = ("_method", "_sender", "number", "receiver")

    def __init__(self, system: ActorSystem, target: str, method: str, sender: str | None) -> None:
        # `Reply.__init__` written out: this runs for every tell.
        self._system = system
        self._done = self._read = False
        self._value = self._error = self._items = self._callbacks = self._waiters = None
        self.number = 0
        """Which of the tells to that process it is; numbers leave in order."""
        self.receiver = target
        """The name of the actor it is for (`_peers.Addressed`)."""
        self._method = method
        self._sender = sender

    def _comes_from_afar(self) -> bool:
        return True

    @staticmethod
    def taken(tells: Iterable[SentTell]) -> None:
        """The far end has confirmed them."""
        # No lock: whoever took them out of the peer's list is the only one to settle them.
        for tell in tells:
            tell._done = True
            if tell._waiters:
                tell._wake()
            if tell._callbacks is not None:
                tell._call_back()

    def never_sent(self, reason: str) -> None:
        """Its envelope did not leave this process (`_peers.Unsent`)."""
        self._fail(f"{self._describe()} was never sent: {reason}", reason, may_have_run=False)

    def lost(self, reason: str) -> None:
        """It left, and the far end died before it confirmed."""
        self._fail(f"{self._describe()} was not confirmed: {reason}", reason, may_have_run=True)

    def _fail(self, text: str, reason: str, *, may_have_run: bool) -> None:
        if not self._done:
            self._reject(Unavailable(text, may_have_run=may_have_run, reason=reason))
            assert self._system is not None
            self._system.emit(DeadLettered(self.receiver, self._sender, self._method, reason))

    def _describe(self) -> str:
        return f"{self.receiver}.{self._method}()"


class Calls:
    """The table of asks that wait for an answer."""

    def __init__(self, clock: Clock, post: Callable[..., None]) -> None:
        self._clock = clock
        self._post = post
        self._ids = itertools.count(1)
        self.by_id: dict[int, Call] = {}
        """But for those in `_loose`."""
        self._loose: weakref.WeakValueDictionary[int, Call] = weakref.WeakValueDictionary()
        """Streams that nobody reads yet."""
        self._timer: Timer | None = None
        self._next_at = math.inf
        self.on_cancelled: Callable[[Call], None] = lambda call: None
        """Told of calls that ended here while their far end may still work."""

    def __len__(self) -> int:
        return len(self.by_id) + (len(self._loose) if self._loose else 0)

    def add(self, call: Call) -> None:
        """Enter *call*; its `deadline_at` is watched from now on."""
        call.call_id = call_id = next(self._ids)
        self.by_id[call_id] = call
        if call.deadline_at < self._next_at:
            self.watch(call.deadline_at)

    def take(self, call_id: int) -> Call | None:
        """Remove a call to settle it; None when somebody else has."""
        call = self.by_id.pop(call_id, None)
        return self._loose.pop(call_id, None) if call is None and self._loose else call

    def find(self, call_id: int) -> Call | None:
        """A call that still waits."""
        call = self.by_id.get(call_id)
        return self._loose.get(call_id) if call is None and self._loose else call

    def take_from(self, peer: Peer, call_id: int) -> Call | None:
        """`take` for an answer from *peer*; None also when the call was sent to somebody else."""
        call = self.by_id.get(call_id)
        if call is None:
            call = self.find_from(peer, call_id)
            return call if call is not None and self._loose.pop(call_id, None) is not None else None
        return self.by_id.pop(call_id, None) if call.peer is peer else None

    def resolve_from(self, peer: Peer, numbers: Sequence[int], values: Sequence[Any]) -> None:
        """Settle what waits for answers from *peer*, with these *values*; others' are left as they are."""
        find, take = self.by_id.get, self.by_id.pop
        for number, value in zip(numbers, values, strict=True):
            call = find(number)
            if type(call) is not Call or call.peer is not peer or take(number, None) is None:
                if (other := self.take_from(peer, number)) is not None:
                    other._resolve(value)
                continue
            # `Call._resolve` written out: it is what most answers come to.
            call._value = value
            call._done = True
            if call._waiters:
                call._wake()
            if call._callbacks is not None:
                call._call_back()

    def find_from(self, peer: Peer, call_id: int) -> Call | None:
        """`find` for an answer from *peer*; None also when the call was sent to somebody else."""
        call = self.find(call_id)
        return call if call is not None and call.peer is peer else None

    def loosen(self, call: Call) -> None:
        """Keep *call* only as long as its caller does."""
        self._loose[call.call_id] = call
        if self.by_id.pop(call.call_id, None) is None:
            self._loose.pop(call.call_id, None)  # settled meanwhile

    def fail(self, call: Call, error: BaseException) -> None:
        """Settle *call* with *error*, unless it is sent again."""
        if self.take(call.call_id) is not None and (call.tag is None or not call.retry(error)):
            call._reject(error)

    def refuse(self, call: Call, error: BaseException) -> None:
        """*call* certainly never ran: let it go another way, else settle it with *error*."""
        if self.take(call.call_id) is None:
            return
        if not call.reroute(error):
            call._reject(error)

    def cancel(self, call: Call) -> None:
        """The caller no longer wants it."""
        if self.take(call.call_id) is not None:
            call._reject(Cancelled(f"{call._describe()} was cancelled by its caller"))
            self.on_cancelled(call)

    def expire(self, call: Call) -> None:
        """Its time is up."""
        if self.take(call.call_id) is None:
            return
        call._reject(blame(DeadlineExceeded(_overdue(call)), call.target._name))
        self.on_cancelled(call)

    def of_peer(self, peer: Peer) -> list[Call]:
        """All that wait for *peer*."""
        return [call for call in self.waiting() if call.peer is peer]

    def waiting(self) -> list[Call]:
        """All that wait for anybody."""
        return [*self.by_id.values(), *self._loose.values()]

    def watch(self, instant: float) -> None:
        """Look at the deadlines at *instant* at the latest; any thread."""
        if instant < self._next_at:
            self._post(self._look_at, instant)

    # One timer for all: with every call due 5 s after it was made, the table is
    # looked through once in 5 s, and a call pays two comparisons.
    def _look_at(self, instant: float) -> None:
        if instant >= self._next_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_at = instant
        self._timer = self._clock.call_later(instant - self._clock.now(), self._look)

    def _look(self) -> None:
        self._timer = None
        self._next_at = math.inf
        now = self._clock.now()
        earliest = math.inf
        for call in self.waiting():
            if call.deadline_at <= now:
                self.expire(call)
            elif call.deadline_at < earliest:
                earliest = call.deadline_at
        self._look_at(earliest)

    def close(self) -> None:
        """Stop watching deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _overdue(call: Call) -> str:
    timeout = "its deadline" if call.timeout is None else f"{call.timeout:g} s"
    method = call.method.removeprefix(foreign.MARK)
    if call._streams:
        return f"{call.target._name} sent no item of {method}() within {timeout}"
    return f"{call.target._name} did not answer {method}() within {timeout}"

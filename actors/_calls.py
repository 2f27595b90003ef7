"""
Calls: asks that are under way, and who waits for what.

Every ask of a process stands in one table until its outcome is known; whoever
takes it out of the table settles it, so there is exactly one outcome. One timer
watches all deadlines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.clock import Clock, Timer
from actors.errors import Cancelled, DeadlineExceeded, Unavailable
from actors.events import ReplyUnread
from actors.reply import Reply

if TYPE_CHECKING:
    from actors._peers import Peer
    from actors.ref import Ref
    from actors.system import ActorSystem

STREAM_TIMEOUT = 30.0
"""Seconds between two items of a stream, unless the caller says otherwise."""


class Call(Reply[Any]):
    """An ask under way: the caller's reply, and all that is needed to settle it."""

    __slots__ = (
        "call_id",
        "deadline_at",
        "given_timeout",
        "message",
        "method",
        "peer",
        "reroute",
        "streams",
        "system",
        "target",
        "timeout",
    )

    def __init__(self, system: ActorSystem, target: Ref[Any], method: str, timeout: float | None) -> None:
        super().__init__()
        self.system = system
        self.target = target
        self.method = method
        self.timeout = timeout
        self.given_timeout = False
        self.deadline_at = math.inf
        self.call_id = 0
        self.peer: Peer | None = None
        """The process it was sent to; None inside this process."""
        self.message: Any = None
        """The local message, so that a cancel finds it."""
        self.reroute: Callable[[Call, BaseException], bool] | None = None
        """Asked before a failure settles the call: True when it has gone another way instead."""
        self.streams = False

    def cancel(self) -> None:
        if not self._done:
            self.system._calls.cancel(self)

    def expect_item(self) -> None:
        """Re-arm the deadline for the next item of a stream."""
        self.streams = True
        timeout = self.timeout if self.given_timeout else STREAM_TIMEOUT
        if timeout is not None:
            self.deadline_at = self.system.clock.now() + timeout
            self.timeout = timeout

    # -- the way back, when the target lives in this process (`_message.Answer`) ----

    def _answer(self, value: Any) -> None:
        if self.system._calls.take(self.call_id) is not None:
            self._resolve(value)

    def _answer_error(self, error: BaseException) -> None:
        self.system._calls.fail(self, error)

    def _answer_refused(self, error: BaseException) -> None:
        self.system._calls.refuse(self, error)

    def _answer_item(self, item: Any) -> None:
        self.expect_item()
        self._push(item)

    def _answer_end(self) -> None:
        if self.system._calls.take(self.call_id) is not None:
            self._finish()

    def never_sent(self, reason: str) -> None:
        """Its envelope did not leave this process (`_peers.Unsent`)."""
        error = Unavailable(f"{self._describe()} was never sent: {reason}", may_have_run=False, reason=reason)
        self.system._calls.refuse(self, error)

    def _begin_reading(self) -> None:
        if not self._done:
            self.expect_item()
            self.system._calls.watch(self.deadline_at)

    def _describe(self) -> str:
        return f"{self.target._name}.{self.method}()"

    def _would_block_itself(self) -> bool:
        return self.system._is_loop_thread()

    def _due_at(self) -> float | None:
        return None if self.deadline_at == math.inf else self.deadline_at

    def _expire_if_due(self) -> None:
        if self.deadline_at <= self.system.clock.now():
            self.system._calls.expire(self)

    def __del__(self) -> None:
        if (
            self._done
            and self._error is not None
            and not self._read
            and not isinstance(self._error, Cancelled)
        ):
            self.system._report_unread(ReplyUnread(self.target._name, self.method, self._error))


class Calls:
    """The table of asks that wait for an answer."""

    def __init__(self, clock: Clock, post: Callable[..., None]) -> None:
        self._clock = clock
        self._post = post
        self._ids = itertools.count(1)
        self._by_id: dict[int, Call] = {}
        self._timer: Timer | None = None
        self._next_at = math.inf
        self.on_cancelled: Callable[[Call], None] = lambda call: None
        """Told of calls that ended here while their far end may still work."""

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, call: Call) -> None:
        """Enter *call*; its `deadline_at` is watched from now on."""
        call.call_id = call_id = next(self._ids)
        self._by_id[call_id] = call
        if call.deadline_at < self._next_at:
            self.watch(call.deadline_at)

    def take(self, call_id: int) -> Call | None:
        """Remove a call to settle it; None when somebody else has."""
        return self._by_id.pop(call_id, None)

    def find(self, call_id: int) -> Call | None:
        """A call that still waits."""
        return self._by_id.get(call_id)

    def fail(self, call: Call, error: BaseException) -> None:
        """Settle *call* with *error*."""
        if self.take(call.call_id) is not None:
            call._reject(error)

    def refuse(self, call: Call, error: BaseException) -> None:
        """*call* certainly never ran: let it go another way, else settle it with *error*."""
        if self.take(call.call_id) is None:
            return
        if call.reroute is None or not call.reroute(call, error):
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
        call._reject(DeadlineExceeded(_overdue(call)))
        self.on_cancelled(call)

    def of_peer(self, peer: Peer) -> list[Call]:
        """All that wait for *peer*."""
        return [call for call in list(self._by_id.values()) if call.peer is peer]

    def waiting(self) -> list[Call]:
        """All that wait for anybody."""
        return list(self._by_id.values())

    def watch(self, instant: float) -> None:
        """Look at the deadlines at *instant* at the latest."""
        if instant < self._next_at:
            self._next_at = instant
            self._post(self._arm)

    # One timer for all: with every call due 5 s after it was made, the table is
    # looked through once in 5 s, and a call pays two comparisons.
    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_at != math.inf:
            self._timer = self._clock.call_later(self._next_at - self._clock.now(), self._look)

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
        if earliest < self._next_at:
            self._next_at = earliest
            self._arm()

    def close(self) -> None:
        """Stop watching deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _overdue(call: Call) -> str:
    timeout = "its deadline" if call.timeout is None else f"{call.timeout:g} s"
    if call.streams:
        return f"{call.target._name} sent no item of {call.method}() within {timeout}"
    return f"{call.target._name} did not answer {call.method}() within {timeout}"

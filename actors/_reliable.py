"""
Reliable tells: sent again until their handler has ended, handed on in order and once.

Each pair of a sender (one life of an actor, or a program) and a registration has a window
(`_windows`) under a number of its own, the channel; that number and a message's place in it tell
duplicates. Here is the sender's end; the receiver's is in `_incoming`. When the receiver's process
dies, what has not ended goes to the next incarnation, and says that it may have run. What was in
the handler then, twice, is poison: a dead letter with the stack of the crash.
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import pickling
from actors._incoming import HEAD, NOTHING_ARRIVED, RANGE, arrived
from actors._outbox import OutboxFull
from actors._peers import MAX_BODY
from actors._windows import Report, SenderWindow, WindowFull
from actors.errors import (
    ActorError,
    ActorStopped,
    DeadlineExceeded,
    MailboxFull,
    SerializationError,
    ServiceFailed,
    Unavailable,
)
from actors.events import DeadLettered
from actors.ref import Ref
from actors.remains import POISONOUS, remains_of
from actors.reply import Reply
from actors.wire import Codec, Envelope, Kind

if TYPE_CHECKING:
    from actors._life import Life
    from actors._message import Message
    from actors._peers import Peer
    from actors.clock import Timer
    from actors.system import ActorSystem
    from actors.tracing import Metadata

SILENCE = 10.0
"""Seconds without a word from a process whose pipe has closed, after which it counts as dead.

Only where no directory tells: an app knows when a member has ended, and where its next life is.
"""

IDLE_TIME = 60.0
"""Seconds after which a sender forgets a window with nothing in it."""

_FINAL = ("no inbox", "system stopped")


class ReliableTell(Reply[None]):
    """Settled when the receiver's handler has ended, or never will."""

    __slots__ = ("args", "body", "deadline_at", "deaths", "kwargs", "metadata", "method", "sender", "target")

    def __init__(
        self,
        system: ActorSystem,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Life | None,
        metadata: Metadata | None,
    ) -> None:
        super().__init__(system)
        self.target = ref._name
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.sender = sender
        self.metadata = metadata
        self.body = b""
        self.deaths = 0
        """Processes that have died with it in a handler."""
        self.deadline_at = math.inf
        if ref._timeout_given and ref._timeout is not None:
            self.deadline_at = system.clock.now() + ref._timeout

    def fail(self, error: BaseException, reason: str, detail: str = "") -> None:
        """It is given up here: its reply fails, and it is a dead letter."""
        if not self._done:
            self._reject(error)
            name = self.sender.cell.name if self.sender is not None else None
            assert self._system is not None
            self._system.emit(DeadLettered(self.target, name, self.method, reason, detail))

    def _describe(self) -> str:
        return f"{self.target}.{self.method}()"


class Reliable:
    """All windows of one system whose sender lives here. Loop thread only, but for `tell`."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._by_pair: dict[Any, Outgoing] = {}
        self._by_channel: dict[int, Outgoing] = {}

    def tell(
        self,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
        metadata: Metadata | None,
    ) -> Reply[None]:
        """Send a reliable tell; any thread."""
        life = sender.life if sender is not None else None
        told = ReliableTell(self._system, ref, method, args, kwargs, life, metadata)
        if ref._cell is None or ref._cell.roams:
            try:
                told.body = _encode(ref, told)
            except ActorError as error:
                told._reject(error)
                return told
        self._system._on_loop(self._offer, ref, told)
        return told

    def _offer(self, ref: Ref[Any], told: ReliableTell) -> None:
        pair = (ref._name, ref._uid, ref._pin, ref._home, told.sender)
        outgoing = self._by_pair.get(pair)
        if outgoing is None:
            outgoing = self._by_pair[pair] = Outgoing(
                self._system, ref, told.sender, partial(self._drop, pair)
            )
            self._by_channel[outgoing.channel] = outgoing
        outgoing.offer(told)

    def _drop(self, pair: Any) -> None:
        outgoing = self._by_pair.pop(pair, None)
        if outgoing is not None:
            self._by_channel.pop(outgoing.channel, None)

    def lost(self, peer: Peer) -> None:
        """The pipe to a process has closed."""
        for outgoing in list(self._by_channel.values()):
            outgoing.lost(peer)

    def close(self) -> None:
        """The system stops: what is not acknowledged is given up."""
        for outgoing in list(self._by_channel.values()):
            outgoing.give_up(Unavailable("this process's system stopped", reason="system stopped"))

    # -- what receivers say ------------------------------------------------------------

    def received(self, one: Envelope) -> None:
        """A report."""
        outgoing = self._by_channel.get(one.call_id)
        if outgoing is not None:
            arrived, ended, beyond, failures = pickling.loads(one.body)
            errors = tuple((number, pickling.decode_error(error)) for number, error in failures)
            outgoing.on_report(Report(arrived, ended, beyond, errors))

    def missing(self, one: Envelope) -> None:
        """A request for what is missing."""
        outgoing = self._by_channel.get(one.call_id)
        if outgoing is not None:
            outgoing.on_missing(*RANGE.unpack(one.body))

    def gone(self, one: Envelope) -> None:
        """Nobody has that registration there."""
        outgoing = self._by_channel.get(one.call_id)
        if outgoing is not None:
            error, returned = pickling.loads(one.body)
            outgoing.on_gone(pickling.decode_error(error), returned)


class Outgoing:
    """The sender's end of one channel."""

    def __init__(self, system: ActorSystem, ref: Ref[Any], sender: Life | None, drop: Any) -> None:
        self.channel = random.getrandbits(64)
        self._system = system
        self._ref = ref
        self._sender = sender
        self._drop = drop
        self._window: SenderWindow[ReliableTell] = SenderWindow()
        self._peer: Peer | None = None
        """The process it talks to; None for this one, and before the first message."""
        self._address = ""
        """Where the last message went."""
        self._is_lost = False
        """True from the end of a pipe until a word comes over the next."""
        self._heard_at = system.clock.now()
        self._timer: Timer | None = None
        self._looks_at = math.inf

    def offer(self, told: ReliableTell) -> None:
        """Send one more."""
        if self._system._closed:
            told.fail(self._system._unreachable(self._ref), "system stopped")
            return
        try:
            number = self._window.offer(told, len(told.body))
        except WindowFull as error:
            told.fail(MailboxFull(f"{self._ref._name}: {error}"), "window full")
            return
        if len(self._window) == 1:
            self._heard_at = self._system.clock.now()
        self._transmit((number,))
        self._look_later()

    # -- what the receiver says ----------------------------------------------------------

    def on_report(self, report: Report) -> None:
        """What arrived, and what has ended."""
        now = self._heard()
        for told, failure in self._window.on_report(report, now):
            if failure is None:
                told._resolve(None)
            else:
                told._reject(failure)
        self._look_later()

    def on_missing(self, first: int, last: int) -> None:
        """Send again what the receiver lacks."""
        self._heard()
        self._transmit(self._window.on_missing(first, last))

    def on_gone(self, error: BaseException, returned: tuple[int, ...] = ()) -> None:
        """The registration is not, or no longer, where we sent it; *returned* were never handled there."""
        now = self._heard()
        if not self._may_move():
            self.give_up(error)
            return
        # Its next life may be elsewhere; the directory knows, or will.
        self._window.returned(returned)
        self._window.forgotten(now)
        self._look_later()

    def lost(self, peer: Peer) -> None:
        """The pipe to *peer* has closed: whatever was on its way may be lost."""
        if peer is self._peer:
            self._peer = None
            self._is_lost = True
            self._window.forgotten(self._system.clock.now())
            self._look_later()

    def _heard(self) -> float:
        self._is_lost = False
        self._heard_at = now = self._system.clock.now()
        return now

    def _may_move(self) -> bool:
        return self._system.directory is not None and not self._ref._home

    # -- sending -------------------------------------------------------------------------

    def _transmit(self, numbers: tuple[int, ...], *, inquires: bool = False) -> None:
        if not numbers and not inquires:
            return
        if self._sender is not None and self._sender.is_over:
            self.give_up(ActorStopped(f"{self._sender.cell.name}, who sent it, has ended"))
            return
        now = self._system.clock.now()
        try:
            place = self._system._place(self._ref)
        except Unavailable as error:
            if isinstance(error, ServiceFailed) or error.reason in _FINAL:
                self.give_up(error)
            else:
                self._window.sent((), now)  # it is expected back
            return
        except Exception as error:
            self.give_up(error)
            return
        address = place if isinstance(place, str) else self._system.address
        if address != self._address:
            if self._address:
                self._leave(self._address, now)
            self._address = address
            numbers = tuple(number for number in numbers if number in self._window)
        self._window.sent(numbers, now)
        if not isinstance(place, str):
            for number in numbers:
                told = self._window.item(number)
                arrived(place, self, number, self._window.base, told, self._window.is_suspect(number))
            if inquires:
                known = place.channels.get(self.channel) if place.channels else None
                if known is not None:
                    known.report_soon()
                else:
                    self._on_loop_soon(self.on_report, NOTHING_ARRIVED)
            return
        self._send(place, numbers, now, inquires=inquires)

    def _leave(self, address: str, now: float) -> None:
        """
        The receiver lives elsewhere now; the end of the pipe to where it lived may be news yet to come.

        Of what it was handling when its process died, some is poison.
        """
        self._window.forgotten(now)
        remains = remains_of(address)
        if remains is None:
            return  # that process lives
        for number in self._window.numbers():
            told = self._window.item(number)
            if told is None or (self.channel, number) not in remains.deaths_by_call:
                continue
            told.deaths += 1
            if told.deaths >= POISONOUS:
                text = f"{told._describe()} was being handled when its process died, {told.deaths} times:"
                error = Unavailable(f"{text} it is poison and is not sent again", reason="poison")
                told.fail(error, "poison", remains.crash())
                self._window.abandon(number)

    def _on_loop_soon(self, callback: Any, *args: Any) -> None:
        assert self._system._loop is not None
        self._system._loop.call_soon(callback, *args)

    def _send(self, address: str, numbers: tuple[int, ...], now: float, *, inquires: bool) -> None:
        remote = self._system._remote
        assert remote is not None
        peer = remote.peer(address)
        if peer is not self._peer:
            self._peer = peer
        target = pickling.dumps((self._ref._name, self._ref._uid))
        waits = 1
        try:
            for number in numbers:
                told = self._window.item(number)
                remaining = math.inf if told is None else told.deadline_at - now
                suspect = self._window.is_suspect(number)
                deaths = 0 if told is None else told.deaths
                head = HEAD.pack(number, self._window.base, remaining, suspect, deaths, len(target))
                body = head + target + (b"" if told is None else told.body or _encode(self._ref, told))
                waits = peer.put((Kind.RELIABLE, Codec.PICKLE, self.channel, body, b"", math.inf, None))
            if inquires:
                waits = peer.put((Kind.INQUIRY, Codec.PICKLE, self.channel, target, b"", math.inf, None))
        except OutboxFull:
            pass  # it is sent again
        remote.departures.flush(peer, waits)

    # -- time ------------------------------------------------------------------------------

    def _look_later(self) -> None:
        kept = self._window
        at = kept.due_at if len(kept) else self._heard_at + IDLE_TIME
        if self._timer is not None:
            if self._looks_at <= at:
                return
            self._timer.cancel()
        self._looks_at = at
        self._timer = self._system.clock.call_later(max(0.0, at - self._system.clock.now()), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._system.clock.now()
        if not len(self._window):
            if now >= self._heard_at + IDLE_TIME:
                self._drop()
                return
        elif self._is_lost and not self._may_move() and now - self._heard_at > SILENCE:
            silent = f"{self._ref._name}: its process is gone and did not answer for {SILENCE:g} s"
            self.give_up(Unavailable(silent, reason="its process is gone"))
            return
        self._expire(now)
        due = self._window.due(now)
        self._transmit(due.numbers, inquires=due.inquires)
        self._look_later()

    def _expire(self, now: float) -> None:
        for number in self._window.numbers():
            told = self._window.item(number)
            if told is not None and told.deadline_at <= now:
                late = f"{told._describe()} was not acknowledged before its deadline"
                told.fail(DeadlineExceeded(late), "expired")
                self._window.abandon(number)

    def give_up(self, error: BaseException) -> None:
        """Nothing of it will be acknowledged any more."""
        self._drop()
        if self._timer is not None:
            self._timer.cancel()
        window = self._window
        errors = [_error_of(error, window, number) for number in window.numbers()]
        for told, one in zip(window.drain(), errors, strict=True):
            told.fail(one, type(error).__name__)


def _error_of(error: BaseException, window: SenderWindow[ReliableTell], number: int) -> BaseException:
    """*error*, as it is true of one message: whether that may have run."""
    if not isinstance(error, Unavailable):
        # In order, as far as its last receiver knows; the one before may have handled it and died.
        may_have_run = window.is_suspect(number)
        if not may_have_run:
            return error
    elif (may_have_run := window.was_sent(number)) == error.may_have_run:
        return error
    reason = error.reason if isinstance(error, Unavailable) else type(error).__name__
    own = Unavailable(str(error), may_have_run=may_have_run, reason=reason)
    own.__cause__ = error
    return own


def _encode(ref: Ref[Any], told: ReliableTell) -> bytes:
    life = told.sender
    origin = None if life is None else (life.cell.name, life.cell.uid, life.incarnation)
    parts = (ref._pin, told.method, origin, told.args, told.kwargs)
    carried = told.metadata.to_plain() if told.metadata is not None else None
    try:
        body = pickling.dumps(parts if carried is None else (*parts, carried))
    except Exception as error:
        problem = pickling.misfit(ref._name, told.method, told.args, told.kwargs, error)
        raise SerializationError(problem) from error
    most = MAX_BODY - HEAD.size - 64 * 1024  # so much may name its receiver
    if len(body) > most:
        what = f"the arguments of {told._describe()} have {len(body)} bytes"
        raise SerializationError(f"{what}, a reliable tell at most {most}")
    return body

"""
Incoming: the receiver's end of reliable tells (`_reliable`), with the cell they lead to.

It outlives restarts of its actor in the process: what was cut short there comes to the next life
first. What it forgets with the process, or with too many senders, is sent again.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from actors import pickling
from actors._message import Message, Origin, ReliableMessage
from actors._peers import Peer
from actors._windows import ReceiverWindow, Report
from actors.errors import ActorError, SerializationError
from actors.remains import Tag
from actors.tracing import metadata_of
from actors.wire import Codec, Envelope, Kind

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._reliable import Outgoing, ReliableTell
    from actors.system import ActorSystem

# Number, the oldest that is not settled, seconds left, whether it may have run, how many processes
# have died of it; then, each with its length before it, whom it is for, and what.
HEAD = struct.Struct("!QQd?BH")
RANGE = struct.Struct("!QQ")

MOST_CHANNELS = 1024
"""Senders that one actor remembers; the one not heard of for longest is forgotten first."""

NOTHING_ARRIVED = Report(0, 0)
"""What a receiver says that does not know a sender."""


class Incoming:
    """The receiver's end of one channel, with the cell it leads to."""

    def __init__(
        self, cell: Cell, channel: int, origin: Peer | Outgoing, window: ReceiverWindow[Any]
    ) -> None:
        self.cell = cell
        self.channel = channel
        self.origin = origin
        """The way back: another process, or the sender's end in this one."""
        self.window = window
        self._reports = False
        self._returned: list[int] = []
        """What was in the mailbox when the cell began to take no more."""

    def on_message(self, number: int, base: int, message: Message | None) -> None:
        """A message, or None for the place of one that is settled."""
        for one, ready in self.window.on_message(number, base, message):
            if ready is None:
                self.window.on_ended(one)  # unless it has failed
            else:
                ready.receipt = _Receipt(self, one)
                self.cell.deliver(ready)
        if (gap := self.window.missing()) is not None:
            if isinstance(self.origin, Peer):
                self._send(self.origin, Kind.MISSING, RANGE.pack(*gap))
            else:
                self.origin.on_missing(*gap)
        self.report_soon()

    def report_soon(self) -> None:
        """Report at the end of the loop's turn, once for all that happens in it."""
        if not self._reports:
            self._reports = True
            loop = self.cell.system._loop
            assert loop is not None
            loop.call_soon(self._report)

    def _report(self) -> None:
        self._reports = False
        report = self.window.report()
        if isinstance(self.origin, Peer):
            plain = tuple((number, pickling.encode_error(error)) for number, error in report.failures)
            self._send(self.origin, Kind.RECEIVED, pickling.dumps((*report[:3], plain)))
        else:
            self.origin.on_report(report)

    def hand_back(self, number: int, *, has_begun: bool) -> None:
        """The cell takes no more, and will not handle a message; said once, for all of them."""
        if not has_begun:
            self._returned.append(number)
        if self.cell.channels is not None and self.cell.channels.pop(self.channel, None) is not None:
            loop = self.cell.system._loop
            assert loop is not None
            loop.call_soon(self._say_gone, self.cell.gone())

    def _say_gone(self, error: ActorError) -> None:
        returned = tuple(self._returned)
        if isinstance(self.origin, Peer):
            self._send(self.origin, Kind.GONE, _gone(error, returned))
        else:
            self.origin.on_gone(error, returned)

    def _send(self, peer: Peer, kind: int, body: bytes) -> None:
        remote = self.cell.system._remote
        assert remote is not None
        remote.send(peer, kind, self.channel, body, Codec.PICKLE)


class _Receipt:
    """What becomes of one reliable tell (`_message.Receipt`)."""

    __slots__ = ("_incoming", "_number", "has_begun")

    def __init__(self, incoming: Incoming, number: int) -> None:
        self._incoming = incoming
        self._number = number
        self.has_begun = False

    def ended(self) -> None:
        self._incoming.window.on_ended(self._number)
        self._incoming.report_soon()

    def reached_nobody(self, error: ActorError | None) -> None:
        if self._incoming.cell.refuses:
            self._incoming.hand_back(self._number, has_begun=self.has_begun)
            return
        self._incoming.window.on_failed(self._number, error or ActorError("it was not handled"))
        self._incoming.report_soon()


def again(message: Message) -> None:
    """The handler of *message* was cut short from outside: the next life of its actor gets it first."""
    cell = message.cell
    if not isinstance(message, ReliableMessage) or message.receipt is None or cell is None:
        return
    receipt, message.receipt = message.receipt, None
    receipt.has_begun = True
    copy = ReliableMessage(
        message.method, message.args, message.kwargs, None, message.sender, message.deadline_at
    )
    copy.via, copy.pin, copy.cell, copy.tag = message.via, message.pin, cell, message.tag
    copy.carry(message.carried)
    copy.receipt = receipt
    copy.redelivered = True
    if cell.refuses:
        cell._refuse(copy, "stopped", cell.gone())
        return
    cell.system._counts.accepted += 1
    cell.mailbox.append_first(copy)


def arrived(
    cell: Cell, origin: Outgoing, number: int, base: int, told: ReliableTell | None, suspect: bool
) -> None:
    """A reliable tell from this process."""
    message = None
    if cell.refuses:
        origin._on_loop_soon(origin.on_gone, cell.gone())
        return
    incoming = _channel(cell, origin.channel, origin, base, number == base and not suspect)
    if told is not None:
        message = ReliableMessage(told.method, told.args, told.kwargs, None, told.sender, told.deadline_at)
        message.pin = origin._ref._pin
        message.carry(told.metadata)
        message.redelivered = suspect and not incoming.window.is_original
    incoming.on_message(number, base, message)


def take_in(system: ActorSystem, peer: Peer, one: Envelope) -> None:
    """A reliable tell from another process; the body of `Kind.RELIABLE`."""
    number, base, remaining, suspect, deaths, size = HEAD.unpack_from(one.body)
    at = HEAD.size + size
    try:
        cell = system._names.cell_of(*pickling.loads(one.body[HEAD.size : at]))
        if cell.refuses:
            raise cell.gone()
    except ActorError as error:
        _say_gone(system, peer, one.call_id, error)
        return
    incoming = _channel(cell, one.call_id, peer, base, number == base and not suspect)
    incoming.origin = peer
    message = carried = None
    if len(one.body) > at:
        try:
            pin, method, origin, args, kwargs, *rest = pickling.loads(one.body[at:])
            if rest:
                carried = metadata_of(*rest)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            problem = SerializationError(f"the receiver cannot decode the message: {reason}")
            incoming.window.on_failed(number, problem)
            incoming.on_message(number, base, None)
            return
        sender = None if origin is None else Origin(origin[0], origin[1], origin[2], peer.address)
        deadline_at = math.inf if remaining == math.inf else system.clock.now() + remaining
        message = ReliableMessage(method, args, kwargs, None, sender, deadline_at)
        message.via = peer
        message.pin = pin
        message.tag = Tag(one.call_id, number, None, 1, deaths)
        message.carry(carried)
        message.redelivered = suspect and not incoming.window.is_original
    incoming.on_message(number, base, message)


def inquired(system: ActorSystem, peer: Peer, one: Envelope) -> None:
    """A sender wants to know what arrived; `Kind.INQUIRY`."""
    try:
        cell = system._names.cell_of(*pickling.loads(one.body))
    except ActorError as error:
        _say_gone(system, peer, one.call_id, error)
        return
    known = cell.channels.get(one.call_id) if cell.channels else None
    if known is None:
        # Forgotten: nothing has arrived, as far as anybody here knows.
        remote = system._remote
        assert remote is not None
        body = pickling.dumps(tuple(NOTHING_ARRIVED))
        remote.send(peer, Kind.RECEIVED, one.call_id, body, Codec.PICKLE)
        return
    known.origin = peer
    known.report_soon()


def _channel(cell: Cell, channel: int, origin: Peer | Outgoing, base: int, is_original: bool) -> Incoming:
    if cell.channels is None:
        cell.channels = OrderedDict()
    incoming = cell.channels.get(channel)
    if incoming is None:
        window: ReceiverWindow[Any] = ReceiverWindow(base, is_original)
        incoming = cell.channels[channel] = Incoming(cell, channel, origin, window)
        while len(cell.channels) > MOST_CHANNELS:
            cell.channels.popitem(last=False)
    else:
        cell.channels.move_to_end(channel)
    return incoming


def _say_gone(system: ActorSystem, peer: Peer, channel: int, error: ActorError) -> None:
    remote = system._remote
    assert remote is not None
    # Of what is refused on arrival an earlier copy may have been handled.
    remote.send(peer, Kind.GONE, channel, _gone(error, ()), Codec.PICKLE)


def _gone(error: ActorError, returned: tuple[int, ...]) -> bytes:
    return pickling.dumps((pickling.encode_error(error), returned))

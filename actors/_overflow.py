"""
Overflow: what becomes of a message whose mailbox is full, and who waits for room.

    reject        it is refused; only where its caller has less waiting than another does
                  the youngest of that other make room
    drop_oldest   the oldest of the caller with most waiting makes room
    block         it waits, not taken yet, until there is room; nobody else waits with it

A reliable tell always waits: its sender's window bounds how many there are. A process whose
message waits is told so, sends no more to that actor and is granted places later
(`_held`), so what waits here is bounded by what was on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors._mailbox import Turns
from actors._message import Message, NoAnswer, RemoteTell, TimerMessage
from actors.blame import blame
from actors.errors import ActorError, Cancelled, MailboxFull
from actors.wire import Kind

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._peers import Peer

MOST_PARKED = 1000
"""Messages of its own process that wait for room in one mailbox, or as many as it holds, if that is more."""

UNLIMITED = 1 << 32
"""Places granted where nobody is any more: each message is refused by itself."""


def overflowed(cell: Cell, message: Message) -> bool:
    """The mailbox of *cell* is full: make room, let *message* wait, or refuse it. False when refused."""
    mailbox = cell.mailbox
    full = blame(MailboxFull(f"{cell.name} has {mailbox.limit} messages waiting, its limit"), cell.name)
    if not message.is_special and (cell.overflow == "block" or message.receipt is not None):
        return _park(cell, message)
    victim: Message | None
    if cell.overflow == "drop_oldest":
        reason, victim = "dropped as the oldest", mailbox.drop_oldest()
    else:
        reason, victim = "displaced by another caller", mailbox.displace(message)
    if victim is None:
        return cell._refuse(message, "mailbox full", full)
    mailbox.append(message)
    cell.system._counts.accepted += 1
    if isinstance(victim, TimerMessage):
        victim.waits = False
    cell.dead_letter(victim, reason, full)
    return True


def _park(cell: Cell, message: Message) -> bool:
    room = waiting_room(cell)
    most = max(MOST_PARKED, cell.mailbox.limit)
    # What comes from other processes is bounded at its sender, and so is what is reliable.
    if message.via is None and message.receipt is None and room.parked >= most:
        full = f"{cell.name} has {cell.mailbox.limit} messages waiting, its limit, and {most} wait for room"
        return cell._refuse(message, "mailbox full", blame(MailboxFull(full), cell.name))
    room.park(message)
    return True


def waiting_room(cell: Cell) -> WaitingRoom:
    """The waiting room in front of a cell's mailbox, made when it is needed."""
    if cell.mailbox.waiting_room is None:
        cell.mailbox.waiting_room = WaitingRoom(cell)
    return cell.mailbox.waiting_room


class WaitingRoom:
    """Messages that wait for room in one mailbox, and processes that want to send more. Loop thread only."""

    __slots__ = ("_cell", "_parked", "_wanting")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._parked = Turns()
        self._wanting: dict[Peer, None] = {}

    @property
    def parked(self) -> int:
        """Messages that wait."""
        return self._parked.waiting

    def park(self, message: Message) -> None:
        """Let *message* wait, and the process it came from send no more for now."""
        message.is_parked = True
        self._parked.append(message)
        peer, answer = message.via, message.answer
        if peer is None or message.receipt is not None:
            return
        tell_id = answer.tell_id if isinstance(answer, RemoteTell) else 0
        if tell_id or peer not in self._wanting:
            self._wanting[peer] = None
            self._send(peer, Kind.PARKED, tell_id)

    def want(self, peer: Peer) -> None:
        """*peer* has more for this actor."""
        self._wanting[peer] = None
        self.admit()

    def admit(self) -> None:
        """Something has left the mailbox: who is next moves in, and when nobody waits others may send."""
        mailbox = self._cell.mailbox
        while mailbox.waiting < mailbox.limit:
            message = self._parked.pop()
            if message is None:
                break
            mailbox.append(message)
            self._cell.system._counts.accepted += 1
            _taken(message)
        # Not at the first place: who may send again should find more than one.
        if not self._parked.waiting and mailbox.waiting <= mailbox.limit // 2:
            mailbox.waiting_room = None
            self._grant(mailbox.limit - mailbox.waiting)

    def remove(self, message: Message) -> bool:
        """Take out a message that waits; False when it does not."""
        return self._parked.remove(message)

    def close(self, error: ActorError) -> None:
        """The actor takes no more."""
        self._cell.mailbox.waiting_room = None
        for message in self._parked.drain():
            message.is_parked = False
            self._cell._refuse(message, "stopped", error)
        self._grant(UNLIMITED)

    def _grant(self, places: int) -> None:
        wanting, self._wanting = self._wanting, {}
        for peer in wanting:
            self._send(peer, Kind.GRANT, max(1, places // len(wanting)))

    def _send(self, peer: Peer, kind: int, number: int) -> None:
        remote = self._cell.system._remote
        assert remote is not None
        remote.send(peer, kind, number, self._cell.name.encode())


def _taken(message: Message) -> None:
    message.is_parked = False
    if isinstance(message.answer, NoAnswer):
        message.answer._answer_taken()
        message.answer = None  # as with every tell: what becomes of it is nobody's business


def withdraw(cell: Cell, message: Message) -> bool:
    """Nobody wants *message* any more, which waits for room; False when it does not."""
    room = cell.mailbox.waiting_room
    if room is None or not message.is_parked or not room.remove(message):
        return False
    message.is_parked = False
    expired = message.deadline_at <= cell.system.clock.now()
    cancelled = Cancelled(f"{cell.name}.{message.method}() was cancelled")
    cell._refuse(message, "expired" if expired else "cancelled", cancelled)
    return True

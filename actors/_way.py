"""
Ways: from a ref to one method of an actor, in another process (`Way`) or in this one (`NearWay`).

What plain messages need is worked out once: the process, the head of the envelope, the timeout.
Plain is what comes from no handler, carries nothing, and has small arguments of plain types. On its
way a message costs its sender half of what it costs through `Sending.dispatch`.
"""

from __future__ import annotations

import math
from threading import get_ident
from typing import TYPE_CHECKING, Any

from actors import _passage
from actors._calls import Call, SentTell
from actors._message import NO_KEYWORDS, Message, current_message
from actors._outbox import LATE, OutboxFull
from actors._peers import BURST
from actors._shared import SHARED_FROM
from actors.batch import MOST_BYTES, is_small
from actors.blame import blame
from actors.errors import MailboxFull
from actors.pickling import FLAT, dumps_flat
from actors.reply import Reply, failed, settled
from actors.stream import is_stream
from actors.tracing import carriage
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._peers import Peer
    from actors._remote import Remote
    from actors.ref import Ref
    from actors.system import ActorSystem

_ASK, _TELL, _PICKLE = int(Kind.ASK), int(Kind.TELL), int(Codec.PICKLE)


class Way:
    """The way of plain messages from a ref to one method; any thread."""

    __slots__ = (
        "_calls",
        "_departures",
        "_directory",
        "_head",
        "_head_is_small",
        "_loop_thread",
        "_name",
        "_now",
        "_peer",
        "_ref",
        "_remote",
        "_system",
        "_timeout",
        "_timeout_given",
        "_version",
        "method",
        "said",
    )

    def __init__(
        self,
        system: ActorSystem,
        remote: Remote,
        ref: Ref[Any],
        method: str,
        peer: Peer,
        head: bytes,
        version: int,
    ) -> None:
        self.method = method
        self.said: Any = None
        """What callers give for it: the name, or the function."""
        self._system = system
        self._remote = remote
        self._departures = remote.departures
        self._peer = peer
        self._head = head
        self._head_is_small = len(head) <= MOST_BYTES
        self._calls = system._calls
        self._loop_thread = system._loop_thread
        self._now = system.clock.now
        self._directory = None if ref._home else system.directory
        self._version = version
        """The directory's, when it said that the actor lives there."""
        self._ref = ref._with()  # the ref itself knows this way: no cycle
        # Each look at an attribute of a ref takes 70 ns, for refs have a `__getattr__`.
        self._name = ref._name
        self._timeout = math.inf if ref._timeout is None else ref._timeout
        self._timeout_given = ref._timeout_given

    def leads_to(self, method: str, address: str) -> bool:
        """True while this is the way there."""
        peer, directory = self._peer, self._directory
        if self.method != method or peer.address != address or peer.is_lost:
            return False
        return directory is None or directory.version == self._version

    def ask(self, args: tuple[Any, ...]) -> Call | None:
        """Ask; None when this message has to go through `Sending.dispatch`."""
        body = self._packed(args)
        if body is None:
            return None
        timeout = self._timeout
        call = Call(self._system, self._ref, self.method, timeout if timeout != math.inf else None)
        call.given_timeout = self._timeout_given
        if timeout != math.inf:
            call.deadline_at = self._now() + timeout
        call.peer = self._peer
        self._calls.add(call)
        self._send(call, LATE if body is args else _PICKLE, body, timeout)
        return call

    def forward(self, call: Call, args: tuple[Any, ...]) -> bool:
        """Send a *call* that is in the table; False when it has to go through `Sending.dispatch`."""
        if call.asker is not None or call.metadata is not None or call.tag is not None:
            return False
        body = self._packed(args)
        if body is None:
            return False
        call.peer = self._peer
        self._send(call, LATE if body is args else _PICKLE, body, call.deadline_at - self._now())
        return True

    def _send(self, call: Call, codec: int, body: Any, remaining: float) -> None:
        peer = self._peer
        try:
            waits = peer.put((_ASK, codec, call.call_id, body, self._head, remaining, call))
        except OutboxFull as error:
            full = MailboxFull(f"the way to {self._name} is full: {error}")
            self._calls.refuse(call, blame(full, self._name))
            return
        if not (peer.dirty and waits % BURST and get_ident() == self._loop_thread):
            self._remote.leaves(call, peer, waits)

    def tell(self, args: tuple[Any, ...]) -> Reply[None] | None:
        """Tell; None when this message has to go through `Sending.dispatch`."""
        body = self._packed(args)
        if body is None:
            return None
        peer = self._peer
        tell = SentTell(self._system, self._name, self.method, None)
        try:
            waits = peer.put((_TELL, LATE if body is args else _PICKLE, 0, body, self._head, math.inf, tell))
        except OutboxFull as error:
            return failed(MailboxFull(f"the way to {self._name} is full: {error}"))
        if not (peer.dirty and waits % BURST and get_ident() == self._loop_thread):
            self._departures.flush(peer, waits)
        return tell

    def _packed(self, args: tuple[Any, ...]) -> Any:
        """
        The pickled body of a message, or *args* themselves where they may be pickled later.

        None when it is not plain, or this is no way any more.
        """
        peer, directory = self._peer, self._directory
        if (
            peer.is_lost
            or current_message.get() is not None
            or (directory is not None and directory.version != self._version)
            or (carriage.on and not _passage.is_plain(self._system, self._ref, self.method, None))
        ):
            return None
        if self._head_is_small and is_small(args):
            return args
        for arg in args:
            kind = type(arg)
            if kind not in FLAT or (kind is bytes and len(arg) >= SHARED_FROM):
                return None
        body = dumps_flat(args)
        return body if len(body) < SHARED_FROM else None


class NearWay:
    """The way of plain tells from a ref to one method of an actor of this process; on its loop."""

    __slots__ = ("_cell", "_counts", "_loop_thread", "_ref", "method", "said")

    def __init__(self, cell: Cell, method: str, said: Any) -> None:
        self.method = method
        self.said = said
        self._cell = cell
        self._ref = cell.ref()
        self._counts = cell.system._counts
        self._loop_thread = cell.system._loop_thread

    def leads_to(self, method: str, address: str) -> bool:
        return False

    # Asks take the other way.

    def ask(self, args: tuple[Any, ...]) -> None: ...

    def forward(self, call: Call, args: tuple[Any, ...]) -> bool:
        return False

    def tell(self, args: tuple[Any, ...]) -> Reply[None] | None:
        """Tell; None when this message has to go through `Sending.tell`."""
        cell = self._cell
        sender = current_message.get()
        if (
            cell.refuses
            or cell.answered is not None
            or get_ident() != self._loop_thread
            or (carriage.on and not _passage.is_plain(cell.system, self._ref, self.method, sender))
        ):
            return None
        for arg in args:
            if type(arg) not in FLAT and is_stream(arg):
                return None
        message = Message(self.method, args, NO_KEYWORDS, None, None if sender is None else sender.life)
        message.cell = cell
        if not cell.mailbox.put(message):
            return None  # what becomes of it is decided there
        self._counts.accepted += 1
        life = cell.life
        if life is not None and life.runners < cell.concurrency and cell.serves(life):
            cell.set_to_work(life)
        return TAKEN


TAKEN: Reply[None] = settled()
"""The reply to every tell that was taken at once: it never changes."""

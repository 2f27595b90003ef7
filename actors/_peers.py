"""
Peers: the other processes this one talks to, and the outbox in front of each.

What is queued for one peer while a frame is under way leaves in the next frame.
Sending never needs the loop: any thread appends and flushes; when the link would
block, a thread of the peer's own takes over until the outbox is empty. A peer that
is lost fails what waited for it: unsent messages never ran, the rest may have run.

Back-pressure is end to end. What has left and was not yet taken in at the far end is bounded by
`MAX_IN_FLIGHT`: the rest waits in the outbox, which is bounded too. Messages for an actor
without room wait apart (`_held`), so that they hold up nobody else's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol, cast

from actors._held import Held
from actors._senders import Seen
from actors.address import host_id_of
from actors.transport import Link, LinkLost
from actors.wire import ENVELOPE_OVERHEAD, FRAME_OVERHEAD, MAX_FRAME, Kind, Sealer, envelope, renumbered

if TYPE_CHECKING:
    from actors._calls import SentTell
    from actors._cell import Cell
    from actors._feeds import Intake
    from actors._message import Message, Origin

CONNECT_TIMEOUT = 1.0
MAX_OUTBOX_BYTES = 256 * 1024 * 1024
MAX_BODY = MAX_FRAME - FRAME_OVERHEAD - ENVELOPE_OVERHEAD - 256
"""Bytes of the largest single message; 256 are left for the sender's address."""

MAX_IN_FLIGHT = 32 * 1024 * 1024
"""Bytes that one process may have sent another which has not taken them in, and one frame more."""

CREDIT_EVERY = MAX_IN_FLIGHT // 4
"""Bytes after which a receiver says how far it has come."""

MESSAGE_OVERHEAD = 512
"""Bytes that each message counts beyond its envelope: objects stand behind it on both sides."""

BURST = 128
"""Messages of one turn after which a frame leaves early, so that both sides of a burst work at once."""

_CHECKPOINT = 64 * 1024
"""Bytes between two frames that are remembered until they are taken in."""

# Bytes after which a frame is closed although more waits: a small message behind
# 60 MB should not wait for all of it.
_FRAME_TARGET = 1024 * 1024
_IDLE_TIME = 10.0
_TELL = int(Kind.TELL)
_LAST_SEND = 0.5
"""Seconds that a lost peer is given to tell whether its last frame left."""


class Unsent(Protocol):
    """What stands behind an outgoing envelope and wants to know when it cannot leave."""

    def never_sent(self, reason: str) -> None: ...


class Addressed(Unsent, Protocol):
    """What can wait apart while its receiver has no room."""

    @property
    def receiver(self) -> str:
        """The name of the actor it is for."""


class TooLarge(Exception):
    """A message is larger than any that may travel; the text says how large, and the limit."""


class OutboxFull(Exception):
    """The peer takes messages slower than they come."""


class _Frame:
    """What leaves together: filled while it waits, sealed when its turn comes."""

    __slots__ = ("chunks", "data", "owners", "size")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.owners: list[Unsent | None] = []
        """Of each chunk, who wants to know when it does not leave."""
        self.size = 0
        self.data = b""


class Peer:
    """One other process, known by its address."""

    def __init__(
        self,
        address: str,
        open_link: Callable[[str, Callable[[], None]], Link],
        sealer: Sealer,
        own_address: str,
        on_lost: Callable[[Peer, str], None],
        seen: Seen | None = None,
    ) -> None:
        self.address = address
        self.host_id = host_id_of(address)
        self.serving: dict[int, Message] = {}
        """Asks of that process which run or wait here, by its call id. Loop thread only."""
        self.intakes: dict[int, Intake] = {}
        """Streams that came from there as arguments, until their end came too."""
        self.origins: dict[tuple[Any, ...], Origin] = {}
        """Actors there that sent something lately, by what their messages say of them. Loop thread only."""
        self.watched: dict[int, Any] = {}
        """What actors of this process watch there, by watch id. Loop thread only."""
        self.watching: dict[int, Cell] = {}
        """Cells of this process that are watched there, by its watch id. Loop thread only."""
        self.seen = seen or Seen()
        """Which of its frames have come."""
        self.dirty = False
        """Marked for a flush at the end of the loop's turn. Loop thread only."""
        self._sealer = sealer
        self._own_address = own_address.encode()
        self._own_id = host_id_of(own_address)
        self._on_lost = on_lost
        self._open_link = open_link
        self._link: Link | None = None
        self._full: deque[_Frame] = deque()
        """Frames that wait and take no more, oldest first."""
        self._filling = _Frame()
        self._queued_bytes = 0
        self._sequence = 0
        self._tells: deque[SentTell] = deque()
        """Tells whose taking is not confirmed yet, oldest first."""
        self._last_tell = 0
        self._parked: dict[int, SentTell] = {}
        """Tells that wait at the far end for room in a mailbox, by number."""
        self.held = Held()
        """Messages for actors without room."""
        self.charged_bytes = 0
        """Came from there since the last credit. Receiving thread only."""
        self._sent_bytes = 0
        """Left for there, ever."""
        self._taken_bytes = 0
        """Of those, taken in there for certain."""
        self._checkpoints: deque[tuple[int, int]] = deque()
        """Frames on their way: sequence, and `_sent_bytes` once it had left."""
        self._credit = 0
        """The frame up to which the far end should hear that its frames were taken in; 0: it has."""
        self._lock = threading.Lock()
        self._handed_over = False
        """True while the peer's own thread sends; nobody else may then."""
        self._stuck: _Frame | None = None
        """Made, and not sent for certain."""
        self._leaving: _Frame | None = None
        """In the hands of the link: only the peer's thread knows whether it left."""
        self._left = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._work: SimpleQueue[None] = SimpleQueue()
        self.is_lost = False

    # -- sending ---------------------------------------------------------------

    def put(self, chunk: bytes, owner: Unsent | None = None) -> int:
        """
        Queue one envelope until the next `flush`; `OutboxFull` beyond 256 MB.

        Returns how many will leave together with it.
        """
        with self._lock:
            if not self.is_lost:
                # `_put` written out for the usual case: this runs for every message.
                frame = self._filling
                queued, size = self._queued_bytes + len(chunk) + MESSAGE_OVERHEAD, frame.size + len(chunk)
                if queued > MAX_OUTBOX_BYTES or size > _FRAME_TARGET:
                    return self._put(chunk, owner)
                self._queued_bytes, frame.size = queued, size
                chunks = frame.chunks
                chunks.append(chunk)
                frame.owners.append(owner)
                return len(chunks)
        if owner is not None:
            owner.never_sent("its process is gone")
        return 0

    def put_tell(self, codec: int, head: bytes, body: bytes, tell: SentTell) -> int:
        """Queue a tell, like `put`. Numbers leave in order, so one confirmation covers all before it."""
        with self._lock:
            if not self.is_lost:
                tell.number = number = self._last_tell + 1
                waits = self._put(envelope(_TELL, codec, number, body, head), tell)
                self._last_tell = number
                self._tells.append(tell)
                return waits
        tell.never_sent("its process is gone")
        return 0

    def _put(self, chunk: bytes, owner: Unsent | None) -> int:
        queued = self._queued_bytes + len(chunk) + MESSAGE_OVERHEAD
        if queued > MAX_OUTBOX_BYTES:
            raise OutboxFull(f"{self._queued_bytes} bytes wait for {self.address}")
        self._queued_bytes = queued
        return self._append(chunk, owner)

    def _append(self, chunk: bytes, owner: Unsent | None) -> int:
        """Put what is counted already behind all that waits."""
        size = len(chunk)
        frame = self._filling
        if frame.size + size > _FRAME_TARGET and frame.size:
            self._full.append(frame)
            self._filling = frame = _Frame()
        frame.size += size
        frame.chunks.append(chunk)
        frame.owners.append(owner)
        return len(frame.chunks)

    def told(self, tell_id: int) -> list[SentTell]:
        """The tells up to *tell_id* whose fate was not known so far, oldest first."""
        with self._lock:
            told, tells = [], self._tells
            while tells and tells[0].number <= tell_id:
                told.append(tells.popleft())
            return told

    # -- receivers without room --------------------------------------------------

    def hold(self, chunk: bytes, owner: Addressed) -> bool:
        """Let a message wait apart whose receiver has no room; False when it has. Raises `OutboxFull`."""
        with self._lock:
            if self.is_lost or owner.receiver not in self.held:
                return False
            if self._queued_bytes + len(chunk) > MAX_OUTBOX_BYTES:
                raise OutboxFull(f"{self._queued_bytes} bytes wait for {self.address}")
            self._queued_bytes += len(chunk) + MESSAGE_OVERHEAD
            self.held.add(owner.receiver, (chunk, owner))
            return True

    def parked(self, name: str, tell_id: int) -> list[SentTell]:
        """
        A message waits there for room in the mailbox of *name*: tell *tell_id*, or an ask.

        Returns the tells before it, which were taken.
        """
        tells = self.told(tell_id) if tell_id else []
        with self._lock:
            if tells:
                self._parked[tell_id] = tells.pop()
            if name not in self.held:
                self._hold_back(name)
        return tells

    def _hold_back(self, name: str) -> None:
        """*name* has no room: what was to leave for it waits apart from now on."""
        frames = [*self._full, self._filling]
        waiting = [one for frame in frames for one in zip(frame.chunks, frame.owners, strict=True)]
        kept, held = self.held.block(name, waiting)
        if held:
            self._full.clear()
            self._filling = _Frame()
            for chunk, owner in kept:
                self._append(chunk, owner)
            # They leave under new numbers.
            self._tells = deque(tell for tell in self._tells if tell not in held)

    def admitted(self, tell_id: int) -> SentTell | None:
        """A tell that waited for room there has been taken, or refused."""
        with self._lock:
            return self._parked.pop(tell_id, None)

    def granted(self, name: str, places: int) -> None:
        """The mailbox of *name* has room for that many."""
        with self._lock:
            leaving, more = self.held.grant(name, places)
            for chunk, owner in leaving:
                self._put_again(chunk, owner)
            if more:
                chunk = envelope(Kind.WANT, 0, 0, name.encode())
                self._queued_bytes += len(chunk) + MESSAGE_OVERHEAD
                self._append(chunk, None)
        self.flush()

    def _put_again(self, chunk: bytes, owner: Unsent | None) -> None:
        if getattr(owner, "done", False):
            self._queued_bytes -= len(chunk) + MESSAGE_OVERHEAD
            return  # cancelled, or out of time: nobody wants it
        if chunk[0] == Kind.TELL:
            tell = cast("SentTell", owner)
            self._last_tell = tell.number = self._last_tell + 1
            self._tells.append(tell)
            chunk = renumbered(chunk, tell.number)
        self._append(chunk, owner)

    # -- what is on its way --------------------------------------------------------

    def credit(self, sequence: int) -> None:
        """Let the far end know that its frames up to *sequence* were taken in; any thread."""
        with self._lock:
            self._credit = sequence
        self.flush()

    def credited(self, sequence: int) -> None:
        """The far end has taken in our frames up to *sequence*."""
        with self._lock:
            while self._checkpoints and self._checkpoints[0][0] <= sequence:
                self._taken_bytes = self._checkpoints.popleft()[1]
        self.flush()

    def _left_now(self, sequence: int, charge: int) -> None:
        self._sent_bytes += charge
        marked = self._checkpoints[-1][1] if self._checkpoints else self._taken_bytes
        if self._sent_bytes - marked >= _CHECKPOINT:
            self._checkpoints.append((sequence, self._sent_bytes))

    def flush(self) -> None:
        """Send what is queued, as far as that goes without blocking; any thread."""
        with self._lock:
            if self._handed_over or self.is_lost:
                return
            while (frame := self._next_frame()) is not None:
                if self._link is None or not self._sent_now(frame.data):
                    self._stuck = frame
                    self._hand_over()
                    return

    def _sent_now(self, frame: bytes) -> bool:
        assert self._link is not None
        try:
            return self._link.send_nowait(frame)
        except LinkLost:
            return False  # the peer's thread meets the same error and reports it

    def _next_frame(self) -> _Frame | None:
        is_full = self._sent_bytes - self._taken_bytes >= MAX_IN_FLIGHT
        frame = None
        if not is_full and self._full:
            frame = self._full.popleft()
        elif not is_full and self._filling.size:
            frame, self._filling = self._filling, _Frame()
        elif self._credit:
            frame = _Frame()
        else:
            return None
        charge = frame.size + MESSAGE_OVERHEAD * len(frame.chunks)
        self._queued_bytes -= charge
        if self._credit:
            frame.chunks.append(envelope(Kind.CREDIT, 0, self._credit, b""))
            self._credit = 0
            charge += ENVELOPE_OVERHEAD + MESSAGE_OVERHEAD
        # See `_senders`: above those of an earlier peer for the same process, too.
        now = monotonic_ns()
        self._sequence = sequence = now if now > self._sequence else self._sequence + 1
        self._left_now(sequence, charge)
        frame.data = self._sealer.seal(self.host_id, self._own_id, sequence, self._own_address, frame.chunks)
        return frame

    # -- the peer's own thread, for dialling and for a link that would block ---------

    def _hand_over(self) -> None:
        self._handed_over = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_blocking, name="understudy-outbox", daemon=True)
            self._thread.start()
        self._work.put(None)

    def _send_blocking(self) -> None:
        while True:
            called = True
            try:
                self._work.get(timeout=_IDLE_TIME)
            except Empty:
                called = False
            with self._lock:
                if self.is_lost:
                    return
                if not self._handed_over:
                    if called:
                        continue
                    self._thread = None
                    return
            try:
                self._drain(self._link or self._connect())
            except LinkLost as error:
                self._on_lost(self, str(error))
                return

    def _connect(self) -> Link:
        link = self._open_link(self.address, self._pipe_closed)
        try:
            link.open(CONNECT_TIMEOUT)
        except LinkLost:
            link.close()
            raise
        with self._lock:
            if not self.is_lost:
                self._link = link
                return link
        link.close()
        raise LinkLost("closed while it was opened")

    def _drain(self, link: Link) -> None:
        while True:
            with self._lock:
                if self.is_lost:
                    return
                frame = self._stuck or self._next_frame()
                self._stuck, self._leaving = None, frame
                if frame is None:
                    self._handed_over = False
                    return
            try:
                link.send(frame.data)
            except LinkLost:
                with self._lock:
                    self._stuck, self._leaving = frame, None
                    self._left.notify()
                raise
            with self._lock:
                self._leaving = None
                self._left.notify()

    def _pipe_closed(self) -> None:
        self._on_lost(self, "its pipe closed")

    # -- the end -------------------------------------------------------------------

    def lose(self) -> tuple[list[Unsent], list[SentTell]]:
        """Close for good; returns what certainly never left, and the tells that nobody confirmed."""
        with self._lock:
            if self.is_lost:
                return [], []
            self.is_lost = True
        if self._link is not None:
            self._link.close()  # wakes the thread, if it sends
        self._work.put(None)
        with self._lock:
            # Whether that frame left decides between "never ran" and "may have run".
            self._left.wait_for(lambda: self._leaving is None, _LAST_SEND)
            waiting = [*([self._stuck] if self._stuck is not None else ()), *self._full, self._filling]
            unsent = [owner for frame in waiting for owner in frame.owners if owner is not None]
            unsent = [*unsent, *(owner for _, owner in self.held.drain() if owner is not None)]
            self._stuck = None
            self._full.clear()
            self._filling = _Frame()
            self._queued_bytes = 0
            unconfirmed = [*self._parked.values(), *self._tells]
            self._tells.clear()
            self._parked.clear()
        return unsent, unconfirmed

    @property
    def waits(self) -> int:
        """Envelopes that have not left, beside those that are held."""
        return sum(len(frame.chunks) for frame in (*self._full, self._filling))

    @property
    def is_idle(self) -> bool:
        """True when everything queued has been sent."""
        return not (self._filling.size or self._full or self._handed_over)

"""
Peers: the other processes this one talks to.

What is put into a peer's outbox while a frame is under way leaves in the next frame.
Sending never needs the loop: any thread puts and flushes; when the link would
block, a thread of the peer's own waits for it until the outbox is empty. A peer that
is lost fails what waited for it: unsent messages never ran, the rest may have run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from actors._outbox import MAX_IN_FLIGHT, MESSAGE_OVERHEAD, Outbox, Unsent
from actors._senders import Seen
from actors.address import host_id_of
from actors.transport import Link, LinkLost
from actors.wire import ENVELOPE_OVERHEAD, FRAME_OVERHEAD, MAX_FRAME, Kind, Sealer, envelope

if TYPE_CHECKING:
    from actors._calls import SentTell
    from actors._cell import Cell
    from actors._feeds import Intake
    from actors._message import Message, Origin

CONNECT_TIMEOUT = 1.0
MAX_BODY = MAX_FRAME - FRAME_OVERHEAD - ENVELOPE_OVERHEAD - 256
"""Bytes of the largest single message; 256 are left for the sender's address."""

CREDIT_EVERY = MAX_IN_FLIGHT // 4
"""Bytes after which a receiver says how far it has come."""

BURST = 256
"""
Messages of one turn after which a frame leaves early, so that both sides of a burst work at once.

With 128 a tell takes 8 to 12 % longer; an ask takes the same from 128 to 256, and longer with 32 or 500.
"""

_IDLE_TIME = 10.0


class TooLarge(Exception):
    """A message is larger than any that may travel; the text says how large, and the limit."""


_Frame = tuple[bytes, list[Unsent | None]]
"""What leaves together, sealed, and who wants to know when it does not."""


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
        self._outbox = outbox = Outbox(address)
        self.held = outbox.held
        self.put = outbox.put
        """Let a message wait until the next `flush`; see `Outbox.put`."""
        self._sequence = 0
        self.charged_bytes = 0
        """Came from there since the last credit. Receiving thread only."""
        self._credit = 0
        """The frame up to which the far end should hear that its frames were taken in; 0: it has."""
        self._lock = threading.Lock()
        self._handed_over = False
        """True while the peer's own thread waits for the link, or for one to be opened."""
        self._stuck: _Frame | None = None
        """Made, and not sent yet."""
        self._thread: threading.Thread | None = None
        self._work: SimpleQueue[None] = SimpleQueue()
        self.is_lost = False

    # -- sending ---------------------------------------------------------------

    def told(self, number: int) -> list[SentTell]:
        """The tells up to *number* whose fate was not known so far, oldest first."""
        with self._lock:
            return self._outbox.told(number)

    def parked(self, name: str, number: int) -> list[SentTell]:
        """Tell *number*, or an ask (0), waits there for room for *name*; returns the tells before it."""
        with self._lock:
            return self._outbox.parked(name, number)

    def admitted(self, number: int) -> SentTell | None:
        """A tell that waited for room there has been taken, or refused."""
        with self._lock:
            return self._outbox.admitted(number)

    def granted(self, name: str, places: int) -> None:
        """The mailbox of *name* has room for that many."""
        with self._lock:
            self._outbox.grant(name, places)
        self.flush()

    def credit(self, sequence: int) -> None:
        """Let the far end know that its frames up to *sequence* were taken in; any thread."""
        with self._lock:
            self._credit = sequence
        self.flush()

    def credited(self, sequence: int) -> None:
        """The far end has taken in our frames up to *sequence*."""
        with self._lock:
            self._outbox.taken_in(sequence)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as that goes without blocking; any thread."""
        with self._lock:
            if self.is_lost:
                return
            try:
                if self._link is None:
                    all_sent = not (self._outbox.waits or self._credit)
                else:
                    all_sent = self._send_all(self._link)
            except LinkLost:
                all_sent = False  # the peer's thread meets the same error and reports it
            if not (all_sent or self._handed_over):
                self._hand_over()

    def _send_all(self, link: Link) -> bool:
        """Send frames until none is left; False when the link takes no more now. Under the lock."""
        while (frame := self._stuck or self._next_frame()) is not None:
            self._stuck = frame
            if not link.send_nowait(frame[0]):
                return False
            self._stuck = None
        return True

    def _next_frame(self) -> _Frame | None:
        envelopes, owners, charge = self._outbox.pack()
        if self._credit:
            envelopes.append(envelope(Kind.CREDIT, 0, self._credit, b""))
            self._credit = 0
            charge += ENVELOPE_OVERHEAD + MESSAGE_OVERHEAD
        if not envelopes:
            return None
        # See `_senders`: above those of an earlier peer for the same process, too.
        now = monotonic_ns()
        self._sequence = sequence = now if now > self._sequence else self._sequence + 1
        self._outbox.left(sequence, charge)
        data = self._sealer.seal(self.host_id, self._own_id, sequence, self._own_address, envelopes)
        return data, owners

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
                link = self._link
            try:
                self._drain(link or self._connect())
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
                if self._send_all(link):
                    self._handed_over = False
                    return
            # Whoever flushes meanwhile sends as well: in a program that computes, this thread seldom gets
            # its turn.
            link.wait_writable()

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
            self._link = None  # refs may remember this peer for long
            waiting, unconfirmed = self._outbox.close()
            stuck, self._stuck = self._stuck, None
            unsent = [owner for owner in stuck[1] if owner is not None] if stuck is not None else []
        return [*unsent, *waiting], unconfirmed

    @property
    def waits(self) -> int:
        """Messages that have not left, beside those that are held."""
        return self._outbox.waits

    @property
    def on_its_way(self) -> int:
        """Bytes that have left and are not known to be taken in."""
        return self._outbox.on_its_way

    @property
    def is_idle(self) -> bool:
        """True when everything that waited has been sent."""
        return not (self._outbox.waits or self._stuck or self._handed_over)

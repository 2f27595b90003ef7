"""
Peers: the other processes this one talks to, and the outbox in front of each.

What is queued for one peer while a frame is under way leaves in the next frame.
Sending never needs the loop: any thread appends and flushes; when the link would
block, a thread of the peer's own takes over until the outbox is empty. A peer that
is lost fails what waited for it: unsent messages never ran, the rest may have run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from actors.address import host_id_of
from actors.transport import Link, LinkLost
from actors.wire import ENVELOPE_OVERHEAD, FRAME_OVERHEAD, MAX_FRAME, Codec, Kind, Sealer, envelope

if TYPE_CHECKING:
    from actors._message import Message

CONNECT_TIMEOUT = 1.0
MAX_OUTBOX_BYTES = 256 * 1024 * 1024
_FRAME_TARGET = 1024 * 1024
"""Bytes after which a frame is closed although more waits: a small message behind 60 MB should not wait for all of it."""
_IDLE_TIME = 10.0


class Unsent(Protocol):
    """What stands behind an outgoing envelope and wants to know when it cannot leave."""

    def never_sent(self, reason: str) -> None: ...


class OutboxFull(Exception):
    """The peer takes messages slower than they come."""


class Peer:
    """One other process, known by its address."""

    def __init__(
        self,
        address: str,
        open_link: Callable[[str, Callable[[], None]], Link],
        sealer: Sealer,
        own_address: str,
        on_lost: Callable[[Peer, str], None],
    ) -> None:
        self.address = address
        self.host_id = host_id_of(address)
        self.serving: dict[int, Message] = {}
        """Asks of that process which run or wait here, by its call id. Loop thread only."""
        self.unacknowledged: deque[tuple[int, Any]] = deque()
        """Tells sent there whose taking is not confirmed yet, oldest first."""
        self.watched: dict[int, Any] = {}
        """What actors of this process watch there, by watch id. Loop thread only."""
        self.dirty = False
        """Marked for a flush at the end of the loop's turn. Loop thread only."""
        self._sealer = sealer
        self._own_address = own_address.encode()
        self._own_id = host_id_of(own_address)
        self._on_lost = on_lost
        self._open_link = open_link
        self._link: Link | None = None
        self._outbox: deque[tuple[bytes, Unsent | None]] = deque()
        self._queued_bytes = 0
        self._sequence = 0
        self._taken = 0
        self._lock = threading.Lock()
        self._handed_over = False
        """True while the peer's own thread sends; nobody else may then."""
        self._stuck: tuple[bytes, list[Unsent]] | None = None
        self._thread: threading.Thread | None = None
        self._work: SimpleQueue[None] = SimpleQueue()
        self._lost = False
        self._closing = False

    # -- sending ---------------------------------------------------------------

    def put(self, chunk: bytes, owner: Unsent | None = None) -> None:
        """Queue one envelope; it leaves with the next `flush`. `OutboxFull` beyond 256 MB."""
        if self._queued_bytes + len(chunk) > MAX_OUTBOX_BYTES:
            raise OutboxFull(f"{self._queued_bytes} bytes wait for {self.address}")
        self._queued_bytes += len(chunk)
        self._outbox.append((chunk, owner))
        if self._lost and owner is not None:
            self._drop_unsent("the process is gone")

    def acknowledge(self, tell_id: int) -> None:
        """Confirm all tells up to *tell_id* with whatever leaves next."""
        self._taken = tell_id

    def flush(self) -> None:
        """Send what is queued, as far as that goes without blocking; any thread."""
        with self._lock:
            if self._handed_over or self._lost:
                return
            while (frame := self._next_frame()) is not None:
                if self._link is None or not self._sent_now(frame[0]):
                    self._stuck = frame
                    self._hand_over()
                    return

    def _sent_now(self, frame: bytes) -> bool:
        assert self._link is not None
        try:
            return self._link.send_nowait(frame)
        except LinkLost:
            return False  # the peer's thread meets the same error and reports it

    def _next_frame(self) -> tuple[bytes, list[Unsent]] | None:
        chunks: list[bytes] = []
        owners: list[Unsent] = []
        if self._taken:
            chunks.append(envelope(Kind.TAKEN, Codec.PICKLE, self._taken, b""))
            self._taken = 0
        size = 0
        outbox = self._outbox
        while outbox and (size == 0 or size + len(outbox[0][0]) <= _FRAME_TARGET):
            chunk, owner = outbox.popleft()
            chunks.append(chunk)
            size += len(chunk)
            if owner is not None:
                owners.append(owner)
        if not chunks:
            return None
        self._queued_bytes -= size
        self._sequence += 1
        return self._sealer.seal(
            self.host_id, self._own_id, self._sequence, self._own_address, chunks
        ), owners

    # -- the peer's own thread, for dialling and for a link that would block ---------

    def _hand_over(self) -> None:
        self._handed_over = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_blocking, name="understudy-outbox", daemon=True)
            self._thread.start()
        self._work.put(None)

    def _send_blocking(self) -> None:
        while True:
            try:
                self._work.get(timeout=_IDLE_TIME)
            except Empty:
                with self._lock:
                    if not self._handed_over:
                        self._thread = None
                        return
                continue
            if self._closing:
                return
            try:
                self._drain()
            except LinkLost as error:
                self._on_lost(self, str(error))
                return

    def _drain(self) -> None:
        if self._link is None:
            link = self._open_link(self.address, self._pipe_closed)
            try:
                link.open(CONNECT_TIMEOUT)
            except LinkLost:
                link.close()
                raise
            self._link = link
        while True:
            with self._lock:
                frame = self._stuck or self._next_frame()
                if frame is None:
                    self._handed_over = False
                    return
                self._stuck = frame
            self._link.send(frame[0])
            with self._lock:
                self._stuck = None

    def _pipe_closed(self) -> None:
        self._on_lost(self, "its pipe closed")

    # -- the end -------------------------------------------------------------------

    def lose(self) -> list[Unsent]:
        """Close for good; returns what never left, oldest first."""
        with self._lock:
            if self._lost:
                return []
            self._lost = True
            unsent = self._stuck[1] if self._stuck is not None else []
            unsent = [*unsent, *(owner for _, owner in self._outbox if owner is not None)]
            self._stuck = None
            self._outbox.clear()
            self._queued_bytes = 0
        self.close()
        return unsent

    def close(self) -> None:
        """Close the link and let the thread end."""
        self._closing = True
        self._work.put(None)
        if self._link is not None:
            self._link.close()

    @property
    def waits(self) -> int:
        """Envelopes that have not left."""
        return len(self._outbox)

    @property
    def is_idle(self) -> bool:
        """True when everything queued has been sent."""
        return not self._outbox and self._stuck is None and not self._handed_over

    def _drop_unsent(self, reason: str) -> None:
        while self._outbox:
            try:
                _, owner = self._outbox.popleft()
            except IndexError:
                return
            if owner is not None:
                owner.never_sent(reason)


MAX_BODY = MAX_FRAME - FRAME_OVERHEAD - ENVELOPE_OVERHEAD - 256
"""Bytes of the largest single message; 256 are left for the address and an acknowledgement."""

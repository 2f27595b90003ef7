"""
The memory transport: nng's twin inside one process, for tests.

The same promises: one receiving thread per inbox, frames in order, a sender that
blocks when the inbox is full, an inbox that closes loses its links at once, an
address that is used once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from actors.address import host_id_of, new_host_id
from actors.transport import Link, LinkLost, Receive, Wait
from actors.wire import MAX_FRAME

_CAPACITY = 128
"""Frames that may wait in an inbox, as in nng's."""

_inboxes: dict[str, MemoryTransport] = {}


class MemoryTransport:
    """An inbox in a table of this process."""

    def __init__(self) -> None:
        self._address = f"mem://{new_host_id():016x}"
        self.changed = threading.Condition()
        self.frames: deque[bytes] = deque()
        self.links: list[_MemoryLink] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return self._address

    def listen(self, receive: Receive, loop: asyncio.AbstractEventLoop | None = None) -> None:
        _inboxes[self._address] = self
        self._thread = threading.Thread(
            target=self._receive_frames, args=(receive,), name="understudy-inbox", daemon=True
        )
        self._thread.start()

    def receive_apart(self) -> None:
        """It does so from the start."""

    def receive_on_loop(self) -> None:
        """It never does."""

    def receive_here(self, wait: Wait) -> bool:
        return False

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        host_id_of(address)
        return _MemoryLink(address, on_lost)

    def close(self) -> None:
        if _inboxes.pop(self._address, None) is None:
            return
        with self.changed:
            self._closed = True
            links, self.links = self.links, []
            for link in links:
                link.is_lost = True
            self.changed.notify_all()
        for link in links:
            link.on_lost()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def _receive_frames(self, receive: Receive) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.frames or self._closed)
                frames = list(self.frames)
                self.frames.clear()
                self.changed.notify_all()
            if frames:
                if (rest := receive(frames)) is not None:
                    rest()
            elif self._closed:
                return


class _MemoryLink:
    """A link to an inbox of this process. Its state is under the inbox's condition."""

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        self.on_lost = on_lost
        self.is_lost = False
        self._address = address
        self._inbox: MemoryTransport | None = None

    def open(self, timeout: float) -> None:
        inbox = _inboxes.get(self._address)
        if inbox is None:
            raise LinkLost(f"nobody answers at {self._address}")
        with inbox.changed:
            inbox.links.append(self)
        self._inbox = inbox

    def send_nowait(self, frame: bytes) -> bool:
        inbox = self._inbox
        if inbox is None:
            raise LinkLost(f"the link to {self._address} is not open")
        if len(frame) > MAX_FRAME:
            self._lose(inbox)  # nng's receiver closes the pipe, and its sender learns it from that
            return True
        with inbox.changed:
            if self.is_lost:
                raise LinkLost(f"the link to {self._address} closed")
            if len(inbox.frames) >= _CAPACITY:
                return False
            inbox.frames.append(bytes(frame))
            inbox.changed.notify_all()
        return True

    def send(self, frame: bytes) -> None:
        while not self.send_nowait(frame):
            self.wait_writable()

    def wait_writable(self) -> None:
        inbox = self._inbox
        if inbox is not None:
            with inbox.changed:
                inbox.changed.wait_for(lambda: self.is_lost or len(inbox.frames) < _CAPACITY)

    def close(self) -> None:
        if self._inbox is not None:
            self._leave(self._inbox)

    def _lose(self, inbox: MemoryTransport) -> None:
        if self._leave(inbox):
            self.on_lost()

    def _leave(self, inbox: MemoryTransport) -> bool:
        """True for the one who ends the link."""
        with inbox.changed:
            ends, self.is_lost = not self.is_lost, True
            if self in inbox.links:
                inbox.links.remove(self)
            inbox.changed.notify_all()
        return ends

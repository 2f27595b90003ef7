"""
The memory transport: nng's twin inside one process, for tests.

The same promises: one receiving thread per inbox, frames in order, an inbox that
closes loses its links at once, an address that is used once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from actors.address import host_id_of, new_host_id
from actors.transport import Link, LinkLost, Receive

_CLOSE = object()
_inboxes: dict[str, MemoryTransport] = {}


class MemoryTransport:
    """An inbox in a table of this process."""

    def __init__(self) -> None:
        self._address = f"mem://{new_host_id():016x}"
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._links: list[_MemoryLink] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return self._address

    def listen(self, receive: Receive) -> None:
        _inboxes[self._address] = self
        self._thread = threading.Thread(
            target=self._receive_frames, args=(receive,), name="understudy-inbox", daemon=True
        )
        self._thread.start()

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        host_id_of(address)
        return _MemoryLink(address, on_lost)

    def close(self) -> None:
        if _inboxes.pop(self._address, None) is None:
            return
        self._queue.put(_CLOSE)
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.lose()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def _attach(self, link: _MemoryLink) -> None:
        with self._lock:
            self._links.append(link)

    def _detach(self, link: _MemoryLink) -> None:
        with self._lock:
            if link in self._links:
                self._links.remove(link)

    def _receive_frames(self, receive: Receive) -> None:
        while True:
            items = [self._queue.get()]
            while not self._queue.empty():
                items.append(self._queue.get())
            frames = [item for item in items if isinstance(item, bytes)]
            if frames:
                receive(frames)
            if _CLOSE in items:
                return


class _MemoryLink:
    """A link to an inbox of this process."""

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        self._address = address
        self._on_lost = on_lost
        self._inbox: MemoryTransport | None = None

    def open(self, timeout: float) -> None:
        inbox = _inboxes.get(self._address)
        if inbox is None:
            raise LinkLost(f"nobody answers at {self._address}")
        self._inbox = inbox
        inbox._attach(self)

    def send_nowait(self, frame: bytes) -> bool:
        self.send(frame)
        return True

    def send(self, frame: bytes) -> None:
        inbox = self._inbox
        if inbox is None or _inboxes.get(self._address) is not inbox:
            raise LinkLost(f"the link to {self._address} closed")
        inbox._queue.put(bytes(frame))

    def close(self) -> None:
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox._detach(self)

    def lose(self) -> None:
        self._inbox = None
        self._on_lost()

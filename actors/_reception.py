"""
Reception: who receives what comes to a process.

Usually its loop. A thread that waits for a reply receives itself meanwhile, as the one guest.
Where several wait at a time, a thread of the transport's own does so for all, until they no
longer do; and for good once somebody awaits a reply on another loop, which cannot receive.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.transport import Transport, Wait

QUIET = 2.0
"""Seconds without two threads that wait at a time after which the loop receives again."""


class Reception:
    """Who receives for one transport. Any thread."""

    def __init__(
        self, transport: Transport, loop: asyncio.AbstractEventLoop, post: Callable[..., None]
    ) -> None:
        self.is_apart = False
        """True while a thread of the transport's own receives."""
        self._transport = transport
        self._loop = loop
        self._post = post
        self._waiting = 0
        """Threads that wait to be woken."""
        self._wanted_at = 0.0
        """When a thread apart was needed last; infinity for good."""
        self._lock = threading.Lock()
        """Guards all of this."""

    def apart(self, *, for_good: bool = False) -> None:
        """Receiving does not need the loop from now on."""
        with self._lock:
            self._wanted_at = math.inf if for_good else max(self._wanted_at, time.monotonic())
            if self.is_apart:
                return
            self.is_apart = True
            self._transport.receive_apart()
        self._post(self._look)

    def here(self, wait: Wait) -> bool:
        """Receive on this thread while it waits, as `Transport.receive_here`; False: it is to be woken."""
        if not self.is_apart:
            if self._transport.receive_here(wait):
                return True
            self.apart()
        return False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """This thread waits to be woken."""
        with self._lock:
            self._waiting += 1
            if self._waiting > 1:
                self._wanted_at = max(self._wanted_at, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _look(self) -> None:
        """Let the loop receive again once nobody needs it otherwise; loop thread only."""
        with self._lock:
            quiet = time.monotonic() - self._wanted_at
            if quiet >= QUIET:
                self.is_apart = False
                self._transport.receive_on_loop()
            elif quiet > -math.inf:
                self._loop.call_later(QUIET - quiet, self._look)

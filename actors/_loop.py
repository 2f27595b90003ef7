"""
Handing work to an event loop from other threads, with one wake-up for all that is there.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any


class LoopInbox:
    """
    Callbacks for one loop, posted by any thread, run in order by the loop.

    `call_soon_threadsafe` writes to a pipe each time (10 µs); here a burst costs one write.
    Nothing in `post` takes a lock, so it is safe inside `__del__` and nng's callbacks.
    """

    __slots__ = ("_awake", "_callbacks", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the table below must not keep it
        self._callbacks: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._awake = False

    def post(self, callback: Callable[..., Any], *args: Any) -> None:
        """Run *callback* on the loop's thread soon; dropped when the loop is closed."""
        self._callbacks.append((callback, args))
        if not self._awake:
            self._awake = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._drain)
                    return
            except RuntimeError:
                pass  # closed
            self._awake = False
            self._callbacks.clear()

    def _drain(self) -> None:
        # Cleared first: what is posted from here on wakes the loop again.
        self._awake = False
        callbacks = self._callbacks
        for _ in range(len(callbacks)):
            callback, args = callbacks.popleft()
            try:
                callback(*args)
            except Exception as error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "posted callback failed", "exception": error}
                )


_inbox_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopInbox] = weakref.WeakKeyDictionary()


def inbox_of(loop: asyncio.AbstractEventLoop) -> LoopInbox:
    """The one inbox of *loop*."""
    inbox = _inbox_by_loop.get(loop)
    if inbox is None:
        inbox = _inbox_by_loop.setdefault(loop, LoopInbox(loop))
    return inbox

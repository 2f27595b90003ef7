"""
Transports: how frames get from one process to another.

A transport has one inbox, which listens on its address, and opens links to other
inboxes. A link carries frames in order and never redials: an address belongs to
one process life, so a link that closed is over. Two implementations pass one
contract suite: nng sockets, and memory inside one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

Receive = Callable[[list[bytes]], Callable[[], None] | None]
"""
Takes frames: all that were there, in order, one call at a time. Never raises.

What it returns is called next, and may take long: the next frames are perhaps taken meanwhile.
"""


class LinkLost(Exception):
    """Nobody listens there, or the link has closed."""


class Wait(NamedTuple):
    """What a thread waits for that could receive meanwhile."""

    ready: Callable[[], bool]
    """True when it is over."""
    when_ready: Callable[[Callable[[], None]], None]
    """Told what to call should that come true on another thread."""
    until: float | None
    """The monotonic instant at which there is something else to do."""
    keeps_vigil: bool
    """Whether it may begin awake: it may be over in a moment."""


class Link(Protocol):
    """A one-way connection to another process's inbox."""

    def open(self, timeout: float) -> None:
        """Connect, blocking. `LinkLost` when nobody listens, or not within *timeout* seconds."""

    def send_nowait(self, frame: bytes) -> bool:
        """Send without blocking; False when it would block. `LinkLost` once the link is down."""

    def wait_writable(self) -> None:
        """Block until `send_nowait` is worth another try; it returns, too, once the link is down."""

    def send(self, frame: bytes) -> None:
        """Send, blocking until it is taken. `LinkLost` when the link goes down meanwhile."""

    def close(self) -> None:
        """Close; wakes whoever blocks in it. Closing twice is fine."""


class Transport(Protocol):
    """One process's end of the message path."""

    @property
    def address(self) -> str:
        """Where this process listens; valid after `listen`."""

    def listen(self, receive: Receive, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """
        Open the inbox and call *receive* from a thread of its own from now on.

        With *loop* that may be the loop's thread until `receive_apart`: one thread less on the way.
        Call it on that thread then, or before the loop runs.
        """

    def receive_apart(self) -> None:
        """Receive on a thread of the transport's own from now on; on any thread but the loop's."""

    def receive_on_loop(self) -> None:
        """Let the loop that `listen` was given receive again, if any; on the loop's thread only."""

    def receive_here(self, wait: Wait) -> bool:
        """
        Receive on this thread, which is not the loop's, until *wait* is over: one thread less on the way.

        False, at once or later, where another thread does so. It may return before that.
        """

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        """A link to *address*, not yet open. *on_lost* may come from any thread, at most once."""

    def close(self) -> None:
        """Close the inbox and leave nothing behind. Closing twice is fine."""


def open_nng(directory: str) -> Transport:
    """An nng transport whose inbox is an ipc socket in *directory*, which is private."""
    from actors._nng import NngTransport

    return NngTransport(directory)

"""
Confirmations: when senders of tells hear that theirs were taken.

One confirmation covers all tells before it. At once for what comes alone or ends a burst; in the
midst of one, where the next frame is close behind, one for several frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors._peers import BURST, Peer

MOST = 1024
"""Tells that one sender may have unconfirmed, and one frame more. It keeps an object for each."""

DELAY = 0.001
"""Seconds that the confirmation of a full frame waits for the next one at most."""


class Confirmations:
    """What is to be confirmed to whom. Loop thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, confirm: Callable[[Peer, int], None]) -> None:
        self._loop = loop
        self._confirm = confirm
        self._waiting: dict[Peer, tuple[int, int]] = {}
        """Who waits: the number confirmed last, and the one to confirm."""
        self._timer: asyncio.TimerHandle | None = None

    def taken(self, peer: Peer, number: int, together: int) -> None:
        """The tells of *peer* up to *number* were taken, the last *together* of them in one batch."""
        confirmed, _ = self._waiting.get(peer, (number - together, 0))
        if together >= BURST and number - confirmed < MOST:
            self._waiting[peer] = confirmed, number
            if self._timer is None:
                self._timer = self._loop.call_later(DELAY, self.confirm_all)
            return
        if self._waiting:
            self._waiting.pop(peer, None)
        self._confirm(peer, number)

    def confirm_all(self) -> None:
        """Confirm all that waits for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for peer, (_, number) in waiting.items():
            self._confirm(peer, number)

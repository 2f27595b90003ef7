"""
Departures: when what stands in the outboxes leaves.

What is sent from the loop leaves at the end of its turn, one frame a peer, earlier if it is much;
from other threads, at once. While what came in is being handled, the answers wait for each other.
"""

from __future__ import annotations

import time
from threading import get_ident
from typing import TYPE_CHECKING

from actors._peers import BURST, Peer

if TYPE_CHECKING:
    import asyncio

    from actors._outlet import RemotePipe
    from actors.statistics import Counts

_POSTPONES = 3
"""Turns that a busy process may hold back its answers for, to send them together."""

_WAITS = 8
"""Turns that items of streams may wait for more, while each turn brings some; if others have just left."""

_CLOSE = 0.0001
"""Seconds: not a question and its answer apart."""

_ENOUGH = 128
"""Items that wait for no more; with 64 a small one took both processes 5.2 µs of CPU instead of 3.9."""


class Departures:
    """What leaves from one process, and when. Loop thread only, but for `flush`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, loop_thread: int, counts: Counts) -> None:
        self._loop = loop
        self._loop_thread = loop_thread
        self._counts = counts
        self._dirty: list[Peer] = []
        self._batches: list[RemotePipe] = []
        """Streams that have something for the end of this turn."""
        self._batches_left_at = 0.0
        self.holds_back = False
        """True while what came in is being handled: the answers leave together afterwards."""
        self.answers_at_once = False
        """True while the only message that came in is being handled."""
        self._postponed = 0

    def flush(self, peer: Peer, waits: int) -> None:
        """What stands in the outbox of *peer* leaves: at the end of this turn, or at once if it is much."""
        if waits % BURST == 0 or get_ident() != self._loop_thread:
            peer.flush()
        elif not peer.dirty:
            peer.dirty = True
            if not self._dirty and not self.holds_back:
                self._loop.call_soon(self.flush_all)
            self._dirty.append(peer)

    def hold_back(self, *, is_lone: bool) -> None:
        """What is sent from here on waits for `let_go`, but for the answer to a lone message."""
        self.holds_back = True
        self.answers_at_once = is_lone

    def let_go(self, *, at_once: bool) -> None:
        """Send what was held back: now, or at the end of this turn of the loop."""
        self.holds_back = self.answers_at_once = False
        if at_once:
            self.flush_all()
        elif self._dirty:
            self._loop.call_soon(self.flush_all)

    def flush_all(self) -> None:
        """Send whatever waits for the end of a turn."""
        if self._counts.resuming and self._postponed < _POSTPONES:
            # More answers come in the very next turn: one frame of 250 costs as much to send as one of 60.
            self._postponed += 1
            self._loop.call_soon(self.flush_all)
            return
        self._postponed = 0
        peers, self._dirty = self._dirty, []
        for peer in peers:
            peer.dirty = False
            peer.flush()

    def flush_soon(self, pipe: RemotePipe) -> None:
        """*pipe* has items; they leave at the end of this turn."""
        if not self._batches:
            turns = _WAITS if time.monotonic() < self._batches_left_at + _CLOSE else 0
            self._loop.call_soon(self._flush_batches, turns, 0)
        self._batches.append(pipe)

    def _flush_batches(self, turns: int, before: int) -> None:
        # A generator that awaits between its items makes one a turn. While they come like that, a few
        # leave together: 12 µs an item instead of 29.
        if turns and len(self._batches) <= turns:
            items = sum(pipe.items_waiting for pipe in self._batches)
            if before < items < _ENOUGH:
                self._loop.call_soon(self._flush_batches, turns - 1, items)
                return
        pipes, self._batches = self._batches, []
        self._batches_left_at = time.monotonic()
        for peer in {pipe.flush() for pipe in pipes}:
            peer.flush()

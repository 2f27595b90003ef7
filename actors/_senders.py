"""
Senders: which frames of other processes have come, so that none comes twice.

The frames of one sender carry rising numbers: the instant at which each was sealed, in ns of the
machine's monotonic clock. What is not above the last one is a replay: frames of one pipe cannot
overtake each other. The last number outlives the peer, for a process that is lost may be found
again, and whoever has kept its frames may send them again at any time. Memory is bounded: a sender
that is forgotten leaves its last number behind as the floor for all that are unknown here, and what
one of those seals for its first contact is younger than that.
"""

from __future__ import annotations

KEPT = 10_000
"""Senders that are remembered after they were lost; 2 MB."""


class Seen:
    """How far one sender has come."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """The number of its last frame. Receiving thread only."""


class Senders:
    """The senders that were heard of here. One thread at a time."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._lost: dict[int, Seen] = {}
        """By host id, those lost first in front."""
        self._floor = 0

    def last_of(self, host_id: int) -> int:
        """The number that the next frame of an unknown or lost sender has to be above."""
        seen = self._lost.get(host_id)
        return self._floor if seen is None else seen.last

    def found(self, host_id: int) -> Seen:
        """A peer begins: where its sender was, if that was heard of before."""
        return self._lost.pop(host_id, None) or Seen(self._floor)

    def lost(self, host_id: int, seen: Seen) -> None:
        """Its peer has ended. *seen* still counts: a frame may be on its way through the receiving thread."""
        if seen.last <= self._floor:
            return
        self._lost[host_id] = seen
        while len(self._lost) > self._kept:
            oldest = self._lost.pop(next(iter(self._lost)))
            self._floor = max(self._floor, oldest.last)

"""
Statistics: the counters of one process.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """
    Counters of one process. `accepted = handled + in_progress + in_mailbox + dead_lettered`.

    `refused` messages (full, not found, ended) were never accepted and stand outside the balance.
    """

    actors: int
    accepted: int
    handled: int
    in_progress: int
    in_mailbox: int
    dead_lettered: int
    refused: int
    pending_asks: int
    rejected_frames: int
    threads: int


class Counts:
    """The counters while they count. Loop thread only."""

    __slots__ = ("accepted", "dead_lettered", "handled", "refused", "resuming", "running")

    def __init__(self) -> None:
        self.accepted = self.handled = self.dead_lettered = self.refused = 0
        self.running = 0
        """Messages whose handlers wait, or run on a thread, and calls that share the answer of one."""
        self.resuming = 0
        """Runners that go on with a full mailbox in the loop's next turn."""

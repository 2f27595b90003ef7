"""
Held messages: what is meant for actors of another process that have no room now.

A receiver that blocks says so (`Kind.PARKED`); from then on messages for that actor wait here, at
their sender, while those for its neighbours go on. It grants places when it has some again
(`Kind.GRANT`), and is told when that was not enough (`Kind.WANT`). No locks: the peer has one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors._outbox import Outgoing


class Held:
    """Messages that wait for their receivers, by the receiver's name; in order for each."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name: dict[str, deque[Outgoing]] = {}
        """Of each receiver without room, what waits for it; empty while all have some."""

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.by_name.values())

    def block(self, name: str) -> None:
        """*name* has no room: its messages wait here from now on."""
        self.by_name.setdefault(name, deque())

    def takes(self, one: Outgoing) -> bool:
        """Keep *one* if its receiver has no room; False when it has. What has no owner is for no actor."""
        queue = self.by_name.get(getattr(one[-1], "receiver", ""))
        if queue is None:
            return False
        queue.append(one)
        return True

    def grant(self, name: str, places: int) -> tuple[list[Outgoing], bool]:
        """What may leave now for *name*, oldest first, and whether more waits; else it is blocked no more."""
        queue = self.by_name.get(name)
        if queue is None:
            return [], False
        leaving = [queue.popleft() for _ in range(min(places, len(queue)))]
        if not queue:
            del self.by_name[name]
        return leaving, bool(queue)

    def drain(self) -> list[Outgoing]:
        """Forget all; what waited."""
        queues, self.by_name = self.by_name, {}
        return [one for queue in queues.values() for one in queue]

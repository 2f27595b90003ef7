"""
Held messages: what is meant for actors of another process that have no room now.

A receiver that blocks says so (`Kind.PARKED`); from then on messages for that actor wait here, at
their sender, while those for its neighbours go on. It grants places when it has some again
(`Kind.GRANT`), and is told when that was not enough (`Kind.WANT`). No locks: the peer has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors._peers import Unsent

Waiting = tuple[bytes, "Unsent | None"]
"""An envelope, and who wants to know when it cannot leave."""


class Held:
    """Envelopes that wait for their receivers, by the receiver's name; in order for each."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name: dict[str, deque[Waiting]] = {}
        """Of each receiver without room, what waits for it; empty while all have some."""

    def __bool__(self) -> bool:
        """True while any receiver has no room."""
        return bool(self.by_name)

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.by_name.values())

    def block(self, name: str, waiting: Iterable[Waiting]) -> tuple[list[Waiting], set[Unsent | None]]:
        """*name* has no room: its messages wait here from now on. Returns the others, and whose these are."""
        kept, held = [], deque[Waiting]()
        for one in waiting:
            if getattr(one[1], "receiver", None) == name:
                held.append(one)
            else:
                kept.append(one)
        self.by_name[name] = held
        return kept, {owner for _, owner in held}

    def add(self, name: str, one: Waiting) -> None:
        """Let one more wait."""
        self.by_name[name].append(one)

    def grant(self, name: str, places: int) -> tuple[list[Waiting], bool]:
        """What may leave now for *name*, oldest first, and whether more waits; else it is blocked no more."""
        queue = self.by_name.get(name)
        if queue is None:
            return [], False
        leaving = [queue.popleft() for _ in range(min(places, len(queue)))]
        if not queue:
            del self.by_name[name]
        return leaving, bool(queue)

    def drain(self) -> Iterable[Waiting]:
        """Forget all; what waited."""
        queues, self.by_name = self.by_name, {}
        return [one for queue in queues.values() for one in queue]

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

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[str, deque[Waiting]] = {}

    def __bool__(self) -> bool:
        """True while any receiver has no room."""
        return bool(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._by_name.values())

    def block(self, name: str, outbox: deque[Waiting]) -> set[Unsent | None]:
        """*name* has no room: what *outbox* has for it waits here from now on. Returns whose that is."""
        if name in self._by_name:
            return set()
        kept, held = deque[Waiting](), deque[Waiting]()
        for one in outbox:
            (held if getattr(one[1], "receiver", None) == name else kept).append(one)
        outbox.clear()
        outbox.extend(kept)
        self._by_name[name] = held
        return {owner for _, owner in held}

    def add(self, name: str, one: Waiting) -> None:
        """Let one more wait."""
        self._by_name[name].append(one)

    def grant(self, name: str, places: int) -> tuple[list[Waiting], bool]:
        """What may leave now for *name*, oldest first, and whether more waits; else it is blocked no more."""
        queue = self._by_name.get(name)
        if queue is None:
            return [], False
        leaving = [queue.popleft() for _ in range(min(places, len(queue)))]
        if not queue:
            del self._by_name[name]
        return leaving, bool(queue)

    def drain(self) -> Iterable[Waiting]:
        """Forget all; what waited."""
        queues, self._by_name = self._by_name, {}
        return [one for queue in queues.values() for one in queue]

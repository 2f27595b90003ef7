"""
Routing: which member takes a call. Pure functions of views and counts.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

ROUTINGS = ("least_busy", "round_robin")

_SCAN = 8
"""Up to this many members all are looked at for the least busy, beyond it two at random."""


class Routable(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def address(self) -> str: ...


M = TypeVar("M", bound=Routable)


def is_usable(member: Routable, refused: Collection[tuple[str, str]]) -> bool:
    """It runs, and has not just declined this very message."""
    return member.state == "running" and (member.name, member.address) not in refused


def least_busy(
    members: Sequence[M],
    busy: Mapping[str, int],
    turn: int,
    random: Callable[[], float] = _random.random,
) -> M:
    """
    The member with the fewest calls of this process under way; *turn* decides between equals.

    Among many it is the better of two at random: almost as even as the best of all (Mitzenmacher,
    2001), and 1,000 members cost no more than 10. *random* gives [0, 1).
    """
    count = len(members)
    if count > _SCAN:
        place = int(random() * count)
        best = members[place]
        least = busy.get(best.name, 0)
        if least:  # else none can have fewer
            other = int(random() * (count - 1))
            rival = members[other + (other >= place)]
            if busy.get(rival.name, 0) < least:
                return rival
        return best
    best = members[turn % count]
    least = busy.get(best.name, 0)
    for place in range(turn + 1, turn + count):
        if not least:
            break
        member = members[place % count]
        load = busy.get(member.name, 0)
        if load < least:
            best, least = member, load
    return best


def round_robin(members: Sequence[M], turn: int) -> M:
    """The members in turn."""
    return members[turn % len(members)]


def nobody(service: str, members: Sequence[Routable]) -> str:
    """Why no member of *service* can take a call."""
    if not members:
        return f"{service} has no members: its size is 0"
    states = sorted({member.state for member in members})
    return f"no member of {service} is running ({', '.join(states)})"

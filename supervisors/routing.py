"""
Routing: which member takes a call. Pure functions of views and counts.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
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


def least_busy(members: Sequence[M], busy: Mapping[str, int], turn: int) -> M:
    """The member with the fewest calls of this process under way; *turn* decides between equals."""
    if len(members) > _SCAN:
        members = random.sample(members, 2)
    start = turn % len(members)
    order = [*members[start:], *members[:start]]
    return min(order, key=lambda member: busy.get(member.name, 0))


def by_key(members: Sequence[M], key: str) -> M | None:
    """
    The member that *key* belongs to, by rendezvous hashing: a change of membership moves only what must move.

    All members take part, whatever their state: a key goes nowhere else while its member belongs
    to the service. (Thaler and Ravishankar, 1998.)
    """
    staying = [member for member in members if member.state != "draining"]
    return max(staying, key=lambda member: _weight(member.name, key), default=None)


def _weight(name: str, key: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest()


def nobody(service: str, members: Sequence[Routable]) -> str:
    """Why no member of *service* can take a call."""
    if not members:
        return f"{service} has no members: its size is 0"
    states = sorted({member.state for member in members})
    return f"no member of {service} is running ({', '.join(states)})"

"""
Affinity: which member a key belongs to, by consistent hashing. Pure, and the same in every process.

Members are numbered from 0 and the highest leave first, so the hash is a jump (Lamport and Veach,
2014): no table, 4 µs among 1,000 members, and a service that grows from n to n + 1 gives the new
member every (n + 1)-th key and moves no other. Where a number is not taken, its keys jump again,
each by itself, so they spread over all others and come back when it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

_MASK = (1 << 64) - 1

_JUMPS = 64
"""Numbers that nobody has which a key may meet before its place is found by looking at all members."""


class Numbered(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...


M = TypeVar("M", bound=Numbered)


def jump(seed: int, buckets: int) -> int:
    """The bucket of *seed* (64 bits) among *buckets*: one more takes its share and moves no other."""
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        seed = (seed * 2862933555777941757 + 1) & _MASK
        following = int((bucket + 1) * ((1 << 31) / ((seed >> 33) + 1)))
    return bucket


class Affinity(Generic[M]):
    """
    The owners of all keys, for one membership.

    Members take part whatever their state, for a key goes nowhere else while its member belongs to
    the service; those that drain do not. *places* is how many numbers are given out, those of members
    that have ended for good included: the last of them may be missing among *members*.
    """

    __slots__ = ("_buckets", "_by_number")

    def __init__(self, members: Iterable[M], places: int = 0) -> None:
        self._by_number = {
            int(member.name.rpartition("/")[2]): member for member in members if member.state != "draining"
        }
        self._buckets = max(max(self._by_number, default=-1) + 1, places)

    def owner(self, key: str) -> M | None:
        """The member that *key* belongs to; None where there is none."""
        if not self._by_number:
            return None
        for turn in range(_JUMPS):
            member = self._by_number.get(jump(_seed(key, turn), self._buckets))
            if member is not None:
                return member
        # By highest weight (Thaler and Ravishankar, 1998), which moves no more either.
        return max(self._by_number.values(), key=lambda member: _seed(key, member.name))


def _seed(key: object, salt: object) -> int:
    # Not `hash`, which differs from process to process.
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")

"""
The throttle: a storm of equal lines costs a bounded number of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

_KEPT = 1000
"""Kinds that are remembered before those that have been quiet are forgotten."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    kept_back: int = 0


class Throttle:
    """
    Of each kind the first *burst* go out, then one in *period* seconds.

    A quiet time earns the burst back.
    """

    def __init__(self, burst: int = 5, period: float = 1.0) -> None:
        self._burst = burst
        self._period = period
        self._bucket_by_kind: dict[Hashable, _Bucket] = {}

    def admit(self, kind: Hashable, now: float) -> int | None:
        """None when this one is to be kept back; else how many were since the last that went out."""
        bucket = self._bucket_by_kind.get(kind)
        if bucket is None:
            self._forget_quiet(now)
            bucket = self._bucket_by_kind[kind] = _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) / self._period)
        bucket.at = now
        if bucket.left < 1:
            bucket.kept_back += 1
            return None
        bucket.left -= 1
        kept_back, bucket.kept_back = bucket.kept_back, 0
        return kept_back

    def _forget_quiet(self, now: float) -> None:
        if len(self._bucket_by_kind) >= _KEPT:
            quiet = self._burst * self._period
            self._bucket_by_kind = {
                kind: bucket for kind, bucket in self._bucket_by_kind.items() if now - bucket.at < quiet
            }

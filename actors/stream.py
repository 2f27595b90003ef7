"""
Streams: the rules of flow control, and how items are packed, as pure functions and small state.

The reader says how much the writer may send in all; the writer stops there. Limits are
totals since the stream began, as in QUIC (RFC 9000, 4.1), so one that comes twice or late
does no harm. The reader raises them when half of what it allowed is read: nobody who reads
waits for a writer that waits for him.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

_BATCH = struct.Struct("!QI")
_LIMITS = struct.Struct("!QQ")
_TOTAL = struct.Struct("!Q")


class Limits(NamedTuple):
    """What a writer may send in all: it may begin an item while it is below both."""

    items: int
    bytes: int


# A small item between two processes on one core took 10.2 µs with a window of 32 items, 6.7 with
# 64, 5.2 with 256, 4.9 with 512. 4 MiB would double the rate of items of 1 MB (1.7 to 3.4 GB/s)
# and help neither 64 KB nor 8 MB; a thousand streams that nobody reads would hold four times as much.
BETWEEN = Limits(512, 1024 * 1024)
"""
The window between two processes: what may be on its way or lie unread. One item may reach beyond.

A stream of answers may send it before its reader has said anything.
"""

# With 512 an item took 1.7 µs instead of 1.95, and 512 arrays could lie there.
INSIDE = Limits(32, 1024 * 1024)
"""The window inside a process, where nothing is copied and items have no size."""

NOTHING = Limits(0, 0)


class Credit:
    """The writer's side: what it has sent, and how far it may go."""

    __slots__ = ("_allowed_bytes", "_allowed_items", "bytes", "items")

    def __init__(self, limits: Limits) -> None:
        self.items = 0
        self.bytes = 0
        self._allowed_items, self._allowed_bytes = limits

    @property
    def is_open(self) -> bool:
        """True while one more item may be sent, however large."""
        return self.items < self._allowed_items and self.bytes < self._allowed_bytes

    def spend(self, size: int) -> bool:
        """An item of *size* bytes is sent; True while one more may be (`is_open`)."""
        self.items += 1
        self.bytes += size
        return self.items < self._allowed_items and self.bytes < self._allowed_bytes

    def allow(self, limits: Limits) -> None:
        """The reader's word. Never takes back what was allowed before."""
        self._allowed_items = max(self._allowed_items, limits.items)
        self._allowed_bytes = max(self._allowed_bytes, limits.bytes)


class Window:
    """The reader's side: what came, what was read of it, and what the writer was told."""

    __slots__ = ("_least_bytes", "_least_items", "_size", "arrived", "bytes", "items")

    def __init__(self, size: Limits, limits: Limits | None = None) -> None:
        self._size = size
        self.arrived = 0
        """Items that came so far."""
        self.items = 0
        """Items read so far."""
        self.bytes = 0
        self._told(size if limits is None else limits)

    def read(self, items: int, size: int) -> bool:
        """*items* of *size* bytes in all are read; True when the writer should hear of it (`raised`)."""
        self.items += items
        self.bytes += size
        return self.items >= self._least_items or self.bytes >= self._least_bytes

    def raised(self) -> Limits:
        """The limits to tell the writer now: a whole window from what is read."""
        limits = Limits(self.items + self._size.items, self.bytes + self._size.bytes)
        self._told(limits)
        return limits

    def _told(self, limits: Limits) -> None:
        self._least_items = limits.items - self._size.items // 2
        self._least_bytes = limits.bytes - self._size.bytes // 2


def is_stream(value: Any) -> bool:
    """True for an async iterator: as an argument it travels item by item."""
    return _is_stream_class(type(value))  # type: ignore[arg-type]  # mypy holds classes for unhashable


# Asked of the arguments of every message: 0.07 µs instead of 0.5.
@lru_cache(maxsize=1024)
def _is_stream_class(cls: type) -> bool:
    return hasattr(cls, "__anext__") and hasattr(cls, "__aiter__")


# -- on the wire -----------------------------------------------------------------------------


def pack_batch(first: int, bodies: Sequence[bytes]) -> bytes:
    """Encoded items as one body; *first* is the number of the first one, from 0."""
    count = len(bodies)
    sizes = struct.pack(f"!{count}I", *map(len, bodies))
    return b"".join((_BATCH.pack(first, count), sizes, *bodies))


def unpack_batch(body: bytes | memoryview) -> tuple[int, list[bytes | memoryview], int]:
    """The number of the first item, all items, and their bytes. `ValueError` for lengths that lie."""
    try:
        first, count = _BATCH.unpack_from(body)
        at = _BATCH.size + 4 * count
        sizes = struct.unpack_from(f"!{count}I", body, _BATCH.size) if at <= len(body) else None
    except struct.error:
        sizes = None
    if sizes is None or at + sum(sizes) != len(body):
        raise ValueError("this is no batch of items")
    total = len(body) - at
    items = []
    for size in sizes:
        items.append(body[at : at + size])
        at += size
    return first, items, total


def pack_limits(limits: Limits) -> bytes:
    """Limits as a body."""
    return _LIMITS.pack(*limits)


def unpack_limits(body: bytes | memoryview) -> Limits:
    """The limits in a body. `struct.error` for what is none."""
    return Limits(*_LIMITS.unpack(body))


def pack_total(items: int) -> bytes:
    """The body of a stream's end: how many items it had."""
    return _TOTAL.pack(items)


def unpack_total(body: bytes | memoryview) -> int | None:
    """How many items a stream had; None where its end does not say (foreign doors)."""
    return int(_TOTAL.unpack(body)[0]) if len(body) else None

"""
Batches: small messages of one kind that leave in one frame, as one envelope.

    body    count, numbers of asks and answers, seconds left of asks, then one pickle for all: a list
            of what calls have as arguments, or of what is answered, and one of their heads, or None
            where the envelope has the head of all

Tells need no numbers: they count on from the envelope's. A pickle of a hundred small values takes a
fifth of what a hundred pickles take, to write 0.04 µs for each instead of 0.21, to read 0.06 instead
of 0.19, and there is one envelope instead of a hundred.

Whether a message may wait for its pickle until its frame is made is said by `is_small`: what cannot
change meanwhile, and cannot fail.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

from actors.pickling import FLAT, dumps_flat
from actors.wire import MAX_ENVELOPES, BadFrame, Kind

MOST_BYTES = 256
"""Of a message in a batch: letters of its text, bytes of its `bytes`; and of its head."""

_ASK, _TELL, _VALUE = int(Kind.ASK), int(Kind.TELL), int(Kind.VALUE)
_ASKS, _TELLS = int(Kind.ASKS), int(Kind.TELLS)

KIND_OF = {_ASK: _ASKS, _TELL: _TELLS, _VALUE: int(Kind.VALUES)}
"""The kind of a batch, by that of its messages."""

_COUNT_SIZE = 4
_NUMBER_SIZE = 8
_LARGEST = 1 << 62
_IS_BIG_ENDIAN = sys.byteorder == "big"


def is_small(values: Sequence[Any]) -> bool:
    """Whether a message of these values may be pickled later, with others: plain, unchangeable, small."""
    if len(values) == 1 and type(values[0]) is str:
        return len(values[0]) <= MOST_BYTES  # what most messages are: 65 ns instead of 100
    size = 0
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is int:
            if not -_LARGEST < value < _LARGEST:
                return False
            size += _NUMBER_SIZE
        elif kind in FLAT:
            size += _NUMBER_SIZE
        else:
            return False
    return size <= MOST_BYTES


def pack(
    kind: int,
    numbers: Sequence[int],
    remaining: Sequence[float],
    contents: Sequence[Any],
    heads: Sequence[bytes] | None = None,
) -> bytes:
    """The body of a batch of messages of this *kind*; *heads* where they differ."""
    parts = [len(contents).to_bytes(_COUNT_SIZE, "little")]
    if kind != _TELL:
        parts.append(_column("Q", numbers))
    if kind == _ASK:
        parts.append(_column("d", remaining))
    parts.append(dumps_flat((contents, heads)))
    return b"".join(parts)


def unpack(
    kind: int, first: int, body: bytes | memoryview
) -> tuple[Sequence[int], Sequence[float], bytes | memoryview]:
    """
    What `pack` wrote, for a batch of this *kind*: numbers, seconds left of asks, and the pickle.

    `BadFrame` for what cannot be a batch; whether the pickle is one is said by `check`.
    """
    count = int.from_bytes(body[:_COUNT_SIZE], "little")
    columns = (kind != _TELLS) + (kind == _ASKS)
    end = _COUNT_SIZE + columns * count * _NUMBER_SIZE
    if not 0 < count <= MAX_ENVELOPES or len(body) < end:
        raise BadFrame("batch")
    if kind == _TELLS:
        return range(first, first + count), (), body[end:]
    middle = _COUNT_SIZE + count * _NUMBER_SIZE
    remaining = _read("d", body[middle:end]) if kind == _ASKS else ()
    return _read("Q", body[_COUNT_SIZE:middle]), remaining, body[end:]


def check(numbers: Sequence[int], content: Any) -> tuple[Sequence[Any], Sequence[bytes] | None]:
    """Contents and heads of a batch whose pickle was *content*; `ValueError` where it has others."""
    contents, heads = content
    for column in (contents, () if heads is None else heads):
        if type(column) not in (list, tuple):
            raise ValueError("a batch has columns")
    if len(contents) != len(numbers) or (heads is not None and len(heads) != len(numbers)):
        raise ValueError("a batch has as many contents as numbers")
    return contents, heads


def _column(code: str, values: Sequence[Any]) -> bytes:
    column = array(code, values)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


def _read(code: str, data: bytes | memoryview) -> Sequence[Any]:
    column = array(code)
    column.frombytes(data)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column

"""What every peer does with an array: the same work, so that only the way there differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[numpy.float64]"

_PAGE_BYTES = 4096


def filled(size: int) -> Array:
    """An array of *size* bytes; whole numbers, so that their sums are exact."""
    import numpy  # hosts import this module too, and only those that get an array should pay for it

    return numpy.arange(size // 8, dtype=numpy.float64)


def glance(array: Array) -> float:
    """The sum of a number of each page: who knows it has read every page of the array."""
    return float(array[:: _PAGE_BYTES // array.itemsize].sum())

"""
Field checks: what a spec, a flag or an option must look like, said the same way everywhere.

Each check returns nothing when the value fits and otherwise raises
`InvalidArgument`, naming the owner, the field and the value:

    ChildSpec restart='permanant' is not one of permanent, transient, temporary; did you mean 'permanent'?

A bool is never a number here, nor is nan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from actors.errors import InvalidArgument, nearest
from actors.interceptors import Interceptor


def misfit(owner: str, field: str, value: object, why: str) -> InvalidArgument:
    """The error for a wrong *value*; *why* continues the sentence."""
    return InvalidArgument(f"{owner} {field}={value!r} {why}")


def choice(owner: str, field: str, value: object, known: Iterable[str]) -> None:
    """One of the words *known*."""
    words = tuple(known)
    if not isinstance(value, str) or value not in words:
        hint = nearest(value, words) if isinstance(value, str) else ""
        raise misfit(owner, field, value, f"is not one of {', '.join(words)}{hint}")


def name(owner: str, field: str, value: object) -> None:
    """A string with something in it."""
    if not isinstance(value, str) or not value:
        raise misfit(owner, field, value, "is not a non-empty string")


def plain_name(owner: str, field: str, value: object) -> None:
    """A name that goes into paths: `kitchen/2`, `kitchen.cook`."""
    name(owner, field, value)
    assert isinstance(value, str)
    if "/" in value or "." in value or value.strip() != value:
        raise misfit(owner, field, value, "must not contain '/', '.' or surrounding blanks")


def non_negative(owner: str, field: str, value: object, *, allow_infinity: bool = False) -> None:
    """A number, 0 or more."""
    if not _is_number(value, allow_infinity) or value < 0:  # type: ignore[operator]
        raise misfit(owner, field, value, "is not a number of 0 or more")


def positive(owner: str, field: str, value: object, *, allow_infinity: bool = False) -> None:
    """A number above 0."""
    if not _is_number(value, allow_infinity) or value <= 0:  # type: ignore[operator]
        raise misfit(owner, field, value, "is not a number above 0")


def whole(owner: str, field: str, value: object, *, least: int = 0) -> None:
    """A whole number, *least* or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise misfit(owner, field, value, f"is not a whole number of {least} or more")


def flag(owner: str, field: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise misfit(owner, field, value, "is neither True nor False")


def words_by_name(owner: str, field: str, value: object) -> None:
    """A mapping from non-empty strings to strings."""
    _named(owner, field, value)
    assert isinstance(value, Mapping)
    if not all(isinstance(word, str) for word in value.values()):
        raise misfit(owner, field, value, "has a value that is not a string")


def numbers_by_name(owner: str, field: str, value: object) -> None:
    """A mapping from non-empty strings to numbers of 0 or more."""
    _named(owner, field, value)
    assert isinstance(value, Mapping)
    for key, number in value.items():
        non_negative(owner, f"{field}[{key!r}]", number)


def interceptors(owner: str, field: str, value: object) -> None:
    """A sequence of interceptors."""
    if not isinstance(value, Sequence) or not all(isinstance(one, Interceptor) for one in value):
        raise misfit(owner, field, value, "is not a sequence of Interceptors")


def _named(owner: str, field: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise misfit(owner, field, value, "is not a mapping")
    if not all(isinstance(key, str) and key for key in value):
        raise misfit(owner, field, value, "has a key that is not a non-empty string")


def _is_number(value: object, allow_infinity: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return False
    return allow_infinity or not math.isinf(value)

"""
Pickles: how values travel between processes. The one home of cloudpickle.

Plain pickle (0.4 µs for a small message) wherever it serves; cloudpickle for what
lives in `__main__`, for lambdas and for notebook classes, which go by value.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from actors.blame import blame, blamed
from actors.errors import ActorError
from actors.stream import is_stream

loads = pickle.loads

_LONGEST_CHAIN = 8
"""Causes of an exception that travel with it; the traceback text names all."""


def dumps(value: Any) -> bytes:
    """
    The pickle of *value*. Raises whatever pickling raised.

    A pickle that names `__main__` would look there at the receiver, where another
    program runs: that goes by value.
    """
    try:
        data = pickle.dumps(value, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _dumps_by_value(value)
    return _dumps_by_value(value) if b"__main__" in data else data


FLAT = frozenset((type(None), bool, int, float, str, bytes))
"""Types that have no buffers beside their pickle: looking for some costs 0.3 µs a message."""


dumps_flat = pickle.dumps
"""The pickle of what has no class to name and no buffer: a third of what `dumps` costs."""


class _Raw:
    """Large `bytes` on their way: a buffer beside the pickle instead of three copies inside it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return bytes, (pickle.PickleBuffer(self._value),)


def _raw(value: Any, least: int) -> Any:
    """*value*, or what stands for it in a pickle: where it, or one of its items, is large `bytes`."""
    if type(value) is bytes:
        return _Raw(value) if len(value) >= least else value
    if type(value) in (tuple, list) and any(type(item) in (bytes, tuple) for item in value):
        return type(value)(_raw(item, least) for item in value)
    return value


def dumps_apart(value: Any, least: int) -> tuple[bytes, list[memoryview]]:
    """
    Like `dumps`, with buffers of at least *least* bytes beside the pickle instead of inside.

    Of `bytes` those that are *value* itself or stand in it, in a tuple or list.
    """
    value = _raw(value, least)
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < least:
            return True
        buffers.append(raw)
        return False

    try:
        data = pickle.dumps(value, 5, buffer_callback=keep)
        if b"__main__" not in data:
            return data, buffers
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # perhaps by value
    buffers.clear()
    return _dumps_by_value(value, keep), buffers


def _dumps_by_value(value: Any, keep: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(value, 5, buffer_callback=keep)
    return data


def misfit(target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
    """Which argument of a call cannot be pickled, in words; *error* is what pickling all of them said."""
    places = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    places += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for place, value in places:
        if (reason := _why_not(value)) is not None:
            return f"{place} of {target}.{method}() cannot be pickled: {shown(value)} ({reason})"
    return f"the arguments of {target}.{method}() cannot be pickled: {error}"


def _why_not(value: Any) -> str | None:
    try:
        dumps(value)
    except Exception as error:
        hint = ""
        if isinstance(value, Iterator):
            hint = "; of iterators an async one travels"
        elif isinstance(value, (list, tuple, set, dict)) and any(map(is_stream, value)):
            hint = "; an async iterator travels by itself, not inside another argument"
        return f"{error}{hint}"
    return None


def shown(value: Any) -> str:
    """A short text of any value, for messages; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


class RemoteTraceback(Exception):
    """The traceback of the process where an exception was raised, as text; the bottom of its chain."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"


Encoded = tuple[list[tuple[str, str, bytes | None]], str, str]
"""An exception and its causes, outermost first, each as name, text and pickle; the traceback; the blame."""


def encode_error(error: BaseException) -> Encoded:
    """An exception and its chain of causes as plain data."""
    chain: list[tuple[str, str, bytes | None]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < _LONGEST_CHAIN:
        if isinstance(current, RemoteTraceback):
            break
        chain.append(_encode_one(current))
        current = current.__cause__
    return chain, "".join(traceback.format_exception(error)).rstrip(), blamed(error)


def _encode_one(error: BaseException) -> tuple[str, str, bytes | None]:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        text = str(error)
    except Exception:
        text = shown(error)
    try:
        data = dumps(error)
        # Many exceptions pickle and then fail to unpickle (constructors with other
        # arguments than `args` holds): better found here than by the caller.
        loads(data)
    except Exception:
        return name, text, None
    return name, text, data


def decode_error(encoded: Encoded) -> BaseException:
    """The exception again, its causes below it and the remote traceback at the bottom."""
    chain, text, name = encoded
    errors = [_decode_one(*one) for one in chain]
    for upper, lower in pairwise(errors):
        upper.__cause__ = lower
    errors[-1].__cause__ = RemoteTraceback(text)
    return blame(errors[0], name) if name else errors[0]


def _decode_one(name: str, text: str, data: bytes | None) -> BaseException:
    if data is not None:
        try:
            error = loads(data)
        except Exception:
            pass  # told by type and text below
        else:
            if isinstance(error, BaseException):
                return error
    stand_in = ActorError(f"{name}: {text}")
    stand_in.type_name = name
    return stand_in


def portable(value: Any) -> tuple[str, Any]:
    """*value* so that it travels to any process; `unpacked` gives it back, or a text where it cannot."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return "plain", value
    if isinstance(value, BaseException):
        return "error", encode_error(value)
    try:
        return "pickle", dumps(value)
    except Exception:
        return "plain", shown(value)


def unpacked(packed: tuple[str, Any]) -> Any:
    """What `portable` packed."""
    form, value = packed
    if form == "error":
        return decode_error(value)
    if form == "pickle":
        try:
            return loads(value)
        except Exception as error:
            return f"<{type(error).__name__}: {error}>"
    return value

"""
Pickles: how values travel between processes. The one home of cloudpickle.

Plain pickle (0.4 µs for a small message) wherever it serves; cloudpickle for what
lives in `__main__`, for lambdas and for notebook classes, which go by value.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any

from actors.errors import ActorError, SerializationError

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """
    The pickle of *value*. Raises whatever pickling raised; `encode_call` says it for people.

    A pickle that names `__main__` would look there at the receiver, where another
    program runs: that goes by value.
    """
    try:
        data = pickle.dumps(value, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _dumps_by_value(value)
    return _dumps_by_value(value) if b"__main__" in data else data


def _dumps_by_value(value: Any) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(value, 5)
    return data


def encode_call(
    message: tuple[Any, ...], target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    """The pickle of a call; `SerializationError` names the argument that cannot travel."""
    try:
        return dumps(message)
    except Exception as error:
        for place, value in [
            *((f"argument {n}", arg) for n, arg in enumerate(args, 1)),
            *((f"argument {name!r}", arg) for name, arg in kwargs.items()),
        ]:
            if (reason := _why_not(value)) is not None:
                raise SerializationError(
                    f"{place} of {target}.{method}() cannot be pickled: {_shown(value)} ({reason})"
                ) from error
        raise SerializationError(
            f"the arguments of {target}.{method}() cannot be pickled: {error}"
        ) from error


def _why_not(value: Any) -> str | None:
    try:
        dumps(value)
    except Exception as error:
        return str(error)
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class RemoteTraceback(Exception):
    """The traceback of the process where an exception was raised, as text; stands below the user's own chain."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"


def encode_error(error: BaseException) -> tuple[Any, ...]:
    """An exception and its chain of causes as plain data: `(chain, traceback text)`."""
    chain = []
    current: BaseException | None = error
    while current is not None and len(chain) < 8:
        if isinstance(current, RemoteTraceback):
            break
        chain.append(_encode_one(current))
        current = current.__cause__
    return chain, "".join(traceback.format_exception(error)).rstrip()


def _encode_one(error: BaseException) -> tuple[str, str, bytes | None]:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        data = dumps(error)
        # Many exceptions pickle and then fail to unpickle (constructors with other
        # arguments than `args` holds): better found here than by the caller.
        loads(data)
    except Exception:
        return name, str(error), None
    return name, str(error), data


def decode_error(encoded: tuple[Any, ...]) -> BaseException:
    """The exception again, its causes below it and the remote traceback at the bottom."""
    chain, text = encoded
    errors = [_decode_one(*one) for one in chain]
    for upper, lower in zip(errors, errors[1:], strict=False):
        upper.__cause__ = lower
    errors[-1].__cause__ = RemoteTraceback(text)
    return errors[0]


def _decode_one(name: str, text: str, data: bytes | None) -> BaseException:
    if data is not None:
        try:
            error = loads(data)
            if isinstance(error, BaseException):
                return error
        except Exception:
            pass  # told by type and text below
    stand_in = ActorError(f"{name}: {text}")
    stand_in.type_name = name  # type: ignore[attr-defined]
    return stand_in


Decoder = Callable[[bytes], Any]

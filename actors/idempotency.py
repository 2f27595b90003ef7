"""
Idempotency: methods that may run twice for one call, and what makes two calls the same.

`@idempotent` says that running a method again does no harm. Then the runtime may send a call again
when nobody knows whether it ran, and its receiver answers what it has answered already.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, overload

from actors.errors import InvalidArgument, nearest

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__understudy_idempotent__"


@dataclass(frozen=True, slots=True)
class Idempotency:
    """How an idempotent method tells its calls apart."""

    key: Callable[..., Hashable] | None = None
    """Calls with equal keys are one call; None where each call is one of its own."""

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """The key of a call with these arguments. `InvalidArgument` where there is none."""
        assert self.key is not None
        try:
            key = self.key(*args, **kwargs)
            hash(key)
        except Exception as error:
            raise InvalidArgument(f"no key can be made of the arguments: {error}") from error
        return key


class Naming(NamedTuple):
    """Which calls through a ref have a name, and can be sent again."""

    methods: frozenset[str] = frozenset()
    """Those that are known to be idempotent."""
    key: str | None = None
    """From `options(idempotency_key=…)`: all calls have it, and what is not idempotent refuses it."""

    def covers(self, method: str) -> bool:
        """Whether calls of *method* have one."""
        return self.key is not None or method in self.methods


def with_key(naming: Naming | None, key: str) -> Naming:
    """*naming* with a key of the caller's. `InvalidArgument` unless it is a text."""
    if not isinstance(key, str) or not key:
        raise InvalidArgument(f"idempotency_key={key!r} must be a text")
    return Naming(naming.methods if naming is not None else frozenset(), key)


def unnamed(method: str) -> InvalidArgument:
    """What a tell with a key is told."""
    return InvalidArgument(f"{method}: a tell has no idempotency_key, it is never sent again; ask instead")


@overload
def idempotent(function: F, /) -> F: ...
@overload
def idempotent(*, key: str | Callable[..., Hashable]) -> Callable[[F], F]: ...
def idempotent(function: Any = None, /, *, key: Any = None) -> Any:
    """
    Mark a method that may run again for the same call.

    An ask of it that ends as `Unavailable`, and may have run, is sent again within its deadline: by
    a service ref to another member, by a ref to the next incarnation. At most 5 times, after waits
    drawn from [0, 0.1 × 2ⁿ⁻¹ s], at most 1 s, and only while the service answers more than it
    fails. Its receiver remembers the answers (values, `expected` errors and `Refusal`), for 5
    minutes, the newest 10,000 of its process up to 16 MB together and 64 KB each: the same call
    gets the first one's answer, also while that still runs. Restarts in the process keep them; with
    the process they are gone, and the method runs again, with `context.redelivered` true.

    Two calls are the same when one is the other sent again; with *key*, the name of an argument or
    a function of the arguments, also when their keys are equal; and when both were made by
    `ref.options(idempotency_key=…)` with equal keys, which counts before *key*. Only calls of the
    same method of the same actor are compared: with `options(key=…)` a service sends them there.

    Tells are never sent again, and not compared. Streams cannot be idempotent: `InvalidArgument`.
    """
    if function is None:
        return lambda method: _marked(method, key)
    return _marked(function, None)


def _marked(function: Any, key: Any) -> Any:
    if not inspect.isfunction(function):
        raise InvalidArgument(f"@idempotent stands in front of a method, not of {function!r}")
    plain = inspect.unwrap(function)
    if inspect.isasyncgenfunction(plain) or inspect.isgeneratorfunction(plain):
        raise InvalidArgument(f"{function.__qualname__} is a stream: it cannot be idempotent")
    if isinstance(key, str):
        key = _argument(plain, key)
    elif key is not None and not callable(key):
        name = function.__qualname__
        raise InvalidArgument(f"key={key!r} of {name} is neither an argument's name nor a function of them")
    setattr(function, _MARK, Idempotency(key))
    return function


def _argument(function: Any, name: str) -> Callable[..., Any]:
    """What gives the argument *name* of a call of *function*."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = {
        parameter.name: place
        for place, parameter in enumerate(parameters)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if name not in named:
        raise InvalidArgument(
            f"key={name!r}: {function.__qualname__} has no such argument{nearest(name, named)}"
        )
    place, parameter = named[name], parameters[named[name]]
    is_placed = parameter.kind is parameter.POSITIONAL_OR_KEYWORD

    def find(*args: Any, **kwargs: Any) -> Any:
        if is_placed and place < len(args):
            return args[place]
        if name not in kwargs and parameter.default is parameter.empty:
            raise TypeError(f"missing argument {name!r}")
        return kwargs.get(name, parameter.default)

    return find


def idempotency_of(function: Any) -> Idempotency | None:
    """What `@idempotent` says of *function*; None without it."""
    found = getattr(function, _MARK, None)
    return found if isinstance(found, Idempotency) else None

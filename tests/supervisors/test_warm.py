"""The `warm` hook: what counts as one, and what it is called with."""

from __future__ import annotations

from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument
from supervisors import Service, warm

called: list[Any] = []


class Model(Actor):
    def __init__(self, path: str, size: int = 1) -> None: ...

    @classmethod
    def warm(cls, path: str, size: int = 1) -> None:
        called.append((cls.__name__, path, size))


class SmallModel(Model):
    """Inherits it."""


class Library(Actor):
    def __init__(self, path: str) -> None: ...

    @staticmethod
    def warm() -> None:
        called.append("library")


class Heater(Actor):
    async def warm(self) -> str:
        """A message that happens to have this name."""
        return "warm"


class AsyncModel(Actor):
    @classmethod
    async def warm(cls) -> None: ...


class Cold(Actor): ...


@pytest.mark.parametrize(
    ("cls", "args", "kwargs", "expected"),
    [
        (Model, ("a",), {"size": 2}, [("Model", "a", 2)]),
        (SmallModel, ("a",), {}, [("SmallModel", "a", 1)]),
        (Library, ("a",), {}, ["library"]),
        (Cold, (), {}, []),
        (Heater, (), {}, []),
    ],
)
def test_it_is_called_with_what_the_constructor_gets_or_with_nothing(
    cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any], expected: list[Any]
) -> None:
    called.clear()

    warm.call(cls, args, kwargs)

    assert called == expected


def test_it_is_not_a_message() -> None:
    plan = Service("model", Model, args=("a",), understudies=2).plan()

    assert (plan.understudies, plan.warms, plan.methods) == (2, True, [])
    assert Service("cold", Cold, understudies=1).plan().warms is False


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (Heater, "Heater.warm' is a message; make it a classmethod or a staticmethod"),
        (AsyncModel, "AsyncModel.warm' is async; it runs on a thread, so make it a plain `def`"),
    ],
)
def test_what_cannot_be_run_ahead_is_refused_where_it_is_asked_for(cls: type[Any], complaint: str) -> None:
    Service("plain", cls)

    with pytest.raises(InvalidArgument) as error:
        Service("reserved", cls, understudies=1)

    assert complaint in str(error.value)


def test_a_hook_that_the_members_arguments_do_not_fit_is_refused() -> None:
    class Odd(Actor):
        def __init__(self, path: str) -> None: ...

        @classmethod
        def warm(cls, one: int, two: int) -> None: ...

    with pytest.raises(InvalidArgument, match=r"Service 'odd': warm=.*: missing a required argument: 'two'"):
        Service("odd", Odd, args=("a",), understudies=1)

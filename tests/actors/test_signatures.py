"""The parameters of what users call: ours stand in `options`, all else belongs to them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from actors import ActorSystem, Context, Ref, Reply


def parameters(function: Any) -> str:
    """What may be written between the brackets, without types and `self`."""
    found = inspect.signature(function)
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in found.parameters.items()
        if name != "self"
    ]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (ActorSystem.spawn, "(cls, /, *args, **kwargs)"),
        (
            ActorSystem.options,
            "(*, name=None, mailbox=None, overflow=None, concurrency=None, handler_timeout=None)",
        ),
        (ActorSystem.find, "(name)"),
        (ActorSystem.subscribe, "(sink)"),
        (Ref.ask, "(method, /, *args, **kwargs)"),
        (Ref.tell, "(method, /, *args, **kwargs)"),
        (Ref.stream, "(method, /, *args, **kwargs)"),
        (Ref.stop, "(kind='shutdown')"),
        (Ref.pinned, "()"),
        (Context.spawn, "(cls, /, *args, **kwargs)"),
        (Context.after, "(delay, method, /, *args)"),
        (Context.every, "(period, method, /, *args)"),
        (Context.stop, "(kind='normal', detail=None)"),
        (Reply.result, "(timeout=None)"),
        (Reply.outcome, "(timeout=None)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_the_parameters_are_exactly_these(function: Any, expected: str) -> None:
    assert parameters(function) == expected


def test_a_ref_has_exactly_these_options() -> None:
    options = list(inspect.signature(Ref.options).parameters.values())[1:]
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}
    assert [option.name for option in options] == ["timeout", "idempotency_key", "reliable"]


def test_a_context_has_exactly_these() -> None:
    public = {name for name in vars(Context) if not name.startswith("_")}
    assert public == {
        *("ref", "name", "incarnation", "parent", "sender", "deadline", "redelivered", "log", "system"),
        *("spawn", "watch", "unwatch", "service", "after", "every", "options", "stop", "serve_early"),
    }

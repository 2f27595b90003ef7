"""What users may import, and what importing it may not load."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import actors

NAMES = [
    "Actor",
    "ActorError",
    "ActorStopped",
    "ActorSystem",
    "AlreadyPresent",
    "AlreadyStarted",
    "Cancelled",
    "Context",
    "Deadline",
    "DeadlineExceeded",
    "DeadlockError",
    "Exit",
    "Ignore",
    "InvalidArgument",
    "MailboxFull",
    "NotFound",
    "Outcome",
    "Ref",
    "Refusal",
    "Reply",
    "SerializationError",
    "ServiceFailed",
    "StartFailed",
    "Terminated",
    "Unauthenticated",
    "Unavailable",
    "UnknownMethod",
]

VENDORS = {"ray", "psutil", "structlog", "cloudpickle", "pynng"}


def modules_after(program: str) -> set[str]:
    """The modules a fresh interpreter has loaded after *program*."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(actors.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(actors, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Acter"):
        actors.Acter  # noqa: B018


@pytest.mark.parametrize(
    "name", ["ManualClock", "Probe", "wait_until", "wait_until_sync", "memory_system", "FaultyTransport"]
)
def test_testing_is_there_for_users(name: str) -> None:
    from actors import testing

    assert getattr(testing, name).__doc__


def test_importing_everything_loads_no_vendor() -> None:
    loaded = modules_after("from actors import *; import actors.testing, actors.routed, actors.children")

    assert not loaded & VENDORS


def test_a_system_that_only_talks_to_itself_loads_no_vendor() -> None:
    program = """
from actors import Actor, ActorSystem
class Chef(Actor):
    async def cook(self): return 1
with ActorSystem() as system:
    assert system.spawn(Chef).cook().result() == 1
"""

    assert not modules_after(program) & VENDORS


def test_pynng_loads_with_the_first_inbox() -> None:
    program = """
from actors import ActorSystem
with ActorSystem(listen=True) as system:
    assert system.address.startswith("ipc://")
"""

    assert modules_after(program) & VENDORS == {"pynng"}


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
        (actors.ActorSystem.spawn, "(cls, /, *args, **kwargs)"),
        (actors.ActorSystem.options, "(*, name=None, mailbox=None, concurrency=None)"),
        (actors.ActorSystem.find, "(name)"),
        (actors.ActorSystem.subscribe, "(sink)"),
        (actors.Ref.ask, "(method, /, *args, **kwargs)"),
        (actors.Ref.tell, "(method, /, *args, **kwargs)"),
        (actors.Ref.stream, "(method, /, *args, **kwargs)"),
        (actors.Ref.stop, "(kind='shutdown')"),
        (actors.Ref.pinned, "()"),
        (actors.Context.spawn, "(cls, /, *args, **kwargs)"),
        (actors.Context.after, "(delay, method, /, *args)"),
        (actors.Context.every, "(period, method, /, *args)"),
        (actors.Context.stop, "(kind='normal', detail=None)"),
        (actors.Reply.result, "(timeout=None)"),
        (actors.Reply.outcome, "(timeout=None)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_the_parameters_are_exactly_these(function: Any, expected: str) -> None:
    """What is ours stands in `options`, all else belongs to the user."""
    assert parameters(function) == expected


def test_a_ref_has_the_timeout_for_its_option() -> None:
    (option,) = list(inspect.signature(actors.Ref.options).parameters.values())[1:]
    assert (option.name, option.kind) == ("timeout", inspect.Parameter.KEYWORD_ONLY)


def test_a_context_has_exactly_these() -> None:
    public = {name for name in vars(actors.Context) if not name.startswith("_")}
    assert public == {
        *("ref", "name", "incarnation", "parent", "sender", "deadline", "log", "system"),
        *("spawn", "watch", "unwatch", "service", "after", "every", "options", "stop", "serve_early"),
    }

"""What users may import, and what importing it may not load."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

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
    "idempotent",
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


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("interceptors", "Interceptor"),
        ("interceptors", "Interception"),
        ("traces", "Trace"),
        ("tracing", "carrying"),
        ("tracing", "current_trace"),
        ("tracing", "current_baggage"),
    ],
)
def test_what_calls_carry_and_pass_is_in_modules_of_its_own(module: str, name: str) -> None:
    assert getattr(import_module(f"actors.{module}"), name).__doc__


def test_importing_everything_loads_no_vendor() -> None:
    loaded = modules_after(
        "from actors import *; import actors.testing, actors.routed, actors.children, actors.interceptors"
    )

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

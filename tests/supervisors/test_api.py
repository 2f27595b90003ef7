"""The public names of `supervisors`, their signatures, and what is absent until it works."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import supervisors
from actors.actor import Actor
from supervisors import (
    App,
    Backoff,
    ChildCounts,
    ChildInfo,
    ChildSpec,
    Cluster,
    DynamicSupervisor,
    Group,
    Resources,
    Service,
    ServiceRef,
    Supervisor,
    connect,
)

NAMES = [
    "App",
    "Backoff",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "Cluster",
    "DynamicSupervisor",
    "Group",
    "Resources",
    "Service",
    "ServiceRef",
    "Supervisor",
    "connect",
]


def signature(function: object) -> str:
    """Names, kinds and defaults, without annotations."""
    plain = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [p.replace(annotation=p.empty) for p in plain.parameters.values()]
    return str(plain.replace(parameters=parameters, return_annotation=plain.empty)).replace("<factory>", "…")


def test_the_public_names_are_these() -> None:
    assert sorted(supervisors.__all__) == NAMES
    assert set(NAMES) <= set(dir(supervisors))
    for name in NAMES:
        assert getattr(supervisors, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'supervisors' has no attribute 'Sevice'"):
        supervisors.Sevice  # noqa: B018


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            ChildSpec,
            "(id, actor_class, *, args=(), kwargs=…, restart='permanent', shutdown=None, start_timeout=60.0,"
            " significant=False, mailbox=None, overflow=None, concurrency=None, handler_timeout=None)",
        ),
        (
            Supervisor,
            "(children=(), strategy='one_for_one', intensity=3, period=5.0, *, backoff=None,"
            " auto_shutdown='never')",
        ),
        (
            DynamicSupervisor,
            "(actor_class, *, max_children=None, restart='permanent', shutdown=None, intensity=3, period=5.0,"
            " backoff=None, start_timeout=60.0, mailbox=None, overflow=None, concurrency=None,"
            " handler_timeout=None)",
        ),
        (
            Service,
            "(name, actor_class, *, args=(), kwargs=…, size=1, resources=…, per_host=None,"
            " understudies=0, restart='permanent', strategy='one_for_one', intensity=None, period=5.0,"
            " backoff=…, shutdown=5.0, start_timeout=60.0, mailbox=None, overflow=None,"
            " routing='least_busy', concurrency=None, handler_timeout=None)",
        ),
        (
            App,
            "(*services, name=None, understudies=1, escalate=False, heartbeat_limit=10.0,"
            " orphan_timeout=None)",
        ),
        (Group, "(name, *services, strategy='one_for_one', intensity=3, period=5.0)"),
        (
            App.run,
            "(self, *, address=None, num_cpus=None, num_gpus=None, labels=None, resources=None,"
            " interceptors=())",
        ),
        (Resources, "(cpu=0, gpu=0, memory=None, labels=…, custom=…)"),
        (Backoff, "(initial=0.2, factor=2, maximum=30, jitter=0.2)"),
        (connect, "(app_name=None, *, interceptors=())"),
        (ChildInfo, "(id, ref, state, kind, restarts, last_exit)"),
        (ChildCounts, "(specs, active, supervisors, workers)"),
    ],
)
def test_signatures_are_as_documented(function: object, expected: str) -> None:
    assert signature(function) == expected


def messages(supervisor: type[Actor]) -> dict[str, str]:
    return {
        name: signature(value)
        for name, value in vars(supervisor).items()
        if inspect.iscoroutinefunction(value) and not name.startswith("on_")
    }


def test_the_messages_of_a_supervisor_are_these() -> None:
    assert messages(Supervisor) == {
        "start_child": "(self, spec)",
        "terminate_child": "(self, id)",
        "restart_child": "(self, id)",
        "delete_child": "(self, id)",
        "which_children": "(self)",
        "count_children": "(self)",
        "get_childspec": "(self, id)",
    }
    assert messages(DynamicSupervisor) == {
        "start_child": "(self, /, *args, **kwargs)",
        "terminate_child": "(self, ref)",
        "which_children": "(self)",
        "count_children": "(self)",
    }


def test_the_operations_of_a_cluster_are_these() -> None:
    public = {name for name in vars(Cluster) if not name.startswith("_")}

    assert public >= {"service", "scale", "restart", "reset", "kill", "stop", "close"}
    assert public >= {"ps", "tree", "describe", "events", "nodes"}


@pytest.mark.parametrize(
    ("owner", "absent"),
    [
        (supervisors, ["Autoscale"]),
        (ServiceRef, ["restart", "reset"]),
    ],
)
def test_what_does_not_work_yet_is_not_there(owner: object, absent: list[str]) -> None:
    assert [name for name in absent if name in dir(owner)] == []


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        (Supervisor, ["max_children"]),
        (DynamicSupervisor, ["auto_shutdown", "strategy"]),
        (Service, ["autoscale", "version"]),
    ],
)
def test_parameters_appear_only_when_they_work(function: object, absent: list[str]) -> None:
    assert [name for name in absent if name in inspect.signature(function).parameters] == []  # type: ignore[arg-type]


def test_the_package_is_typed() -> None:
    assert (Path(supervisors.__file__).parent / "py.typed").exists()


def test_specs_are_frozen_values() -> None:
    spec, service = ChildSpec("a", Actor), Service("a", Actor)

    assert spec == ChildSpec("a", Actor)
    assert Resources(cpu=1) == Resources(cpu=1.0)
    with pytest.raises(AttributeError):
        spec.id = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        service.size = 2  # type: ignore[misc]

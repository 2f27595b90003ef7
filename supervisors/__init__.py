"""
Supervisors: actors that restart others, and services of supervised actors on a Ray cluster.

Names load when they are first used: a command-line tool needs few of them, and loads none of
Ray, psutil, structlog and cloudpickle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisors.app import App
    from supervisors.backoff import Backoff
    from supervisors.cluster import Cluster, connect
    from supervisors.dynamic import DynamicSupervisor
    from supervisors.group import Group
    from supervisors.resources import Resources
    from supervisors.service import Service, ServiceRef
    from supervisors.spec import ChildCounts, ChildInfo, ChildSpec
    from supervisors.supervisor import Supervisor

_HOMES = {
    "App": "supervisors.app",
    "Backoff": "supervisors.backoff",
    "ChildCounts": "supervisors.spec",
    "ChildInfo": "supervisors.spec",
    "ChildSpec": "supervisors.spec",
    "Cluster": "supervisors.cluster",
    "DynamicSupervisor": "supervisors.dynamic",
    "Group": "supervisors.group",
    "Resources": "supervisors.resources",
    "Service": "supervisors.service",
    "ServiceRef": "supervisors.service",
    "Supervisor": "supervisors.supervisor",
    "connect": "supervisors.cluster",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

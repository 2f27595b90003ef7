"""
Placement: which host a member goes to, and the words for what cannot be placed. Pure functions.

Ray decides where a slot lies; this decides how members share slots, and on which node a
blank process is best kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

_UNITS = {"memory": "memory", "CPU": "CPU", "GPU": "GPU"}

# Seconds in which Ray may place a bundle before anyone is told that it waits. Ray's view of what
# is free lags, and on a busy machine a bundle with all the room in the world was not placed yet
# when a service was first called.
_PATIENCE_WITH_ROOM = 10.0
_PATIENCE_WITHOUT_ROOM = 1.0


class NodeLike(Protocol):
    """What is known of a node (`_ray.NodeView`)."""

    @property
    def node_id(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def resources(self) -> Mapping[str, float]: ...
    @property
    def available(self) -> Mapping[str, float]: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


def choose_slot(members_by_slot: Mapping[str, int], per_host: int | None, most_hosts: int) -> str | None:
    """
    The slot a new member shares, or None for one of its own.

    With *per_host* the first slot that has room; without, a new slot until there are *most_hosts*,
    then the emptiest.
    """
    if per_host is not None:
        return next((slot for slot, members in members_by_slot.items() if members < per_host), None)
    if len(members_by_slot) < max(1, most_hosts):
        return None
    return min(members_by_slot, key=lambda slot: members_by_slot[slot])


def choose_node(
    nodes: Sequence[NodeLike], labels: Mapping[str, str], hosts_by_node: Mapping[str, int]
) -> str | None:
    """The live node with these labels that has the fewest hosts for its CPUs; None when there is none."""
    fitting = [node for node in nodes if node.alive and has_labels(node, labels)]
    return min(
        (node.node_id for node in fitting),
        key=lambda node_id: hosts_by_node.get(node_id, 0) / max(1.0, _cpus(fitting, node_id)),
        default=None,
    )


def has_labels(node: NodeLike, labels: Mapping[str, str]) -> bool:
    """True when *node* carries all of *labels*."""
    return all(node.labels.get(key) == value for key, value in labels.items())


def cpus(nodes: Sequence[NodeLike]) -> int:
    """CPUs of all live nodes, at least 1."""
    return max(1, int(sum(node.resources.get("CPU", 0) for node in nodes if node.alive)))


def _cpus(nodes: Sequence[NodeLike], node_id: str) -> float:
    return next((node.resources.get("CPU", 0.0) for node in nodes if node.node_id == node_id), 1.0)


def why_pending(bundle: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[NodeLike]) -> str:
    """In words, why *bundle* lies nowhere: "needs 1 GPU; nodes have 0 free of 0"."""
    alive = [node for node in nodes if node.alive]
    if labels:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        alive = [node for node in alive if has_labels(node, labels)]
        if not alive:
            return f"needs a node with labels {wanted}; no node has them"
    lacking = [
        _lack(name, amount, alive) for name, amount in bundle.items() if not _fits_now(name, amount, alive)
    ]
    if any(_holds(node.available, bundle) for node in alive):
        return "there is room, but Ray has not placed it yet"
    if not lacking:
        lacking = [f"needs {_several(bundle)} on one node; no node has it all free"]
    return "; ".join(lacking)


def patience(bundle: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[NodeLike]) -> float:
    """Seconds before a *bundle* that Ray has not placed counts as pending; 0 where no node is big enough."""
    alive = [node for node in nodes if node.alive and has_labels(node, labels)]
    if any(_holds(node.available, bundle) for node in alive):
        return _PATIENCE_WITH_ROOM
    return _PATIENCE_WITHOUT_ROOM if any(_holds(node.resources, bundle) for node in alive) else 0.0


def _holds(resources: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items())


def _fits_now(name: str, amount: float, nodes: Sequence[NodeLike]) -> bool:
    return any(node.available.get(name, 0.0) >= amount - 1e-9 for node in nodes)


def _lack(name: str, amount: float, nodes: Sequence[NodeLike]) -> str:
    free = sum(node.available.get(name, 0.0) for node in nodes)
    total = sum(node.resources.get(name, 0.0) for node in nodes)
    return f"needs {_amount(name, amount)}; nodes have {_number(name, free)} free of {_number(name, total)}"


def _several(bundle: Mapping[str, float]) -> str:
    return ", ".join(_amount(name, amount) for name, amount in bundle.items())


def _amount(name: str, amount: float) -> str:
    return f"{_number(name, amount)} {_UNITS.get(name, name)}"


def _number(name: str, amount: float) -> str:
    if name != "memory":
        return f"{amount:g}"
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount:g} bytes"

"""
Families: what actors have started, and what those have started, as plain data for whoever looks at a tree.

Of a supervisor's children it also tells what only their supervisor knows: those at rest, restarts,
last exits. Bounded: what is cut is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors.system import ActorSystem

_LONGEST_EXIT = 200
"""Characters of a last exit."""


def families(system: ActorSystem, names: Iterable[str], limit: int = 500) -> dict[str, dict[str, Any]]:
    """
    The families of the actors *names*, those that there are; on the system's loop.

    At most *limit* relatives in all, the nearest first; `hidden` counts the children that an actor
    has beyond those that are listed.
    """
    found = {}
    waiting: deque[tuple[Cell, dict[str, Any]]] = deque()
    for name in names:
        cell = system._names.cells.get(name)
        if cell is not None:
            found[name] = _node(cell)
            waiting.append((cell, found[name]))
    while waiting:
        parent, node = waiting.popleft()
        children = _children(parent)
        room = max(0, limit)
        for child, facts in children[:room]:
            limit -= 1
            below = {**(_node(child) if child is not None else {}), **facts}
            node["children"].append({"children": [], **below})
            if child is not None:
                waiting.append((child, node["children"][-1]))
        if len(children) > room:
            node["hidden"] = len(children) - room
    return found


def _children(cell: Cell) -> list[tuple[Cell | None, dict[str, Any]]]:
    """Each child's cell, if it has one now, and what its supervisor knows of it; the oldest first."""
    life = cell.life
    if life is None:
        return []
    rows: dict[str, dict[str, Any]] = {}
    if life.overseer is not None:
        for row in life.overseer.rows():
            rows[f"{cell.name}/{row.id}"] = {
                "name": f"{cell.name}/{row.id}",
                "kind": row.kind,
                "state": row.state,
                "restarts": row.restarts,
                "last_exit": str(row.last_exit)[:_LONGEST_EXIT] if row.last_exit is not None else None,
            }
    cell_by_name = {child.name: child for child in life.children}
    names = [*rows, *(name for name in cell_by_name if name not in rows)]
    return [(cell_by_name.get(name), rows.get(name, {})) for name in names]


def _node(cell: Cell) -> dict[str, Any]:
    node: dict[str, Any] = {
        "name": cell.name,
        "kind": "supervisor" if cell.cls.is_supervisor else "worker",
        "class": cell.cls.__qualname__,
        "state": cell.state,
        "incarnation": cell.incarnation,
        "children": [],
    }
    if cell.life is not None and cell.life.overseer is not None:
        node["strategy"] = cell.life.overseer.strategy
    return node

"""
Surveys: an app's groups and its whole supervision tree as plain data. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supervisors.group import GroupPlan

Row = Mapping[str, Any]

NO_ANSWER = "no answer"


def group_rows(
    plans: Mapping[str, GroupPlan], known: Sequence[Row], services: Iterable[Row]
) -> list[dict[str, Any]]:
    """
    The groups as `ps` shows them.

    *known* is what the supervisor of each says that has begun, *services* are the rows of the services.
    """
    known_by_name = {group["name"]: group for group in known}
    nothing = {"restarts": 0, "failed": ""}
    part_by_name = _parts(known)
    state_by_name = {service["name"]: service["state"] for service in services}
    group_of = _groups(plans)

    def states(name: str) -> Iterable[str]:
        for part in plans[name].parts:
            if part in plans:
                yield from states(part)
            else:
                yield state_by_name[part]

    return [
        {
            "name": name,
            "group": group_of.get(name),
            "state": _together(set(states(name))),
            "strategy": plan.strategy,
            "restarts": part_by_name.get(name, nothing)["restarts"],
            "last_exit": part_by_name.get(name, {}).get("last_exit"),
            "reason": known_by_name.get(name, nothing)["failed"],
            "parts": list(plan.parts),
        }
        for name, plan in plans.items()
    ]


def _together(states: set[str]) -> str:
    if states <= {"running"}:
        return "running"
    if states == {"failed"}:
        return "failed"
    return "degraded" if states & {"degraded", "failed"} else "starting"


def service_rows(
    plans: Mapping[str, GroupPlan], known: Sequence[Row], services: Iterable[Row]
) -> list[dict[str, Any]]:
    """The services as `ps` shows them; restarts are those of members and those by their group."""
    part_by_name = _parts(known)
    group_of = _groups(plans)
    rows = []
    for service in services:
        part = part_by_name.get(service["name"], {"restarts": 0, "last_exit": None})
        restarts = service["restarts"] + part["restarts"]
        group = group_of.get(service["name"])
        rows.append({**service, "group": group, "restarts": restarts, "last_exit": part["last_exit"]})
    return rows


def _groups(plans: Mapping[str, GroupPlan]) -> dict[str, str]:
    return {part: plan.name for plan in plans.values() for part in plan.parts}


def _parts(known: Iterable[Row]) -> dict[str, Row]:
    return {name: part for group in known for name, part in group["parts"].items()}


def tree(top: Sequence[str], ps: Row, families: Mapping[str, Row | None]) -> dict[str, Any]:
    """
    The supervision tree: app, groups, services, members, and what lives inside each member's process.

    *families* has that by member; None where the process did not answer.
    """
    group_by_name = {group["name"]: group for group in ps["groups"]}
    service_by_name = {service["name"]: service for service in ps["services"]}

    def node(name: str) -> dict[str, Any]:
        if name in group_by_name:
            row = group_by_name[name]
            children = [node(part) for part in row["parts"]]
        else:
            row = service_by_name[name]
            children = [_member(member, families) for member in ps["members"] if member["service"] == name]
        return {**row, "kind": "supervisor", "children": children}

    return {
        "name": ps["app"],
        "kind": "supervisor",
        "strategy": "one_for_one",
        "children": [node(name) for name in top],
    }


def _member(row: Row, families: Mapping[str, Row | None]) -> dict[str, Any]:
    family = families.get(row["name"], {})
    if family is None:
        return {**row, "kind": "worker", "inside": NO_ANSWER, "children": []}
    inside = {key: family[key] for key in ("kind", "strategy", "hidden", "children") if key in family}
    return {**row, "kind": "worker", "children": [], **inside}

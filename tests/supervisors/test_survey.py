"""Surveys: the state of groups, and the whole tree as data and as text."""

from __future__ import annotations

from typing import Any

import pytest

from actors.actor import Actor
from actors.exit import Exit
from actors.family import families
from actors.system import ActorSystem
from supervisors import status, survey
from supervisors.group import GroupPlan
from supervisors.spec import ChildSpec
from supervisors.supervisor import Supervisor

PLANS = {
    "hotel": GroupPlan("hotel", ("cellar", "line"), "one_for_one", 3, 5.0),
    "line": GroupPlan("line", ("larder", "kitchen"), "rest_for_one", 3, 5.0),
}


def service(name: str, state: str = "running") -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "size": 1,
        "ready": 1,
        "restarts": 0,
        "reason": "",
        "strategy": "one_for_one",
    }


def told(group: str, failed: str = "", **parts: int) -> dict[str, Any]:
    """What the supervisor of a group says: how often it has restarted each part."""
    last_exit = str(Exit("shutdown", "intensity"))
    known = {
        name: {"restarts": times, "last_exit": last_exit if times else None} for name, times in parts.items()
    }
    return {"name": group, "failed": failed, "parts": known}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("running", "running", "running"), ("running", "running")),
        (("running", "starting", "running"), ("starting", "starting")),
        (("degraded", "running", "running"), ("degraded", "running")),
        (("running", "failed", "failed"), ("degraded", "failed")),
        (("failed", "failed", "failed"), ("failed", "failed")),
    ],
)
def test_a_group_is_as_well_as_its_services(states: tuple[str, ...], expected: tuple[str, str]) -> None:
    services = [
        service(name, state) for name, state in zip(("cellar", "larder", "kitchen"), states, strict=True)
    ]

    rows = survey.group_rows(PLANS, [], services)

    assert tuple(row["state"] for row in rows) == expected


def test_restarts_by_the_group_count_as_restarts_of_the_service() -> None:
    known = [told("hotel", cellar=0, line=2), told("line", larder=3)]
    services = [{**service("larder"), "restarts": 4}, service("bar")]

    larder, bar = survey.service_rows(PLANS, known, services)

    assert (larder["group"], larder["restarts"], larder["last_exit"]) == ("line", 7, "shutdown (intensity)")
    assert (bar["group"], bar["restarts"], bar["last_exit"]) == (None, 0, None)
    [_, line] = survey.group_rows(PLANS, known, [service(name) for name in ("cellar", "larder", "kitchen")])
    assert (line["group"], line["restarts"], line["last_exit"]) == ("hotel", 2, "shutdown (intensity)")


class Cook(Actor):
    async def burn(self) -> None:
        raise RuntimeError("salt")


async def test_the_tree_goes_from_the_app_down_to_what_lives_in_a_process(system: ActorSystem) -> None:
    cook = ChildSpec("cook", Cook, restart="transient")
    lead = system.options(name="cellar/0").spawn(Supervisor, [cook, ChildSpec("idle", Cook)], "one_for_all")
    await lead.wait_started()
    with pytest.raises(RuntimeError):
        await system.find("cellar/0/cook").burn()
    await system.find("cellar/0/cook").wait_started()
    await lead.terminate_child("idle")
    members = [
        {"name": f"{name}/0", "service": name, "state": "running", "incarnation": 1}
        for name in ("cellar", "larder", "bar")
    ]
    services = [service(name) for name in ("cellar", "larder", "kitchen", "bar")]
    known = [told("hotel", cellar=1)]
    ps = {
        "app": "play",
        "services": survey.service_rows(PLANS, known, services),
        "groups": survey.group_rows(PLANS, known, services),
        "members": members,
    }
    inside = families(system, ["cellar/0"])

    tree = survey.tree(
        ["hotel", "bar"], ps, {**inside, "larder/0": None, "bar/0": {"children": [], "hidden": 7}}
    )

    assert status.tree_text(tree).splitlines() == [
        "play  [one_for_one]",
        "├── hotel  [one_for_one]  running",
        "│   ├── cellar  [one_for_one]  running  1/1  1 restarts  last exit: shutdown (intensity)",
        "│   │   └── cellar/0  [one_for_all]  running  life 1",
        "│   │       ├── cellar/0/cook  running  life 2  1 restarts  last exit: error (RuntimeError: salt)",
        "│   │       └── cellar/0/idle  stopped  1 restarts  last exit: shutdown",
        "│   └── line  [rest_for_one]  running",
        "│       ├── larder  [one_for_one]  running  1/1",
        "│       │   └── larder/0  running  life 1  inside: no answer",
        "│       └── kitchen  [one_for_one]  running  1/1",
        "└── bar  [one_for_one]  running  1/1",
        "    └── bar/0  running  life 1",
        "        … and 7 more",
    ]

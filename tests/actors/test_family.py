"""Families: what of an actor's children is told to who looks at the tree."""

from __future__ import annotations

from typing import Any

import pytest

from actors.actor import Actor
from actors.family import families
from actors.system import ActorSystem


class Cook(Actor):
    async def hire(self, name: str) -> Any:
        return self.context.options(name=name).spawn(Cook)


@pytest.fixture
async def chef(system: ActorSystem) -> Any:
    """A cook with two helpers, the first of whom has one too."""
    chef: Any = system.options(name="chef").spawn(Cook)
    first = await chef.hire("first")
    await first.hire("boy")
    await chef.hire("second")
    for name in ("chef/first/boy", "chef/second"):
        await system.find(name).wait_started()
    return chef


def names(node: dict[str, Any]) -> Any:
    return {child["name"]: names(child) for child in node["children"]}


async def test_children_stand_below_their_parents(system: ActorSystem, chef: Any) -> None:
    found = families(system, ["chef", "nobody"])

    assert list(found) == ["chef"]
    assert names(found["chef"]) == {"chef/first": {"chef/first/boy": {}}, "chef/second": {}}
    assert found["chef"]["children"][1] == {
        "name": "chef/second",
        "kind": "worker",
        "class": "Cook",
        "state": "running",
        "incarnation": 1,
        "children": [],
    }


@pytest.mark.parametrize(
    ("limit", "expected", "hidden"),
    [
        (3, {"chef/first": {"chef/first/boy": {}}, "chef/second": {}}, {}),
        (2, {"chef/first": {}, "chef/second": {}}, {"chef/first": 1}),
        (1, {"chef/first": {}}, {"chef": 1, "chef/first": 1}),
        (0, {}, {"chef": 2}),
    ],
)
async def test_the_nearest_stay_and_what_is_cut_is_counted(
    system: ActorSystem, chef: Any, limit: int, expected: Any, hidden: dict[str, int]
) -> None:
    found = families(system, ["chef"], limit)["chef"]

    assert names(found) == expected
    cut = {node["name"]: node["hidden"] for node in [found, *found["children"]] if "hidden" in node}
    assert cut == hidden

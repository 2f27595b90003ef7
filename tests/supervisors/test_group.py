"""Groups: what they refuse where they are written, and what of them travels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument
from supervisors.app import App
from supervisors.group import Group, GroupPlan
from supervisors.service import Service


class Chef(Actor): ...


def service(name: str) -> Service[Chef]:
    return Service(name, Chef)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"strategy": "rest_for_all"}, "Group 'shop': strategy='rest_for_all' is not one of"),
        ({"intensity": -1}, "Group 'shop': intensity=-1"),
        ({"intensity": None}, "Group 'shop': intensity=None"),
        ({"period": 0}, "Group 'shop': period=0"),
    ],
)
def test_a_wrong_value_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        Group("shop", service("a"), **fields)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", " a", 3])
def test_a_name_that_does_not_go_into_paths_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="Group name="):
        Group(name, service("a"))


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"Group 'shop': services=\(\) names no service"):
        Group("shop")


def test_what_is_neither_service_nor_group_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"services=<class .* is neither a Service nor a Group"):
        Group("shop", Chef)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        lambda: [service("a"), Group("shop", service("a"))],
        lambda: [Group("one", service("a")), Group("two", service("a"))],
        lambda: [Group("one", service("a")), Group("one", service("b"))],
        lambda: [service("a"), Group("one", Group("a", service("b")))],
    ],
)
def test_a_name_stands_once_in_the_whole_app(parts: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"the name '(a|one)' stands twice"):
        App(*parts())


def test_a_group_does_not_have_the_name_of_what_is_in_it() -> None:
    with pytest.raises(InvalidArgument, match="Group 'a': services: the name 'a' stands twice"):
        Group("a", service("a"))


def test_the_services_of_an_app_stand_in_start_order() -> None:
    inner = Group("inner", service("c"), strategy="one_for_all")
    app = App(service("a"), Group("outer", service("b"), inner, service("d")), service("e"), name="play")

    assert [each.name for each in app.services] == ["a", "b", "c", "d", "e"]
    plan = json.loads(json.dumps(app.plan()))
    assert plan["parts"] == ["a", "outer", "e"]
    assert [GroupPlan.from_plain(group) for group in plan["groups"]] == [
        GroupPlan("outer", ("b", "inner", "d"), "one_for_one", 3, 5.0),
        GroupPlan("inner", ("c",), "one_for_all", 3, 5.0),
    ]
    assert repr(app) == "<App play: a, outer, e>"
    assert repr(inner) == "<Group inner: c>"

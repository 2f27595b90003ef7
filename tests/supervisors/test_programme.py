"""The programme: where services and groups stand in an app."""

from __future__ import annotations

import pytest

from actors.actor import Actor
from actors.errors import NotFound
from supervisors.app import App
from supervisors.group import Group
from supervisors.programme import Programme
from supervisors.service import Service


class Chef(Actor): ...


@pytest.fixture
def programme() -> Programme:
    line = Group("line", Service("larder", Chef), Service("kitchen", Chef))
    app = App(Service("bar", Chef), Group("hotel", Service("cellar", Chef), line), name="play")
    return Programme("play", app.plan())


@pytest.mark.parametrize(
    ("name", "group", "top"),
    [
        ("bar", None, "bar"),
        ("hotel", None, "hotel"),
        ("cellar", "hotel", "hotel"),
        ("line", "hotel", "hotel"),
        ("kitchen", "line", "hotel"),
    ],
)
def test_everything_stands_below_something_at_the_top(
    programme: Programme, name: str, group: str | None, top: str
) -> None:
    assert (programme.group_of(name), programme.top_of(name)) == (group, top)


def test_what_starts_first_stops_last(programme: Programme) -> None:
    assert list(programme.services) == ["bar", "cellar", "larder", "kitchen"]
    assert programme.top == ("bar", "hotel")
    assert list(programme.backwards("hotel")) == ["kitchen", "larder", "line", "cellar", "hotel"]


def test_a_group_is_no_service(programme: Programme) -> None:
    with pytest.raises(NotFound, match="'line' is a group of larder, kitchen: name one of them"):
        programme.service("line")


def test_an_unknown_name_gets_the_nearest_one(programme: Programme) -> None:
    with pytest.raises(NotFound, match="no service 'kitchn'; did you mean 'kitchen'"):
        programme.service("kitchn")
    with pytest.raises(NotFound, match="no service or group 'hotl'; did you mean 'hotel'"):
        programme.top_of("hotl")

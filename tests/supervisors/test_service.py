"""Services and apps are checked on the line that writes them; nothing has started then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument
from supervisors.app import App
from supervisors.backoff import Backoff
from supervisors.resources import Resources
from supervisors.service import Service, ServicePlan


class Chef(Actor):
    """Cooks at one station."""

    mailbox = 7
    ask_timeout = 2.5

    def __init__(self, station: str, *, knives: int = 1) -> None:
        self.station = station

    async def cook(self, dish: str) -> str:
        return dish


class Waiter(Actor):
    async def serve(self, dish: str, *, quickly: bool = False) -> str:
        """One plate."""
        return dish

    async def courses(self) -> AsyncIterator[str]:
        yield "soup"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("name", "kitchen/1"),
        ("name", "a.b"),
        ("name", " kitchen"),
        ("actor_class", int),
        ("actor_class", "Chef"),
        ("size", -1),
        ("size", 1.5),
        ("size", True),
        ("resources", {"cpu": 1}),
        ("per_host", 0),
        ("restart", "prmanent"),
        ("strategy", "none_for_one"),
        ("intensity", -1),
        ("intensity", {"eror": 3}),
        ("intensity", {}),
        ("understudies", -1),
        ("understudies", True),
        ("period", 0),
        ("backoff", 1.0),
        ("shutdown", -1),
        ("shutdown", "brutal-kill"),
        ("start_timeout", 0),
        ("mailbox", 0),
        ("concurrency", 0),
        ("routing", "random"),
    ],
)
def test_a_wrong_value_is_refused_with_field_and_value(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"name": "kitchen", "actor_class": Chef, "args": ("grill",), field: value}

    with pytest.raises(InvalidArgument) as error:
        Service(fields.pop("name"), fields.pop("actor_class"), **fields)

    assert f"{field}={value!r}" in str(error.value)
    assert str(error.value).startswith("Service")


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("grill", 2), {}), (("grill",), {"spoons": 1})])
def test_arguments_that_do_not_fit_the_class_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match="do not fit Chef"):
        Service("kitchen", Chef, args=args, kwargs=kwargs)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'round_robin'"):
        Service("kitchen", Chef, args=("grill",), routing="round-robin")


def test_a_host_asks_for_the_sum_of_its_members() -> None:
    service = Service(
        "kitchen", Chef, args=("grill",), resources=Resources(cpu=0.25, memory="1GiB"), per_host=4
    )

    assert service.plan().resources["cpu"] == 1.0
    assert service.plan().resources["memory"] == 4 * 1024**3


def test_a_sum_that_ray_could_not_hold_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidArgument, match=r"gpu=1\.5"):
        Service("vision", Chef, args=("grill",), resources=Resources(gpu=0.5), per_host=3)


def test_members_that_ask_for_something_have_a_process_each() -> None:
    assert Service("a", Chef, args=("grill",), resources=Resources(cpu=0.1)).members_per_host == 1
    assert Service("a", Chef, args=("grill",)).members_per_host is None
    assert Service("a", Chef, args=("grill",), per_host=3).members_per_host == 3


def test_the_class_has_the_last_word_where_the_service_says_nothing() -> None:
    plan = Service("kitchen", Chef, args=("grill",)).plan()
    other = Service("kitchen", Chef, args=("grill",), mailbox=9, concurrency=3).plan()

    assert (plan.mailbox, plan.concurrency, plan.ask_timeout) == (7, 1, 2.5)
    assert (other.mailbox, other.concurrency) == (9, 3)


def test_a_plan_is_plain_data_without_anything_of_the_users() -> None:
    plan = Service("kitchen", Chef, args=("grill",), backoff=Backoff(initial=1)).plan()

    travelled = json.loads(json.dumps(plan.to_plain()))

    assert ServicePlan.from_plain(travelled) == plan
    assert [method["name"] for method in plan.methods] == ["cook"]
    assert "grill" not in json.dumps(plan.to_plain())


def test_a_plan_says_what_members_can_be_asked() -> None:
    """`describe` shows it, and the stage never opens the class."""
    methods = {method["name"]: method for method in Service("waiter", Waiter).plan().methods}

    assert methods == {
        "serve": {
            "name": "serve",
            "signature": "(dish: 'str', *, quickly: 'bool' = False) -> 'str'",
            "doc": "One plate.",
            "kind": "value",
        },
        "courses": {
            "name": "courses",
            "signature": "() -> 'AsyncIterator[str]'",
            "doc": "",
            "kind": "stream",
        },
    }


class TestApps:
    def test_the_name_is_the_files_by_default(self) -> None:
        assert App().name == "test_service"

    def test_the_same_name_twice_is_refused(self) -> None:
        kitchen = Service("kitchen", Chef, args=("grill",))

        with pytest.raises(InvalidArgument, match="the name 'kitchen' stands twice"):
            App(kitchen, kitchen)

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({"name": "a/b"}, "app name 'a/b'"),
            ({"name": "x" * 31}, "app name"),
            ({"understudies": -1}, "understudies=-1"),
            ({"orphan_timeout": 0}, "orphan_timeout=0"),
        ],
    )
    def test_a_wrong_value_is_refused(self, fields: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InvalidArgument, match=complaint):
            App(**fields)

    def test_what_is_no_service_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match=r"services=<class .* is neither a Service nor a Group"):
            App(Chef)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("size", "complaint"),
        [
            ({"num_cpus": -1}, "num_cpus=-1"),
            ({"num_gpus": "1"}, "num_gpus='1'"),
            ({"labels": {"a": 1}}, "labels="),
            ({"resources": {"a": "b"}}, "resources"),
        ],
    )
    def test_a_wrong_cluster_size_is_refused_before_anything_starts(
        self, size: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(InvalidArgument, match=complaint):
            App(name="play").run(**size)

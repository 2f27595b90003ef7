"""Child specs are checked on the line that writes them."""

import math
import pickle
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument
from supervisors.spec import ChildSpec


class Cook(Actor):
    def __init__(self, station: str, *, knives: int = 1) -> None:
        self.station, self.knives = station, knives


class Idler(Actor):
    pass


class Brigade(Actor):
    is_supervisor = True


def test_c08_defaults_are_those_of_otp() -> None:
    spec = ChildSpec("a", Idler)

    assert (spec.restart, spec.shutdown_time, spec.kind) == ("permanent", 5.0, "worker")
    assert (spec.args, dict(spec.kwargs), spec.start_timeout) == ((), {}, 60.0)


def test_c08_a_supervisor_has_all_the_time_to_stop() -> None:
    spec = ChildSpec("a", Brigade)

    assert (spec.kind, spec.shutdown_time) == ("supervisor", math.inf)
    assert ChildSpec("a", Brigade, shutdown=2).shutdown_time == 2


@pytest.mark.parametrize("shutdown", [0, 0.5, 10, math.inf, "brutal_kill"])
def test_an_explicit_shutdown_stays_as_it_is(shutdown: Any) -> None:
    assert ChildSpec("a", Idler, shutdown=shutdown).shutdown_time == shutdown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 7),
        ("actor_class", "Cook"),
        ("actor_class", int),
        ("restart", "prmanent"),
        ("restart", None),
        ("shutdown", -10),
        ("shutdown", math.nan),
        ("shutdown", True),
        ("shutdown", "brutal-kill"),
        ("start_timeout", 0),
        ("start_timeout", "60"),
        ("mailbox", 0),
        ("mailbox", 1.5),
        ("concurrency", 0),
        ("concurrency", True),
        ("args", "abc"),
        ("kwargs", [("a", 1)]),
    ],
)
def test_c09_a_wrong_field_is_refused_by_name_and_value(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"id": "a", "actor_class": Idler, field: value}

    with pytest.raises(InvalidArgument) as refusal:
        ChildSpec(**fields)

    assert f"ChildSpec {field}={value!r}" in str(refusal.value)


def test_c09_a_misspelt_word_gets_a_suggestion() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'permanent'"):
        ChildSpec("a", Idler, restart="prmanent")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("grill", 2), {}), (("grill",), {"forks": 1}), ((), {"knives": 2})]
)
def test_arguments_that_do_not_fit_the_class_are_refused(args: Any, kwargs: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"do not fit Cook: .*(missing|too many|unexpected)"):
        ChildSpec("a", Cook, args=args, kwargs=kwargs)


def test_arguments_that_fit_are_kept_as_they_were_when_the_spec_was_made() -> None:
    kwargs = {"knives": 2}
    spec = ChildSpec("a", Cook, args=("grill",), kwargs=kwargs)

    kwargs["knives"] = 3

    assert (spec.args, dict(spec.kwargs)) == (("grill",), {"knives": 2})


def test_a_spec_is_frozen_and_travels() -> None:
    spec = ChildSpec("a", Cook, args=("grill",), restart="transient", mailbox=10)

    with pytest.raises(AttributeError):
        spec.id = "b"  # type: ignore[misc]

    assert pickle.loads(pickle.dumps(spec)) == spec

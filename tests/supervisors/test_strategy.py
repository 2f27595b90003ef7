"""Which children stop and start, as tables."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidArgument
from supervisors.strategy import STRATEGIES, Plan, Strategy, plan

ORDER = ("a", "b", "c", "d")


def planned(
    strategy: Strategy, failed: str, *, stopped: Collection[str] = (), temporary: Collection[str] = ()
) -> Plan:
    running = {child for child in ORDER if child not in failed and child not in stopped}
    return plan(strategy, ORDER, set(failed), running=running, temporary=temporary)


def test_c18_one_for_one_touches_only_the_failed_child() -> None:
    assert planned("one_for_one", "b") == Plan(stops=(), removals=(), starts=("b",))


def test_c19_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() -> None:
    assert planned("one_for_all", "b") == Plan(("d", "c", "a"), (), ("a", "b", "c", "d"))


def test_c20_rest_for_one_leaves_those_before_alone() -> None:
    assert planned("rest_for_one", "b") == Plan(("d", "c"), (), ("b", "c", "d"))
    assert planned("rest_for_one", "d") == Plan((), (), ("d",))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", Plan((), (), ("b", "d"))),
        ("one_for_all", Plan(("c", "a"), (), ("a", "b", "c", "d"))),
        ("rest_for_one", Plan(("c",), (), ("b", "c", "d"))),
    ],
)
def test_children_that_fell_together_are_one_plan(strategy: Strategy, expected: Plan) -> None:
    assert planned(strategy, "db") == expected


def test_a_group_restart_revives_children_that_were_stopped() -> None:
    assert planned("one_for_all", "b", stopped="d") == Plan(("c", "a"), (), ("a", "b", "c", "d"))


def test_a_group_restart_removes_temporary_siblings() -> None:
    assert planned("one_for_all", "b", temporary="ad") == Plan(("d", "c", "a"), ("d", "a"), ("b", "c"))
    assert planned("rest_for_one", "b", temporary="ad") == Plan(("d", "c"), ("d",), ("b", "c"))
    assert planned("one_for_one", "b", temporary="ad") == Plan((), (), ("b",))


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"'none_for_one'.*did you mean"):
        planned("none_for_one", "b")  # type: ignore[arg-type]


@given(st.sampled_from(STRATEGIES), st.sets(st.sampled_from(ORDER)), st.sets(st.sampled_from(ORDER)))
def test_stops_and_starts_are_in_order_and_cover_the_failed(
    strategy: Strategy, failed: set[str], temporary: set[str]
) -> None:
    running = set(ORDER) - failed
    todo = plan(strategy, ORDER, failed, running=running, temporary=temporary - failed)

    assert list(todo.starts) == sorted(todo.starts)
    assert list(todo.stops) == sorted(todo.stops, reverse=True)
    assert failed <= set(todo.starts)
    assert not set(todo.removals) & set(todo.starts)
    assert set(todo.stops) <= running
    assert set(todo.starts) & running <= set(todo.stops)

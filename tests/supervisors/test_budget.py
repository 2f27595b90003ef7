"""The restart window, OTP's way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidArgument
from supervisors.budget import Attempt, RestartBudget, RestartWindow


def test_as_many_restarts_as_the_intensity_says_are_within() -> None:
    window = RestartWindow(intensity=2, period=5)

    assert [window.count(0), window.count(1), window.count(2)] == [True, True, False]
    assert window.restarts == 3


def test_c25_intensity_zero_allows_none() -> None:
    assert not RestartWindow(intensity=0, period=5).count(0)


def test_c24_old_restarts_are_forgotten() -> None:
    window = RestartWindow(intensity=1, period=1)

    assert all(window.count(at) for at in (0, 2.1, 4.2, 6.3))


def test_the_bound_of_the_period_is_inclusive() -> None:
    assert not _count(1, 5, [0, 5.0])
    assert _count(1, 5, [0, 5.001])


def _count(intensity: int, period: float, times: list[float]) -> bool:
    window = RestartWindow(intensity, period)
    return [window.count(at) for at in times][-1]


@given(
    intensity=st.integers(0, 4),
    period=st.integers(1, 10),
    gaps=st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_it_agrees_with_a_window_that_keeps_everything(intensity: int, period: int, gaps: list[int]) -> None:
    window, now, times = RestartWindow(intensity, period), 0, []
    for gap in gaps:
        now += gap
        times.append(now)
        kept = [at for at in times if at >= now - period]

        assert window.count(now) == (len(kept) <= intensity)


def test_an_open_count_can_be_taken_back() -> None:
    window = RestartWindow(intensity=1, period=5)
    window.count(0, owner="a")
    window.count(1, owner="b", is_open=True)

    assert window.is_over(1)
    assert window.take_back("a") is None
    assert window.take_back("b") == Attempt(1, "b", is_open=True)
    assert not window.is_over(1)
    assert window.take_back("b") is None
    assert window.restarts == 1


def test_the_oldest_open_count_of_an_owner_is_the_one_taken_back() -> None:
    window = RestartWindow(intensity=5, period=10)
    for at in (1, 2):
        window.count(at, owner="a", is_open=True)

    assert [window.take_back("a"), window.take_back("a")] == [
        Attempt(1, "a", is_open=True),
        Attempt(2, "a", is_open=True),
    ]


def test_what_is_taken_back_does_not_hide_what_came_before_it() -> None:
    """A window that keeps only what it needs must keep enough for the day an open count is taken back."""
    window = RestartWindow(intensity=1, period=5)
    for at in (0, 1):
        window.count(at)
    for at in (2, 3):
        window.count(at, owner="a", is_open=True)

    window.take_back("a")
    window.take_back("a")

    assert window.is_over(3)


def test_a_count_is_entered_where_it_belongs_in_time() -> None:
    window = RestartWindow(intensity=1, period=5)
    window.count(4)
    window.enter(Attempt(0))

    assert window.is_over(5)
    assert not window.is_over(5.5)


class TestBudget:
    def test_a_number_counts_all_causes_together(self) -> None:
        budget = RestartBudget(1, 5)

        assert budget.window("error") is budget.window("oom")

    def test_a_mapping_counts_each_for_itself(self) -> None:
        budget = RestartBudget({"error": 2, "oom": 0}, 5)

        assert [budget.window(kind).intensity for kind in ("error", "oom", "killed")] == [2, 0, 3]
        assert budget.window("error") is budget.window("error")

    @pytest.mark.parametrize(
        ("intensity", "complaint"),
        [
            ({}, r"intensity=\{\} names no kind of exit"),
            ({"eror": 3}, "names 'eror', which is no kind of exit; did you mean 'error'"),
            ({7: 3}, "names 7, which is no kind of exit"),
            ({"node_lost": 3}, "names 'node_lost', which never counts"),
            ({"oom": -1}, r"intensity\['oom'\]=-1 is not a whole number"),
            ({"oom": True}, r"intensity\['oom'\]=True"),
            (2.5, "intensity=2.5 is not a whole number"),
            (float("inf"), "intensity=inf"),
            (None, "intensity=None"),
            ("3", "intensity='3'"),
        ],
    )
    def test_a_wrong_intensity_is_refused(self, intensity: Any, complaint: str) -> None:
        with pytest.raises(InvalidArgument, match=complaint):
            RestartBudget(intensity, 5)


def test_waiting_ages_only_the_windows_of_others() -> None:
    """Whoever backs off is not forgiven for it."""
    window = RestartWindow(intensity=1, period=5)
    window.count(0, owner="a")

    window.postpone("a", 8, now=10)

    assert not window.count(10, owner="a")

    window = RestartWindow(intensity=1, period=5)
    window.count(0, owner="b")
    window.postpone("a", 8, now=10)
    assert window.count(10, owner="a")


def test_a_postponed_attempt_is_never_in_the_future() -> None:
    window = RestartWindow(intensity=1, period=5)
    window.count(0, owner="a")

    window.postpone("a", 100, now=10)

    assert window.count(16)


def test_it_knows_whether_a_life_inside_it_did_any_good() -> None:
    window = RestartWindow(intensity=3, period=5)
    window.count(0, handled=2)
    window.count(4)

    assert window.has_handled
    window.count(6)
    assert not window.has_handled


def test_a_life_that_worked_is_remembered_though_others_fill_the_window() -> None:
    window = RestartWindow(intensity=1, period=5)
    window.count(0, handled=2)
    for at in (1, 2, 3):
        window.count(at)

    assert window.has_handled
    window.count(6)
    assert not window.has_handled


@pytest.mark.parametrize(("intensity", "period"), [(-1, 5), (1.5, 5), (True, 5), (3, 0), (3, -1)])
def test_wrong_flags_are_refused(intensity: Any, period: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"RestartWindow (intensity|period)="):
        RestartWindow(intensity, period)


def test_a_life_that_worked_counts_as_long_as_the_period_however_many_failed_starts_follow() -> None:
    """A service whose dependency is away for a second has not failed for good."""
    window = RestartWindow(3, 5.0)
    window.count(1.0, handled=7)
    for _ in range(10):
        window.count(1.0)

    assert window.is_over(1.0)
    assert window.has_handled
    window.count(6.1)
    assert not window.has_handled


def test_a_window_without_attempts_has_handled_nothing() -> None:
    assert not RestartWindow(3, 5.0).has_handled

"""Which members are avoided because they keep failing, for how long, and how they come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisors.outliers import FAILURES, LONGEST, SHORTEST, Outliers

A, B, C = "kitchen/0", "kitchen/1", "kitchen/2"


def fail(outliers: Outliers, member: str = A, *, times: int = FAILURES, now: float = 0.0) -> None:
    """One failure after the other, each of a call that was sent after the last one had failed."""
    for _ in range(times):
        outliers.failed(member, outliers.incidents(member), now, crowd=3)


def succeed(outliers: Outliers, member: str = A) -> None:
    outliers.succeeded(member, outliers.incidents(member))


def test_five_failures_in_a_row_are_too_many() -> None:
    outliers = Outliers()

    fail(outliers, times=FAILURES - 1)
    assert outliers.avoided == frozenset()
    fail(outliers, times=1)

    assert outliers.avoided == {A}


def test_a_success_begins_a_new_row() -> None:
    outliers = Outliers()
    fail(outliers, times=FAILURES - 1)

    succeed(outliers)
    assert A not in outliers.records
    fail(outliers, times=FAILURES - 1)

    assert outliers.avoided == frozenset()


def test_failures_of_calls_that_were_under_way_together_are_one() -> None:
    """A process that dies takes a thousand calls with it."""
    outliers = Outliers()
    known = outliers.incidents(A)

    for _ in range(1000):
        outliers.failed(A, known, 0.0, crowd=3)

    assert outliers.avoided == frozenset()
    assert outliers.incidents(A) == 1


def test_an_answer_to_a_call_sent_before_the_last_failure_proves_nothing() -> None:
    outliers = Outliers()
    known = outliers.incidents(A)
    fail(outliers)

    outliers.succeeded(A, known)

    assert outliers.avoided == {A}


def test_after_its_time_one_call_probes_it() -> None:
    outliers = Outliers()
    fail(outliers)

    assert outliers.probe({A, B, C}, SHORTEST - 0.01) is None
    assert outliers.probe({B, C}, SHORTEST) is None
    assert outliers.probe({A, B, C}, SHORTEST) == A
    assert outliers.probe({A, B, C}, SHORTEST) is None


def test_a_probe_that_is_answered_brings_it_back() -> None:
    outliers = Outliers()
    fail(outliers)
    outliers.probe({A}, SHORTEST)

    succeed(outliers)

    assert outliers.avoided == frozenset()


def test_a_probe_that_never_returns_is_followed_by_another() -> None:
    outliers = Outliers()
    fail(outliers)
    outliers.probe({A}, SHORTEST)

    assert outliers.probe({A}, 2 * SHORTEST) == A


def test_each_failed_probe_doubles_the_time_up_to_the_limit() -> None:
    outliers, now, waits = Outliers(), 0.0, []
    fail(outliers)
    for _ in range(7):
        began_at = now
        while outliers.probe({A}, now) is None:
            now += SHORTEST
        waits.append(now - began_at)
        fail(outliers, times=1, now=now)

    assert waits == [1, 2, 4, 8, 16, LONGEST, LONGEST]


def test_a_failure_of_a_call_that_had_nowhere_else_to_go_is_no_probe() -> None:
    """One with a key goes to its member however often that has failed."""
    outliers = Outliers()
    fail(outliers)

    fail(outliers, now=SHORTEST / 2)

    assert outliers.probe({A}, SHORTEST) == A


@pytest.mark.parametrize(("well_for", "wait"), [(0.5, 2 * SHORTEST), (60.0, SHORTEST)])
def test_who_was_well_for_long_begins_anew(well_for: float, wait: float) -> None:
    outliers = Outliers()
    fail(outliers)
    outliers.probe({A}, SHORTEST)
    succeed(outliers)

    fail(outliers, now=SHORTEST + well_for)

    assert outliers.probe({A}, SHORTEST + well_for + wait - 0.01) is None
    assert outliers.probe({A}, SHORTEST + well_for + wait) == A


def test_a_new_life_is_probed_at_once() -> None:
    outliers = Outliers()
    fail(outliers)

    outliers.renewed(A, 0.1)

    assert outliers.probe({A}, 0.1) == A


def test_who_left_is_forgotten() -> None:
    outliers = Outliers()
    fail(outliers)

    outliers.forget_others({B})

    assert outliers.avoided == frozenset()
    assert outliers.incidents(A) == 0


@pytest.mark.parametrize(("crowd", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)])
def test_at_most_half_are_avoided(crowd: int, most: int) -> None:
    outliers = Outliers()
    for number in range(crowd):
        for _ in range(FAILURES):
            member = f"kitchen/{number}"
            outliers.failed(member, outliers.incidents(member), 0.0, crowd)

    assert len(outliers.avoided) == most


MEMBERS = [f"kitchen/{number}" for number in range(6)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(MEMBERS),
            st.sampled_from(["failed", "succeeded", "late", "probe", "renewed", "left"]),
            st.floats(0, 10),
        )
    )
)
def test_whatever_happens_somebody_is_left_and_nobody_is_avoided_for_ever(
    story: list[tuple[str, str, float]],
) -> None:
    outliers, now = Outliers(), 0.0
    for member, what, seconds in story:
        now += seconds
        match what:
            case "failed":
                outliers.failed(member, outliers.incidents(member), now, len(MEMBERS))
            case "late":
                outliers.failed(member, outliers.incidents(member) - 1, now, len(MEMBERS))
            case "succeeded":
                succeed(outliers, member)
            case "probe":
                outliers.probe(set(MEMBERS), now)
            case "renewed":
                outliers.renewed(member, now)
            case "left":
                outliers.forget_others(set(MEMBERS) - {member})
        assert 2 * len(outliers.avoided) <= len(MEMBERS)

    for _ in range(len(outliers.avoided)):
        probed = outliers.probe(set(MEMBERS), now + LONGEST)
        assert probed is not None
        succeed(outliers, probed)
    assert outliers.avoided == frozenset()

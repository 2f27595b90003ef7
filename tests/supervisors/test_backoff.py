"""Waits that grow, stay within bounds, and never overflow."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidArgument
from supervisors.backoff import Backoff


def test_c52_waits_double_up_to_the_maximum() -> None:
    backoff = Backoff(initial=0.1, factor=2, maximum=0.8, jitter=0)

    assert [backoff.delay(attempt) for attempt in range(1, 6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.8])


def test_jitter_adds_at_most_its_fraction() -> None:
    backoff = Backoff(initial=1, maximum=8, jitter=0.5)

    assert backoff.delay(1, lambda: 0.0) == 1
    assert backoff.delay(1, lambda: 0.5) == pytest.approx(1.25)
    assert backoff.delay(9, lambda: 1.0) == pytest.approx(12)


@given(
    attempt=st.integers(min_value=1, max_value=10**400),
    initial=st.floats(0.001, 10),
    factor=st.floats(1, 100),
    spread=st.floats(1, 1000),
    jitter=st.floats(0, 1),
    luck=st.floats(0, 1),
)
def test_every_delay_is_within_the_documented_bounds(
    attempt: int, initial: float, factor: float, spread: float, jitter: float, luck: float
) -> None:
    backoff = Backoff(initial, factor, initial * spread, jitter)

    delay = backoff.delay(attempt, lambda: luck)

    assert math.isfinite(delay)
    assert initial * (1 - 1e-9) <= delay <= backoff.maximum * (1 + jitter) * (1 + 1e-9)


def test_a_row_of_waits_ends_after_half_the_range_of_good_running() -> None:
    assert Backoff(initial=1, maximum=9).reset_after == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"initial": 0},
        {"initial": math.nan},
        {"factor": 0.5},
        {"factor": "2"},
        {"maximum": 0.1},
        {"maximum": math.inf},
        {"jitter": -0.1},
        {"jitter": 1.5},
    ],
)
def test_wrong_numbers_are_refused_by_name_and_value(fields: dict[str, Any]) -> None:
    [(field, value)] = fields.items()

    with pytest.raises(InvalidArgument) as refusal:
        Backoff(**fields)

    assert f"Backoff {field}={value!r}" in str(refusal.value)


@pytest.mark.parametrize("attempt", [0, -1, 1.5])
def test_attempts_count_from_one(attempt: Any) -> None:
    with pytest.raises(InvalidArgument, match="attempt"):
        Backoff().delay(attempt)

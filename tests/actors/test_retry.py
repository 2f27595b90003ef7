"""Whether and when a call is sent again: pure functions of counts and chance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.retry import (
    FIRST_WAIT,
    LONGEST_WAIT,
    MAX_ATTEMPTS,
    MAX_TOKENS,
    TOKEN_RATIO,
    RetryBudget,
    wait_before,
)


@given(st.integers(2, 40), st.floats(0, 1, exclude_max=True))
def test_a_wait_has_full_jitter_below_a_ceiling_that_doubles(attempt: int, chance: float) -> None:
    ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 2))

    assert wait_before(attempt, lambda: 0.0) == 0.0
    assert wait_before(attempt, lambda: chance) == chance * ceiling


def test_the_numbers_are_within_those_of_grpc() -> None:
    """A6: at most 5 attempts, 1,000 tokens and a ratio of at least 0.001."""
    assert MAX_ATTEMPTS <= 5
    assert 0 < MAX_TOKENS <= 1000
    assert 0.001 <= TOKEN_RATIO <= 1


@given(st.lists(st.booleans(), max_size=3000))
def test_retries_are_bounded_by_what_succeeds(outcomes: list[bool]) -> None:
    """However calls and retries end: half of the tokens, and one for each ten that were answered."""
    budget, retries = RetryBudget(), 0
    for succeeds in outcomes:
        if succeeds:
            budget.succeeded()
        else:
            budget.failed()
            retries += budget.allows_retries

    assert retries <= MAX_TOKENS / 2 + TOKEN_RATIO * sum(outcomes)


def test_where_everything_fails_retries_end_and_come_back_with_successes() -> None:
    budget = RetryBudget()

    for _ in range(int(MAX_TOKENS)):
        budget.failed()
    assert not budget.allows_retries
    for _ in range(int(MAX_TOKENS / 2 / TOKEN_RATIO) + 20):
        budget.succeeded()

    assert budget.allows_retries

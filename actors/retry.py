"""
Retries: whether a call that may have run is sent again, and when. Pure; chance comes in as an argument.

gRPC's rules (A6): at most 5 attempts, and a budget of tokens for each service. A failure takes a
token, a success gives a tenth of one back, and there are no retries while no more than half are
left. Of the 1,000 that A6 allows at most: a process that dies takes hundreds of calls with it, and
that is one failure. The waits have full jitter, so calls that failed together do not return
together.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable

MAX_ATTEMPTS = 5
"""The first one included."""
FIRST_WAIT = 0.1
LONGEST_WAIT = 1.0
"""Seconds below which the first wait lies, and all others."""

MAX_TOKENS = 1000.0
TOKEN_RATIO = 0.1

_BUDGETS = 1000
"""Services and actors whose failures are remembered apart."""


def wait_before(attempt: int, random: Callable[[], float] = _random.random) -> float:
    """Seconds to wait before attempt number *attempt*, the first retry being 2; *random* gives [0, 1)."""
    ceiling: float = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 2))
    return random() * ceiling


class RetryBudget:
    """The tokens of one service, as one process has seen it. Any thread: a lost update is a token."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = MAX_TOKENS

    def succeeded(self) -> None:
        """A call that could have been retried was answered."""
        if self._tokens < MAX_TOKENS:
            self._tokens = min(MAX_TOKENS, self._tokens + TOKEN_RATIO)

    def failed(self) -> None:
        """One failed; whether or not it is sent again."""
        self._tokens = max(0.0, self._tokens - 1.0)

    @property
    def allows_retries(self) -> bool:
        """False while too much fails."""
        return self._tokens > MAX_TOKENS / 2


class RetryBudgets:
    """The budgets of those that one process calls."""

    __slots__ = ("_by_owner",)

    def __init__(self) -> None:
        self._by_owner: dict[str, RetryBudget] = {}

    def of(self, name: str) -> RetryBudget:
        """The budget of the service that *name* is a member of, or of the actor itself."""
        owner = name.partition("/")[0]
        budget = self._by_owner.get(owner)
        if budget is None:
            if len(self._by_owner) >= _BUDGETS:
                self._by_owner.clear()
            budget = self._by_owner[owner] = RetryBudget()
        return budget

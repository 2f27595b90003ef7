"""Mailboxes: taking many messages at once is taking them one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors._mailbox import Mailbox
from actors._message import Message, Origin

CALLERS = [Origin(name, 1, 1, "memory://there") for name in ("ada", "bo", "cleo")]


def messages(caller: int, count: int) -> list[Message]:
    return [Message("cook", (), {}, None, CALLERS[caller]) for _ in range(count)]


runs = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=12)


@given(runs=runs, limit=st.integers(1, 12), taken_between=st.lists(st.integers(0, 4), max_size=12))
def test_a_run_is_taken_as_its_messages_would_be_one_by_one(
    runs: list[tuple[int, int]], limit: int, taken_between: list[int]
) -> None:
    together, apart = Mailbox(limit), Mailbox(limit)
    takes = iter(taken_between)
    for caller, count in runs:
        run = messages(caller, count)
        expected = 0
        for message in run:
            if not apart.put(message):
                break
            expected += 1

        assert together.put_all(run) == expected
        for _ in range(next(takes, 0)):
            assert together.take() is apart.take()
    assert len(together) == len(apart)
    left: list[Any] = together.clear()
    assert left == apart.clear()

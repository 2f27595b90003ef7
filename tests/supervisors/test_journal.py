"""The journal and the throttle: a storm costs a bounded number of lines, and its end is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.throttle import Throttle
from supervisors.journal import Journal


async def entries(journal: Journal) -> list[dict[str, Any]]:
    return [event async for event in journal.read(False, 10_000)]


def test_the_first_go_out_then_one_a_second_with_the_number_left_out() -> None:
    throttle = Throttle(burst=5, period=1.0)

    out = [throttle.admit("a", n / 100) for n in range(300)]

    assert out[:5] == [0] * 5
    assert len([left for left in out if left is not None]) == 5 + 2
    assert sum(left for left in out if left is not None) + 7 <= 300


def test_a_quiet_time_earns_the_burst_back() -> None:
    throttle = Throttle(burst=2, period=1.0)
    for _ in range(5):
        throttle.admit("a", 0.0)

    assert [throttle.admit("a", 10.0) for _ in range(3)] == [3, 0, None]


def test_kinds_do_not_count_for_each_other() -> None:
    throttle = Throttle(burst=1)

    assert [throttle.admit(kind, 0.0) for kind in "abab"] == [0, 0, None, None]


@given(st.lists(st.integers(0, 5000), max_size=2000))
def test_memory_is_bounded(kinds: list[int]) -> None:
    throttle = Throttle()
    for place, kind in enumerate(kinds):
        throttle.admit(kind, place * 0.1)

    assert len(throttle._bucket_by_kind) <= 1001


async def test_a_storm_of_one_member_is_a_few_lines_and_its_last_word(clock: Any) -> None:
    journal = Journal(clock)
    for restarts in range(1000):
        journal.note("member.restarting", member="kitchen/0", restarts=restarts)
    journal.note("member.restarting", member="kitchen/1", restarts=1)

    assert [event["restarts"] for event in await entries(journal)] == [0, 1, 2, 3, 4, 1]
    await clock.elapse(1)
    last = (await entries(journal))[-1]
    assert (last["restarts"], last["left_out"]) == (999, 994)
    await clock.elapse(100)
    assert len(await entries(journal)) == 7


async def test_processes_that_die_with_the_same_members_are_one_storm(clock: Any) -> None:
    journal = Journal(clock)
    for number in range(20):
        journal.note("host.died", child=f"host-{number}", members=["kitchen/0"], reason="killed")

    assert len(await entries(journal)) == 5

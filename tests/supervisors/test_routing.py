"""Which member takes a call: pure functions of views and counts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from supervisors import routing


@dataclass(frozen=True)
class Member:
    name: str
    state: str = "running"
    address: str = "ipc:///here"


def members(count: int) -> list[Member]:
    return [Member(f"kitchen/{number}") for number in range(count)]


def test_the_member_with_the_fewest_calls_is_taken() -> None:
    busy = {"kitchen/0": 2, "kitchen/1": 1, "kitchen/2": 3}

    assert {routing.least_busy(members(3), busy, turn).name for turn in range(9)} == {"kitchen/1"}


def test_equals_take_turns() -> None:
    taken = [routing.least_busy(members(3), {}, turn).name for turn in range(6)]

    assert sorted(taken) == sorted(["kitchen/0", "kitchen/1", "kitchen/2"] * 2)


def test_among_many_the_better_of_two_is_taken() -> None:
    """Never the busiest of all, and none is left out for good."""
    many = members(50)
    busy = {"kitchen/7": 10}

    taken = {routing.least_busy(many, busy, turn).name for turn in range(3000)}

    assert "kitchen/7" not in taken
    assert len(taken) > 40


def test_who_declined_a_message_is_not_asked_again_in_the_same_process() -> None:
    member = Member("kitchen/0")

    assert routing.is_usable(member, ())
    assert not routing.is_usable(member, [("kitchen/0", "ipc:///here")])
    assert routing.is_usable(member, [("kitchen/0", "ipc:///elsewhere")])


def test_only_running_members_are_used() -> None:
    states = ["starting", "running", "restarting", "backing_off", "draining", "pending", "stopped"]

    assert [state for state in states if routing.is_usable(Member("kitchen/0", state), ())] == ["running"]


def test_round_robin_takes_them_in_turn() -> None:
    assert [routing.round_robin(members(3), turn).name[-1] for turn in range(6)] == list("012012")


@given(st.integers(9, 100), st.integers())
def test_the_load_of_many_stays_even(count: int, seed: int) -> None:
    """Each has 4 calls in the mean; the busiest of 100 would have 10 or more if one were taken blindly."""
    many, busy, random = members(count), dict[str, int](), Random(seed)
    for turn in range(4 * count):
        taken = routing.least_busy(many, busy, turn, random.random)
        busy[taken.name] = busy.get(taken.name, 0) + 1

    assert max(busy.values()) <= 7


def test_why_nobody_can_take_a_call_is_said_in_words() -> None:
    waiting = [Member("kitchen/0", "pending"), Member("kitchen/1", "backing_off")]

    assert routing.nobody("kitchen", []) == "kitchen has no members: its size is 0"
    assert routing.nobody("kitchen", waiting) == "no member of kitchen is running (backing_off, pending)"

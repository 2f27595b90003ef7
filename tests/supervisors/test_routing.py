"""Which member takes a call: pure functions of views and counts."""

from __future__ import annotations

from dataclasses import dataclass

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


def test_a_key_belongs_to_nobody_where_nobody_is() -> None:
    assert routing.by_key([], "table 7") is None


@given(st.text(), st.integers(1, 20), st.randoms())
def test_a_key_means_the_same_member_in_whatever_order(key: str, count: int, random: object) -> None:
    shuffled = members(count)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert routing.by_key(shuffled, key) == routing.by_key(members(count), key)


@given(st.integers(1, 12))
def test_a_new_member_takes_keys_from_others_and_moves_no_other(count: int) -> None:
    for key in map(str, range(60)):
        before, after = routing.by_key(members(count), key), routing.by_key(members(count + 1), key)
        assert after == before or after == Member(f"kitchen/{count}")


def test_keys_are_spread_evenly() -> None:
    owners = [routing.by_key(members(4), f"key {n}") for n in range(4000)]

    assert all(800 < owners.count(member) < 1200 for member in members(4))


def test_a_key_stays_with_a_member_that_is_away_but_not_with_one_that_leaves() -> None:
    key = next(k for k in map(str, range(99)) if routing.by_key(members(3), k) == Member("kitchen/1"))
    away = [Member("kitchen/0"), Member("kitchen/1", "restarting"), Member("kitchen/2")]
    leaving = [Member("kitchen/0"), Member("kitchen/1", "draining"), Member("kitchen/2")]

    assert routing.by_key(away, key) == away[1]
    assert routing.by_key(leaving, key) == routing.by_key([leaving[0], leaving[2]], key)


def test_why_nobody_can_take_a_call_is_said_in_words() -> None:
    waiting = [Member("kitchen/0", "pending"), Member("kitchen/1", "backing_off")]

    assert routing.nobody("kitchen", []) == "kitchen has no members: its size is 0"
    assert routing.nobody("kitchen", waiting) == "no member of kitchen is running (backing_off, pending)"

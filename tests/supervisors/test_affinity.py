"""Which member a key belongs to, and what moves when the membership changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisors.affinity import Affinity, jump

PLACES = st.integers(1, 60)
KEYS = [f"table {number}" for number in range(60)]


@dataclass(frozen=True)
class Member:
    name: str
    state: str = "running"


def crew(numbers: Iterable[int], places: int = 0) -> Affinity[Member]:
    return Affinity([Member(f"kitchen/{number}") for number in numbers], places)


def owners(numbers: Iterable[int], places: int = 0) -> dict[str, int]:
    affinity, found = crew(numbers, places), {}
    for key in KEYS:
        owner = affinity.owner(key)
        assert owner is not None
        found[key] = int(owner.name.partition("/")[2])
    return found


@pytest.mark.parametrize(
    ("seed", "buckets", "bucket"),
    [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_it_is_the_jump_hash_that_others_have(seed: int, buckets: int, bucket: int) -> None:
    """Values of Guava's and of other implementations' tests."""
    assert jump(seed, buckets) == bucket


def test_a_key_belongs_to_nobody_where_nobody_is() -> None:
    assert Affinity([]).owner("table 7") is None
    assert Affinity([Member("kitchen/0", "draining")]).owner("table 7") is None


@given(PLACES, st.text(), st.randoms())
def test_a_key_means_the_same_member_in_whatever_order(places: int, key: str, random: object) -> None:
    numbers = list(range(places))
    random.shuffle(numbers)  # type: ignore[attr-defined]

    assert crew(numbers).owner(key) == crew(range(places)).owner(key)


def moved_to(before: dict[str, int], after: dict[str, int]) -> set[int]:
    return {after[key] for key in KEYS if after[key] != before[key]}


@given(PLACES, st.sets(st.integers(0, 58)))
def test_a_new_member_takes_keys_from_others_and_moves_no_other(places: int, ended: set[int]) -> None:
    """Read backwards: one that leaves gives its keys away and moves no other. Some have ended for good."""
    there = set(range(places)) - ended or {0}

    before, after = owners(there, places), owners({*there, places}, places + 1)

    assert moved_to(before, after) <= {places}


@given(PLACES, st.sets(st.integers(0, 58)), st.integers(0, 60))
def test_keys_of_a_member_that_ended_for_good_alone_move(places: int, ended: set[int], one: int) -> None:
    """And back, should it be started again."""
    there = set(range(places)) - ended - {one % places} or {(one + 1) % places}

    before, after = owners(there, places), owners({*there, one % places}, places)

    assert moved_to(before, after) <= {one % places}


def test_a_new_member_takes_its_share_and_no_more() -> None:
    before, after = crew(range(9)), crew(range(10))
    keys = [f"key {number}" for number in range(5000)]

    moved = sum(before.owner(key) != after.owner(key) for key in keys)

    assert 400 < moved < 600


@pytest.mark.parametrize("missing", [set(), {3}, {0, 5, 6}])
def test_keys_are_spread_evenly(missing: set[int]) -> None:
    """Also those of a number that nobody has."""
    members = [Member(f"kitchen/{number}") for number in set(range(8)) - missing]
    affinity = Affinity(members)
    owned = [affinity.owner(f"key {number}") for number in range(8000)]

    fair = 8000 / len(members)
    assert all(0.85 * fair < owned.count(member) < 1.15 * fair for member in members)


def test_few_of_many_numbers_are_found_all_the_same() -> None:
    found = set(owners({7, 990}).values())

    assert found == {7, 990}


def test_a_key_stays_with_a_member_that_is_away_but_not_with_one_that_leaves() -> None:
    key = next(key for key in KEYS if owners({0, 1, 2})[key] == 1)
    states = {"kitchen/0": "running", "kitchen/1": "restarting", "kitchen/2": "backing_off"}
    away = [Member(name, state) for name, state in states.items()]
    leaving = [Member("kitchen/0"), Member("kitchen/1", "draining"), Member("kitchen/2")]

    assert Affinity(away).owner(key) == away[1]
    assert Affinity(leaving).owner(key) == crew({0, 2}).owner(key)


def test_every_process_finds_the_same_member() -> None:
    """Python's own hashes differ from process to process."""
    program = """
from tests.supervisors.test_affinity import owners
print(list(owners(set(range(9))).values()))
"""
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
            },
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert told == {f"{list(owners(set(range(9))).values())}\n"}

"""Rows and sweeps say nothing that cannot be run: actions exist and take what they get, keys are unique."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.benchmarks.rows import ROWS, Contestant, Row
from tests.benchmarks.sweeps import SWEEPS, Point, Sweep

EVERYTHING: tuple[Row | Sweep, ...] = (*ROWS, *SWEEPS)


@cache
def actions(peer: str) -> dict[str, list[str]]:
    """By name, the parameters of a peer's methods; read, not imported, for its package may be missing."""
    tree = ast.parse(Path(__file__).with_name(f"peer_{peer}.py").read_text())
    owner = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.lower() == peer)
    return {
        method.name: [argument.arg for argument in method.args.args[1:]]
        for method in owner.body
        if isinstance(method, ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_the_actions_of_a_row_take_its_arguments(row: Row) -> None:
    for contestant in row.contestants:
        assert len(actions(contestant.peer)[contestant.action]) == 1 + len(contestant.arguments)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.key)
def test_the_actions_of_a_sweep_take_the_point(sweep: Sweep) -> None:
    for contestant in sweep.contestants:
        assert len(actions(contestant.peer)[contestant.action]) == 2 + len(contestant.arguments)


def test_keys_are_unique_also_between_rows_and_sweeps() -> None:
    keys = [each.key for each in EVERYTHING]

    assert len(set(keys)) == len(keys)


def test_labels_are_unique_in_each() -> None:
    for each in EVERYTHING:
        labels = [contestant.label for contestant in each.contestants]
        assert len(set(labels)) == len(labels)


def test_the_points_of_a_sweep_grow() -> None:
    for sweep in SWEEPS:
        at = [point.at for point in sweep.points]
        assert at == sorted(set(at))


def test_quick_samples_of_a_sweep_are_smaller_and_never_empty() -> None:
    sweep = Sweep("s", "s", "x", "µs", (Contestant("a", "a", "a"),), (Point(1, 500), Point(2, 3)))

    assert [sweep.count_at(point, is_quick=True) for point in sweep.points] == [50, 1]
    assert [sweep.count_at(point, is_quick=False) for point in sweep.points] == [500, 3]

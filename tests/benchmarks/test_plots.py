"""What the plots show: how far ahead, by which target, which points; and that they can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import plots, report
from tests.benchmarks.rows import Contestant, Row, Target
from tests.benchmarks.sweeps import Point, Sweep

OURS = Contestant("understudy", "understudy", "ask")
RAY = (Contestant("ray, await", "ray", "ask_await"), Contestant("ray, get", "ray", "ask_get"))
SAMPLES = {"understudy": [100.0], "ray, await": [500.0], "ray, get": [250.0]}


def beside(row: Row, samples: dict[str, list[float]]) -> list[plots.Advantage]:
    return plots.advantages([report.result(row, samples)])


def test_a_time_is_good_when_it_is_short() -> None:
    row = Row("r", "ask", "µs", (OURS, *RAY), (Target("understudy", "ratio at most", 0.5, "ray"),))

    assert beside(row, SAMPLES) == [plots.Advantage("ask", 2.5, 2.0)]


def test_a_rate_is_good_when_it_is_high() -> None:
    """And the best of Ray's counts."""
    row = Row("r", "ask", "calls/s", (OURS, *RAY), (Target("understudy", "ratio at least", 3, "ray"),))
    found = beside(row, {**SAMPLES, "understudy": [1000.0]})

    assert found == [plots.Advantage("ask", 2.0, 3.0)]
    assert not found[0].is_met


def test_the_contestant_that_has_the_target_is_shown() -> None:
    other = Contestant("understudy, replies", "understudy", "replies")
    row = Row("r", "ask", "calls/s", (OURS, other, *RAY), (Target(other.label, "ratio at least", 3, "ray"),))

    assert beside(row, {**SAMPLES, other.label: [2000.0]}) == [plots.Advantage("ask", 4.0, 3.0)]


def test_a_target_against_one_of_rays_is_judged_by_that_one() -> None:
    row = Row("r", "up", "s", (OURS, *RAY), (Target("understudy", "above by at most", 1, "ray, await"),))

    assert beside(row, SAMPLES) == [plots.Advantage("up", 5.0, None)]


def test_targets_against_others_are_not_shown() -> None:
    row = Row("r", "ask", "µs", (OURS, *RAY), (Target("understudy", "ratio at most", 0.1, "pynng"),))

    assert beside(row, SAMPLES) == [plots.Advantage("ask", 2.5, None)]


def test_rows_without_ray_or_without_samples_are_left_out() -> None:
    alone = Row("r", "ask", "µs", (OURS,), (Target("understudy", "at most", 5),))
    row = Row("r", "ask", "µs", (OURS, *RAY))

    assert beside(alone, {"understudy": [1.0]}) == []
    assert beside(row, {"understudy": [], "ray, await": [1.0], "ray, get": []}) == []
    assert beside(row, {"understudy": [1.0], "ray, await": [], "ray, get": []}) == []


SWEEP = Sweep("s", "Sizes", "bytes of a message", "µs", (OURS, RAY[0]), (Point(64, 1), Point(2_000_000, 1)))
SWEPT = {"understudy": [[3.0, 1.0, 2.0], [9.0]], "ray, await": [[5.0], []]}


def test_points_without_samples_are_left_out() -> None:
    found = plots.lines(report.sweep_result(SWEEP, SWEPT))

    assert found == [
        plots.Line("understudy", (64.0, 2_000_000.0), (2.0, 9.0), (1.0, 9.0), (3.0, 9.0)),
        plots.Line("ray, await", (64.0,), (5.0,), (5.0,), (5.0,)),
    ]


def test_a_contestant_without_any_sample_has_no_line() -> None:
    assert plots.lines(report.sweep_result(SWEEP, {"understudy": [[], []], "ray, await": [[], []]})) == []


@pytest.mark.parametrize(
    ("at", "is_bytes", "text"),
    [(64, True, "64 B"), (256_000, True, "256 KB"), (1_500_000, True, "1.5 MB"), (1000, False, "1,000")],
)
def test_points_in_words(at: float, is_bytes: bool, text: str) -> None:
    assert plots.words(at, is_bytes=is_bytes) == text


def run_of(rows: list[Any], sweeps: list[Any]) -> dict[str, Any]:
    machine = {"cores": 2, "python": "3.11", "versions": {"ray": "2.60"}, "at": "2026-01-01 00:00:00"}
    return {"machine": machine, "rounds": 5, "quick": False, "rows": rows, "sweeps": sweeps}


def test_a_run_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))  # its cache; else in HOME
    pytest.importorskip("matplotlib")
    row = Row("r", "ask", "µs", (OURS, *RAY), (Target("understudy", "ratio at most", 0.5, "ray"),))
    found = run_of([report.result(row, SAMPLES)], [report.sweep_result(SWEEP, SWEPT)])

    drawn = plots.draw(found, tmp_path)

    assert [path.name for path in drawn] == ["ratios.png", "sweeps.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_what_a_run_has_not_is_not_drawn(tmp_path: Path) -> None:
    assert plots.draw(run_of([], []), tmp_path) == []
    assert list(tmp_path.iterdir()) == []

"""The report's arithmetic: medians, whose best counts, targets met and missed, and the table."""

from __future__ import annotations

from tests.benchmarks import report
from tests.benchmarks.rows import ROWS, Contestant, Row, Target
from tests.benchmarks.sweeps import Point, Sweep

ASK = Row(
    "ask",
    "ask",
    "µs",
    (
        Contestant("understudy", "understudy", "ask"),
        Contestant("ray, await", "ray", "ask_await"),
        Contestant("ray, get", "ray", "ask_get"),
    ),
    (Target("understudy", "ratio at most", 0.5, "ray"), Target("understudy", "above by at most", 1, "ray")),
)
SWEEP = Sweep("s", "Callers", "callers", "µs", ASK.contestants, (Point(1, 10), Point(1000, 10)))
SAMPLES = {"understudy": [300.0, 100.0, 200.0], "ray, await": [1000.0], "ray, get": [500.0]}


def test_a_median_ignores_outliers_and_contestants_without_samples() -> None:
    assert report.medians({"a": [1.0, 2.0, 90.0], "b": []}) == {"a": 2.0}


def test_a_peer_competes_with_its_best() -> None:
    """Low is good for a time, high for a rate."""
    median_by_label = report.medians(SAMPLES)
    rates = Row("r", "r", "calls/s", ASK.contestants)

    assert report.best(ASK, "ray", median_by_label) == 500.0
    assert report.best(rates, "ray", median_by_label) == 1000.0
    assert report.best(ASK, "xoscar", median_by_label) is None


def test_a_contestant_may_be_compared_with_by_name() -> None:
    """Also where its label is its peer's name."""
    up = Row("u", "u", "s", (Contestant("ray", "ray", "init"), Contestant("ray, 3 actors", "ray", "actors")))

    assert report.best(up, "ray, 3 actors", {"ray": 1.0, "ray, 3 actors": 2.0}) == 2.0
    assert report.best(up, "ray", {"ray": 3.0, "ray, 3 actors": 2.0}) == 3.0


def test_ratios_are_ours_over_theirs() -> None:
    assert report.ratios(ASK, report.medians(SAMPLES)) == {"ray, await": 0.2, "ray, get": 0.4}
    assert report.ratios(ASK, {"ray, get": 500.0}) == {}


def test_the_contestant_that_has_the_target_is_compared() -> None:
    other = Contestant("understudy, replies", "understudy", "replies")
    row = Row("r", "r", "µs", (*ASK.contestants, other), (Target(other.label, "at most", 5),))

    assert report.ratios(row, {"understudy": 1.0, other.label: 2.0, "ray, get": 4.0}) == {"ray, get": 0.5}


def test_targets_say_what_was_reached() -> None:
    result = report.result(ASK, SAMPLES)

    assert [(each["value"], each["met"]) for each in result["targets"]] == [(0.4, True), (-300.0, True)]


def test_a_rate_must_reach_its_ratio() -> None:
    target = Target("understudy", "ratio at least", 3, "ray")
    row = Row("r", "r", "calls/s", ASK.contestants)

    assert report.verdict(row, target, {"understudy": 299.0, "ray, get": 100.0})["met"] is False
    assert report.verdict(row, target, {"understudy": 300.0, "ray, get": 100.0})["met"] is True


def test_without_the_peer_nothing_is_claimed() -> None:
    found = report.result(ASK, {"understudy": [1.0], "ray, await": [], "ray, get": []})

    assert [each["met"] for each in found["targets"]] == [None, None]
    assert "not compared" in report.table([found])


def test_the_table_shows_median_spread_ratio_and_verdict() -> None:
    lines = report.table([report.result(ASK, SAMPLES)]).splitlines()

    assert lines[1] == "ask: ask, µs"
    assert lines[2].split()[:5] == ["understudy", "200", "100", "…", "300"]
    assert "≤ 0.5 × ray (0.4): met" in lines[2]
    assert lines[4].endswith("0.4")


def test_targets_name_contestants_and_peers_of_their_row() -> None:
    for row in ROWS:
        labels = [contestant.label for contestant in row.contestants]
        assert len(set(labels)) == len(labels)
        for target in row.targets:
            assert target.of in labels
            assert target.against is None or target.against in row.peers | set(labels)


def test_a_sweep_keeps_what_it_has_at_each_point() -> None:
    found = report.sweep_result(SWEEP, {"understudy": [[3.0, 1.0, 2.0], []], "ray, get": [[5.0], [7.0]]})

    assert found["points"] == [1, 1000]
    assert found["medians"] == {"understudy": [2.0, None], "ray, get": [5.0, 7.0]}


def test_the_table_of_a_sweep_has_a_column_for_each_point() -> None:
    found = report.sweep_result(SWEEP, {"understudy": [[3.0], []], "ray, get": [[5.0], [7000.0]]})
    lines = report.sweep_table(found).splitlines()

    assert lines[0] == "s: Callers, µs"
    assert lines[1].split() == ["callers", "1", "1,000"]
    assert lines[2].split() == ["understudy", "3", "-"]
    assert lines[3].split()[-2:] == ["5", "7,000"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_result_says_whose_each_label_is() -> None:
    """So that it can be drawn when the rows have changed since."""
    found = report.result(ASK, SAMPLES)

    assert found["peers"] == {"understudy": "understudy", "ray, await": "ray", "ray, get": "ray"}
    assert [(each["kind"], each["limit"], each["against"]) for each in found["targets"]] == [
        ("ratio at most", 0.5, "ray"),
        ("above by at most", 1, "ray"),
    ]

"""The report: medians, ratios, verdicts and the table. Pure functions of rows and samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.benchmarks.rows import OURS, Row, Target
from tests.benchmarks.sweeps import Sweep

Samples = Mapping[str, Sequence[float]]
"""By contestant's label, a sample per round."""


def medians(samples: Samples) -> dict[str, float]:
    """Of every contestant that has a sample."""
    return {label: statistics.median(values) for label, values in samples.items() if values}


def is_better_high(row: Row) -> bool:
    return row.unit.endswith("/s")


def best(row: Row, who: str, median_by_label: Mapping[str, float]) -> float | None:
    """The median of a contestant, or the best one of a peer's."""
    labels = [contestant.label for contestant in row.contestants if contestant.label == who]
    labels = labels or [contestant.label for contestant in row.contestants if contestant.peer == who]
    found = [median_by_label[label] for label in labels if label in median_by_label]
    return (max if is_better_high(row) else min)(found) if found else None


def ratios(row: Row, median_by_label: Mapping[str, float]) -> dict[str, float]:
    """Our contestant over each peer's: the one that has a target, else our first. Empty without a sample."""
    ours = next((target.of for target in row.targets), None)
    ours = ours or next((c.label for c in row.contestants if c.peer == OURS), None)
    if ours not in median_by_label:
        return {}
    return {
        contestant.label: median_by_label[ours] / median_by_label[contestant.label]
        for contestant in row.contestants
        if contestant.peer != OURS and median_by_label.get(contestant.label)
    }


def verdict(row: Row, target: Target, median_by_label: Mapping[str, float]) -> dict[str, Any]:
    """The target in words, what was reached, and whether that is enough; None without both sides."""
    value = _reached(row, target, median_by_label)
    met = None
    if value is not None:
        met = value >= target.limit if target.kind == "ratio at least" else value <= target.limit
    return {
        "of": target.of,
        "kind": target.kind,
        "limit": target.limit,
        "against": target.against,
        "text": _wanted(row, target),
        "value": value,
        "met": met,
    }


def _reached(row: Row, target: Target, median_by_label: Mapping[str, float]) -> float | None:
    ours = median_by_label.get(target.of)
    if ours is None or target.against is None:
        return ours
    theirs = best(row, target.against, median_by_label)
    if theirs is None:
        return None
    return ours - theirs if target.kind == "above by at most" else ours / theirs


def _wanted(row: Row, target: Target) -> str:
    match target.kind:
        case "ratio at most":
            return f"≤ {target.limit:g} × {target.against}"
        case "ratio at least":
            return f"≥ {target.limit:g} × {target.against}"
        case "above by at most":
            return f"≤ {target.against} + {target.limit:g} {row.unit}"
        case "at most":
            return f"≤ {target.limit:g} {row.unit}"


def result(row: Row, samples: Samples) -> dict[str, Any]:
    """One row as plain data: what JSON gets and the table shows."""
    median_by_label = medians(samples)
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "peers": {contestant.label: contestant.peer for contestant in row.contestants},
        "samples": {label: list(values) for label, values in samples.items()},
        "medians": median_by_label,
        "ratios": ratios(row, median_by_label),
        "targets": [verdict(row, target, median_by_label) for target in row.targets],
    }


def sweep_result(sweep: Sweep, samples: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """One sweep as plain data; *samples* of each contestant are in the order of the points."""
    return {
        "key": sweep.key,
        "title": sweep.title,
        "x": sweep.x,
        "unit": sweep.unit,
        "points": [point.at for point in sweep.points],
        "samples": {label: [list(values) for values in each] for label, each in samples.items()},
        "medians": {
            label: [statistics.median(values) if values else None for values in each]
            for label, each in samples.items()
        },
    }


def sweep_table(result: Mapping[str, Any]) -> str:
    """Its title, what grows, and a line per contestant."""
    head = (f"  {result['x']}", *(f"{at:,}" for at in result["points"]), "")
    lines = [
        (f"  {label}", *("-" if each is None else number(each) for each in found), "")
        for label, found in result["medians"].items()
    ]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    shown = [_aligned(line, widths) for line in (head, *lines)]
    return "\n".join((f"{result['key']}: {result['title']}, {result['unit']}", *shown))


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Each row's title, then a line per contestant."""
    head = ("", "median", "from … to", "ours ÷ this", "target")
    body: list[Sequence[str]] = []
    for each in results:
        body.append((f"{each['key']}: {each['title']}, {each['unit']}",))
        body.extend(_lines(each))
    shown = [line for line in (head, *body) if len(line) > 1]
    widths = [max(len(line[column]) for line in shown) for column in range(len(head))]
    return "\n".join(line[0] if len(line) == 1 else _aligned(line, widths) for line in (head, *body))


def _lines(each: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for label, values in each["samples"].items():
        if not values:
            yield f"  {label}", "-", "-", "", ""
            continue
        ratio = each["ratios"].get(label)
        verdicts = "; ".join(_verdict_text(v) for v in each["targets"] if v["of"] == label)
        spread = f"{number(min(values))} … {number(max(values))}"
        yield f"  {label}", number(each["medians"][label]), spread, number(ratio) if ratio else "", verdicts


def _verdict_text(found: Mapping[str, Any]) -> str:
    if found["met"] is None:
        return f"{found['text']}: not compared"
    return f"{found['text']} ({number(found['value'])}): {'met' if found['met'] else 'MISSED'}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, last = line
    cells = [first.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:-1], strict=True)), last]
    return "  ".join(cells).rstrip()


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

"""
Plots: how far ahead of Ray each row is, and what costs what. What is shown is decided in pure functions.

Matplotlib is loaded when something is drawn, and never opens a window.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.report import number
from tests.benchmarks.rows import OURS

_PEER = "ray"
_AHEAD, _BEHIND, _MISSED, _INK = "#2a7f62", "#b8442e", "#c98a1b", "#333333"
_SERIES = ("#2a7f62", "#555f9e", "#c98a1b", "#b8442e")
_DPI = 120


class Advantage(NamedTuple):
    """One row beside Ray: how many times better we are; below 1 is worse."""

    title: str
    times: float
    target: float | None
    """The times that were asked for; None where the row has no target of that kind."""

    @property
    def is_met(self) -> bool:
        return self.target is None or self.times >= self.target


def advantages(results: Iterable[Mapping[str, Any]]) -> list[Advantage]:
    """Of the rows in which Ray and we have samples, in their order."""
    found = [_advantage(each) for each in results]
    return [each for each in found if each is not None]


def _advantage(result: Mapping[str, Any]) -> Advantage | None:
    peers, medians = result["peers"], result["medians"]
    target = next((each for each in result["targets"] if _is_beside_ray(result, each)), None)
    first = next(label for label, peer in peers.items() if peer == OURS)
    ours = medians.get(target["of"] if target is not None else first)
    against = target["against"] if target is not None else _PEER
    theirs = [
        medians[label]
        for label, peer in peers.items()
        if label in medians and (label == against or (against not in peers and peer == against))
    ]
    if not ours or not theirs:
        return None
    times = ours / max(theirs) if result["unit"].endswith("/s") else min(theirs) / ours
    return Advantage(result["title"], times, _times_wanted(target))


def _is_beside_ray(result: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    against = target["against"]
    return against is not None and result["peers"].get(against, against) == _PEER


def _times_wanted(target: Mapping[str, Any] | None) -> float | None:
    match target:
        case {"kind": "ratio at least", "limit": limit}:
            return float(limit)
        case {"kind": "ratio at most", "limit": limit}:
            return 1 / limit
        case _:
            return None  # a difference is not a ratio


class Line(NamedTuple):
    """A contestant of a sweep; points without a sample are left out."""

    label: str
    at: tuple[float, ...]
    medians: tuple[float, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]


def lines(result: Mapping[str, Any]) -> list[Line]:
    """What a sweep's panel shows, in the contestants' order."""
    found = []
    for label, samples in result["samples"].items():
        kept = [
            (float(at), median, min(values), max(values))
            for at, median, values in zip(result["points"], result["medians"][label], samples, strict=True)
            if values
        ]
        if kept:
            found.append(Line(label, *(tuple(column) for column in zip(*kept, strict=True))))
    return found


def words(at: float, *, is_bytes: bool) -> str:
    """A point on an axis: `1,000`, or `64 MB` where bytes are meant."""
    if not is_bytes:
        return f"{at:,.0f}"
    for size, unit in ((1_000_000, "MB"), (1_000, "KB")):
        if at >= size:
            return f"{at / size:g} {unit}"
    return f"{at:g} B"


# -- drawing ---------------------------------------------------------------------------------


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """`ratios.png` and `sweeps.png`, as far as the run has them. `ModuleNotFoundError` without matplotlib."""
    drawn = []
    beside_ray = advantages(found["rows"])
    if beside_ray:
        drawn.append(_draw_ratios(beside_ray, _source(found), folder / "ratios.png"))
    if found["sweeps"]:
        drawn.append(_draw_sweeps(found["sweeps"], _source(found), folder / "sweeps.png"))
    return drawn


def _source(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"Medians of {found['rounds']} interleaved samples{', small ones' if found['quick'] else ''}; "
        f"{machine['cores']} cores, Python {machine['python']}, Ray {machine['versions']['ray']}, "
        f"{machine['at'][:10]}"
    )


def _draw_ratios(bars: Sequence[Advantage], source: str, path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10, 1.8 + 0.42 * len(bars)), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    places = range(len(bars))
    colours = [_BEHIND if bar.times < 1 else _AHEAD if bar.is_met else _MISSED for bar in bars]
    axes.barh(places, [bar.times - 1 for bar in bars], left=1, height=0.6, color=colours)
    least = min(1.0, *(bar.times for bar in bars)) / 2
    most = max(bar.target or 1.0 for bar in bars)
    most = max(most, *(bar.times for bar in bars)) * 8  # room for the words behind the longest bar
    for place, bar in zip(places, bars, strict=True):
        if bar.target is not None:
            axes.plot([bar.target] * 2, [place - 0.42, place + 0.42], color=_INK, linewidth=2.5)
        # Beside the bar's end and beside the mark, whichever is further out.
        edge = max(1.0, bar.times, bar.target or 1.0)
        aim = f" (target {number(bar.target)})" if bar.target is not None else ""
        axes.annotate(
            f"{number(bar.times)} ×{aim}",
            (edge, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set(xscale="log", xlim=(least, most), yticks=list(places), axisbelow=True)
    axes.set_yticklabels([textwrap.fill(bar.title, 46) for bar in bars], fontsize=9)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    axes.grid(axis="x", color="#dddddd")
    axes.set_xlabel("times as good as Ray: rates divided, times divided the other way round (log scale)")
    axes.set_title("Understudy beside Ray\n", loc="left", fontweight="bold")
    axes.text(0, 1.012, source, transform=axes.transAxes, fontsize=8, color="#777777")
    keys = [(_AHEAD, "ahead, target met or none"), (_MISSED, "ahead, target missed"), (_BEHIND, "behind Ray")]
    handles = [Line2D([], [], color=colour, linewidth=8, label=text) for colour, text in keys]
    mark = Line2D(
        [], [], color=_INK, marker="|", markersize=12, markeredgewidth=2.5, linestyle="", label="target"
    )
    figure.legend(handles=[*handles, mark], loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return _saved(figure, path)


def _draw_sweeps(results: Sequence[Mapping[str, Any]], source: str, path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(5.2 * len(results), 4.6), dpi=_DPI, layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        is_bytes = result["x"].startswith("bytes")
        for line, colour in zip(lines(result), _SERIES, strict=False):
            axes.fill_between(line.at, line.least, line.most, color=colour, alpha=0.15, linewidth=0)
            axes.plot(line.at, line.medians, marker="o", markersize=4, color=colour, label=line.label)
        axes.set(xscale="log", yscale="log", xlabel=result["x"], ylabel=result["unit"], axisbelow=True)
        axes.set_xticks(
            result["points"], [words(at, is_bytes=is_bytes) for at in result["points"]], fontsize=8
        )
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_title(result["title"], loc="left", fontsize=11, fontweight="bold")
        axes.grid(color="#dddddd")
        axes.legend(frameon=False, fontsize=9)
    figure.supxlabel(f"{source}; bands: least to most", fontsize=7, color="#777777")
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Software": None})
    return path

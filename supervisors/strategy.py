"""
Strategies: which children stop and start when some of them have failed.

    one_for_one    the failed ones start again
    one_for_all    all others stop; all start
    rest_for_one   those after the first failed one stop; it and they start

Stops go in reverse start order, starts in start order. A group restart removes
temporary siblings, and revives children that were stopped by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from supervisors import checks

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one incident, in this order."""

    stops: tuple[str, ...]
    removals: tuple[str, ...]
    """Temporary children to forget, once they have stopped."""
    starts: tuple[str, ...]


def plan(
    strategy: Strategy,
    order: Sequence[str],
    failed: Collection[str],
    *,
    running: Collection[str],
    temporary: Collection[str] = (),
) -> Plan:
    """The plan for children *failed* at once, out of all children in start *order*."""
    checks.choice("Supervisor", "strategy", strategy, STRATEGIES)
    group = _affected(strategy, order, failed)
    removals = tuple(child for child in reversed(group) if child in temporary and child not in failed)
    return Plan(
        stops=tuple(child for child in reversed(group) if child in running and child not in failed),
        removals=removals,
        starts=tuple(child for child in group if child not in removals),
    )


def _affected(strategy: Strategy, order: Sequence[str], failed: Collection[str]) -> list[str]:
    fallen = [child for child in order if child in failed]
    if strategy == "one_for_one" or not fallen:
        return fallen
    if strategy == "one_for_all":
        return list(order)
    return list(order[order.index(fallen[0]) :])

"""
Facts: what a supervision is told has happened to its children.

What the driver promises: each `Start` is followed by exactly one of `Started`,
`Ignored` and `StartFailed`, or by the end of that life; each life's end is told
once, as `Stopped` after a `Halt`, as `Exited` when it came by itself (after a
`Halt` that crossed it, either will do). Ends of lives that have been replaced are
the driver's to drop: it knows the incarnations.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.exit import Exit


@dataclass(frozen=True, slots=True)
class Started:
    """The life asked for runs: its `on_start` returned."""

    id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """It raised `Ignore`: not running, and not an error."""

    id: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It raised anything else, or overran its start timeout; nothing of it is left."""

    id: str
    exit: Exit


@dataclass(frozen=True, slots=True)
class Exited:
    """Lives that ended by themselves, all in one incident."""

    ids: tuple[str, ...]
    exit: Exit
    handled: int = 0
    """Messages that each of these lives finished without crashing."""
    counts: bool = True
    """False for lost nodes and operators' kills: restarted, never counted."""
    cause_open: bool = False
    """True while the cause is still being looked for; one `CauseKnown` of these ids will follow."""


@dataclass(frozen=True, slots=True)
class CauseKnown:
    """
    Why lives ended whose `Exited` left it open, the oldest such incident of these ids.

    It is counted, or not, as if this had been known; until then nobody gives up because of it.
    """

    ids: tuple[str, ...]
    exit: Exit
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """A life ended because a `Halt` asked for it."""

    id: str
    exit: Exit


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of a `RetryAfter` has passed."""

    id: str


Fact = Started | Ignored | StartFailed | Exited | CauseKnown | Stopped | RetryDue

"""
The child: what a supervision knows of one child, and how facts change it.

A child is alive (starting, running, stopping), between two lives (restarting,
backing_off) or at rest (stopped): only then is its registration over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from actors.exit import Exit
from supervisors.budget import RestartWindow
from supervisors.orders import Spec
from supervisors.spec import ChildState, Kind

State = Literal["starting", "running", "restarting", "backing_off", "stopping", "stopped"]


@dataclass(slots=True, eq=False)
class Cause:
    """Why lives ended: one incident, counted once however many lives it took."""

    exit: Exit
    counts: bool = True
    ids: frozenset[str] = frozenset()
    """Whose lives these were."""
    kind: str = ""
    """What it counts as, where that is not its own kind: a restart that fails counts as what led to it."""
    is_open: bool = False
    """True while the cause is still being looked for."""
    counted_for: str | None = None
    """Who it was counted for in a shared window; None while it has not been."""
    is_within: bool = True
    """Whether the shared window held with this in it."""

    @property
    def counts_as(self) -> str:
        """The kind of exit that it counts as."""
        return self.kind or self.exit.kind


class ChildRow(NamedTuple):
    """A child as questions see it."""

    id: str
    state: State
    kind: Kind
    restarts: int
    last_exit: Exit | None

    @property
    def shown(self) -> ChildState:
        """The state in the words of `ChildInfo`."""
        if self.state in ("running", "stopping"):
            return "running"
        if self.state == "starting":
            return "restarting" if self.restarts else "pending"
        return "stopped" if self.state == "stopped" else "restarting"


@dataclass(slots=True, eq=False)
class Child:
    """One child; changed only by its supervision."""

    spec: Spec
    number: int = 0
    """Its place in start order."""
    window: RestartWindow | None = None
    """The budget it counts in, where each child has its own."""
    state: State = "stopped"
    restarts: int = 0
    last_exit: Exit | None = None
    failure: Exit | None = None
    """Why the last start failed; None when it did not."""
    cause: Cause | None = None
    """What ended the last life, as long as nothing has been decided about it."""
    incident: str = ""
    """What the restart under way counts as if it fails; empty for its own kind."""
    has_left: bool = False
    """True when it ended by itself, for good, and nobody has stopped or started it since."""
    handled: int = 0
    """Messages that the last life finished without crashing."""
    waits: int = 0
    """Times it has backed off in a row."""
    waiting_since: float | None = None
    """When its pending retry was ordered; None when there is none."""
    uptime: float = 0.0
    """Seconds that its lives have run, all together."""
    _running_since: float | None = None

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def is_alive(self) -> bool:
        return self.state in ("starting", "running", "stopping")

    @property
    def is_running(self) -> bool:
        """True from `Started` until the end of that life."""
        return self.state in ("running", "stopping")

    @property
    def is_pending(self) -> bool:
        """True when a restart of it is to come by itself."""
        return self.waiting_since is not None or self.cause is not None

    @property
    def is_temporary(self) -> bool:
        return self.spec.restart == "temporary"

    @property
    def row(self) -> ChildRow:
        return ChildRow(self.id, self.state, self.spec.kind, self.restarts, self.last_exit)

    def wants_restart(self, exit: Exit) -> bool:
        """OTP's table: whether an end with *exit* is to be followed by a new life."""
        if self.spec.restart == "transient":
            return not exit.is_clean
        return self.spec.restart == "permanent"

    def begin(self) -> None:
        """A start was ordered."""
        self.state, self.failure, self.cause, self.handled = "starting", None, None, 0
        self.has_left = False

    def started(self, now: float) -> None:
        """The start succeeded."""
        self.state, self._running_since = "running", now

    def failed(self, cause: Cause) -> None:
        """The start failed."""
        self.state, self.failure, self.last_exit, self.cause = "restarting", cause.exit, cause.exit, cause

    def ended(self, exit: Exit, now: float, *, reset_after: float = 0.0) -> None:
        """The life is over; having run for *reset_after* seconds ends a row of backoffs."""
        if self._running_since is not None:
            ran = now - self._running_since
            self.uptime += ran
            self.waits = 0 if ran >= reset_after else self.waits
        self.state, self.last_exit, self._running_since = "restarting", exit, None

    def ended_badly(self, exit: Exit) -> bool:
        """Whether *exit* is no proper answer to being asked to stop."""
        if exit.kind == "shutdown" or (exit.kind == "normal" and self.spec.restart != "permanent"):
            return False
        return not (exit.kind == "killed" and self.spec.shutdown_time == "brutal_kill")

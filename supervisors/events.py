"""
Events of supervision, beside those of `actors.events`: facts in the past tense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from actors.events import Event
from actors.exit import Exit


@dataclass(frozen=True, slots=True)
class ChildReported(Event):
    """Something a supervisor decided or noticed about a child. The four keys of every report."""

    kind: ClassVar[str] = "supervisor.reported"
    supervisor: str
    context: str
    """What happened: `child_exited`, `restarting`, `backing_off`, `start_failed`, `gave_up`, …"""
    reason: Exit | None
    child: str
    restarts: int = 0
    delay: float = 0.0
    """Seconds until the restart, for `backing_off`."""

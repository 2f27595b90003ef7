"""
Events of supervision, beside those of `actors.events`: facts in the past tense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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

    @property
    def level(self) -> str:
        if self.context in ("restarting", "auto_shutdown"):
            return ""
        if self.context in ("child_exited", "cause_known") and _is_clean(self.reason):
            return ""
        return "error" if self.context == "gave_up" else "warning"

    def fields(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("supervisor", "context", "reason", "child")}
        more = {"restarts": self.restarts, "delay": round(self.delay, 3)}
        return {**fields, "reason": str(self.reason), **{name: n for name, n in more.items() if n}}


def _is_clean(exit: Exit | None) -> bool:
    return exit is None or exit.is_clean

"""
The vigil: the house watches over the stage, as the stage watches over hosts.

The stage touches its record a few times within each limit, on the loop that does all its
work. One whose record stands still for the limit, and that hangs by the evidence of `/proc`,
is ended; Ray brings it back and it re-adopts its hosts.
"""

from __future__ import annotations

import os
import signal
import time

from supervisors import evidence, health, settings
from supervisors.exits import readable
from supervisors.health import Pulse

NAME = "stage"
"""What the stage's crash and stack files are called."""


class Beat:
    """The stage's side: its own record, held open, so that it never touches that of a later life."""

    def __init__(self, record_path: str) -> None:
        self._descriptor = os.open(record_path, os.O_RDONLY | os.O_CLOEXEC)

    def touch(self) -> None:
        """The loop turns."""
        os.utime(self._descriptor)


class Vigil:
    """The house's side. `look`, called every `period` seconds, tells when it has ended the stage."""

    def __init__(self, run_dir: str, limit: float) -> None:
        self._run_dir = run_dir
        self._record_path = f"{run_dir}/{settings.RECORD_NAME}"
        self._pulse = Pulse(limit)
        self.period = min(1.0, health.beat(limit))
        self._last_touch = 0
        self._last_at = time.monotonic()

    def look(self, pid: int, start_time: int) -> str:
        """How the stage hung, with its stack, once it has been ended for that; else empty."""
        now = time.monotonic()
        self._pulse.wait(health.watched(now - self._last_at, self.period))
        self._last_at = now
        touch = self._touch()
        if touch is None:
            self._pulse.hear()  # it has not begun yet, or ends in order
        elif touch != self._last_touch:
            self._last_touch = touch
            self._pulse.hear()
            self._pulse.ask(evidence.cpu_of(pid))
        elif self._pulse.is_silent:
            return self._examine(pid, start_time)
        return ""

    def _touch(self) -> int | None:
        try:
            return os.stat(self._record_path).st_mtime_ns
        except OSError:
            return None

    def _examine(self, pid: int, start_time: int) -> str:
        look = evidence.look_at(pid)
        how = self._pulse.judge(look) if look is not None else ""
        if not how or look is None:
            return ""
        stack = ""
        if look.state != "T":
            stack = evidence.take_stack(self._run_dir, NAME, pid, start_time)
        if self._touch() != self._last_touch:
            return ""
        if not settings.send_signal(pid, start_time, signal.SIGKILL):
            return ""
        self._pulse.hear()
        return f"{how}\n{readable(stack)}".strip()

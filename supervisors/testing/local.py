"""
An app on a cluster of its own, for the length of a test; afterwards nothing of it may be left.

Its run root is a private directory under /tmp, and every process inherits a mark in its
environment, so what is left is known by evidence, not by name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisors import settings
from supervisors.app import App, Run
from supervisors.cluster import Cluster

MARK = "UNDERSTUDY_LOCAL_APP"
"""The variable that all processes of a local app carry."""


def local_app(app: App, *, end_timeout: float = 10.0, is_checked: bool = True, **options: Any) -> LocalApp:
    """
    `with local_app(app) as cluster:` runs *app* on an embedded cluster; *options* are those of `App.run`.

    Leaving stops it and raises `AssertionError` when a process, a socket or a file of it is left
    *end_timeout* seconds later; unless *is_checked* is False, then `left` says what. What is left
    of its processes is ended either way. One at a time: the run root stands in the environment.
    """
    return LocalApp(app, end_timeout, is_checked, options)


class LocalApp:
    """The context manager behind `local_app`."""

    def __init__(self, app: App, end_timeout: float, is_checked: bool, options: Mapping[str, Any]) -> None:
        self.app = app
        self.run: Run = app.run(**{"num_cpus": 2, **options})
        self.phases: list[dict[str, Any]] = []
        """What the house has reported."""
        self.left: list[str] = []
        """What was left after the end."""
        self.mark = secrets.token_hex(8)
        self._end_timeout = end_timeout
        self._is_checked = is_checked
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Cluster:
        self._base = Path(tempfile.mkdtemp(prefix="ul-", dir="/tmp"))
        root = self._base / "r"
        root.mkdir(mode=0o700)
        changes = {settings.RUN_ROOT_VARIABLE: str(root), MARK: self.mark}
        self._before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        self.run.on_phase = self.phases.append
        try:
            return self.run.start()
        except BaseException:
            self._finish()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            self.run.stop()
        finally:
            self._finish()
        if self._is_checked and exc[0] is None:
            assert not self.left, f"left of app {self.app.name}: {'; '.join(self.left)}"

    def processes(self) -> dict[int, str]:
        """Command lines of all processes of the app that live, by pid."""
        return marked(self.mark)

    @property
    def run_dir(self) -> Path:
        """The app's run directory."""
        return self._base / "r" / self.app.name

    def _finish(self) -> None:
        give_up_at = time.monotonic() + self._end_timeout
        while (left := self.processes()) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        self.left = [f"process {pid}: {command}" for pid, command in left.items()]
        self.left += [str(path) for path in sorted((self._base / "r").rglob("*"))]
        for pid in left:
            _end(pid, self.mark)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(self._base, ignore_errors=True)


def marked(mark: str) -> dict[int, str]:
    """Living processes whose environment carries *mark*, this one excepted, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if pid != os.getpid() and _carries(pid, mark):
            with contextlib.suppress(OSError):
                found[pid] = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
                )
    return found


def _carries(pid: int, mark: str) -> bool:
    with contextlib.suppress(OSError):
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _end(pid: int, mark: str) -> None:
    """SIGKILL, through a descriptor that was checked after it was opened: a reused pid is never hit."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _carries(pid, mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)

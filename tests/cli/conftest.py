"""The real command line in processes of its own, and a check that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.testing import wait_until_sync
from supervisors import settings
from tests.marked import MARK, marked_processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = [sys.executable, "-m", "supervisors.cli"]


wait_until = partial(wait_until_sync, timeout=30.0)
"""The first true value of a condition; fails the test when there is none in time."""


class Understudy:
    """The command line of one user: a run root, a home, and a mark on all that is started."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.run_root = base / "r"
        self.run_root.mkdir(mode=0o700)
        (base / "home").mkdir()
        self.mark = secrets.token_hex(8)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "HOME": str(base / "home"),
            settings.RUN_ROOT_VARIABLE: str(self.run_root),
            MARK: self.mark,
        }

    def __call__(
        self, *arguments: str, timeout: float = 60, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            cwd=self.base,
            env={**self.environment, **changes},
        )

    def start(self, *arguments: str, **changes: str) -> Running:
        """Start a command that stays."""
        return Running(self, arguments, changes)

    def left(self) -> list[object]:
        """Processes, run directories, files in the home directory."""
        return [
            *marked_processes(self.mark).items(),
            *self.run_root.iterdir(),
            *(self.base / "home").iterdir(),
        ]

    def close(self) -> None:
        for pid in marked_processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Running:
    """A command that runs, with its output in files so that it can be read meanwhile."""

    def __init__(self, understudy: Understudy, arguments: tuple[str, ...], changes: dict[str, str]) -> None:
        number = secrets.token_hex(4)
        self.outputs = understudy.base / f"out-{number}", understudy.base / f"err-{number}"
        with self.outputs[0].open("w") as out, self.outputs[1].open("w") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=understudy.base,
                env={**understudy.environment, **changes},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self.outputs[0].read_text()

    @property
    def err(self) -> str:
        return self.outputs[1].read_text()

    def wait_line(self, text: str) -> str:
        """The first line of standard output with *text* in it."""

        def look() -> str | None:
            found = next((line for line in self.out.splitlines() if text in line), None)
            assert found is not None or self.process.poll() is None, (
                f"ended without {text!r}:\n{self.out}\n{self.err}"
            )
            return found

        return wait_until(look)  # type: ignore[no-any-return]

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self, timeout: float = 30) -> int:
        return self.process.wait(timeout)


@contextlib.contextmanager
def user() -> Iterator[Understudy]:
    base = Path(tempfile.mkdtemp(prefix="uc-", dir="/tmp"))
    understudy = Understudy(base)
    try:
        yield understudy
        wait_until(lambda: not marked_processes(understudy.mark), timeout=10)
        left = understudy.left()
    finally:
        understudy.close()
        shutil.rmtree(base)
    assert left == []


@pytest.fixture
def understudy() -> Iterator[Understudy]:
    """For one test; it has to leave nothing behind."""
    with user() as understudy:
        yield understudy


@pytest.fixture(scope="module")
def shared() -> Iterator[Understudy]:
    """For all tests of a module."""
    with user() as understudy:
        yield understudy


@pytest.fixture
def joining(understudy: Understudy, address: str) -> tuple[str, str]:
    """Options of `up` for the shared cluster, whose token the user gets: where no other cluster is to end."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        understudy.environment[name] = os.environ[name]
    return "--address", address


@pytest.fixture(scope="session")
def bistro() -> str:
    return str(HERE / "bistro.py")


@pytest.fixture(scope="session")
def kiosk() -> str:
    return str(HERE / "kiosk.py")


@pytest.fixture(scope="session")
def fragile() -> str:
    return str(HERE / "fragile.py")


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until

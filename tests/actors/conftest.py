"""What the tests of actors share: a run root of their own, and other processes to talk to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import ActorSystem, Ref

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `far_side`: classes that this process and the far one know by name


@pytest.fixture(scope="session", autouse=True)
def run_root() -> Iterator[Path]:
    """A private run root with a short path: sockets have room for 107 characters."""
    root = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    before = os.environ.get("UNDERSTUDY_RUN_ROOT")
    os.environ["UNDERSTUDY_RUN_ROOT"] = str(root)
    yield root
    if before is None:
        del os.environ["UNDERSTUDY_RUN_ROOT"]
    else:
        os.environ["UNDERSTUDY_RUN_ROOT"] = before
    shutil.rmtree(root, ignore_errors=True)


class FarProcess:
    """A process of its own that runs `far_side`, ended with the test."""

    def __init__(self, program: str) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        """Where its system listens."""
        assert self.address, "the far process did not come up"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ref(self, system: ActorSystem, name: str) -> Ref[Any]:
        """An actor of it, seen from *system*."""
        return system.ref(f"{self.address}#{name}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Let it end in order; returns its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(10)

    def discard(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def start_process(run_root: Path) -> Iterator[Callable[..., FarProcess]]:
    """Starts processes that run `far_side`, or another program, and ends them."""
    started: list[FarProcess] = []

    def start(program: str = "import far_side; far_side.main()") -> FarProcess:
        process = FarProcess(program)
        started.append(process)
        return process

    yield start
    for process in started:
        process.discard()


@pytest.fixture(scope="session")
def far(run_root: Path) -> Iterator[FarProcess]:
    """One far process for tests that leave it alive."""
    process = FarProcess("import far_side; far_side.main()")
    yield process
    process.discard()


@pytest.fixture
async def here(run_root: Path) -> Any:
    """A system of this process that listens on a real socket."""
    async with ActorSystem(listen=True, sinks=()) as system:
        yield system

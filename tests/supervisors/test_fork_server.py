"""
Ray's workers are forked by a server of ours: they find what Ray gave them, and no trouble of the
server keeps a worker from coming up.

Short programs stand in for the raylet, which starts what it takes for workers, and for Ray's
worker, which tells what it finds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.testing import wait_until_sync
from supervisors.settings import process_start_time

ROOT = Path(__file__).resolve().parents[2]

RAYLET = """
import json, os, subprocess, sys
for line in sys.stdin:
    program, arguments, environment = json.loads(line)
    command = [sys.executable, "-c", program, *arguments]
    subprocess.Popen(command, env=os.environ | environment, process_group=0)
"""

STARTED = """
import sys
from supervisors import _fork_server
_fork_server._IMPORTS = {imports!r}
_fork_server._ANSWER_LIMIT = {limit}
_fork_server._default_worker = lambda: {worker!r}
_fork_server.main(sys.argv[1:])
"""

WORKER = """
import json, os, sys, time
raylet = int(os.environ["RAYLET"])
found = {
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "arguments": sys.argv[1:],
    "path": sys.path[0], "shade": os.environ.get("SHADE"), "directory": os.getcwd(), "name": __name__,
}
print("a worker's own words", flush=True)
with open(sys.argv[2] + ".new", "w") as file:
    json.dump(found, file)
os.rename(sys.argv[2] + ".new", sys.argv[2])
while os.path.exists(f"/proc/{raylet}"):
    time.sleep(0.02)
"""


class Raylet:
    """Starts workers one after the other; all of them, and the server, end with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._worker = directory / "workers" / "default_worker.py"
        self._worker.parent.mkdir()
        self._worker.write_text(WORKER)
        self._log = (directory / "log").open("wb")
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", RAYLET],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.pid = self._process.pid
        self.pids: set[int] = set()

    def start(
        self, *, shade: str = "", imports: tuple[str, ...] = (), limit: float = 20.0, env_hash: int = 0
    ) -> dict[str, Any]:
        """A worker, as it found itself."""
        self._count += 1
        report = self._directory / f"worker-{self._count}"
        arguments = [
            f"--raylet-name={self._directory}/raylet",
            str(report),
            "",
            f"--runtime-env-hash={env_hash}",
            "--last=é",
        ]
        program = STARTED.format(imports=imports, limit=limit, worker=str(self._worker))
        environment = {"RAYLET": str(self.pid), "SHADE": shade}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([program, arguments, environment]).encode() + b"\n")
        self._process.stdin.flush()
        wait_until_sync(report.exists, timeout=30.0)
        found: dict[str, Any] = json.loads(report.read_text())
        assert found["arguments"] == arguments
        self.pids |= {found["pid"], found["parent"]} - {self.pid}
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return (self._directory / "log").read_text()


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[Raylet]:
    raylet = Raylet(tmp_path)
    yield raylet
    raylet.end()
    wait_until_sync(lambda: not any(map(process_start_time, raylet.pids)), timeout=10.0)


def test_a_worker_finds_itself_as_ray_started_it(raylet: Raylet, tmp_path: Path) -> None:
    """Arguments, environment, directory, streams and path; `__main__` is Ray's own script."""
    found = raylet.start(shade="blue")

    assert (found["shade"], found["directory"], found["name"]) == ("blue", str(tmp_path), "__main__")
    assert found["path"] == str(tmp_path / "workers")
    assert "a worker's own words" in raylet.log()


def test_all_workers_of_a_raylet_come_from_one_server_and_know_nothing_of_each_other(raylet: Raylet) -> None:
    first, second = raylet.start(shade="blue"), raylet.start(shade="")

    assert first["parent"] == second["parent"]
    assert (first["shade"], second["shade"]) == ("blue", "")
    assert first["pid"] != second["pid"]


def test_the_server_outlives_the_group_of_any_worker(raylet: Raylet) -> None:
    """Ray kills the process group of a worker that has ended."""
    first = raylet.start()
    assert first["group"] == first["pid"]

    os.killpg(first["group"], signal.SIGKILL)

    assert raylet.start()["parent"] == first["parent"]


def test_once_the_server_has_died_workers_are_booted(raylet: Raylet) -> None:
    first = raylet.start()

    os.kill(first["parent"], signal.SIGKILL)

    assert [raylet.start()["parent"] for _ in range(2)] == [raylet.pid] * 2


def test_a_worker_is_booted_where_the_server_stands_still(raylet: Raylet) -> None:
    """And is there once only: the server that goes on finds that nobody wants the other any more."""
    first = raylet.start()
    os.kill(first["parent"], signal.SIGSTOP)

    second = raylet.start(limit=0.3)

    os.kill(first["parent"], signal.SIGCONT)
    assert second["parent"] == raylet.pid
    assert raylet.start()["parent"] == first["parent"]
    assert raylet.log().count("a worker's own words") == 3


def test_a_server_that_may_not_fork_does_not(raylet: Raylet, tmp_path: Path) -> None:
    """With a second thread a fork could inherit a lock that nobody ever opens."""
    module = tmp_path / "threaded_import.py"
    module.write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )

    first, second = [raylet.start(imports=("threaded_import",)) for _ in range(2)]

    assert first["name"] == "__main__"
    assert first["parent"] == second["parent"] == raylet.pid
    assert raylet.log().count("RuntimeError: an import has started a thread") == 1


def test_a_worker_with_a_runtime_environment_is_booted(raylet: Raylet) -> None:
    """It may import from elsewhere, even by another interpreter."""
    assert raylet.start()["parent"] != raylet.pid
    assert raylet.start(env_hash=7)["parent"] == raylet.pid


def test_what_a_worker_imports_ahead_starts_no_thread_and_can_be_imported() -> None:
    program = (
        "import importlib, os\n"
        "from supervisors import _fork_server\n"
        "for name in _fork_server._IMPORTS: importlib.import_module(name)\n"
        "print(len(os.listdir('/proc/self/task')))"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "1"

"""
Every snippet and command of the README runs as it stands there, except those that install.

The snippets are taken from the file itself, so what a reader copies is what is tested here. The
first starts its own cluster as it does for the reader, the others join one: that costs less.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
SHELL = [
    line for block in re.findall(r"```shell\n(.*?)```", README, re.S) for line in block.splitlines() if line
]
INSTALLING = [line for line in SHELL if "pip install" in line]
COMMANDS = [line for line in SHELL if "pip install" not in line]
APP, ASYNC, IN_PROCESS, GROUP, WARM, CALLS = PYTHON


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the README's `restaurant.py` and the examples, and a run root of its own."""
    root = Path(f"/tmp/us-readme-{os.getpid()}")
    root.mkdir(mode=0o700)
    monkeypatch.setenv("UNDERSTUDY_RUN_ROOT", str(root))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "restaurant.py").write_text(APP)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    yield tmp_path
    left = [path for path in root.rglob("*") if path.name != "key"]
    assert left == [], "an app has left files behind"
    (root / "key").unlink(missing_ok=True)
    root.rmdir()


@pytest.fixture
def joins(address: str) -> Callable[[str], str]:
    """A program of the README, on the cluster that is there instead of one of its own."""

    def on_shared_cluster(program: str) -> str:
        assert program.count("app.run()") == 1
        return program.replace("app.run()", f"app.run(address={address!r})")

    return on_shared_cluster


def run(command: list[str], place: Path, code: int = 0) -> str:
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == code, f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def understudy(line: str) -> list[str]:
    """A command line of the README, with this interpreter's command."""
    name, *rest = shlex.split(line)
    assert name == "understudy"
    return [sys.executable, "-m", "supervisors.cli", *rest]


class Up:
    """`understudy up` in the background, as in a terminal of its own."""

    def __init__(self, line: str, place: Path) -> None:
        self._log = (place / "up.log").open("w+")
        self._process = subprocess.Popen(
            understudy(line), cwd=place, stdout=self._log, stderr=subprocess.STDOUT
        )

    def wait_for(self, words: str, limit: float = 90.0) -> str:
        give_up_at = time.monotonic() + limit
        while words not in (text := self.text()):
            assert self._process.poll() is None, f"it ended early:\n{text}"
            assert time.monotonic() < give_up_at, f"no {words!r} in:\n{text}"
            time.sleep(0.05)
        return text

    def text(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def wait_ended(self) -> int:
        try:
            return self._process.wait(30)
        finally:
            self.end()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        self._log.close()


def test_the_restaurant_runs_as_a_program(place: Path) -> None:
    out = run([sys.executable, "restaurant.py"], place)

    lines = out.splitlines()
    assert lines[0].startswith("steak from the grill, number 1 of kitchen/")
    assert lines[1] == "unicorn"
    assert [line.split(" ")[0] for line in lines[2:]] == ["soup", "fish", "toast"]


def test_the_async_program_runs(place: Path, joins: Callable[[str], str]) -> None:
    (place / "program.py").write_text(joins(ASYNC))

    out = run([sys.executable, "program.py"], place)

    assert "steak from the grill" in out
    assert "100 ['kitchen/0', 'kitchen/1'] cake" in out


def test_the_program_in_one_process_runs(place: Path) -> None:
    (place / "counters.py").write_text(IN_PROCESS)

    out = run([sys.executable, "counters.py"], place)

    assert out.splitlines()[0] == "1"
    assert out.splitlines()[2].startswith("1 [ChildInfo(id='a'")


def test_the_group_restarts_what_the_readme_says(place: Path, joins: Callable[[str], str]) -> None:
    (place / "hotel.py").write_text(joins(GROUP))

    out = run([sys.executable, "hotel.py"], place)

    assert out.splitlines() == ["ValueError", "a room for two (life 1)"]


def test_a_warm_understudy_takes_over(place: Path, joins: Callable[[str], str]) -> None:
    (place / "vision.py").write_text(joins(WARM))

    first, second = run([sys.executable, "vision.py"], place).splitlines()

    assert first.startswith("a.png is a cat, says cats.bin, loaded by process ")
    assert second.startswith("b.png is a cat, says cats.bin, loaded by process ")
    assert first.split()[-1] != second.split()[-1]


def test_the_commands_of_the_tour_work(place: Path) -> None:
    up_line, *tour = COMMANDS[
        COMMANDS.index("understudy up restaurant.py") : COMMANDS.index("understudy down") + 1
    ]
    up = Up(up_line, place)
    try:
        up.wait_for("running; Ctrl-C stops it")
        outputs = {line: run(understudy(line), place) for line in tour}
        assert up.wait_ended() == 0
    finally:
        up.end()

    assert "steak from the grill" in outputs["understudy call kitchen.cook '\"steak\"'"]
    assert len(outputs['understudy call kitchen.courses \'["soup", "fish"]\''].splitlines()) == 2
    assert "life 2" in outputs["understudy kill kitchen/0"]
    assert "kitchen: 4 members" in outputs["understudy scale kitchen=4 cellar=+1 --wait"]
    assert outputs["understudy restart cellar --rolling"] == "restarted: cellar/0, cellar/1\n"
    assert "cook(" in outputs["understudy describe kitchen"]
    state = json.loads(outputs["understudy ps -o json"])
    assert {service["name"]: service["ready"] for service in state["services"]} == {"kitchen": 4, "cellar": 2}
    assert "└── cellar/1" in outputs["understudy tree"]
    assert re.search(r"kitchen/\d life 1  cooked  dish=steak", outputs["understudy logs kitchen --since 5m"])
    assert "scales from 2 to 4" in outputs["understudy events --last 20"]


def test_the_job_does_what_the_readme_says(place: Path) -> None:
    start = len(COMMANDS) - 1 - COMMANDS[::-1].index("understudy up examples/codesearch.py")
    up_line, query, kill, down = COMMANDS[start:]
    up = Up(up_line, place)
    try:
        up.wait_for("digest ")
        hits = json.loads(run(understudy(query), place))
        assert "life 2" in run(understudy(kill), place)
        run(understudy(down), place)
        assert up.wait_ended() == 0
    finally:
        up.end()

    assert hits[0]["file"].startswith("asyncio/")
    assert hits[0]["line"] > 0
    assert hits[0]["snippet"]


def test_calls_can_do_what_it_says_beside(place: Path) -> None:
    (place / "calls.py").write_text(CALLS)

    said = run([sys.executable, "calls.py"], place).splitlines()

    assert said == ["7: steak 3", "soup, served", "steak, served", "cake, served"]


def test_ci_runs_the_command_that_the_readme_shows() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    command = next(line for line in INSTALLING if "pytest" in line)

    assert command in script


def test_no_command_of_the_readme_is_left_untested() -> None:
    """Whoever adds one adds its test; only installing, tests, benchmarks and chaos may be missing."""
    assert [line for line in COMMANDS if not line.startswith("understudy ")] == []
    assert len(COMMANDS) == 18
    assert len(PYTHON) == 6

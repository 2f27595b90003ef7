"""
What all tests share: a run root, a Ray cluster, systems in memory, their events, a clock moved by hand.

Everything that is written or started belongs to one short directory under /tmp and carries a mark in
its environment: when the session ends, nothing of that may be left. Where tests run in two
processes at once, each is a session of its own in this.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from actors import ActorSystem
from actors.events import Event
from actors.testing import ManualClock, memory_system, wait_until_sync
from supervisors import settings
from tests.marked import MARK, marked_processes

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
"""As many as the cores that the time limits of the tests were measured on."""


STAGE = """
def open_nothing(config):
    return object()
"""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; what somebody names runs in this one, where a debugger works."""
    return WORKERS if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow files first, where workers share them: so both end at the same time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session", autouse=True)
def run_root() -> Iterator[Path]:
    """The run root of the session; at the end it is empty, and no process is left."""
    base = Path(tempfile.mkdtemp(prefix="ur-", dir="/tmp"))
    home = base / "home"
    home.mkdir()
    root = base / "r"
    root.mkdir(mode=0o700)
    mark = secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {settings.RUN_ROOT_VARIABLE: str(root), MARK: mark, "HOME": str(home)}.items():
            patch.setenv(name, value)
        yield root
    with contextlib.suppress(TimeoutError):
        wait_until_sync(lambda: not marked_processes(mark), 10)
    left = [*marked_processes(mark).items(), *root.rglob("*"), *home.rglob("*")]
    shutil.rmtree(base)
    assert left == []


@pytest.fixture(scope="session")
def address(run_root: Path) -> Iterator[str]:
    """
    The shared cluster: 4 CPUs, a GPU that is none, a custom resource and a label.

    A house of ours owns it, like any app's; tests join it with `run(address=…)`.
    """
    (run_root.parent / "empty_stage.py").write_text(STAGE)
    config = {
        "app_name": "cluster",
        "run_dir": str(run_root / "cluster"),
        "num_cpus": 4,
        "num_gpus": 1,
        "labels": {"disk": "ssd"},
        "resources": {"press": 1},
        "sys_path": [str(run_root.parent)],
        "opener": "empty_stage:open_nothing",
    }
    house = subprocess.Popen(
        [sys.executable, "-m", "supervisors.house"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    assert house.stdin is not None
    assert house.stdout is not None
    house.stdin.write(json.dumps(config).encode() + b"\n")
    house.stdin.flush()
    phases = [json.loads(line) for line in itertools.islice(house.stdout, 3)]
    assert [phase.get("phase") for phase in phases] == ["starting ray", "ray", "stage"], phases
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(run_root / "cluster" / "ray-token"))
        yield str(phases[1]["address"])
    house.stdin.close()
    assert house.wait(15) == 0
    house.stdout.close()


@pytest.fixture
def events() -> list[Event]:
    """All events of `system` and `other`."""
    return []


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
async def system(events: list[Event]) -> AsyncIterator[ActorSystem]:
    """A system on the test's loop, with an inbox in memory."""
    async with memory_system(sinks=(events.append,)) as system:
        yield system


@pytest.fixture
async def other(events: list[Event]) -> AsyncIterator[ActorSystem]:
    """Another process, as far as actors can tell."""
    async with memory_system(sinks=(events.append,)) as other:
        yield other


@pytest.fixture
async def timed(events: list[Event], clock: ManualClock) -> AsyncIterator[ActorSystem]:
    """A system whose time is `clock`."""
    async with memory_system(sinks=(events.append,), clock=clock) as system:
        yield system


# Who runs the tests in the background has them ignore SIGINT, and every process they start:
# Ctrl-C is part of what is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a machine that is busy, an example that takes 1 ms may take 300.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

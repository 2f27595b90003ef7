"""One Ray cluster for all tests, owned by a house like any app's; they join it with `run(address=…)`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError
from actors.testing import wait_until_sync
from supervisors import App, Cluster, Service, settings
from tests.marked import MARK, marked_processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

sys.path.insert(0, str(HERE))  # `players`, by the name that hosts know it by

STAGE = """
def open_nothing(config):
    return object()
"""


wait_until = partial(wait_until_sync, timeout=20.0)
"""The first true value of a condition; fails the test when there is none in time."""


@pytest.fixture(scope="session")
def address(run_root: Path) -> Iterator[str]:
    """The shared cluster: 4 CPUs, a GPU that is none, a custom resource and a label."""
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


@dataclass
class Venue:
    """Where tests run their apps."""

    address: str
    run_root: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextlib.contextmanager
    def play(self, *services: Service[Any], **options: Any) -> Iterator[Cluster]:
        """An app of *services* on the shared cluster; afterwards nothing of it may be left."""
        app = App(*services, name=f"play-{next(self._numbers)}", **options)
        run = app.run(address=self.address)
        cluster = run.start()
        pids: set[int] = set()
        try:
            yield cluster
        finally:
            with contextlib.suppress(ActorError):
                pids = processes(cluster.ps().result())
            run.stop()
        alive = {pid for pid in pids if settings.process_start_time(pid) is not None}
        assert alive == set()
        assert not (self.run_root / app.name).exists()


def processes(ps: Mapping[str, Any]) -> set[int]:
    """The processes of an app: its stage, its hosts, its understudies."""
    members = {row["pid"] for row in ps["members"] if row["pid"]}
    return {ps["stage"]["pid"], *members, *(row["pid"] for row in ps["understudies"])}


@pytest.fixture(scope="session")
def venue(address: str, run_root: Path) -> Venue:
    return Venue(address, run_root)


class Audience:
    """What tests want to see of a running app."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def row(self, name: str) -> dict[str, Any]:
        """The row of a service or, with a slash, of a member."""
        kind = "members" if "/" in name else "services"
        return next(row for row in self.cluster.ps().result()[kind] if row["name"] == name)

    def wait_row(self, name: str, **wanted: Any) -> dict[str, Any]:
        """The row once all of *wanted* is so."""

        def fits() -> dict[str, Any] | None:
            row = self.row(name)
            return row if all(row[key] == value for key, value in wanted.items()) else None

        return wait_until(fits)  # type: ignore[no-any-return]

    def wait_understudy(self) -> None:
        """Until somebody stands ready, so that a restart costs no interpreter's boot."""
        wait_until(lambda: self.cluster.ps().result()["understudies"])

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """All events of that kind so far."""
        found = [each for each in self.cluster.events(last=10_000) if each["event"] == event]
        return [each for each in found if all(each[key] == value for key, value in fields.items())]


@pytest.fixture(scope="session")
def watch() -> Callable[[Cluster], Audience]:
    return Audience


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def left_of() -> Callable[[str], dict[int, str]]:
    """Living processes that inherited a mark."""
    return marked_processes


@pytest.fixture(scope="session")
def hosts() -> Callable[[], set[int]]:
    """All host processes of this session, known to their app or not."""
    return lambda: {
        pid for pid, command in marked_processes(os.environ[MARK]).items() if "HostShell" in command
    }

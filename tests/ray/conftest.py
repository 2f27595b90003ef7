"""Apps on the cluster that all tests share, and what tests want to see of them."""

from __future__ import annotations

import contextlib
import itertools
import os
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

sys.path.insert(0, str(HERE))  # `players`, by the name that hosts know it by

wait_until = partial(wait_until_sync, timeout=20.0)
"""The first true value of a condition; fails the test when there is none in time."""


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

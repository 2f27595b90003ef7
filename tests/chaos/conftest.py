"""One app on a cluster of its own for most fault rows, and a watch on what becomes of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError, Unavailable
from supervisors import App, Backoff, Cluster, Resources, Service
from supervisors.testing import Ledger, LocalApp, Nemesis, Scribe, local_app
from tests.chaos.players import Sleeper

SOON = Backoff(initial=0.05, factor=2, maximum=0.2, jitter=0)


@dataclass
class Theatre:
    """The app under test and all one needs to torment it."""

    local: LocalApp
    cluster: Cluster
    nemesis: Nemesis
    ledger: Ledger
    folder: Path

    def row(self, name: str) -> dict[str, Any]:
        """The row of a service or, with a slash, of a member."""
        kind = "members" if "/" in name else "services"
        return next(row for row in self.cluster.ps().result(5)[kind] if row["name"] == name)

    def member(self, name: str) -> Any:
        service, _, number = name.partition("/")
        return self.cluster.service(service).member(int(number))

    def who(self, name: str) -> tuple[str, int, int]:
        """Member, life, pid, from its next answer, past the moments in which nobody is there."""
        found: list[tuple[str, int, int]] = []

        def ask() -> bool:
            with contextlib.suppress(Unavailable):
                found.append(self.member(name).who().result(10))
            return bool(found)

        wait_until(ask, pause=0.001)
        return found[0]

    def wait_state(self, name: str, *states: str, timeout: float = 20.0) -> dict[str, Any]:
        """The row once its state is one of *states*."""
        found: dict[str, Any] = {}

        def fits() -> bool:
            with contextlib.suppress(ActorError):
                found.update(self.row(name))
            return found.get("state") in states

        wait_until(fits, timeout)
        return found

    def wait_ready(self) -> None:
        """Until somebody stands ready to take over."""

        def fits() -> bool:
            with contextlib.suppress(ActorError):
                return bool(self.cluster.ps().result(5)["understudies"])
            return False

        wait_until(fits)

    def lives(self) -> dict[str, tuple[int, int]]:
        """Life and pid of every member, from the stage."""
        return {
            row["name"]: (row["incarnation"], row["pid"]) for row in self.cluster.ps().result(5)["members"]
        }


def wait_until(condition: Callable[[], object], timeout: float = 20.0, pause: float = 0.01) -> Any:
    """The first true value of *condition*; fails the test when there is none in time."""
    give_up_at = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < give_up_at, "the condition did not come true"
        time.sleep(pause)
    return found


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    folder = tmp_path_factory.mktemp("ledger")

    def service(name: str, size: int, **options: Any) -> Service[Scribe]:
        defaults: dict[str, Any] = {"backoff": SOON, "shutdown": 1.0, "start_timeout": 2.0}
        return Service(name, Scribe, args=(str(folder),), size=size, **{**defaults, **options})

    local = local_app(
        App(
            service("desk", 2, per_host=1),
            service("shared", 2, per_host=2),
            service("pair", 2, per_host=2, strategy="one_for_all"),
            service("strict", 1, intensity=2, period=3600.0),
            service("storm", 1, intensity=3, period=3600.0),
            service("duo", 2, per_host=1, strategy="one_for_all"),
            Service(
                "sleepers",
                Sleeper,
                args=(str(folder / "blocked"),),
                size=2,
                per_host=2,
                backoff=SOON,
                start_timeout=2.0,
            ),
            service("cell", 1, resources=Resources(cpu=0.1)),
            name="torment",
            heartbeat_limit=2.0,
        )
    )
    with local as cluster:
        ledger = Ledger(folder)
        with Nemesis(cluster, seed=1, directory=folder, period=1.0) as nemesis:
            yield Theatre(local, cluster, nemesis, ledger, folder)
        ledger.close()

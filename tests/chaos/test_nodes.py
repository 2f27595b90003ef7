"""Nodes that are lost, on a Ray cluster of several nodes in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from actors.errors import ActorError, Unavailable
from actors.testing import wait_until_sync
from supervisors import App, Cluster, Resources, Service, settings
from supervisors.testing import Scribe

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
period = int(sys.argv[2])
health = {"health_check_initial_delay_ms": 500, "health_check_period_ms": period,
          "health_check_timeout_ms": 500, "health_check_failure_threshold": 2}
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 1, "include_dashboard": False, "no_monitor": True, "include_log_monitor": False,
    "temp_dir": sys.argv[1], "_system_config": health})
nodes = {"loge": cluster.add_node(num_cpus=1, resources={"loge": 1}, labels={"kind": "ram"})}
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    order, name = line.split()
    if order == "add":
        nodes[name] = cluster.add_node(num_cpus=1, labels={"kind": "ram"})
    else:
        cluster.remove_node(nodes[name], allow_graceful=order == "retire")
    print("done", flush=True)
cluster.shutdown()
"""

ROOMY = Resources(labels={"kind": "ram"}, cpu=0.5)


class Tour:
    """An app on several nodes, and orders to those."""

    def __init__(self, process: subprocess.Popen[str], cluster: Cluster) -> None:
        self._process = process
        self.cluster = cluster

    def order(self, order: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.cluster.ps().result(5)["members"]}

    def nodes(self) -> int:
        return sum(node["alive"] for node in self.cluster.nodes().result())

    def wait(self, condition: Callable[[dict[str, dict[str, Any]]], object]) -> dict[str, dict[str, Any]]:
        """The rows once *condition* holds for them."""
        give_up_at = time.monotonic() + 30
        while not condition(rows := self.rows()):
            assert time.monotonic() < give_up_at, rows
            time.sleep(0.05)
        return rows


SOON, NEVER = 300, 10**9
"""Milliseconds between two of Ray's own looks at a node."""


@pytest.fixture
def tour(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tour]:
    """Members that only one node can carry, that the next one can too, and that any can."""
    root = Path("/tmp") / f"ul-{os.getpid()}"
    root.mkdir(mode=0o700)
    for name, value in {
        settings.RUN_ROOT_VARIABLE: str(root),
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(root / "ray"), str(getattr(request, "param", SOON))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    ledger = (str(tmp_path / "ledger"),)
    app = App(
        Service("free", Scribe, args=ledger, size=2, per_host=1, intensity=0),
        Service("box", Scribe, args=ledger, resources=Resources(custom={"loge": 1}), intensity=0),
        Service("ram", Scribe, args=ledger, resources=ROOMY, intensity=0),
        name="touring",
    )
    try:
        assert process.stdout is not None
        with app.run(address=process.stdout.readline().strip()) as cluster:
            yield Tour(process, cluster)
    finally:
        process.communicate(timeout=60)
        shutil.rmtree(root / "ray", ignore_errors=True)
        root.rmdir()


def test_F18_members_of_a_lost_node_come_back_on_another(tour: Tour) -> None:
    """At no cost, although an intensity of 0 allows none; callers notice little."""
    before = tour.rows()
    loge = before["box/0"]["node"]
    assert before["ram/0"]["node"] == loge
    assert sorted(row["node"] == loge for name, row in before.items() if "free" in name) == [False, True]
    stage = tour.cluster.ps().result()["stage"]
    tour.order("add stalls")
    with calls_to(tour.cluster, "free") as outcomes:
        tour.order("lose loge")
        after = tour.wait(
            lambda rows: (
                rows["ram/0"]["incarnation"] == 2
                and sorted(row["state"] for row in rows.values()) == ["pending", *["running"] * 3]
            )
        )

    assert tour.cluster.ps().result()["stage"] == stage
    assert after["box/0"]["reason"] == "needs 1 loge; nodes have 0 free of 0"
    assert loge not in {row["node"] for row in after.values()}
    for name, row in after.items():
        assert row["incarnation"] == 1 + (before[name]["node"] == loge), name
        assert (row["last_exit"] or "").startswith("node_lost") == (before[name]["node"] == loge), name
    assert {service["state"] for service in tour.cluster.ps().result()["services"]} == {
        "running",
        "degraded",
    }
    # What was in the hands of the lost one fails at once; nobody waits for Ray.
    assert sum(error is not None for error, _ in outcomes) <= 2
    assert max(seconds for _, seconds in outcomes) < 2

    tour.order("retire stalls")

    rows = tour.wait(
        lambda rows: (
            [rows[name]["state"] for name in ("ram/0", "free/0", "free/1")]
            == ["pending", "running", "running"]
        )
    )
    assert rows["ram/0"]["reason"] == "needs a node with labels kind=ram; no node has them"


@pytest.mark.parametrize("tour", [NEVER], indirect=True)
def test_F18_nobody_waits_for_ray_to_notice_the_loss_of_a_node(tour: Tour) -> None:
    """It never does here: the pipes tell callers, and the closed socket of Ray's process tells us."""
    before = tour.rows()
    tour.order("add stalls")
    with calls_to(tour.cluster, "ram") as moved, calls_to(tour.cluster, "box") as stranded:
        tour.order("lose loge")
        after = tour.wait(
            lambda rows: (
                rows["ram/0"]["incarnation"] == 2
                and sorted(row["state"] for row in rows.values()) == ["pending", *["running"] * 3]
            )
        )
        begun = len(moved), len(stranded)
        wait_until_sync(lambda: len(moved) > begun[0] + 3 and len(stranded) > begun[1] + 3)

    assert after["ram/0"]["node"] != before["ram/0"]["node"]
    assert after["box/0"]["reason"] == "needs 1 loge; nodes have 0 free of 0"
    assert [error for error, _ in moved[-3:]] == [None] * 3
    assert {type(error) for error, _ in stranded[-3:]} == {Unavailable}
    # A member that can be placed is worth waiting for. One that cannot be is not: nobody's time runs out.
    assert {type(error) for error, _ in stranded} == {NoneType, Unavailable}


@contextlib.contextmanager
def calls_to(cluster: Cluster, service: str) -> Iterator[list[tuple[ActorError | None, float]]]:
    """One call after the other meanwhile: what each came to, and in how many seconds."""
    outcomes: list[tuple[ActorError | None, float]] = []
    is_over = threading.Event()

    def call() -> None:
        target = cluster.service(service).options(timeout=10)
        while not is_over.is_set():
            begun_at = time.monotonic()
            error = None
            try:
                target.who().result()
            except ActorError as raised:
                error = raised
            outcomes.append((error, time.monotonic() - begun_at))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield outcomes
    finally:
        is_over.set()
        thread.join()

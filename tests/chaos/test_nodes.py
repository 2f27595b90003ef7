"""Nodes that are lost, on a Ray cluster of several nodes in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError
from supervisors import App, Resources, Service, settings
from supervisors.testing import Scribe

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=1, resources={"loge": 1})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(node, allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    yield process
    process.communicate(timeout=60)


@pytest.mark.skipif(not os.environ.get("CHAOS_LONG"), reason="a second Ray cluster; part of the long run")
@pytest.mark.xfail(strict=False, reason="lost nodes are not followed yet")
def test_F18_members_of_a_lost_node_come_back_on_another(
    nodes: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that only it could carry are pending, with the reason."""
    root = Path("/tmp") / f"ul-{os.getpid()}"
    root.mkdir(mode=0o700)
    monkeypatch.setenv(settings.RUN_ROOT_VARIABLE, str(root))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    app = App(
        Service("desk", Scribe, args=(str(tmp_path / "ledger"),), size=2, resources=Resources(cpu=0.4)),
        Service("box", Scribe, args=(str(tmp_path / "ledger"),), resources=Resources(custom={"loge": 1})),
        name="touring",
    )
    try:
        with app.run(address=nodes.stdout.readline().strip()) as cluster:
            nodes.stdin.write("remove\n")
            nodes.stdin.flush()
            assert nodes.stdout.readline() == "removed\n"

            def state() -> dict[str, Any]:
                with contextlib.suppress(ActorError):
                    return {row["name"]: row["state"] for row in cluster.ps().result(5)["members"]}
                return {}

            give_up_at = time.monotonic() + 30
            while state() != {"desk/0": "running", "desk/1": "running", "box/0": "pending"}:
                assert time.monotonic() < give_up_at, cluster.ps().result(5)["members"]
                time.sleep(0.2)
            assert "loge" in next(
                row["reason"] for row in cluster.ps().result()["members"] if row["name"] == "box/0"
            )
    finally:
        with contextlib.suppress(OSError):
            root.rmdir()

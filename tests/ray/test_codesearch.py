"""The example that does a job: killed anywhere in the middle, its index is the one that nobody disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from actors.errors import ActorError
from supervisors import loading

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def codesearch() -> Iterator[ModuleType]:
    """The example as an app file is loaded; forgotten afterwards, for it looks at the machine then."""
    yield loading.load_file(str(EXAMPLES / "codesearch.py"))
    for name in ("codesearch", "codeindex"):
        sys.modules.pop(name, None)
    with contextlib.suppress(ValueError):
        sys.path.remove(str(EXAMPLES))


async def kill_on_progress(cluster: Any, plan: dict[float, str]) -> list[str]:
    """SIGKILL the members of *plan* as soon as that part of all files is done; returns whom."""
    killed = []
    while await done(cluster) == 1:  # of the job before
        await asyncio.sleep(0.02)
    for part, name in sorted(plan.items()):
        while await done(cluster) < part:
            await asyncio.sleep(0.02)
        members = {row["name"]: row for row in (await cluster.ps())["members"]}
        os.kill(members[name]["pid"], signal.SIGKILL)
        killed.append(name)
        while {row["name"]: row for row in (await cluster.ps())["members"]}[name]["incarnation"] == members[
            name
        ]["incarnation"]:
            await asyncio.sleep(0.02)
    return killed


async def done(cluster: Any) -> float:
    try:
        progress = await cluster.service("ledger").progress()
    except ActorError:
        return 0.0  # the ledger itself is away
    return (progress["indexed"] + len(progress["skipped"])) / max(1, progress["files"])


def test_kills_in_every_service_leave_the_index_as_it_would_have_been(
    codesearch: ModuleType, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play() -> list[str]:
        async with codesearch.app.run(address=address) as cluster:
            await codesearch.main(cluster, "--tests")
            plan = {0.05: "shards/1", 0.15: "parse/0", 0.25: "ledger/0", 0.4: "search/0", 0.6: "shards/2"}
            killing = asyncio.create_task(kill_on_progress(cluster, plan))
            await codesearch.main(cluster, "--tests")
            killed = await killing
            after = {row["name"]: row for row in (await cluster.ps())["members"]}["shards/0"]
            os.kill(after["pid"], signal.SIGKILL)
            while not (await cluster.service("ledger").progress())["is_complete"]:
                await asyncio.sleep(0.05)
            hits = await cluster.service("search").options(timeout=20).query("asyncio event loop")
            assert all(set(hit) == {"file", "line", "snippet", "score"} for hit in hits)
            assert any("asyncio" in hit["file"] for hit in hits)
            return killed

    killed = asyncio.run(play())

    lines = capsys.readouterr().out.splitlines()
    digests = [line for line in lines if line.startswith("digest ")]
    counts = [line.split(", in ")[0] for line in lines if line.startswith("indexed ")]
    assert {name.partition("/")[0] for name in killed} == {"shards", "parse", "ledger", "search"}
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert counts[0] == counts[1]


def test_ranking_asks_for_a_gpu_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a device the search service holds a GPU slot, and keeps its device across processes."""
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0" or exists(path))
    (tmp_path / "loop.py").write_text('"""An event loop."""\n\n\ndef run_loop(): ...\n')
    sys.path.insert(0, str(EXAMPLES))
    try:
        codesearch = importlib.import_module("codesearch")
        assert codesearch.app.services[-1].resources.gpu == 1

        async def play() -> list[Any]:
            async with codesearch.app.run(num_cpus=2, num_gpus=1) as cluster:
                await codesearch.main(cluster, str(tmp_path))
                search = cluster.service("search").options(timeout=30)
                before = await search.query("event loop")
                first = await devices(cluster)
                await cluster.kill("search/0")
                return [before, await search.query("event loop"), first, await devices(cluster)]

        before, after, first, second = asyncio.run(play())
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in ("codesearch", "codeindex"):
            sys.modules.pop(name, None)

    assert before == after
    assert before[0]["file"] == "loop.py"
    assert (first["incarnation"], second["incarnation"]) == (1, 2)
    assert first["devices"] == second["devices"] == ["0"]


async def devices(cluster: Any) -> dict[str, Any]:
    """The life of `search/0` and the devices that its slot holds."""
    while True:
        row = next(row for row in (await cluster.ps())["members"] if row["name"] == "search/0")
        if row["state"] == "running":
            return dict(row)
        await asyncio.sleep(0.02)

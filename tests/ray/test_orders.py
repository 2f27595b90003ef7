"""Orders that give members new lives: restart, rolling or not, and reset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Burnt, Chef, OnceBroken

from actors.errors import NotFound, ServiceFailed
from supervisors import Cluster, Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stove(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kitchen") / "stove"


@pytest.fixture(scope="module")
def cluster(venue: Any, stove: Path) -> Iterator[Cluster]:
    services = [
        Service("kitchen", Chef, size=3, per_host=3),
        Service("strict", Chef, per_host=1, intensity=1, period=3600.0),
        Service("late", OnceBroken, args=(str(stove),), intensity=0),
    ]
    with venue.play(*services) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    return watch(cluster)


def lives(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Life and process of each member of the kitchen."""
    rows = cluster.ps().result()["members"]
    return {row["name"]: (row["incarnation"], row["pid"]) for row in rows if row["service"] == "kitchen"}


class TestRestart:
    def test_a_member_begins_anew_in_its_process(self, cluster: Cluster, seen: Any) -> None:
        before = lives(cluster)
        chef = cluster.service("kitchen").member(1)
        chef.cook("steak").result()

        report = cluster.restart("kitchen/1").result()

        assert report == {"restarted": ["kitchen/1"]}
        life, pid = before["kitchen/1"]
        assert lives(cluster) == {**before, "kitchen/1": (life + 1, pid)}
        assert chef.count().result() == 0
        assert seen.row("kitchen/1")["last_exit"] == "killed (order)"

    @pytest.mark.parametrize("rolling", [False, True])
    def test_a_service_is_renewed_and_what_it_was_asked_is_answered(
        self, cluster: Cluster, rolling: bool
    ) -> None:
        before = lives(cluster)
        kitchen = cluster.service("kitchen")
        naps = [kitchen.options(timeout=20).nap(0.3) for _ in range(6)]

        report = cluster.restart("kitchen", rolling=rolling).result()

        assert sorted(report["restarted"]) == sorted(before)
        assert {nap.result().partition("/")[0] for nap in naps} == {"kitchen"}
        assert lives(cluster) == {name: (life + 1, pid) for name, (life, pid) in before.items()}

    def test_orders_are_never_counted(self, cluster: Cluster, seen: Any) -> None:
        """Its intensity is 1."""
        for _ in range(4):
            cluster.restart("strict/0").result()

        assert seen.row("strict")["state"] == "running"
        assert cluster.service("strict").cook("steak").result() == "steak from the grill"

    @pytest.mark.parametrize("name", ["kitchne", "kitchen/9"])
    def test_of_nobody_is_not_found(self, cluster: Cluster, name: str) -> None:
        with pytest.raises(NotFound, match=name):
            cluster.restart(name).result()


class TestReset:
    def test_a_failed_service_runs_again_with_fresh_limits(self, cluster: Cluster, seen: Any) -> None:
        strict = cluster.service("strict")
        life = seen.row("strict/0")["incarnation"]
        for _ in range(2):
            seen.wait_row("strict/0", state="running")
            with pytest.raises(Burnt):
                strict.burn().result()
        seen.wait_row("strict", state="failed")
        with pytest.raises(ServiceFailed):
            strict.cook("steak").result()

        report = cluster.reset("strict").result()

        assert report == {"service": "strict", "revived": True, "state": "running"}
        assert strict.cook("steak").result() == "steak from the grill"
        assert seen.row("strict/0")["incarnation"] > life
        with pytest.raises(Burnt):
            strict.burn().result()
        seen.wait_row("strict", state="running")

    def test_one_that_never_started_may_start_now(self, cluster: Cluster, seen: Any, stove: Path) -> None:
        seen.wait_row("late", state="failed")
        stove.touch()

        assert cluster.reset("late").result()["state"] == "running"

    def test_one_that_has_not_failed_is_left_alone(self, cluster: Cluster) -> None:
        before = lives(cluster)

        assert cluster.reset("kitchen").result() == {
            "service": "kitchen",
            "revived": False,
            "state": "running",
        }
        assert lives(cluster) == before


def test_a_description_says_what_can_be_asked_and_how_it_restarts(cluster: Cluster) -> None:
    found = cluster.describe("kitchen").result()

    methods = {method["name"]: method for method in found["methods"]}
    assert methods["cook"]["signature"] == "(dish: 'str', times: 'int' = 1) -> 'str'"
    assert methods["courses"]["kind"] == "stream"
    assert (found["strategy"], found["restart"], found["per_host"]) == ("one_for_one", "permanent", 3)
    assert found["doc"] == "Cooks, and ends in whatever way it is told."

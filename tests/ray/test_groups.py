"""Groups of services and the whole tree: what gives up, what restarts with it, what a new stage finds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Burnt, Chef, Diarist, Foreman, Slow

from actors.errors import ActorError, NotFound, ServiceFailed
from actors.testing import wait_until_sync
from supervisors import Cluster, Group, Service, settings

pytestmark = pytest.mark.ray

OFTEN = 3600.0


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    hotel = Group(
        "hotel",
        Service("cellar", Chef),
        Group(
            "line",
            Service("store", Chef),
            Service("larder", Chef, intensity=0),
            Service("kitchen", Chef, size=2, per_host=2),
            strategy="rest_for_one",
            intensity=50,
            period=OFTEN,
        ),
    )
    strict = Group("strict", Service("stove", Chef, intensity=0), Service("sink", Chef), intensity=0)
    with venue.play(Service("bar", Chef), hotel, strict, Service("crew", Foreman), understudies=2) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    return watch(cluster)


def pids(cluster: Cluster) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in cluster.ps().result()["members"]}


def burn(service: Any) -> None:
    """One crash, which is one too many for a service with no intensity."""
    with pytest.raises(Burnt):
        service.burn().result(10)


def node(tree: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        tree = next(child for child in tree["children"] if child["name"] == name)
    return tree


def shape(tree: dict[str, Any]) -> Any:
    return {child["name"]: shape(child) for child in tree["children"]}


def returned_after(cluster: Cluster, before: dict[str, Any]) -> Any:
    """A condition: what the next life of the stage says, once it is there."""

    def returned() -> Any:
        try:
            ps = cluster.ps().result(1)
        except ActorError:
            return None
        return ps if ps["stage"]["epoch"] > before["stage"]["epoch"] else None

    return returned


class TestAServiceThatGivesUp:
    def test_takes_those_behind_it_along_and_nobody_before_it(self, cluster: Cluster, seen: Any) -> None:
        before = pids(cluster)

        burn(cluster.service("larder"))

        seen.wait_row("kitchen/1", state="running", incarnation=2)
        assert cluster.service("kitchen").cook("steak").result() == "steak from the grill"
        after = pids(cluster)
        lives = {row["name"]: row["incarnation"] for row in cluster.ps().result()["members"]}
        assert after == before, "it was repaired inside its processes, which keep what they hold"
        assert {name for name, life in lives.items() if life == 2} == {"larder/0", "kitchen/0", "kitchen/1"}
        assert seen.row("larder")["last_exit"] == "shutdown (intensity)"
        assert seen.row("larder")["restarts"] == 1
        assert seen.row("kitchen/0")["incarnation"] == 2
        assert [each["group"] for each in seen.events("group.child_exited", child="larder")] == ["line"]

    def test_callers_wait_for_the_group_instead_of_failing(self, cluster: Cluster, seen: Any) -> None:
        seen.wait_row("kitchen", state="running", ready=2)
        larder = cluster.service("larder").options(timeout=30)
        burn(larder)

        answers = [larder.who() for _ in range(5)]

        assert {answer.result()[0] for answer in answers} == {"larder/0"}

    def test_a_size_that_was_ordered_outlives_the_restart(self, cluster: Cluster, seen: Any) -> None:
        life = seen.wait_row("larder/0", state="running")["incarnation"]
        seen.wait_row("kitchen", state="running", ready=2)
        cluster.scale("kitchen", 3).result()

        burn(cluster.service("larder"))

        seen.wait_row("larder/0", state="running", incarnation=life + 1)
        seen.wait_row("kitchen", state="running", ready=3)
        assert seen.row("kitchen")["size"] == 3
        cluster.scale("kitchen", 2).result()


class TestAGroupThatGivesUp:
    def test_fails_as_a_whole_and_is_reset_as_a_whole(self, cluster: Cluster, seen: Any, until: Any) -> None:
        sink = cluster.service("sink")
        bar = pids(cluster)["bar/0"]
        burn(cluster.service("stove"))

        reason = r"group strict gave up: stove gave up: error \(Burnt: the roux\)"
        until(lambda: seen.row("sink")["state"] == "failed")
        with pytest.raises(ServiceFailed, match=reason):
            sink.cook("soup").result(1)
        with pytest.raises(ServiceFailed, match=reason):
            cluster.scale("sink", 2).result()
        assert {row["name"]: row["state"] for row in cluster.ps().result()["groups"]} == {
            "hotel": "running",
            "line": "running",
            "strict": "failed",
        }
        assert pids(cluster)["bar/0"] == bar

        assert cluster.reset("sink").result() == {"service": "sink", "revived": True, "state": "running"}
        assert sink.cook("soup").result(10) == "soup from the grill"
        assert cluster.service("stove").cook("soup").result(10) == "soup from the grill"
        assert cluster.reset("strict").result() == {"service": "strict", "revived": False, "state": "running"}

    def test_its_name_is_no_services(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match="'line' is a group of store, larder, kitchen: name one of them"):
            cluster.scale("line", 2).result()
        with pytest.raises(NotFound, match="did you mean"):
            cluster.reset("stric").result()


class TestTheTree:
    def test_shows_groups_services_members_and_what_lives_in_them(self, cluster: Cluster, seen: Any) -> None:
        seen.wait_row("kitchen", state="running", ready=2)
        tree = cluster.tree().result()

        assert shape(tree) == {
            "bar": {"bar/0": {}},
            "hotel": {
                "cellar": {"cellar/0": {}},
                "line": {
                    "store": {"store/0": {}},
                    "larder": {"larder/0": {}},
                    "kitchen": {"kitchen/0": {}, "kitchen/1": {}},
                },
            },
            "strict": {"stove": {"stove/0": {}}, "sink": {"sink/0": {}}},
            "crew": {
                "crew/0": {
                    "crew/0/helpers": {
                        "crew/0/helpers/cook": {},
                        "crew/0/helpers/night": {"crew/0/helpers/night/porter": {}},
                    },
                    "crew/0/runner": {},
                }
            },
        }
        line = node(tree, "hotel", "line")
        assert (line["kind"], line["strategy"], line["state"]) == ("supervisor", "rest_for_one", "running")
        assert node(tree, "crew", "crew/0", "crew/0/helpers")["strategy"] == "rest_for_one"

    def test_a_helper_that_crashed_shows_its_restart_and_last_exit(self, cluster: Cluster) -> None:
        cluster.service("crew").burn("cook").result()

        helpers = ("crew", "crew/0", "crew/0/helpers")

        def cook_of_now() -> dict[str, Any]:
            return node(cluster.tree().result(), *helpers, "crew/0/helpers/cook")

        wait_until_sync(lambda: cook_of_now()["state"] == "running", 20)
        cook = cook_of_now()
        night = node(cluster.tree().result(), *helpers, "crew/0/helpers/night")
        assert (cook["state"], cook["incarnation"], cook["restarts"]) == ("running", 2, 1)
        assert cook["last_exit"] == "error (Burnt: the roux)"
        assert (night["kind"], night["strategy"], night["incarnation"]) == ("supervisor", "one_for_all", 2)

    @pytest.mark.parametrize("end", ["burn_down", "die"])
    def test_helpers_come_back_with_the_member_they_belong_to(
        self, cluster: Cluster, seen: Any, end: str
    ) -> None:
        before = node(cluster.tree().result(), "crew", "crew/0")
        cluster.service("crew").tell(end)
        seen.wait_row("crew/0", state="running", incarnation=before["incarnation"] + 1)

        after = node(cluster.tree().result(), "crew", "crew/0")

        assert shape(after) == shape(before)
        assert node(after, "crew/0/helpers", "crew/0/helpers/cook")["incarnation"] == 1

    def test_a_process_that_stands_still_delays_nobody(self, cluster: Cluster) -> None:
        pid = pids(cluster)["crew/0"]
        os.kill(pid, signal.SIGSTOP)
        try:
            tree = cluster.tree().result(3)
        finally:
            os.kill(pid, signal.SIGCONT)

        assert node(tree, "crew", "crew/0")["inside"] == "no answer"
        assert node(tree, "bar", "bar/0")["children"] == []

    def test_what_is_cut_is_counted(self, cluster: Cluster) -> None:
        cluster.service("crew").hire(600).result()

        crew = node(cluster.tree().result(), "crew", "crew/0")

        assert len(crew["children"]) + crew["hidden"] == 602
        assert len(crew["children"]) <= 500


class TestAStageThatDies:
    def test_finds_tree_sizes_and_failures_as_they_were(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        seen.wait_row("kitchen", state="running", ready=2)
        cluster.scale("store", 2).result()
        burn(cluster.service("stove"))
        seen.wait_row("sink", state="failed")
        seen.wait_row("sink/0", pid=None)
        before = cluster.ps().result()

        os.kill(before["stage"]["pid"], signal.SIGKILL)

        after = until(returned_after(cluster, before))
        for what, keys in (
            ("services", ("name", "group", "state", "size", "ready", "reason")),
            ("groups", ("name", "state", "strategy", "reason", "parts")),
            ("members", ("name", "pid", "incarnation", "state")),
        ):
            assert [[row[key] for key in keys] for row in after[what]] == [
                [row[key] for key in keys] for row in before[what]
            ]
        with pytest.raises(ServiceFailed, match="group strict gave up"):
            cluster.service("sink").cook("soup").result(1)

        life = seen.row("kitchen/0")["incarnation"]
        burn(cluster.service("larder"))
        seen.wait_row("kitchen/0", state="running", incarnation=life + 1)
        store = next(row["pid"] for row in before["members"] if row["name"] == "store/0")
        assert pids(cluster)["store/0"] == store
        assert cluster.reset("strict").result()["state"] == "running"
        assert cluster.service("sink").cook("soup").result(10) == "soup from the grill"

    def test_in_the_middle_of_a_restart_finishes_it(self, venue: Any, watch: Any, until: Any) -> None:
        """Who had been stopped for it is started, and nothing of that is held against anybody."""
        line = Group(
            "line",
            Service("store", Chef),
            Service("larder", Slow, args=(1.0,), intensity=0),
            Service("kitchen", Chef, size=2, intensity=0),
            strategy="rest_for_one",
            intensity=1,
            period=OFTEN,
        )
        with venue.play(line) as cluster:
            seen = watch(cluster)
            burn(cluster.service("larder"))
            seen.wait_row("larder/0", state="restarting", incarnation=2)
            seen.wait_row("kitchen", ready=0)
            before = cluster.ps().result()

            os.kill(before["stage"]["pid"], signal.SIGKILL)

            after = until(returned_after(cluster, before))
            assert "failed" not in {row["state"] for row in after["services"]}
            seen.wait_row("kitchen", state="running", ready=2)
            seen.wait_row("larder", state="running", ready=1)
            assert (
                pids(cluster)["store/0"] == {row["name"]: row["pid"] for row in before["members"]}["store/0"]
            )
            assert seen.events("group.child_exited") == []
            burn(cluster.service("larder"))  # the windows are empty, and hold one
            seen.wait_row("kitchen/0", state="running", incarnation=3)

    def test_while_a_failed_group_stops_lets_nobody_run_on(
        self, venue: Any, watch: Any, until: Any, tmp_path: Path
    ) -> None:
        diary = tmp_path / "diary"
        sink = Service("sink", Diarist, args=(str(diary), 1.5), per_host=1)
        group = Group("strict", sink, Service("stove", Chef, intensity=0), intensity=0)
        with venue.play(group) as cluster:
            seen = watch(cluster)
            pid = seen.row("sink/0")["pid"]
            burn(cluster.service("stove"))
            seen.wait_row("sink", state="failed")
            before = cluster.ps().result()

            os.kill(before["stage"]["pid"], signal.SIGKILL)

            after = until(returned_after(cluster, before))
            assert [row["state"] for row in after["services"]] == ["failed", "failed"]
            until(lambda: settings.process_start_time(pid) is None)
            assert diary.read_text().splitlines() == ["sink/0 started", "sink/0 stopped shutdown"]
            assert cluster.reset("strict").result()["state"] == "running"
            assert cluster.service("sink").pid().result(10) != pid

    def test_an_app_that_stops_while_a_group_restarts_leaves_nothing(self, venue: Any, watch: Any) -> None:
        line = Group(
            "line", Service("larder", Slow, args=(60.0,), intensity=0), Service("kitchen", Chef), intensity=9
        )
        with venue.play(line) as cluster:
            burn(cluster.service("larder"))
            watch(cluster).wait_row("larder/0", incarnation=2)
            began_at = time.monotonic()
        assert time.monotonic() - began_at < 5


class TestOrders:
    def test_a_group_is_restarted_by_order_in_its_own_way(self, cluster: Cluster, seen: Any) -> None:
        before = {row["name"]: row for row in cluster.ps().result()["members"]}

        assert cluster.restart("line").result() == {"restarted": ["store", "larder", "kitchen"]}

        after = {row["name"]: row for row in cluster.ps().result()["members"]}
        renewed = {name for name in after if after[name]["incarnation"] == before[name]["incarnation"] + 1}
        assert renewed == {name for name in after if name.startswith(("store/", "larder/", "kitchen/"))}
        assert len(renewed) >= 4
        assert {row["state"] for row in after.values()} == {"running"}
        assert {name: row["pid"] for name, row in after.items()} == {
            name: row["pid"] for name, row in before.items()
        }

    def test_a_group_is_not_scaled_but_its_services_are(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match="'line' is a group of store, larder, kitchen: name one of them"):
            cluster.scale("line", 2).result()

    def test_a_stage_that_dies_while_it_stops_a_member_costs_that_nothing(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        """`larder` has no intensity: one count would be one too many."""
        before = cluster.ps().result()
        life = seen.row("larder/0")["incarnation"]
        busy = cluster.service("larder").options(timeout=30).nap(1.5)
        until(lambda: cluster.service("store").who().outcome().ok)
        ordered = cluster.restart("larder")
        seen.wait_row("larder/0", state="restarting")

        os.kill(before["stage"]["pid"], signal.SIGKILL)

        until(returned_after(cluster, before))
        assert seen.wait_row("larder/0", state="running", incarnation=life + 1)["last_exit"] is not None
        assert seen.events("member.gave_up", member="larder/0") == []
        assert not ordered.outcome(10).ok
        assert busy.outcome(10).ok

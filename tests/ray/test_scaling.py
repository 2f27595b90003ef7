"""Sizes that change while calls are running, and what the cluster has no room for. One app for all tests."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from players import Chef

from actors.errors import ActorError, ActorStopped, InvalidArgument, NotFound, Unavailable
from supervisors import Cluster, Resources, Service, connect, status

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    services = [
        Service("kitchen", Chef, size=2, per_host=2),
        Service("bar", Chef, size=2, per_host=2, shutdown=1.0, concurrency=2),
        Service("solo", Chef, per_host=1),
        Service("labelled", Chef, resources=Resources(labels={"disk": "ssd"})),
        Service("vision", Chef, resources=Resources(gpu=2)),
        Service("archive", Chef, resources=Resources(memory="1000TiB")),
        Service("vault", Chef, resources=Resources(labels={"disk": "tape"})),
        Service("printer", Chef, resources=Resources(custom={"press": 1})),
        Service("copier", Chef, resources=Resources(custom={"press": 1})),
    ]
    with venue.play(*services) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    return watch(cluster)


class TestUnderLoad:
    async def test_no_call_is_lost_or_fails_while_the_size_changes(self, cluster: Cluster) -> None:
        """Sixty callers without a pause; members come and go; every call has its one answer, its own."""
        async with connect(cluster.app_name) as client:
            kitchen = client.service("kitchen")
            stop = asyncio.Event()
            answered = [0] * 60

            async def call(caller: int) -> None:
                while not stop.is_set():
                    asked = (caller, answered[caller])
                    assert await kitchen.options(timeout=30).echo(asked) == asked
                    answered[caller] += 1

            callers = [asyncio.create_task(call(caller)) for caller in range(60)]
            for size in (5, 1, 4, 2):
                report = await client.scale("kitchen", size)
                assert report["size"] == size
                enough = sum(answered) + 300
                while sum(answered) < enough and not any(caller.done() for caller in callers):
                    await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*callers)

            assert min(answered) > 5
            names = [
                member["name"] for member in (await client.ps())["members"] if member["service"] == "kitchen"
            ]
            assert names == ["kitchen/0", "kitchen/1"]

    def test_what_waited_in_a_leaving_mailbox_is_answered_by_another(self, cluster: Cluster) -> None:
        cluster.scale("bar", 3).result()
        bar = cluster.service("bar").options(timeout=30)
        leaving = cluster.service("bar").member(2)
        first = leaving.nap(0.15)
        leaving.who().result()  # beside the nap: bar/2 has begun
        replies = [first, *(bar.nap(0.15) for _ in range(15))]

        cluster.scale("bar", 2).result()

        answered_by = [reply.result() for reply in replies]
        assert set(answered_by) == {"bar/0", "bar/1", "bar/2"}
        assert answered_by.count("bar/2") < 5


class TestDraining:
    def test_a_running_handler_may_finish_within_the_shutdown_time(self, cluster: Cluster, seen: Any) -> None:
        cluster.scale("bar", 3).result()
        leaving = cluster.service("bar").member(2)
        running = leaving.nap(0.5)
        leaving.who().result()  # behind the nap in the mailbox, and beside it once that runs
        report = cluster.scale("bar", 2)
        seen.wait_row("bar/2", state="draining")

        assert running.result(10) == "bar/2"
        assert report.result() == {
            "service": "bar",
            "size": 2,
            "started": [],
            "left": ["bar/2"],
            "pending": {},
        }
        with pytest.raises(ActorStopped):
            leaving.who().result()

    @pytest.mark.parametrize("handler", ["nap", "grind"])
    def test_one_that_takes_longer_is_cut_short_and_may_have_run(
        self, cluster: Cluster, handler: str
    ) -> None:
        cluster.scale("bar", 3).result()
        leaving = cluster.service("bar").member(2)
        running = leaving.options(timeout=60).ask(handler, 9)
        leaving.who().result()
        began_at = time.monotonic()

        cluster.scale("bar", 2).result()

        with pytest.raises(Unavailable) as caught:
            running.result(10)
        assert caught.value.may_have_run
        assert 0.9 < time.monotonic() - began_at < 8
        assert cluster.service("bar").member(0).who().result()[0] == "bar/0"


class TestSizes:
    def test_members_are_numbered_from_0_and_their_lives_go_on(self, cluster: Cluster, seen: Any) -> None:
        report = cluster.scale("kitchen", "+2").result()
        assert sorted(report["started"]) == ["kitchen/2", "kitchen/3"]
        life = seen.row("kitchen/3")["incarnation"]

        assert cluster.scale("kitchen", "-2").result()["left"] == ["kitchen/3", "kitchen/2"]
        cluster.scale("kitchen", 4).result()

        assert cluster.service("kitchen").member(3).who().result()[1] == life + 1
        cluster.scale("kitchen", 2).result()

    def test_at_size_0_nobody_can_answer_and_nothing_has_run(self, cluster: Cluster, seen: Any) -> None:
        cluster.scale("labelled", 0).result()
        assert seen.row("labelled")["state"] == "running"

        with pytest.raises(Unavailable, match="labelled has no members: its size is 0") as caught:
            cluster.service("labelled").who().result()
        assert not caught.value.may_have_run

        cluster.scale("labelled", 1).result()
        assert cluster.service("labelled").who().result()[0] == "labelled/0"

    @pytest.mark.parametrize("size", [-1, "-99", "many", 1.5, "", "+", None, True])
    def test_a_wrong_size_is_refused_and_costs_nothing(self, cluster: Cluster, size: Any) -> None:
        with pytest.raises(InvalidArgument, match="kitchen"):
            cluster.scale("kitchen", size).result()

        assert cluster.service("kitchen").echo(1).result() == 1

    def test_an_unknown_service_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match="did you mean 'kitchen'"):
            cluster.scale("kitchn", 2).result()

    def test_relative_orders_that_cross_add_up(self, cluster: Cluster, seen: Any) -> None:
        replies = [cluster.scale("kitchen", "+1") for _ in range(3)]

        assert [reply.result()["size"] for reply in replies] == [3, 4, 5]
        assert cluster.scale("kitchen", 2).result()["left"] == ["kitchen/4", "kitchen/3", "kitchen/2"]

    def test_orders_that_cross_end_at_the_last_size(self, cluster: Cluster, seen: Any) -> None:
        replies = [cluster.scale("kitchen", size) for size in (4, 1, 3, 2)]

        assert [reply.result()["size"] for reply in replies] == [4, 1, 3, 2]
        assert seen.row("kitchen")["size"] == 2
        assert [outcome.ok for outcome in cluster.service("kitchen").broadcast("who").result().values()] == [
            True,
            True,
        ]

    def test_a_change_of_mind_leaves_no_process_behind(
        self, cluster: Cluster, until: Any, hosts: Callable[[], set[int]]
    ) -> None:
        """Members that are scaled away before their process is up."""
        for _ in range(3):
            up, down = cluster.scale("solo", 3), cluster.scale("solo", 1)
            up.result()
            down.result()

        def all_known() -> bool:
            ps = cluster.ps().result()
            return hosts() == {row["pid"] for row in ps["members"] + ps["understudies"] if row["pid"]}

        until(all_known)
        assert cluster.service("solo").who().result()[0] == "solo/0"


class TestRoom:
    @pytest.mark.parametrize(
        ("service", "reason"),
        [
            ("vision", "needs 2 GPU; nodes have 1 free of 1"),
            ("archive", "needs 1.024e+06 GiB memory; nodes have "),
            ("vault", "needs a node with labels disk=tape; no node has them"),
            ("copier", "needs 1 press; nodes have 0 free of 1"),
        ],
    )
    def test_what_has_no_room_waits_and_says_why_while_the_rest_runs(
        self, cluster: Cluster, seen: Any, service: str, reason: str
    ) -> None:
        row = seen.row(f"{service}/0")

        assert (row["state"], row["pid"]) == ("pending", None)
        assert row["reason"].startswith(reason)
        assert seen.row(service)["state"] == "degraded"
        assert seen.row(service)["reason"] == row["reason"]
        assert seen.events("member.pending", member=f"{service}/0")[0]["reason"] == row["reason"]
        assert cluster.service("kitchen").echo(1).result() == 1
        assert not status.is_healthy(cluster.ps().result())
        with pytest.raises(Unavailable, match="pending") as caught:
            cluster.service(service).who().result()
        assert not caught.value.may_have_run

    def test_what_fits_by_label_runs(self, cluster: Cluster) -> None:
        assert cluster.service("labelled").who().result()[0] == "labelled/0"

    def test_it_is_placed_as_soon_as_there_is_room(self, cluster: Cluster, seen: Any) -> None:
        cluster.scale("printer", 0).result()

        seen.wait_row("copier/0", state="running")
        assert cluster.service("copier").who().result()[:2] == ("copier/0", 1)
        assert seen.row("copier")["state"] == "running"

        report = cluster.scale("printer", 1).result()
        assert report["pending"] == {"printer/0": "needs 1 press; nodes have 0 free of 1"}

    def test_who_waits_can_be_scaled_away(self, cluster: Cluster, seen: Any) -> None:
        report = cluster.scale("vision", 3).result()
        assert len(report["pending"]) == 3

        cluster.scale("vision", 1).result()

        assert [row["name"] for row in cluster.ps().result()["members"] if row["service"] == "vision"] == [
            "vision/0"
        ]

    def test_a_member_in_a_slot_comes_back_into_it(self, cluster: Cluster, seen: Any, until: Any) -> None:
        """Another process, the same resources: nothing else can take them meanwhile."""
        name = next(name for name in ("printer", "copier") if seen.row(name)["ready"])
        row = seen.row(f"{name}/0")

        os.kill(row["pid"], signal.SIGKILL)

        seen.wait_row(f"{name}/0", state="running", incarnation=row["incarnation"] + 1)
        other = "copier" if name == "printer" else "printer"
        assert seen.row(f"{other}/0")["state"] == "pending"

    def test_a_member_that_cannot_be_placed_cannot_be_killed(self, cluster: Cluster) -> None:
        with pytest.raises(ActorError, match="vault/0 has no process now"):
            cluster.kill("vault/0").result()

"""Members that fail: who notices, who comes back, who gives up. One app, a service for each test."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Burnt, Chef, Diarist, OnceBroken, Reluctant, Stillborn, Suicidal

from actors.errors import ActorError, ActorStopped, DeadlineExceeded, ServiceFailed, Unavailable
from actors.exit import Exit
from supervisors import Backoff, Cluster, Resources, Service

pytestmark = pytest.mark.ray

SOON = Backoff(initial=0.2, factor=2, maximum=0.4, jitter=0)


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diary") / "diary"


@pytest.fixture(scope="module")
def cluster(venue: Any, diary: Path) -> Iterator[Cluster]:
    services = [
        Service("kitchen", Chef, size=2, per_host=1),
        Service("brigade", Chef, size=3, per_host=3),
        Service("group", Chef, size=2, per_host=2, strategy="one_for_all", intensity=5, period=3600.0),
        Service("strict", Chef, per_host=1, intensity=1, period=3600.0),
        Service("cursed", Suicidal, args=("cursed/0",), size=2, per_host=2, backoff=SOON),
        Service("stillborn", Stillborn, backoff=SOON),
        Service("late", OnceBroken, args=(str(diary.parent / "stove"),), intensity=0),
        Service("shy", Reluctant),
        Service("diarist", Diarist, args=(str(diary),), per_host=1, restart="transient"),
        Service("vision", Chef, resources=Resources(gpu=1)),
        Service("farewell", Chef, restart="temporary"),
    ]
    with venue.play(*services) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    audience = watch(cluster)
    audience.wait_understudy()
    return audience


def answer_of(member: Any, until: Any) -> Any:
    """The next answer that comes, past the moments in which nobody is there."""

    def ask() -> Any:
        try:
            return member.who().result(10)
        except Unavailable:
            return None

    return until(ask)


class TestAKilledProcess:
    def test_waiting_callers_are_told_at_once_and_the_name_comes_back(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        member = cluster.service("kitchen").member(0)
        name, life, pid = member.who().result()
        waiting = member.options(timeout=60).nap(60)
        told_after: list[float] = []
        began_at = 0.0
        waiting.add_done_callback(lambda _: told_after.append(time.monotonic() - began_at))
        with pytest.raises(DeadlineExceeded):  # it naps
            member.options(timeout=0.2).who().result()
        began_at = time.monotonic()

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(Unavailable) as caught:
            waiting.result(10)
        assert caught.value.may_have_run
        assert until(lambda: told_after)[0] < 1
        came_back = answer_of(member, until)
        assert came_back[:2] == (name, life + 1)
        assert came_back[2] != pid
        row = seen.wait_row("kitchen/0", state="running")
        assert (row["incarnation"], row["pid"], row["last_exit"]) == (
            life + 1,
            came_back[2],
            "killed (SIGKILL or os._exit)",
        )
        assert row["restarts"] >= 1

    def test_the_others_go_on_and_routing_follows(self, cluster: Cluster, seen: Any, until: Any) -> None:
        """Calls find the living one while the other is away, and both again afterwards."""
        kitchen = cluster.service("kitchen")
        pid = kitchen.member(1).who().result()[2]
        os.kill(pid, signal.SIGKILL)

        assert [kitchen.echo(n).outcome(10).error for n in range(20)].count(None) >= 19
        answer_of(kitchen.member(1), until)
        replies = [kitchen.nap(0.05) for _ in range(8)]
        assert {reply.result() for reply in replies} == {"kitchen/0", "kitchen/1"}

    def test_an_order_to_kill_says_whom_and_is_the_last_exit(self, cluster: Cluster, seen: Any) -> None:
        before = seen.row("kitchen/0")

        killed = cluster.kill("kitchen/0").result()

        assert killed == {"member": "kitchen/0", "pid": before["pid"], "with_it": []}
        row = seen.wait_row("kitchen/0", incarnation=before["incarnation"] + 1, state="running")
        assert row["last_exit"] == "killed (order)"

    def test_os_exit_in_a_handler_is_a_death_like_any_other(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        member = cluster.service("kitchen").member(1)
        life = member.who().result()[1]

        with pytest.raises(Unavailable) as caught:
            member.die().result(10)

        assert caught.value.may_have_run
        assert answer_of(member, until)[1] == life + 1

    def test_all_members_of_a_process_die_as_one_incident(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        brigade = cluster.service("brigade")
        before = {name: outcome.unwrap() for name, outcome in brigade.broadcast("who").result().items()}
        [pid] = {who[2] for who in before.values()}

        with pytest.raises(ActorError, match=r"brigade/0 \(pid \d+\) is also that of brigade/1, brigade/2;"):
            cluster.kill("brigade/0").result()
        os.kill(pid, signal.SIGKILL)

        lives = {name: answer_of(brigade.member(int(name[-1])), until) for name in before}
        assert {name: who[1] for name, who in lives.items()} == {
            name: who[1] + 1 for name, who in before.items()
        }
        assert len({who[2] for who in lives.values()}) == 1
        [died] = seen.events("host.died", service="brigade")
        assert died["members"] == ["brigade/0", "brigade/1", "brigade/2"]
        assert seen.row("brigade")["state"] == "running"

    def test_a_group_loses_its_process_and_restarts_as_a_group(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        """Two lives end in one incident: three incidents do not exceed an intensity of 5, six would."""
        group = cluster.service("group")
        for life in (2, 3, 4):
            pid = answer_of(group.member(0), until)[2]
            os.kill(pid, signal.SIGKILL)
            seen.wait_row("group/1", incarnation=life, state="running")

        assert [answer_of(group.member(n), until)[1] for n in (0, 1)] == [4, 4]

    def test_a_crash_in_a_group_restarts_the_others_too(self, cluster: Cluster, seen: Any) -> None:
        group = cluster.service("group")
        before = [group.member(n).who().result() for n in (0, 1)]
        seen.wait_row("group/1", state="running")

        with pytest.raises(Burnt, match="the roux"):
            group.member(0).burn().result()

        seen.wait_row("group/1", incarnation=before[1][1] + 1, state="running")
        assert [group.member(n).who().result()[1] for n in (0, 1)] == [who[1] + 1 for who in before]


class TestCrashesWithinTheProcess:
    def test_a_member_that_keeps_crashing_backs_off_while_others_serve(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        cursed = cluster.service("cursed")

        def backing_off() -> dict[str, Any] | None:
            """All rows of one moment, in which it waits for its next start."""
            ps = cluster.ps().result()
            rows = {row["name"]: row for row in (*ps["services"], *ps["members"])}
            return rows if rows["cursed/0"]["state"] == "backing_off" else None

        rows = until(backing_off)

        row = rows["cursed/0"]
        assert row["last_exit"] == "error (Burnt: again)"
        assert rows["cursed"]["state"] == "degraded"
        assert {cursed.who().result() for _ in range(20)} <= {"cursed/1", "cursed/0"}
        assert cursed.member(1).who().result() == "cursed/1"
        assert until(lambda: seen.row("cursed/0")["restarts"] > row["restarts"])
        assert seen.row("cursed")["state"] in ("degraded", "running", "starting")
        assert seen.events("member.backing_off", member="cursed/0")[0]["delay"] == 0.2

    def test_an_explicit_intensity_is_otps(self, cluster: Cluster, seen: Any) -> None:
        """One restart, then the service fails, and every caller is told at once why."""
        strict = cluster.service("strict")
        member = strict.member(0)
        with pytest.raises(Burnt, match="the roux"):
            member.burn().result()
        assert member.who().result()[1] == 2

        with pytest.raises(Burnt, match="the roux"):
            member.burn().result()

        row = seen.wait_row("strict", state="failed")
        assert "Burnt: the roux" in row["reason"]
        for call in (strict.who, member.who):
            began_at = time.monotonic()
            with pytest.raises(ServiceFailed, match="service strict has failed"):
                call().result()
            assert time.monotonic() - began_at < 1
        assert cluster.service("kitchen").echo(1).result() == 1

    def test_a_stop_from_user_code_is_an_exit_like_any_other(self, cluster: Cluster, seen: Any) -> None:
        member = cluster.service("brigade").member(2)
        life = member.who().result()[1]

        member.stop().result()

        assert member.who().result()[1] == life + 1


class TestStarts:
    def test_a_service_that_cannot_start_has_failed_and_the_rest_runs(
        self, cluster: Cluster, seen: Any
    ) -> None:
        row = seen.wait_row("stillborn", state="failed")

        assert "Burnt: no stove" in row["reason"]
        with pytest.raises(ServiceFailed, match="no stove") as caught:
            cluster.service("stillborn").cook().result()
        assert not caught.value.may_have_run
        assert seen.row("kitchen")["state"] == "running"
        assert len(seen.events("member.start_failed", service="stillborn")) == 4

    def test_with_an_intensity_the_first_failed_start_is_the_last(self, cluster: Cluster, seen: Any) -> None:
        assert seen.wait_row("late", state="failed")
        assert len(seen.events("member.start_failed", service="late")) == 1

    def test_who_ignores_its_start_is_neither_running_nor_an_error(self, cluster: Cluster, seen: Any) -> None:
        assert seen.row("shy/0")["state"] == "stopped"
        assert seen.row("shy")["state"] == "running"
        with pytest.raises(ActorError):
            cluster.service("shy").cook().result(10)

    def test_a_temporary_member_that_ends_is_gone(self, cluster: Cluster, seen: Any, until: Any) -> None:
        member = cluster.service("farewell").member(0)
        assert member.who().result()[1] == 1

        with pytest.raises(Burnt, match="the roux"):
            member.burn().result()

        until(lambda: seen.row("farewell/0")["state"] == "stopped")
        until(lambda: isinstance(member.who().outcome(10).error, ActorStopped))
        with pytest.raises(Unavailable, match=r"no member of farewell|farewell has no members"):
            cluster.service("farewell").who().result()


class TestOrderlyEnds:
    def test_sigterm_lets_a_process_end_in_order(
        self, cluster: Cluster, seen: Any, diary: Path, until: Any
    ) -> None:
        """The running handler finishes, `on_stop` hears why, and a transient member stays away."""
        member = cluster.service("diarist").member(0)
        pid = member.pid().result()
        napping = member.nap(0.3)
        until(lambda: "naps" in diary.read_text())

        os.kill(pid, signal.SIGTERM)

        assert napping.result(10) == "diarist/0"
        until(lambda: not os.path.exists(f"/proc/{pid}"))
        assert diary.read_text().splitlines() == [
            "diarist/0 started",
            "diarist/0 naps",
            "diarist/0 awake",
            "diarist/0 stopped shutdown (SIGTERM)",
        ]
        assert seen.wait_row("diarist/0", state="stopped")["last_exit"] == str(Exit("shutdown", "SIGTERM"))


class TestDevices:
    def test_a_new_process_in_a_slot_sees_the_same_device(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        member = cluster.service("vision").member(0)
        before = member.devices().result()
        pid = member.who().result()[2]

        os.kill(pid, signal.SIGKILL)

        assert answer_of(member, until)[2] != pid
        assert before == "0"
        assert member.devices().result() == before

    def test_who_asked_for_no_device_sees_none(self, cluster: Cluster, seen: Any) -> None:
        outcomes = cluster.service("kitchen").broadcast("devices").result()

        assert [outcome.unwrap() for outcome in outcomes.values()] == ["", ""]


def test_callers_in_threads_get_one_outcome_each_whatever_dies(cluster: Cluster, seen: Any) -> None:
    """Nobody hangs, and all that fails is what was on its way to the dead."""
    kitchen = cluster.service("kitchen")
    outcomes: list[Any] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            outcomes.append(kitchen.echo(7).outcome(20))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for member in ("kitchen/0", "kitchen/1"):
        row = seen.row(member)
        cluster.kill(member).result()
        seen.wait_row(member, state="running", incarnation=row["incarnation"] + 1)
        seen.wait_understudy()
    stop.set()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    failures = [outcome.error for outcome in outcomes if not outcome.ok]
    assert all(isinstance(error, Unavailable) and error.may_have_run for error in failures)
    assert len(failures) <= 8  # at most what was on its way to the two that died
    assert len(outcomes) > 100

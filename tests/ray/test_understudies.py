"""Understudies: those for everybody and those that a service reserves and warms. One app, real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Chef, Soloist

from actors.errors import Unavailable
from supervisors import Cluster, Resources, Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def cluster(venue: Any, folder: Path) -> Iterator[Cluster]:
    (folder / "vision").mkdir()
    (folder / "choir").mkdir()
    (folder / "choir" / "wait").touch()
    services = [
        Service("kitchen", Chef, per_host=1),
        Service("opera", Soloist, args=(str(folder),), per_host=1, understudies=1),
        Service("choir", Soloist, args=(str(folder / "choir"),), understudies=1, start_timeout=1.0),
        Service(
            "vision", Soloist, args=(str(folder / "vision"),), resources=Resources(gpu=1), understudies=1
        ),
    ]
    with venue.play(*services) as cluster:
        yield cluster


class Wings:
    """Who stands beside the stage."""

    def __init__(self, cluster: Cluster, until: Any) -> None:
        self._cluster = cluster
        self._until = until

    def rows(self, service: str | None) -> list[dict[str, Any]]:
        return [row for row in self._cluster.ps().result()["understudies"] if row["service"] == service]

    def wait(self, service: str | None, state: str = "ready", other_than: int = 0) -> dict[str, Any]:
        """The one of *service* once it is in *state*."""

        def fits() -> Any:
            rows = [row for row in self.rows(service) if row["state"] == state]
            return rows[0] if rows and rows[0]["pid"] != other_than else None

        return self._until(fits)  # type: ignore[no-any-return]


@pytest.fixture
def wings(cluster: Cluster, until: Any) -> Wings:
    return Wings(cluster, until)


def kill(member: Any, until: Any) -> tuple[int, float]:
    """SIGKILL its process; the new one and the seconds until it answered."""
    pid = member.who().result()[2]
    began_at = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    def ask() -> Any:
        try:
            return member.who().result(10)
        except Unavailable:
            return None

    return until(ask)[2], time.monotonic() - began_at


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_reserved_one_takes_over_with_what_it_has_learned(
    cluster: Cluster, wings: Wings, until: Any, folder: Path
) -> None:
    waiting, blank = wings.wait("opera"), wings.wait(None)
    opera = cluster.service("opera").member(0)

    pid, _ = kill(opera, until)

    assert pid == waiting["pid"]
    assert opera.sing().result() == (f"learned by {pid}, devices ''", "")
    threads = dict(line.split(" ") for line in (folder / "warm").read_text().splitlines())
    assert threads[str(pid)] == "understudy-warm"
    assert wings.wait(None)["pid"] == blank["pid"]  # the one for everybody was left alone
    assert wings.wait("opera")["pid"] != pid


def test_it_takes_over_for_nobody_else(cluster: Cluster, wings: Wings, until: Any) -> None:
    waiting, blank = wings.wait("opera"), wings.wait(None)

    pid, _ = kill(cluster.service("kitchen").member(0), until)

    assert pid == blank["pid"]
    assert wings.wait("opera")["pid"] == waiting["pid"]


def test_it_sees_no_device_before_it_takes_over_and_then_the_slots_own(
    cluster: Cluster, wings: Wings, until: Any
) -> None:
    vision = cluster.service("vision").member(0)
    waiting = wings.wait("vision")
    assert vision.sing().result() == ("", "0")  # the first life on a device begins in a new process

    pid, _ = kill(vision, until)

    assert pid == waiting["pid"]
    assert vision.sing().result() == (f"learned by {pid}, devices ''", "0")


def test_who_waits_goes_first_when_the_kernel_runs_out_of_memory(cluster: Cluster, wings: Wings) -> None:
    score = cluster.service("opera").member(0).score().result()

    assert [score_of(wings.wait(service)["pid"]) for service in (None, "opera")] == [1000, 1000]
    assert score == score_of(cluster.ps().result()["stage"]["pid"]) < 1000


def test_one_that_cannot_get_ready_says_why_tries_again_and_is_of_use(
    cluster: Cluster, wings: Wings, until: Any, watch: Any, folder: Path
) -> None:
    wings.wait("opera")
    (folder / "refuse").touch()
    opera = cluster.service("opera").member(0)
    kill(opera, until)

    cold = wings.wait("opera", state="cold")

    failures = until(lambda: watch(cluster).events("understudy.warm_failed", pid=cold["pid"]))
    assert failures[0]["reason"] == "Burnt: no voice"
    assert failures[0]["service"] == "opera"
    assert "raise Burnt" in failures[0]["traceback"]
    pid, _ = kill(opera, until)
    assert pid == cold["pid"]
    assert opera.sing().result()[0] == ""
    (folder / "refuse").unlink()
    assert wings.wait("opera")["pid"] != pid


def test_one_that_is_not_ready_leaves_it_to_a_blank_one(
    cluster: Cluster, wings: Wings, until: Any, folder: Path
) -> None:
    blank, waiting = wings.wait(None), wings.wait("opera")
    (folder / "wait").touch()
    opera = cluster.service("opera").member(0)
    kill(opera, until)
    warming = wings.wait("opera", state="warming", other_than=waiting["pid"])
    blank = wings.wait(None)

    pid, _ = kill(opera, until)

    assert pid == blank["pid"]
    (folder / "wait").unlink()
    assert wings.wait("opera")["pid"] == warming["pid"]


def test_one_that_never_gets_ready_is_replaced_by_the_next_try(
    cluster: Cluster, wings: Wings, until: Any, watch: Any, folder: Path
) -> None:
    failed = until(lambda: watch(cluster).events("understudy.warm_failed", service="choir"))[0]
    assert failed["reason"] == "not ready within 1 s"
    until(lambda: not os.path.exists(f"/proc/{failed['pid']}"))

    (folder / "choir" / "wait").unlink()

    assert wings.wait("choir")["pid"] != failed["pid"]
    tries = (folder / "choir" / "warm").read_text().splitlines()
    assert len(tries) < 20  # each after a longer wait


def test_they_are_let_go_when_their_service_has_no_member_and_come_back_with_it(
    cluster: Cluster, wings: Wings, until: Any
) -> None:
    pid = wings.wait("opera")["pid"]

    cluster.scale("opera", 0).result()

    until(lambda: not wings.rows("opera"))
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    cluster.scale("opera", 1).result()
    assert wings.wait("opera")["pid"] != pid


def test_a_stage_that_returns_counts_those_that_are_there(
    cluster: Cluster, wings: Wings, until: Any, folder: Path
) -> None:
    before = {service: wings.wait(service)["pid"] for service in (None, "opera", "vision")}
    lessons = (folder / "warm").read_text()

    os.kill(cluster.ps().result()["stage"]["pid"], signal.SIGKILL)
    until(lambda: (found := cluster.ps().outcome(20)).ok and found.value["stage"]["epoch"] == 2)

    time.sleep(1.5)  # in which others would have been started
    after = {service: [row["pid"] for row in wings.rows(service)] for service in before}
    assert after == {service: [pid] for service, pid in before.items()}
    assert all(wings.wait(service) for service in before)
    assert (folder / "warm").read_text() == lessons
    pid, _ = kill(cluster.service("opera").member(0), until)
    assert pid == before["opera"]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_understudies_are_forked_by_a_server_and_come_also_when_that_has_died(
    cluster: Cluster, wings: Wings, until: Any
) -> None:
    first = wings.wait(None)["pid"]
    server = parent(first)
    assert "_fork_server" in Path(f"/proc/{server}/cmdline").read_text()

    kill(cluster.service("kitchen").member(0), until)
    second = wings.wait(None, other_than=first)["pid"]
    assert parent(second) == server
    os.kill(server, signal.SIGKILL)
    kill(cluster.service("kitchen").member(0), until)

    third = wings.wait(None, other_than=second)["pid"]
    assert "raylet" in Path(f"/proc/{parent(third)}/cmdline").read_text()

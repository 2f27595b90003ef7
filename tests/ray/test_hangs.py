"""Processes that hang are found by evidence, shown and replaced; slow ones are left alone."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from players import Saboteur

from actors.errors import ActorError, Unavailable
from supervisors import Cluster, Service

pytestmark = pytest.mark.ray

LIMIT = 1.0


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    services = [
        Service("shop", Saboteur, per_host=1),
        Service("pair", Saboteur, size=2, per_host=2),
        Service("brisk", Saboteur, size=2, per_host=2, handler_timeout=0.5),
    ]
    with venue.play(*services, heartbeat_limit=LIMIT) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    audience = watch(cluster)
    audience.wait_understudy()
    cluster.service("shop").who().result()  # it works: so it is worth bringing back, however often it falls
    cluster.service("brisk").broadcast("who").result()
    return audience


def come_back(seen: Any, before: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = seen.wait_row(
        before["name"], incarnation=before["incarnation"] + 1, state="running"
    )
    return row


def report_of(seen: Any, before: dict[str, Any]) -> dict[str, Any]:
    """The one report about the end of that life's process."""
    [report] = [event for event in seen.events("member.hung") if event["pid"] == before["pid"]]
    return report  # type: ignore[no-any-return]


def test_a_stopped_process_is_replaced(cluster: Cluster, seen: Any) -> None:
    before = seen.row("shop/0")
    waiting = cluster.service("shop").member(0).options(timeout=30).nap(30)
    began_at = time.monotonic()

    os.kill(before["pid"], signal.SIGSTOP)

    row = come_back(seen, before)
    assert LIMIT <= time.monotonic() - began_at < 3 * LIMIT + 2
    assert row["last_exit"].startswith("hung (stopped")
    with pytest.raises(Unavailable) as caught:
        waiting.result(10)
    assert caught.value.may_have_run
    report = report_of(seen, before)
    assert {key: report[key] for key in ("supervisor", "context", "child")} == {
        "supervisor": "shop",
        "context": "hung",
        "child": "shop/0",
    }
    assert report["reason"] == row["last_exit"]


@pytest.mark.parametrize(
    ("method", "words"),
    [("hold_the_gil", "s of CPU"), ("block_the_loop", "no thread that could run")],
)
def test_a_handler_that_silences_its_process_is_shown_at_work(
    cluster: Cluster, seen: Any, method: str, words: str
) -> None:
    before = seen.row("shop/0")
    reply = cluster.service("shop").options(timeout=60).ask(method)

    row = come_back(seen, before)

    assert row["last_exit"].startswith("hung (no answer for")
    assert words in row["last_exit"]
    assert isinstance(reply.outcome(10).error, Unavailable)
    for stack in (row["traceback"], report_of(seen, before)["traceback"]):
        assert stack.startswith("Thread 0x")
        assert f"in {method}" in stack


def test_a_shared_process_goes_with_all_that_live_in_it(cluster: Cluster, seen: Any) -> None:
    rows = [seen.row("pair/0"), seen.row("pair/1")]
    assert rows[0]["pid"] == rows[1]["pid"]

    os.kill(rows[0]["pid"], signal.SIGSTOP)

    assert {come_back(seen, row)["last_exit"][:13] for row in rows} == {"hung (stopped"}
    assert report_of(seen, rows[0])["members"] == ["pair/0", "pair/1"]


def test_a_pause_shorter_than_the_limit_is_nobodys_business(cluster: Cluster, seen: Any) -> None:
    before = seen.row("shop/0")
    asks = []
    for _ in range(4):
        os.kill(before["pid"], signal.SIGSTOP)
        asks.append(cluster.service("shop").member(0).who())
        time.sleep(LIMIT / 2)
        os.kill(before["pid"], signal.SIGCONT)
        time.sleep(LIMIT / 4)

    assert [ask.result()[1] for ask in asks] == [before["incarnation"]] * 4
    time.sleep(LIMIT)
    assert seen.row("shop/0") == before


def test_busy_cpus_and_busy_handlers_never_look_like_a_hang(cluster: Cluster, seen: Any) -> None:
    """Four busy loops beside a handler that computes all the time."""
    before = seen.cluster.ps().result()["members"]
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        reply = cluster.service("shop").member(0).options(timeout=60).spin(5 * LIMIT)
        assert reply.result() == 5 * LIMIT
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()

    assert seen.cluster.ps().result()["members"] == before


class TestHandlerTimeout:
    def test_an_async_handler_ends_its_actor_alone(self, cluster: Cluster, seen: Any) -> None:
        before, neighbour = seen.row("brisk/0"), seen.row("brisk/1")

        with pytest.raises(Unavailable) as caught:
            cluster.service("brisk").member(0).options(timeout=30).nap(30).result(10)

        assert (caught.value.may_have_run, caught.value.reason) == (True, "hung")
        row = come_back(seen, before)
        assert row["last_exit"] == "hung (handler_timeout: nap() ran longer than its handler_timeout (0.5 s))"
        assert row["pid"] == before["pid"]
        assert seen.row("brisk/1") == neighbour

    def test_a_thread_that_holds_on_takes_its_process_along(self, cluster: Cluster, seen: Any) -> None:
        before, neighbour = seen.row("brisk/0"), seen.row("brisk/1")

        with pytest.raises(Unavailable) as caught:
            cluster.service("brisk").member(0).options(timeout=30).grind(30).result(10)

        assert (caught.value.may_have_run, caught.value.reason) == (True, "hung")
        row = come_back(seen, before)
        assert row["pid"] != before["pid"]
        assert "handler_timeout: grind()" in row["last_exit"]
        assert "in grind" in report_of(seen, before)["traceback"]
        come_back(seen, neighbour)

    def test_a_blocked_loop_is_found_by_its_silence(self, cluster: Cluster, seen: Any) -> None:
        before = seen.row("brisk/0")

        with pytest.raises(Unavailable) as caught:
            cluster.service("brisk").member(0).options(timeout=30).block_the_loop().result(10)

        assert caught.value.may_have_run
        assert come_back(seen, before)["last_exit"].startswith("hung")
        assert "in block_the_loop" in report_of(seen, before)["traceback"]


class TestTheStage:
    def wait_next(self, cluster: Cluster, old: dict[str, Any], until: Any) -> dict[str, Any]:
        def returned() -> dict[str, Any] | None:
            with contextlib.suppress(ActorError):
                ps: dict[str, Any] = cluster.ps().result(5)
                is_whole = [row["state"] for row in ps["members"]] == ["running"] * 5
                return ps if ps["stage"]["epoch"] > old["epoch"] and is_whole else None
            return None

        found: dict[str, Any] = until(returned)
        return found

    def test_one_that_is_stopped_is_replaced_and_calls_go_on(
        self, cluster: Cluster, seen: Any, until: Any
    ) -> None:
        before = cluster.ps().result()
        failed: list[BaseException] = []
        stop = threading.Event()

        def call() -> None:
            while not stop.is_set():
                if (error := cluster.service("pair").who().outcome(10).error) is not None:
                    failed.append(error)

        caller = threading.Thread(target=call)
        caller.start()

        os.kill(before["stage"]["pid"], signal.SIGSTOP)

        after = self.wait_next(cluster, before["stage"], until)
        stop.set()
        caller.join()
        assert failed == []
        assert [(row["name"], row["pid"], row["incarnation"]) for row in after["members"]] == [
            (row["name"], row["pid"], row["incarnation"]) for row in before["members"]
        ]

    def test_a_short_pause_of_it_blames_nobody(self, cluster: Cluster, seen: Any) -> None:
        before = cluster.ps().result()
        os.kill(before["stage"]["pid"], signal.SIGSTOP)
        time.sleep(LIMIT / 2)
        os.kill(before["stage"]["pid"], signal.SIGCONT)
        time.sleep(LIMIT)

        after = cluster.ps().result()
        assert (after["stage"], after["members"]) == (before["stage"], before["members"])

    def test_one_that_another_has_replaced_ends_itself(self, cluster: Cluster, seen: Any, until: Any) -> None:
        """Its hosts refuse what it says: they follow a later epoch."""
        before = cluster.ps().result()
        system: Any = cluster._system
        view = system.directory.view("pair")
        host = system.ref(f"{view.members[0].address}#host")
        later = before["stage"]["epoch"] + 1

        host.options(timeout=5).ask("adopt", later, "ipc:///nowhere/0123456789abcdef.ipc").result()

        after = self.wait_next(cluster, before["stage"], until)
        assert after["stage"]["pid"] != before["stage"]["pid"]
        assert [row["pid"] for row in after["members"]] == [row["pid"] for row in before["members"]]


def test_a_limit_is_seconds_above_zero(venue: Any) -> None:
    from actors.errors import InvalidArgument
    from supervisors import App

    for wrong in (0, -1, math.nan, math.inf, "10", None):
        with pytest.raises(InvalidArgument, match="heartbeat_limit"):
            App(heartbeat_limit=wrong)  # type: ignore[arg-type]

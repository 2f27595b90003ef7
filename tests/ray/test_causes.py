"""Why a member ended: what its process left behind, in `ps`, the tree and the events."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Saboteur

from actors.errors import Unavailable
from supervisors import Cluster, Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    with venue.play(
        Service("shop", Saboteur, per_host=1), Service("pair", Saboteur, size=2, per_host=2)
    ) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    audience = watch(cluster)
    audience.wait_understudy()
    cluster.service("shop").who().result()  # it works: so it is worth bringing back, however often it falls
    return audience


def come_back(seen: Any, before: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = seen.wait_row(
        before["name"], incarnation=before["incarnation"] + 1, state="running"
    )
    return row


@pytest.mark.parametrize(
    ("method", "signal_name", "frame"),
    [("read_null", "SIGSEGV", "in read_null"), ("abort", "SIGABRT", "in abort")],
)
def test_a_crash_in_c_names_its_signal_and_keeps_the_stack(
    cluster: Cluster, seen: Any, until: Any, method: str, signal_name: str, frame: str
) -> None:
    before = seen.row("shop/0")

    with pytest.raises(Unavailable) as caught:
        cluster.service("shop").ask(method).result(10)

    assert caught.value.may_have_run
    row = come_back(seen, before)
    assert row["last_exit"] == f"killed ({signal_name})"
    assert "players.py" in row["traceback"]
    assert frame in row["traceback"]
    [died] = [event for event in seen.events("host.died") if event["pid"] == before["pid"]]
    assert died["traceback"] == row["traceback"]
    assert died["traceback"].startswith("Fatal Python error")
    assert {key: died[key] for key in ("supervisor", "context", "reason")} == {
        "supervisor": "shop",
        "context": "died",
        "reason": f"killed ({signal_name})",
    }
    shop = next(each for each in cluster.tree().result()["children"] if each["name"] == "shop")
    assert shop["children"][0]["last_exit"] == row["last_exit"]


def test_sigterm_is_a_farewell(cluster: Cluster, seen: Any) -> None:
    before = seen.row("shop/0")

    os.kill(before["pid"], signal.SIGTERM)

    assert come_back(seen, before)["last_exit"] == "shutdown (SIGTERM)"


def test_an_unexplained_kill_says_what_it_may_have_been(cluster: Cluster, seen: Any) -> None:
    before = seen.row("shop/0")

    os.kill(before["pid"], signal.SIGKILL)

    row = come_back(seen, before)
    assert (row["last_exit"], row["traceback"]) == ("killed (SIGKILL or os._exit)", "")


def test_an_order_is_the_reason_and_costs_nothing(cluster: Cluster, seen: Any) -> None:
    """More kills by order than a member may have ends of its own, and no backoff."""
    for _ in range(5):
        before = seen.row("pair/0")
        cluster.kill("pair/0", yes=True).result()
        assert come_back(seen, before)["last_exit"] == "killed (order)"
        seen.wait_row("pair/1", state="running")

    assert seen.events("member.backing_off", service="pair") == []


def test_the_files_of_those_that_are_gone_are_gone(
    cluster: Cluster, seen: Any, venue: Any, until: Any
) -> None:
    before = seen.row("shop/0")
    os.kill(before["pid"], signal.SIGKILL)
    come_back(seen, before)
    seen.wait_understudy()

    def left() -> set[str]:
        run_dir: Path = venue.run_root / cluster.app_name
        return {path.stem for path in [*run_dir.glob("*.crash"), *run_dir.glob("*.stack")]}

    def alive() -> set[str]:
        ps = cluster.ps().result()
        return {
            "stage",
            *(row["host"] for row in ps["members"]),
            *(row["name"] for row in ps["understudies"]),
        }

    until(lambda: left() == alive())

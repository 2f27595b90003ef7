"""Idempotent calls whose member dies with them, and those that kill it: on hosts of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Brewer

from actors.errors import Unavailable
from actors.events import DeadLettered
from supervisors import Cluster, Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("brewery") / "diary"


@pytest.fixture(scope="module")
def cluster(venue: Any, diary: Path) -> Iterator[Cluster]:
    """One more end of a member than it has counted fails the service."""
    with venue.play(
        Service("brewery", Brewer, args=(str(diary),), size=3, per_host=1, intensity=1, period=120.0),
        Service("stall", Brewer, args=(str(diary),), per_host=1),
    ) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    audience = watch(cluster)
    audience.wait_understudy()
    return audience


def lines(diary: Path, what: str) -> list[list[str]]:
    """Name, incarnation, pid and whether it was the first time, of all that was done of *what*."""
    written = diary.read_text().splitlines() if diary.exists() else []
    return [line.split()[1:] for line in written if line.split()[0] == what]


def test_a_poison_message_kills_twice_at_most_and_the_second_time_is_not_counted(
    cluster: Cluster, seen: Any, diary: Path, until: Any
) -> None:
    brewery = cluster.service("brewery", Brewer)
    letters: list[DeadLettered] = []
    assert cluster._system is not None
    cluster._system.subscribe(
        lambda event: letters.append(event) if isinstance(event, DeadLettered) else None
    )

    with pytest.raises(
        Unavailable, match=r"choke\(\) was being handled when its process died, 2 times"
    ) as told:
        brewery.options(timeout=30).choke().result()

    assert (told.value.reason, told.value.may_have_run) == ("poison", True)
    killed = lines(diary, "choke")
    assert [word for *_, word in killed] == ["first", "again"]
    [letter] = [letter for letter in letters if letter.reason == "poison"]
    assert (letter.target, letter.method) == (killed[1][0], "choke")
    assert "Segmentation fault" in letter.detail
    assert "in choke" in letter.detail
    # With an intensity of 1 a second end that counts would have failed the service.
    second = seen.wait_row(killed[1][0], state="running", last_exit="killed (SIGSEGV, poison)")
    assert "in choke" in second["traceback"]
    service = seen.wait_row("brewery", state="running", ready=3)
    assert service["restarts"] == 2
    others = {row["name"] for row in cluster.ps().result()["members"] if row["restarts"] == 0}
    assert others >= {f"brewery/{n}" for n in range(3)} - {name for name, *_ in killed}
    assert len({outcome.unwrap()[2] for outcome in brewery.broadcast(Brewer.who).result().values()}) == 3


def test_another_member_answers_for_one_that_was_killed(
    cluster: Cluster, seen: Any, diary: Path, until: Any, tmp_path: Path
) -> None:
    stall = cluster.service("stall", Brewer)
    cluster.scale("stall", 2).result()
    gate = tmp_path / "gate"
    reply = stall.options(timeout=30).brew("mint", str(gate))
    [[name, _, pid, _]] = until(lambda: lines(diary, "mint"))

    os.kill(int(pid), signal.SIGKILL)
    gate.touch()

    answer = reply.result()
    assert answer.startswith("mint by stall/")
    assert answer != f"mint by {name}"
    assert [word for *_, word in lines(diary, "mint")] == ["first", "again"]
    row = seen.wait_row(name, state="running")
    assert (row["restarts"], row["last_exit"]) == (1, "killed (SIGKILL or os._exit)")


def test_the_next_incarnation_answers_where_there_is_no_other(
    cluster: Cluster, seen: Any, diary: Path, until: Any, tmp_path: Path
) -> None:
    """By a ref to the member, which its process has taken with it."""
    member = cluster.service("stall", Brewer).member(0)
    before = seen.wait_row("stall/0", state="running")
    gate = tmp_path / "gate"
    reply = member.options(timeout=30).brew("sage", str(gate))
    until(lambda: lines(diary, "sage"))

    os.kill(before["pid"], signal.SIGKILL)
    gate.touch()

    assert reply.result() == "sage by stall/0"
    first, second = lines(diary, "sage")
    assert (first[3], second[3]) == ("first", "again")
    assert int(second[1]) > int(first[1])


def test_what_may_not_run_twice_does_not(
    cluster: Cluster, seen: Any, diary: Path, until: Any, tmp_path: Path
) -> None:
    member = cluster.service("stall", Brewer).member(0)
    row = seen.wait_row("stall/0", state="running")
    reply = member.options(timeout=30).serve("chai", str(tmp_path / "never"))
    until(lambda: lines(diary, "chai"))

    os.kill(row["pid"], signal.SIGKILL)

    with pytest.raises(Unavailable) as told:
        reply.result()
    assert told.value.may_have_run
    seen.wait_row("stall/0", state="running", incarnation=row["incarnation"] + 1)
    assert len(lines(diary, "chai")) == 1


def cups(diary: Path) -> list[list[str]]:
    return [line.split() for line in diary.read_text().splitlines() if line.startswith("cup-")]


def test_many_calls_in_flight_survive_the_end_of_a_member(
    cluster: Cluster, seen: Any, diary: Path, until: Any
) -> None:
    """Each is answered, and none has done anything twice but those that were under way."""
    seen.wait_row("stall", state="running", ready=2)
    stall = cluster.service("stall", Brewer)
    replies = [stall.options(timeout=30).pour(f"cup-{number}") for number in range(300)]
    *_, pid, _ = until(lambda: cups(diary))[-1]

    os.kill(int(pid), signal.SIGKILL)

    answers = [reply.result() for reply in replies]
    assert [answer.split()[0] for answer in answers] == [f"cup-{number}" for number in range(300)]
    poured = cups(diary)
    assert {cup for cup, *_ in poured} == {f"cup-{number}" for number in range(300)}
    twice = [line for line in poured if [other[0] for other in poured].count(line[0]) > 1]
    assert {word for *_, word in twice} <= {"first", "again"}
    assert all(sum(other[0] == line[0] for other in poured) == 2 for line in twice)

"""
The cases of the conformance list in which processes matter, on members with processes of their own.

`test_c18_…` is case C18, as in `tests/conformance`; here the ends are those of processes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Burnt, Chef, Player, Watcher

from actors.errors import (
    ActorError,
    ActorStopped,
    DeadlineExceeded,
    MailboxFull,
    NotFound,
    ServiceFailed,
    Unavailable,
)
from supervisors import Backoff, Cluster, Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

SOON = Backoff(initial=0.02, factor=2, maximum=0.05, jitter=0)
LONG = 3600.0

Lives = dict[str, tuple[int, int]]


class Stage:
    """The members under test, by name."""

    def __init__(self, cluster: Cluster, watch: Any, until: Any, diary: Path) -> None:
        self.cluster = cluster
        self.seen = watch(cluster)
        self._until = until
        self._diary = diary

    def member(self, name: str) -> Any:
        service, _, number = name.partition("/")
        return self.cluster.service(service).member(int(number))

    def lives(self, service: str) -> Lives:
        """Life and process of each member."""
        rows = self.cluster.ps().result()["members"]
        return {row["name"]: (row["incarnation"], row["pid"]) for row in rows if row["service"] == service}

    def kill(self, name: str) -> None:
        os.kill(self.seen.row(name)["pid"], signal.SIGKILL)

    def end(self, name: str, how: str) -> None:
        try:
            self.member(name).end(how).result(10)
        except (Burnt, Unavailable):
            assert how in ("error", "kill")

    def wait_lives(self, service: str, *incarnations: int) -> Lives:
        """The members once they run in these lives."""

        def fits() -> Lives | None:
            rows = [row for row in self.cluster.ps().result()["members"] if row["service"] == service]
            runs = all(row["state"] == "running" for row in rows)
            return (
                self.lives(service)
                if runs and tuple(row["incarnation"] for row in rows) == incarnations
                else None
            )

        return self._until(fits)  # type: ignore[no-any-return]

    def diary(self, name: str) -> list[tuple[float, int, str]]:
        """When, in which life and what a member wrote."""
        entries = []
        for line in self._diary.read_text().splitlines():
            at, member, life, what = line.split(" ", 3)
            if member == name:
                entries.append((float(at), int(life), what))
        return entries


@pytest.fixture(scope="module")
def stage(venue: Any, watch: Any, until: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    diary = tmp_path_factory.mktemp("conformance") / "diary"
    diary.touch()

    def service(name: str, size: int, *moods: str, **options: Any) -> Service[Any]:
        defaults = {"per_host": 1, "intensity": 100, "period": LONG, "shutdown": 1.0}
        return Service(name, Player, args=(str(diary), *moods), size=size, **{**defaults, **options})

    with venue.play(
        service("permanent", 2),
        service("transient", 1, restart="transient"),
        service("temporary", 6, restart="temporary", per_host=6),
        service("all", 2, strategy="one_for_all"),
        service("rest", 3, strategy="rest_for_one"),
        service("strict", 2, intensity=2),
        service("zero", 1, intensity=0),
        service("third", 1, "ok", "fail", "ok", intensity=3, shutdown=30.0),
        service("never", 1, "ok", "fail", intensity=100_000, backoff=SOON),
        service("loop", 1, shutdown="brutal_kill", intensity=None, backoff=Backoff(0.1, 2, 0.8, jitter=0)),
        Service("watchers", Watcher, size=4, per_host=4),
    ) as cluster:
        yield Stage(cluster, watch, until, diary)


CLEAN = ["normal", "shutdown", "shutdown x"]
ABNORMAL = ["error", "kill"]


@pytest.mark.parametrize("how", [*CLEAN, *ABNORMAL])
def test_c14_a_permanent_member_always_comes_back(stage: Stage, how: str) -> None:
    (life, pid), other = stage.lives("permanent").values()

    stage.end("permanent/0", how)

    after = stage.wait_lives("permanent", life + 1, other[0])
    assert (after["permanent/0"][1] != pid) == (how == "kill")


def test_c15_a_transient_member_comes_back_from_abnormal_ends_only(stage: Stage) -> None:
    for life, how in enumerate(ABNORMAL, start=2):
        stage.end("transient/0", how)
        stage.wait_lives("transient", life)

    stage.end("transient/0", "shutdown x")

    row = stage.seen.wait_row("transient/0", state="stopped")
    assert (row["incarnation"], row["last_exit"]) == (3, "shutdown (x)")


def test_c16_a_temporary_member_never_comes_back(stage: Stage) -> None:
    member = stage.member("temporary/0")
    for number, how in enumerate([*CLEAN, "error"]):
        stage.end(f"temporary/{number}", how)
    stage.kill("temporary/5")

    stage._until(lambda: {stage.seen.row(name)["state"] for name in stage.lives("temporary")} == {"stopped"})
    assert {life for life, _ in stage.lives("temporary").values()} == {1}
    with pytest.raises(ActorStopped):
        member.who().result(5)


def test_c17_a_restarted_member_has_its_address_and_fresh_state(stage: Stage) -> None:
    counter = stage.member("permanent/1")

    before = [counter.add().result() for _ in range(99)]
    with pytest.raises(Unavailable):
        counter.add().result()
    stage._until(lambda: _runs(counter))

    assert before == list(range(1, 100))
    assert [counter.add().result() for _ in range(50)] == list(range(1, 51))


def _runs(member: Any) -> bool:
    try:
        member.who().result(5)
    except Unavailable:
        return False
    return True


def test_c18_one_for_one_restarts_the_one_that_failed(stage: Stage) -> None:
    before = stage.lives("permanent")

    stage.kill("permanent/0")

    lives = [life for life, _ in before.values()]
    after = stage.wait_lives("permanent", lives[0] + 1, lives[1])
    assert after["permanent/1"] == before["permanent/1"]


@pytest.mark.parametrize(("service", "again"), [("all", (2, 2)), ("rest", (1, 2, 2))])
def test_c19_c20_a_group_restarts_those_that_its_strategy_says(
    stage: Stage, service: str, again: tuple[int, ...]
) -> None:
    """The second one is killed; who has to stop does so in order, and they start in order."""
    pids = [pid for _, pid in stage.lives(service).values()]
    stage.kill(f"{service}/1")

    after = stage.wait_lives(service, *again)

    # Whoever merely had to stop goes on in its process, whoever was killed has another.
    assert [pid == old for (_, pid), old in zip(after.values(), pids, strict=True)] == [
        number != 1 for number in range(len(again))
    ]
    restarted = [number for number, life in enumerate(again) if life == 2]
    stopped = [n for n in range(len(again)) if _entry(stage, f"{service}/{n}", 1, "stop shutdown")]
    assert stopped == [number for number in restarted if number != 1]
    started = [_entry(stage, f"{service}/{number}", 2, "start") for number in restarted]
    assert started == sorted(started)
    assert None not in started


def _entry(stage: Stage, name: str, life: int, what: str) -> float | None:
    return next((at for at, in_life, said in stage.diary(name) if (in_life, said) == (life, what)), None)


def test_c23_one_restart_too_many_ends_them_all(stage: Stage) -> None:
    """Over different members: the window is theirs together."""
    stage.kill("strict/0")
    stage.wait_lives("strict", 2, 1)
    stage.kill("strict/1")
    stage.wait_lives("strict", 2, 2)
    stage.kill("strict/0")

    row = stage.seen.wait_row("strict", state="failed")
    assert row["reason"].startswith("gave up: killed")
    assert _entry(stage, "strict/1", 2, "stop shutdown") is not None
    with pytest.raises(ServiceFailed, match="gave up: killed"):
        stage.cluster.service("strict").who().result(5)


def test_c25_intensity_0_restarts_nothing(stage: Stage) -> None:
    stage.kill("zero/0")

    stage.seen.wait_row("zero", state="failed")
    assert [what for _, _, what in stage.diary("zero/0")].count("init") == 1


def test_c27_an_order_is_served_between_failing_restarts(stage: Stage) -> None:
    stage.kill("never/0")
    stage._until(lambda: stage.seen.row("never/0")["incarnation"] > 3)

    begun_at = time.monotonic()
    report = stage.cluster.scale("never", 0).result(10)

    assert report["left"] == ["never/0"]
    assert time.monotonic() - begun_at < 5


def test_c28_a_restart_that_fails_is_tried_again(stage: Stage) -> None:
    stage.kill("third/0")

    stage.wait_lives("third", 3)
    assert stage.seen.row("third")["restarts"] == 2


def test_c29_cleanup_may_take_its_shutdown_time(stage: Stage) -> None:
    stage.member("third/0").need(1.0).result()

    begun_at = time.monotonic()
    stage.cluster.scale("third", 0).result(20)

    assert 1 <= time.monotonic() - begun_at < 10
    assert stage.diary("third/0")[-1][2] == "stop shutdown"


def test_c29_who_overruns_it_is_killed(stage: Stage) -> None:
    stage.cluster.scale("permanent", 3).result(20)
    pid = stage.seen.row("permanent/2")["pid"]
    busy = stage.member("permanent/2").options(timeout=None).nap(200)
    stage._until(lambda: _entry(stage, "permanent/2", 1, "naps"))

    begun_at = time.monotonic()
    stage.cluster.scale("permanent", 2).result(20)

    assert 1 <= time.monotonic() - begun_at < 10
    error = busy.outcome(5).error
    assert isinstance(error, Unavailable)
    assert error.may_have_run
    stage._until(lambda: not Path(f"/proc/{pid}").exists())


def test_c40_who_is_not_there_is_told_at_once(stage: Stage) -> None:
    stage.cluster.scale("permanent", 3).result(20)
    gone = stage.member("permanent/2").options(timeout=10)
    stage.cluster.scale("permanent", 2).result(20)

    begun_at = time.monotonic()
    with pytest.raises(ActorStopped):
        gone.who().result()
    with pytest.raises(NotFound):
        stage.member("permanent/7").who().result()
    with pytest.raises(NotFound):
        stage.cluster.service("permanant")

    assert time.monotonic() - begun_at < 2


@pytest.mark.parametrize(("how", "error"), [("kill", Unavailable), ("error", Burnt)])
def test_c41_whoever_asked_the_one_that_ended_learns_why(
    stage: Stage, how: str, error: type[Exception]
) -> None:
    life = stage.lives("permanent")["permanent/0"][0]

    begun_at = time.monotonic()
    with pytest.raises(error) as raised:
        stage.member("permanent/0").options(timeout=30).end(how).result()

    assert time.monotonic() - begun_at < 5
    if isinstance(raised.value, Unavailable):
        assert raised.value.may_have_run
    else:
        assert 'raise Burnt("on request")' in str(raised.value.__cause__)
    stage.wait_lives("permanent", life + 1, stage.lives("permanent")["permanent/1"][0])


def test_c44_a_restart_is_a_fresh_state_at_the_same_address(stage: Stage) -> None:
    counter = stage.member("permanent/0")
    for _ in range(3):
        counter.add().result()

    stage.end("permanent/0", "error")

    assert counter.add().result() == 1


def test_c46_c39_a_deadline_is_kept_and_a_late_answer_reaches_nobody(stage: Stage) -> None:
    member = stage.member("permanent/0")

    begun_at = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        member.options(timeout=0.03).nap(0.3).result()

    assert 0.03 <= time.monotonic() - begun_at < 0.5
    assert member.who().result()[0] == "permanent/0"


def test_c47_health_is_what_ps_says_and_each_change_is_an_event(stage: Stage) -> None:
    life = stage.lives("all")["all/0"][0]
    last = max(event["number"] for event in stage.cluster.events(last=1))
    assert {name: stage.seen.row(name)["state"] for name in ("permanent", "strict")} == {
        "permanent": "running",
        "strict": "failed",
    }

    stage.kill("all/0")
    stage.wait_lives("all", *[life + 1] * 2)

    told = [
        event["event"]
        for event in stage.cluster.events(last=1000)
        if event["number"] > last and event.get("member") == "all/0"
    ]
    assert told == ["member.child_exited", "member.restarting", "member.started"]


def test_c48_every_watcher_is_told_once_and_the_late_one_at_once(stage: Stage) -> None:
    """By watchers in another process, when the member's registration ends and not before."""
    stage.cluster.scale("permanent", 3).result(20)
    target = stage.cluster.service("permanent").member(2)
    watchers = [stage.member(f"watchers/{number}") for number in range(4)]
    for watcher in watchers[:3]:
        watcher.watch(target).result()
    stage.end("permanent/2", "kill")
    stage.seen.wait_row("permanent/2", state="running")
    assert [watcher.told().result() for watcher in watchers[:3]] == [[]] * 3

    stage.cluster.scale("permanent", 2).result(20)
    watchers[3].watch(target).result()

    stage._until(lambda: all(watcher.told().result() for watcher in watchers))
    told = [[kind for _, kind in watcher.told().result()] for watcher in watchers]
    assert told == [*[["shutdown"]] * 3, ["not_found"]]


def test_c51_a_full_mailbox_refuses_its_sender_in_another_process(stage: Stage) -> None:
    member = stage.member("permanent/1")
    busy = member.nap(0.5)
    stage._until(lambda: not busy.done)
    waiting = [member.nap(0) for _ in range(3)]

    with pytest.raises(MailboxFull):
        [reply.result() for reply in [member.nap(0) for _ in range(2)]]

    assert [reply.outcome(5).ok for reply in (busy, *waiting)] == [True] * 4


def test_c52_waits_between_restarts_grow_up_to_the_maximum(stage: Stage) -> None:
    """Beyond three in the period, of a member that works in between: else its service would have failed."""
    member = stage.member("loop/0").options(timeout=30)
    ended = []
    for _ in range(8):
        member.who().result()
        with pytest.raises(Burnt):
            member.end("error").result()
        ended.append(time.monotonic())
    member.who().result()

    begun = [at for at, _, what in stage.diary("loop/0") if what == "init"][1:]
    waits = [later - earlier for earlier, later in zip(ended, begun, strict=True)]
    for wait, least in zip(waits, (0, 0, 0, 0.1, 0.2, 0.4, 0.8, 0.8), strict=True):
        # Without a wait the next start may be written down before the answer is here.
        assert (0.9 * least or -0.1) <= wait < 10 * (least or 0.1)


def test_c29_a_brutal_kill_runs_no_cleanup(stage: Stage) -> None:
    begun_at = time.monotonic()
    stage.cluster.scale("loop", 0).result(20)

    assert time.monotonic() - begun_at < 5
    assert "cleans up" not in [what for _, _, what in stage.diary("loop/0")]


def test_c31_a_killed_supervisor_comes_back_and_brings_back_what_it_supervises(stage: Stage) -> None:
    """The stage is the supervisor: its children go on, and one that is killed meanwhile has a new life."""
    before = stage.lives("permanent")
    state = stage.cluster.ps().result()["stage"]
    os.kill(state["pid"], signal.SIGKILL)
    os.kill(before["permanent/0"][1], signal.SIGKILL)

    def is_back() -> bool:
        try:
            return bool(stage.cluster.ps().result(2)["stage"]["epoch"] > state["epoch"])
        except ActorError:
            return False

    stage._until(is_back)
    lives = [life for life, _ in before.values()]
    after = stage.wait_lives("permanent", lives[0] + 1, lives[1])
    assert after["permanent/1"] == before["permanent/1"]


def test_every_report_has_the_four_keys_and_the_users_traceback_comes_first(stage: Stage) -> None:
    """Of the ends and starts of the second life of the stage, which saw a crash and a failed start too."""
    stage.end("permanent/1", "error")
    stage._until(lambda: stage.seen.events("member.restarting", member="permanent/1"))

    reports = [event for event in stage.cluster.events(last=10_000) if "context" in event]

    assert {"member.crashed", "member.child_exited", "member.restarting"} <= {r["event"] for r in reports}
    for report in reports:
        assert {"supervisor", "context", "reason", "child"} <= set(report)
        assert all(isinstance(report[key], str) for key in ("supervisor", "context", "reason", "child"))
    [crashed] = [report for report in reports if report["event"] == "member.crashed"][-1:]
    header, frame, code, *_ = crashed["traceback"].splitlines()
    assert header == "Traceback (most recent call last):"
    assert "players.py" in frame
    assert code.strip() == 'raise Burnt("on request")'


def test_a_start_that_failed_is_reported_with_the_users_traceback(venue: Any, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with venue.play(
        Service("broken", Player, args=(str(diary), "fail"), intensity=1, period=LONG), Service("well", Chef)
    ) as cluster:
        failed = [event for event in cluster.events(last=100) if event["event"] == "member.start_failed"]

        assert cluster.service("well").count().result() == 0
    assert [failed[0][key] for key in ("supervisor", "context", "child")] == [
        "broken",
        "start_failed",
        "broken/0",
    ]
    assert failed[0]["traceback"].splitlines()[-1] == "players.Burnt: at the start"

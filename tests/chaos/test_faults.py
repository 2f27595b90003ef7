"""The fault rows, by number: what happens to real systems, and what callers and neighbours see of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError, AlreadyStarted, DeadlineExceeded, ServiceFailed, Unavailable
from actors.system import ActorSystem
from supervisors import connect, settings
from supervisors.testing import Load, Planted, Scribe, Verdict, check, read_ledger
from supervisors.testing.scribe import plant

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
IS_LONG = bool(os.environ.get("CHAOS_LONG"))
"""Repetitions and waits of the long run."""


def wait_until(condition: Callable[[], object], timeout: float = 20.0, pause: float = 0.01) -> Any:
    give_up_at = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < give_up_at, "the condition did not come true"
        time.sleep(pause)
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def under_load(
    theatre: Any, services: dict[str, int], rate: float = 150.0
) -> Iterator[Callable[[], Verdict]]:
    """Calls meanwhile; afterwards the function that is given tells the verdict on them."""
    began_at = time.monotonic()
    faults_before = len(theatre.nemesis.faults)
    verdicts: list[Verdict] = []
    load = Load(
        theatre.cluster, theatre.ledger, services, rate=rate, seed=faults_before, name=secrets.token_hex(3)
    )
    with load:
        time.sleep(0.2)
        yield lambda: verdicts[0]
        time.sleep(0.2)
    assert load.problems == []
    records = read_ledger(theatre.folder)
    born_before = {
        record.target: record for record in records if record.what == "life" and record.at < began_at
    }
    mine = [record for record in records if record.what in ("life", "dead_letter") and record.at >= began_at]
    mine += [*born_before.values(), *(record for record in records if record.sender.startswith(load.name))]
    verdicts.append(check(mine, theatre.nemesis.faults[faults_before:]))
    assert verdicts[0].is_clean, verdicts[0].text()


class TestProcesses:
    @pytest.mark.parametrize(
        "number",
        [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT],
        ids=["F01-SIGKILL", "F04-SIGSEGV", "F04-SIGABRT"],
    )
    def test_a_killed_process_is_replaced_and_nobody_else_is(self, theatre: Any, number: int) -> None:
        theatre.wait_ready()
        before = theatre.lives()
        _, life, pid = theatre.who("desk/0")
        began_at = time.monotonic()

        theatre.nemesis.signal(pid, signal.Signals(number))

        wait_until(lambda: theatre.who("desk/0")[1] == life + 1, pause=0.001)
        assert time.monotonic() - began_at < 3
        after = theatre.lives()
        assert {name for name in before if before[name] != after[name]} == {"desk/0"}

    @pytest.mark.parametrize("method", ["segfault", "abort"])
    def test_F04_the_exit_names_the_signal(self, theatre: Any, method: str) -> None:
        theatre.wait_ready()
        with pytest.raises(Unavailable):
            theatre.member("desk/1").ask(method).result(10)

        theatre.who("desk/1")

        word = {"segfault": "SIGSEGV", "abort": "SIGABRT"}[method]
        wait_until(lambda: word in theatre.row("desk/1")["last_exit"], 1)

    def test_F02_kills_under_load_lose_nothing_and_hang_nobody(self, theatre: Any) -> None:
        with under_load(theatre, {"desk": 2}) as verdict:
            for _ in range(200 if IS_LONG else 5):
                theatre.wait_ready()
                name = theatre.nemesis.random.choice(["desk/0", "desk/1"])
                row = theatre.wait_state(name, "running")
                done = theatre.nemesis.did("kill", name, pid=row["pid"], ends=(name,))
                time.sleep(theatre.nemesis.random.uniform(0, 0.05))
                theatre.nemesis.signal(row["pid"], signal.SIGKILL)
                theatre.nemesis.has_hit(done)
                theatre.who(name)

        assert max(verdict().rto) < 3

    def test_F02_who_waits_is_told_at_once(self, theatre: Any) -> None:
        theatre.wait_ready()
        member = theatre.member("desk/0")
        _, _, pid = theatre.who("desk/0")
        waiting = [member.options(timeout=60).nap(60) for _ in range(20)]
        told_after: list[float] = []
        with pytest.raises(DeadlineExceeded):
            member.options(timeout=0.1).who().result()
        began_at = time.monotonic()
        for reply in waiting:
            reply.add_done_callback(lambda _: told_after.append(time.monotonic() - began_at))

        theatre.nemesis.signal(pid, signal.SIGKILL)

        wait_until(lambda: len(told_after) == 20, timeout=5)
        assert max(told_after) < 0.5
        assert all(isinstance(reply.outcome(0).error, Unavailable) for reply in waiting)
        theatre.who("desk/0")

    def test_F05_sigterm_drains_and_a_permanent_member_comes_back(self, theatre: Any) -> None:
        theatre.wait_ready()
        _, life, pid = theatre.who("desk/0")
        member = theatre.member("desk/0")
        running = member.nap(0.5)
        with pytest.raises(DeadlineExceeded):  # it naps
            member.options(timeout=0.1).who().result()

        theatre.nemesis.signal(pid, signal.SIGTERM)

        assert running.result(10) == "desk/0"
        wait_until(lambda: theatre.lives()["desk/0"][0] == life + 1)
        assert theatre.row("desk/0")["last_exit"] == "shutdown (SIGTERM)"


class TestHangs:
    def test_F06_a_stopped_process_is_recognised_and_replaced(self, theatre: Any) -> None:
        """Within three times its limit of 2 s."""
        theatre.wait_ready()
        _, life, pid = theatre.who("cell/0")

        theatre.nemesis.signal(pid, signal.SIGSTOP)

        wait_until(lambda: theatre.lives()["cell/0"][0] == life + 1, 6, pause=0.1)
        assert theatre.row("cell/0")["last_exit"].startswith("hung (stopped")

    def test_F07_a_short_pause_restarts_nobody_and_loses_nothing(self, theatre: Any) -> None:
        before = theatre.lives()
        with under_load(theatre, {"desk": 2, "shared": 2}):
            for _ in range(100 if IS_LONG else 3):
                pid = theatre.nemesis.random.choice(
                    [pid for name, (_, pid) in before.items() if name.startswith("desk")]
                )
                theatre.nemesis.did("pause", "desk", pid=pid)
                theatre.nemesis.signal(pid, signal.SIGSTOP)
                time.sleep(0.3)
                theatre.nemesis.signal(pid, signal.SIGCONT)

        assert theatre.lives() == before


class TestUsersCode:
    def test_F08_an_exception_reaches_the_caller_and_the_next_message_works(self, theatre: Any) -> None:
        _, life, pid = theatre.who("shared/0")

        with pytest.raises(Planted, match="a handler of shared/0") as caught:
            theatre.member("shared/0").crash().result()

        assert "raise Planted" in "".join(
            str(note) for note in [caught.value.__cause__, *getattr(caught.value, "__notes__", ())]
        )
        assert theatre.who("shared/0") == ("shared/0", life + 1, pid)
        assert theatre.who("shared/1")[1] == theatre.lives()["shared/1"][0]

    def test_F09_a_member_that_cannot_start_leaves_nothing_behind(self, theatre: Any) -> None:
        before = theatre.lives()
        planted = plant(theatre.folder, "shared/2", "on_start", "raise")

        report = theatre.cluster.scale("shared", 3).result(20)

        assert report["started"] == []
        row = theatre.wait_state("shared/2", "backing_off", "restarting", "starting")
        assert "Planted: on_start of shared/2" in row["last_exit"]
        assert theatre.cluster.service("shared").who().result()[0] in ("shared/0", "shared/1")
        theatre.cluster.scale("shared", 2).result(20)
        planted.unlink()
        wait_until(lambda: theatre.lives() == before)

    def test_F10_failing_restarts_count_and_end_in_failure(self, theatre: Any) -> None:
        """Each failed start is an incident; the stage answers meanwhile."""
        planted = plant(theatre.folder, "strict/0", "on_start", "raise")
        with pytest.raises(Planted):
            theatre.member("strict/0").crash().result()

        row = theatre.wait_state("strict", "failed")

        lives = [
            record
            for record in read_ledger(theatre.folder)
            if record.what == "life" and record.target == "strict/0"
        ]
        assert len(lives) == 1 + 2  # the first, and one for each restart that intensity allows
        assert "Planted: on_start of strict/0" in row["reason"]
        began_at = time.monotonic()
        with pytest.raises(ServiceFailed):
            theatre.cluster.service("strict").who().result()
        assert time.monotonic() - began_at < 0.5
        planted.unlink()

    def test_F11_a_start_that_hangs_is_cut_off(self, theatre: Any) -> None:
        _, life, _ = theatre.who("desk/1")
        planted = plant(theatre.folder, "desk/1", "on_start", "hang")
        with pytest.raises(Planted):
            theatre.member("desk/1").crash().result()
        began_at = time.monotonic()

        wait_until(lambda: "did not start within 2 s" in (theatre.row("desk/1")["last_exit"] or ""))

        assert time.monotonic() - began_at < 2 + 1
        planted.unlink()
        assert theatre.who("desk/1")[1] > life + 1

    def test_F11_a_constructor_that_blocks_its_thread_is_cut_off_too(self, theatre: Any) -> None:
        """The neighbour in the same process answers all the while."""
        _, life, _ = theatre.who("sleepers/1")
        theatre.folder.joinpath("blocked").touch()
        theatre.member("sleepers/1").stop().result()
        began_at = time.monotonic()

        wait_until(lambda: "did not start within 2 s" in (theatre.row("sleepers/1")["last_exit"] or ""))

        assert time.monotonic() - began_at < 2 + 1
        assert theatre.member("sleepers/0").who().result()[0] == "sleepers/0"
        theatre.folder.joinpath("blocked").unlink()
        assert theatre.who("sleepers/1")[1] > life

    @pytest.mark.parametrize("way", ["raise", "hang"])
    def test_F12_a_stop_that_fails_or_hangs_ends_within_the_shutdown_time(
        self, theatre: Any, way: Any
    ) -> None:
        theatre.cluster.scale("desk", 3).result(20)
        planted = plant(theatre.folder, "desk/2", "on_stop", way)
        began_at = time.monotonic()

        report = theatre.cluster.scale("desk", 2).result(20)

        assert report["left"] == ["desk/2"]
        assert time.monotonic() - began_at < 1 + 1
        planted.unlink()

    def test_F13_a_restart_storm_ends_and_costs_little(self, theatre: Any) -> None:
        pid = theatre.cluster.ps().result()["stage"]["pid"]
        planted = plant(theatre.folder, "storm/0", "life", "short")
        events_before = len(list(theatre.cluster.events(last=10_000)))
        with pytest.raises(Planted):
            theatre.member("storm/0").crash().result()
        used, began_at = cpu_seconds(pid), time.monotonic()

        theatre.wait_state("storm", "failed")
        time.sleep(1)

        lives = [
            record
            for record in read_ledger(theatre.folder)
            if record.what == "life" and record.target == "storm/0"
        ]
        assert len(lives) == 1 + 3
        assert cpu_seconds(pid) - used < 0.2 * (time.monotonic() - began_at) + 0.1
        assert len(list(theatre.cluster.events(last=10_000))) - events_before < 60
        planted.unlink()

    def test_F14_a_process_that_takes_a_pair_along_is_one_incident(self, theatre: Any) -> None:
        theatre.wait_ready()
        before = {name: theatre.row(name) for name in ("pair/0", "pair/1")}

        theatre.nemesis.signal(before["pair/0"]["pid"], signal.SIGKILL)

        for name, row in before.items():
            assert theatre.who(name)[1] == row["incarnation"] + 1
            assert theatre.row(name)["restarts"] == row["restarts"] + 1

    def test_F14_two_that_crash_at_once_come_back_together(self, theatre: Any) -> None:
        before = theatre.lives()
        replies = [theatre.member(name).crash() for name in ("pair/0", "pair/1")]

        assert isinstance(replies[0].outcome(10).error, Planted)

        wait_until(lambda: theatre.lives()["pair/1"] > before["pair/1"])
        wait_until(lambda: [theatre.row(name)["state"] for name in ("pair/0", "pair/1")] == ["running"] * 2)
        after = theatre.lives()
        grown = {after[name][0] - before[name][0] for name in ("pair/0", "pair/1")}
        assert len(grown) == 1
        assert grown <= {1, 2}


class TestTheControlPlane:
    def test_F15_a_killed_stage_comes_back_and_nobody_notices(self, theatre: Any) -> None:
        before = theatre.lives()
        with under_load(theatre, {"desk": 2, "shared": 2, "cell": 1}) as verdict:
            theatre.nemesis.inject("kill_stage")
            wait_until(lambda: _epoch(theatre) > 1)
            assert theatre.lives() == before

        assert dict(verdict().outcomes).keys() == {"ok"}
        theatre.wait_ready()
        _, pid = before["desk/0"]
        theatre.nemesis.signal(pid, signal.SIGKILL)
        wait_until(lambda: theatre.lives()["desk/0"][0] == before["desk/0"][0] + 1)

    @pytest.mark.parametrize("pause", [0.0, 0.2])
    def test_F15_a_member_that_dies_meanwhile_is_restarted_afterwards(
        self, theatre: Any, pause: float
    ) -> None:
        theatre.wait_ready()
        before = theatre.lives()
        epoch = _epoch(theatre)
        theatre.nemesis.inject("kill_stage")
        time.sleep(pause)
        theatre.nemesis.signal(before["desk/1"][1], signal.SIGKILL)

        wait_until(lambda: _epoch(theatre) > epoch)

        assert theatre.who("desk/1")[1] == before["desk/1"][0] + 1
        after = theatre.lives()
        assert {name for name in before if before[name] != after[name]} == {"desk/1"}

    @pytest.mark.parametrize(
        ("number", "last_exit"),
        [
            (signal.SIGKILL, "killed (while the stage was away)"),
            (signal.SIGSEGV, "killed (SIGSEGV)"),
            (signal.SIGTERM, "shutdown (SIGTERM)"),
        ],
    )
    def test_F15_how_a_member_died_meanwhile_is_known_by_what_it_has_left(
        self, theatre: Any, number: int, last_exit: str
    ) -> None:
        theatre.wait_ready()
        before = theatre.lives()
        epoch = _epoch(theatre)
        theatre.nemesis.inject("kill_stage")
        theatre.nemesis.signal(before["desk/1"][1], number)

        wait_until(lambda: _epoch(theatre) > epoch)

        wait_until(lambda: theatre.lives()["desk/1"][0] == before["desk/1"][0] + 1)
        assert theatre.row("desk/1")["last_exit"] == last_exit

    def test_F15_a_group_that_loses_one_meanwhile_is_restarted_as_a_group(self, theatre: Any) -> None:
        """Strategies hold for what happened while nobody was in charge, too."""
        theatre.wait_ready()
        before = theatre.lives()
        epoch = _epoch(theatre)
        theatre.nemesis.inject("kill_stage")
        theatre.nemesis.signal(before["duo/1"][1], signal.SIGKILL)

        wait_until(lambda: _epoch(theatre) > epoch)

        assert theatre.who("duo/1")[1] == before["duo/1"][0] + 1
        wait_until(lambda: theatre.who("duo/0")[1] == before["duo/0"][0] + 1)

    def test_F26_of_two_that_start_one_app_at_once_one_wins(self, theatre: Any) -> None:
        script = (
            "import sys\n"
            "from actors.errors import AlreadyStarted\n"
            "from supervisors import App\n"
            "try:\n"
            "    run = App(name='contested').run(num_cpus=1)\n"
            "    cluster = run.start()\n"
            "except AlreadyStarted:\n"
            "    print('lost', flush=True); sys.exit()\n"
            "print('won', flush=True)\n"
            "sys.stdin.readline()\n"
            "run.stop()\n"
        )
        for _ in range(50 if IS_LONG else 1):
            rivals = [
                subprocess.Popen(
                    [sys.executable, "-c", script],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
                for _ in range(2)
            ]
            told = [rival.stdout.readline().strip() for rival in rivals if rival.stdout is not None]
            for rival in rivals:
                rival.communicate("\n", timeout=20)
            assert sorted(told) == ["lost", "won"]

    def test_F26_of_two_actors_with_one_name_one_wins(self) -> None:
        with ActorSystem() as system:
            for number in range(50):
                outcomes: list[object] = []
                barrier = threading.Barrier(2)

                def start(
                    name: str, barrier: threading.Barrier = barrier, outcomes: list[object] = outcomes
                ) -> None:
                    barrier.wait()
                    try:
                        outcomes.append(system.options(name=name).spawn(Quiet))
                    except AlreadyStarted as error:
                        outcomes.append(error)

                threads = [threading.Thread(target=start, args=(f"contested-{number}",)) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                [loser] = [outcome for outcome in outcomes if isinstance(outcome, AlreadyStarted)]
                assert loser.ref in outcomes


class TestDeadlines:
    def test_F32_a_deadline_is_kept_and_what_is_too_late_never_runs(self, theatre: Any) -> None:
        member = theatre.member("desk/0")
        theatre.who("desk/0")
        busy = member.nap(0.5)
        lateness = []
        for number in range(20):
            began_at = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                member.options(timeout=0.001).write("F32", number).result()
            lateness.append(time.monotonic() - began_at - 0.001)

        assert busy.result() == "desk/0"
        assert sorted(lateness)[-2] < 0.2  # 10 times the 20 ms that it should be
        assert member.who().result()[0] == "desk/0"
        assert not [
            record
            for record in read_ledger(theatre.folder)
            if record.what == "handled" and record.sender == "F32"
        ]

    def test_F32_what_its_caller_cancels_ends_at_its_next_await(self, theatre: Any) -> None:
        member = theatre.member("desk/0")
        napping = member.options(timeout=60).nap(60)
        with pytest.raises(DeadlineExceeded):
            member.options(timeout=0.1).who().result()

        napping.cancel()

        assert member.options(timeout=2).who().result()[0] == "desk/0"


class TestLimits:
    def test_F38_without_descriptors_the_old_traffic_goes_on(self, theatre: Any) -> None:
        theatre.who("desk/0")
        pid = theatre.lives()["desk/0"][1]
        theatre.nemesis.services = ["desk"]
        done = theatre.nemesis.inject("descriptors")
        used, began_at = cpu_seconds(done.pid), time.monotonic()
        member = theatre.member(done.target)

        with connect("torment") as stranger:
            theirs = stranger.service("desk").member(int(done.target[-1])).options(timeout=1).who().outcome()
            mine = [member.who().outcome(5) for _ in range(50)]

        assert all(outcome.ok for outcome in mine)
        assert theirs.ok or isinstance(theirs.error, (Unavailable, DeadlineExceeded))
        time.sleep(0.3)
        assert cpu_seconds(done.pid) - used < 0.2 * (time.monotonic() - began_at) + 0.2
        theatre.nemesis.heal()
        with connect("torment") as stranger:
            assert stranger.service("desk").member(int(done.target[-1])).who().result(5)[2] in (pid, done.pid)
        theatre.nemesis.services = None

    def test_F39_a_memory_error_is_a_crash_like_any_other(self, theatre: Any) -> None:
        before = theatre.lives()

        with pytest.raises(MemoryError):
            theatre.member("shared/1").hoard().result(10)

        assert theatre.who("shared/1") == ("shared/1", before["shared/1"][0] + 1, before["shared/1"][1])
        after = theatre.lives()
        assert {name for name in before if before[name] != after[name]} == {"shared/1"}

    def test_F41_busy_cpus_are_no_failure(self, theatre: Any) -> None:
        before = theatre.lives()
        with under_load(theatre, {"desk": 2, "shared": 2}, rate=60):
            theatre.nemesis.inject("starve")
            time.sleep(60 if IS_LONG else 3)
            theatre.nemesis.heal()

        assert theatre.lives() == before


class TestChanges:
    def test_F42_scaling_under_load_fails_no_call_to_the_service(self, theatre: Any) -> None:
        with under_load(theatre, {"desk": 4}) as verdict:
            for size in (4, 2, 3, 1, 2) * (10 if IS_LONG else 1):
                low, high = sorted((theatre.row("desk")["size"], size))
                theatre.nemesis.did("scale", "desk", ends=[f"desk/{n}" for n in range(low, high)])
                theatre.cluster.scale("desk", size).result(20)
                time.sleep(0.2)

        assert _failed_service_asks(theatre) == []
        assert verdict().sent > 100

    def test_F43_ending_all_processes_in_order_one_by_one_fails_no_call_to_the_service(
        self, theatre: Any
    ) -> None:
        with under_load(theatre, {"desk": 2}) as verdict:
            for name in ("desk/0", "desk/1"):
                theatre.wait_ready()
                row = theatre.wait_state(name, "running")
                done = theatre.nemesis.did("terminate", name, pid=row["pid"], ends=(name,))
                theatre.nemesis.signal(row["pid"], signal.SIGTERM)
                theatre.nemesis.has_hit(done)
                wait_until(
                    lambda name=name, row=row: theatre.row(name)["incarnation"] == row["incarnation"] + 1
                )
                theatre.wait_state(name, "running")

        assert _failed_service_asks(theatre) == []
        assert verdict().sent > 50


class Quiet(Scribe):
    """Keeps no ledger."""

    def __init__(self) -> None: ...

    async def on_start(self) -> None: ...

    async def on_stop(self, exit: Any) -> None: ...


def _epoch(theatre: Any) -> int:
    with contextlib.suppress(ActorError):
        return int(theatre.cluster.ps().result(5)["stage"]["epoch"])
    return 0


def _failed_service_asks(theatre: Any) -> list[str]:
    """Of the load just ended: asks through the service that got no answer."""
    records = read_ledger(theatre.folder)
    latest = (
        [record for record in records if record.what == "sent"][-1]
        .sender.partition(" ")[0]
        .rpartition("-")[0]
    )
    return [
        f"{record.sender} #{record.seq}: {record.detail}"
        for record in records
        if record.what == "outcome"
        and record.sender.startswith(latest)
        and re.fullmatch(r"\S+ ask [a-z]+", record.sender)
        and record.detail != "ok"
    ]


class TestEndings:
    def test_F16_a_killed_driver_takes_everything_along(self, theatre: Any, tmp_path: Path) -> None:
        script = tmp_path / "driver.py"
        script.write_text(
            "import sys, time\n"
            "from supervisors import App, Service\n"
            "from supervisors.testing import Scribe\n"
            "desk = Service('desk', Scribe, args=(sys.argv[1],), size=2, per_host=1, shutdown=0.5)\n"
            "app = App(desk, name='orphaned')\n"
            "if __name__ == '__main__':\n"
            "    with app.run(num_cpus=1):\n"
            "        print('up', flush=True)\n"
            "        time.sleep(100)\n"
        )
        mark = secrets.token_hex(8)
        driver = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "ledger")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "CHAOS_DRIVER": mark, "PYTHONPATH": str(ROOT)},
        )
        assert driver.stdout is not None
        assert driver.stdout.readline() == "up\n"

        driver.kill()
        driver.communicate()

        wait_until(lambda: not _with_variable(f"CHAOS_DRIVER={mark}"), timeout=5 + 0.5)
        assert not settings.app_dir("orphaned").exists()


def _with_variable(assignment: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if assignment.encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found

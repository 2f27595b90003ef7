"""Whether a process hangs: silence is suspicion, `/proc` is proof."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisors import evidence, settings
from supervisors.health import Look, Pulse, watched

BUSY = Look(cpu=100.0, state="R", is_able=True)


def silent_for(seconds: float, *, limit: float = 10.0, cpu: float = 0.0) -> Pulse:
    pulse = Pulse(limit)
    pulse.ask(cpu)
    pulse.wait(seconds)
    return pulse


def looked_at(pulse: Pulse, look: Look, times: int = 5) -> str:
    """What the last of several looks says."""
    return [pulse.judge(look) for _ in range(times)][-1]


@given(st.floats(0, 9.9), st.builds(Look, st.floats(0, 1000), st.sampled_from("RSDTtZ"), st.booleans()))
def test_nothing_hangs_before_the_limit(seconds: float, look: Look) -> None:
    assert looked_at(silent_for(seconds), look) == ""


def test_a_stopped_process_hangs() -> None:
    assert silent_for(10).judge(Look(0.0, "T", is_able=False)) == "stopped, no answer for 10.0 s"


def test_one_that_burns_cpu_without_answering_hangs() -> None:
    pulse = silent_for(10, cpu=3.0)

    assert pulse.judge(Look(8.0, "R", is_able=True)) == "no answer for 10.0 s while it used 5.0 s of CPU"


def test_cpu_used_before_the_question_is_no_proof() -> None:
    assert looked_at(silent_for(10, cpu=97.0), BUSY) == ""


def test_one_that_could_not_run_and_used_nothing_hangs() -> None:
    """A deadlock, or a loop that is blocked. One look may have missed a thread: two do not."""
    pulse = silent_for(10)

    assert pulse.judge(Look(0.05, "S", is_able=False)) == ""
    assert pulse.judge(Look(0.05, "S", is_able=False)) == "no answer for 10.0 s, and no thread that could run"


@given(st.floats(10, 1e6), st.floats(0, 4.9))
def test_a_runnable_thread_without_a_cpu_is_starvation(seconds: float, burned: float) -> None:
    """However long it lasts."""
    assert looked_at(silent_for(seconds), Look(burned, "R", is_able=True)) == ""


def test_a_thread_that_could_run_in_between_begins_the_looks_anew() -> None:
    pulse = silent_for(10)
    idle, able = Look(0.0, "S", is_able=False), Look(0.0, "S", is_able=True)

    assert [pulse.judge(look) for look in (idle, able, idle)] == ["", "", ""]


def test_a_process_held_by_a_debugger_is_left_alone() -> None:
    assert looked_at(silent_for(1e6), Look(0.0, "t", is_able=False)) == ""


def test_an_answer_ends_the_suspicion() -> None:
    pulse = silent_for(10)
    pulse.hear()

    assert not pulse.is_silent
    assert looked_at(pulse, Look(0.0, "T", is_able=False)) == ""


def test_an_open_question_stays_the_oldest() -> None:
    pulse = silent_for(6)
    pulse.ask(50.0)
    pulse.wait(4)

    assert pulse.judge(Look(5.0, "R", is_able=True))


def test_silence_needs_a_question() -> None:
    pulse = Pulse(10)
    pulse.wait(100)

    assert not pulse.is_silent


def test_who_was_away_has_not_watched() -> None:
    """A watcher that was stopped itself blames nobody for what did not happen meanwhile."""
    pulse = Pulse(10)
    pulse.ask(0.0)
    pulse.wait(watched(3600, period=2))

    assert pulse.silent == 4
    assert watched(1.5, period=2) == 1.5


# -- what /proc and the files say, of a real process ----------------------------------------

PROGRAM = """
import sys, time, re
from supervisors import evidence
evidence.leave_traces(sys.argv[1], "host-1")
def stir():
    print("ready", flush=True)
    exec(sys.argv[2])
stir()
"""


class Victim:
    def __init__(self, run_dir: Path, code: str) -> None:
        self.run_dir = str(run_dir)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.run_dir, code],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.pid = self.process.pid
        self.start_time = settings.process_start_time(self.pid) or 0

    def stack(self) -> str:
        return evidence.take_stack(self.run_dir, "host-1", self.pid, self.start_time)

    def end(self) -> int:
        self.process.kill()
        status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(tmp_path, "time.sleep(60)")
    yield victim
    victim.end()


def test_a_sleeping_process_is_not_able(victim: Victim) -> None:
    time.sleep(0.05)
    look = evidence.look_at(victim.pid)

    assert look is not None
    assert (look.state, look.is_able) == ("S", False)


def test_a_stopped_process_says_so_and_writes_no_stack(victim: Victim) -> None:
    os.kill(victim.pid, signal.SIGSTOP)
    while (look := evidence.look_at(victim.pid)) is not None and look.state != "T":
        time.sleep(0.001)

    assert look is not None
    assert not look.is_able


def test_a_handler_that_holds_the_gil_writes_its_stack(tmp_path: Path) -> None:
    victim = Victim(tmp_path, "re.match('(a+)+$', 'a' * 40 + 'b')")
    before = evidence.cpu_of(victim.pid)
    try:
        stack = victim.stack()
        time.sleep(0.3)
        look = evidence.look_at(victim.pid)
        again = victim.stack()
    finally:
        victim.end()

    assert "in stir" in stack
    assert look is not None
    assert look.is_able
    assert look.cpu > before
    assert again.count("in stir") == 1  # the newest one alone


def test_a_crash_leaves_its_file_until_it_is_removed(tmp_path: Path) -> None:
    victim = Victim(tmp_path, "import ctypes; ctypes.string_at(0)")
    status = victim.process.wait()
    victim.end()

    assert status == -signal.SIGSEGV
    crash = evidence.crash_of(str(tmp_path), "host-1")
    assert "Segmentation fault" in crash
    assert "in stir" in crash
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    evidence.remove_traces(str(tmp_path), "host-1")
    assert list(tmp_path.iterdir()) == []


def test_who_is_gone_leaves_nothing_to_look_at(victim: Victim) -> None:
    victim.end()

    assert evidence.look_at(victim.pid) is None
    assert evidence.cpu_of(victim.pid) == 0
    assert victim.stack() == ""
    assert evidence.crash_of(victim.run_dir, "host-1") == ""
    assert evidence.crash_of(victim.run_dir, "host-2") == ""

"""CPU time by what /proc says: by threads, in ticks where one has ended; and the load that burns a share."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests.benchmarks.load import SLICE, burn, busy_cores
from tests.benchmarks.processes import CpuTime, cpu_time, thread_count, ticks, used

STAT = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 1000 10 18446744073709551615"


def test_ticks_are_those_of_user_and_system() -> None:
    """Whatever the process is named."""
    assert ticks(STAT) == 300


def test_what_was_used_is_told_by_threads() -> None:
    """One that began meanwhile counts whole."""
    before, after = CpuTime(0.01, {1: 0.010, 2: 0.020}), CpuTime(0.01, {1: 0.011, 2: 0.020, 3: 0.002})

    assert used(before, after) == pytest.approx(0.003)


def test_a_thread_that_ended_is_told_by_the_whole() -> None:
    before, after = CpuTime(0.03, {1: 0.010, 2: 0.020}), CpuTime(0.05, {1: 0.012})

    assert used(before, after) == pytest.approx(0.02)


def test_the_kernel_knows_what_this_process_used() -> None:
    before = cpu_time(os.getpid())
    enough = time.process_time() + 0.2
    while time.process_time() < enough:
        pass

    # The count of a thread that runs is brought up to date at a tick.
    assert used(before, cpu_time(os.getpid())) >= 0.15


def test_threads_are_counted_whoever_started_them() -> None:
    before = thread_count(os.getpid())
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        assert thread_count(os.getpid()) == before + 1
    finally:
        leave.set()
        thread.join()


def test_a_share_is_burnt_and_no_more() -> None:
    """Less where others need the core; never more than the share and a step of each slice."""
    used_before, began_at = time.thread_time(), time.monotonic()

    burn(0.5, 20 * SLICE)

    took = time.monotonic() - began_at
    assert took >= 20 * SLICE
    assert 0 < time.thread_time() - used_before <= 0.6 * took


def test_busy_cores_are_let_go() -> None:
    with busy_cores(0.1) as pids:
        assert len(pids) == len(os.sched_getaffinity(0))
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)

    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)

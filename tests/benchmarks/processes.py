"""What the kernel says of a process: the CPU time it took and the threads it has."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_QUIET = 3.0
"""Seconds in which a process gets over what it was asked last."""


class CpuTime(NamedTuple):
    """Seconds of CPU that a process has taken so far."""

    whole: float
    """Of all its threads, also of those that have ended; in ticks of 10 ms (`stat`)."""
    by_thread: dict[int, float]
    """Of those that live, to the nanosecond (`schedstat`)."""


def cpu_time(pid: int) -> CpuTime:
    """Of the process now. `FileNotFoundError` when it has ended."""
    root = Path("/proc", str(pid))
    by_thread = {}
    for task in (root / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            by_thread[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return CpuTime(ticks((root / "stat").read_text()) * _TICK, by_thread)


def ticks(stat: str) -> int:
    """User and system time in a line of `/proc/<pid>/stat`; names may hold spaces and parentheses."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def used(before: CpuTime, after: CpuTime) -> float:
    """Seconds between two looks: by threads, or in ticks where one has ended and took its count with it."""
    if before.by_thread.keys() <= after.by_thread.keys():
        return sum(after.by_thread.values()) - sum(before.by_thread.values())
    return after.whole - before.whole


def thread_count(pid: int) -> int:
    """Threads of the process, whoever started them."""
    return len(os.listdir(f"/proc/{pid}/task"))


async def idle_percent(pids: Iterable[int], seconds: float) -> float:
    """Per cent of a core that a process of *pids* takes on average over *seconds*, after a quiet while."""
    await asyncio.sleep(_QUIET)
    before = {pid: cpu_time(pid) for pid in pids}
    await asyncio.sleep(seconds)
    taken = [used(earlier, cpu_time(pid)) for pid, earlier in before.items()]
    return 100 * sum(taken) / len(taken) / seconds

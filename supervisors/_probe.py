"""
The one home of psutil: who descends from whom, what a process uses, and ending processes for good.

A process is always pid *and* start time, and a signal goes through a pidfd that was
checked against both: a reused pid is never hit. Nothing here looks at names, since
Ray renames its processes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psutil

from supervisors import settings


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One life of one process."""

    pid: int
    start_time: int

    def is_alive(self) -> bool:
        return settings.is_alive(self.pid, self.start_time)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses now."""

    memory_bytes: int
    """Resident; shared pages count in full."""
    cpu_seconds: float
    """User and system since its start."""
    threads: int


def process_id(pid: int) -> ProcessId | None:
    """*pid* with its start time, None when it is gone or a zombie."""
    start_time = settings.process_start_time(pid)
    return None if start_time is None else ProcessId(pid, start_time)


def descendants(pid: int) -> list[ProcessId]:
    """Children, their children and so on, living ones only, parents before children."""
    return _family(pid, recursive=True)


def children(pid: int) -> list[ProcessId]:
    """Living direct children."""
    return _family(pid, recursive=False)


def _family(pid: int, *, recursive: bool) -> list[ProcessId]:
    try:
        found = psutil.Process(pid).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []
    return [known for known in (process_id(member.pid) for member in found) if known is not None]


def usage(pid: int) -> Usage | None:
    """Memory, processor time and threads of *pid*; None when it is gone or not ours to see."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(process.memory_info().rss, times.user + times.system, process.num_threads())
    except psutil.Error:
        return None


def end_processes(
    processes: Iterable[ProcessId], *, grace: float = 0.0, timeout: float = 5.0
) -> list[ProcessId]:
    """
    End *processes* and wait until they are gone; gives back those that outlived even SIGKILL.

    With *grace* they get SIGTERM and that many seconds first. SIGKILL needs no
    cooperation, not even from a stopped process, so what is left after *timeout*
    hangs in the kernel. Children of the caller are reaped.
    """
    with contextlib.ExitStack() as stack:
        pidfd_by_process = {p: fd for p in set(processes) for fd in stack.enter_context(_pidfd(p))}
        if grace > 0:
            _signal(pidfd_by_process.values(), signal.SIGTERM)
            _wait_gone(pidfd_by_process, grace)
        _signal(pidfd_by_process.values(), signal.SIGKILL)
        return _wait_gone(pidfd_by_process, timeout)


@contextlib.contextmanager
def _pidfd(process: ProcessId) -> Iterator[list[int]]:
    """A checked pidfd of *process* in a list, an empty list when it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        yield []
        return
    try:
        # Checked after opening: from here on the descriptor names this process only.
        yield [pidfd] if process.is_alive() else []
    finally:
        os.close(pidfd)


def _signal(pidfds: Iterable[int], number: signal.Signals) -> None:
    for pidfd in pidfds:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, number)


def _wait_gone(pidfd_by_process: dict[ProcessId, int], timeout: float) -> list[ProcessId]:
    """Wait for all, drop from the dictionary who is gone, and give back the others."""
    deadline = time.monotonic() + timeout
    while pidfd_by_process:
        poll = select.poll()
        for pidfd in pidfd_by_process.values():
            poll.register(pidfd, select.POLLIN)
        ended = {pidfd for pidfd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if not ended:
            break
        for process in [p for p, pidfd in pidfd_by_process.items() if pidfd in ended]:
            _reap(pidfd_by_process.pop(process))
    return list(pidfd_by_process)


def _reap(pidfd: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

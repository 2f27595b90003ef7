"""
Slices: how long a thread may run before others that wait for its core have their turn.

nng's threads only pass on what comes, in some 10 µs each; behind a busy loop they may wait for its
slice to end, 1.4 ms or more. A thread with a shorter slice than who runs is given the core as soon as
it wakes up (EEVDF; Linux takes slices of 0.1 to 100 ms from 6.12 on).

For some that is too soon: who wakes them holds the lock that they need next, so they come, find it
taken, and go again. With `SCHED_BATCH` they wait until their waker sleeps, and are the next then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

_SHORT = 100_000
"""ns. The least that Linux takes."""

_CALLS = {"x86_64": (315, 314), "aarch64": (275, 274)}
"""The numbers of `sched_getattr` and `sched_setattr`, which neither Python nor libc know."""

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr`, first version: size, policy, flags, nice, priority, runtime, deadline, period."""

_NORMAL = 0
"""`SCHED_OTHER`. It and `SCHED_BATCH` are the policies that have slices."""
_BATCH = 3
"""`SCHED_BATCH`: as `SCHED_OTHER`, but waking up takes the core from nobody."""


def shorten(name: str, *, patient: bool = False) -> int:
    """
    Give the threads of this process whose names begin with *name* the shortest slice; how many took it.

    Those that are *patient* take no core from anybody when they wake up. Nothing else of theirs changes,
    and nothing does where the kernel has no such call; one before 6.12 takes no notice of the slice.
    """
    numbers = _CALLS.get(os.uname().machine)
    if numbers is None or not os.path.isdir("/proc/self/task"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    policy = _BATCH if patient else _NORMAL
    return sum(_shorten(libc, numbers, thread, policy) for thread in _threads_named(name))


def _threads_named(name: str) -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if (task / "comm").read_bytes().startswith(name.encode()):
                found.append(int(task.name))
    return found


def _shorten(libc: ctypes.CDLL, numbers: tuple[int, int], thread: int, wanted_policy: int) -> bool:
    get, set_ = numbers
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if libc.syscall(get, thread, buffer, _ATTRIBUTES.size, 0) != 0:
        return False
    size, policy, flags, nice, priority, _, deadline, period = _ATTRIBUTES.unpack(buffer.raw)
    if policy not in (_NORMAL, _BATCH):
        return False
    wanted = _ATTRIBUTES.pack(size, wanted_policy, flags, nice, priority, _SHORT, deadline, period)
    return bool(libc.syscall(set_, thread, wanted, 0) == 0)

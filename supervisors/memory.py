"""
Memory: how short this machine is of it, and whom the kernel ends first.

The smaller of the machine and the control group of this container counts, as it does for Ray,
which ends workers at 95 %. Every process that Ray starts has the highest `oom_score_adj`; those
that do a job give it back, so that the ones that only wait go before them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

SHORT = 0.9
"""Share of the memory in use from which processes that only wait are ended, before Ray ends others."""
ENOUGH = 0.85
"""Share below which they come back."""

_FIRST = 1000
_MEMINFO = Path("/proc/meminfo")
_GROUPS = (
    # Of version 2 and 1: what is the limit, what is used, and how much of that is only cache.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def used() -> float:
    """The share of the memory that is in use, 0 to 1; 0 where nobody can tell."""
    machine = machine_share(_words(_MEMINFO))
    groups = [_group_share(Path(limit), Path(usage), cache) for limit, usage, cache in _GROUPS]
    return max(machine, *groups)


def machine_share(meminfo: Mapping[str, int]) -> float:
    """From the lines of `/proc/meminfo`."""
    total, available = meminfo.get("MemTotal", 0), meminfo.get("MemAvailable")
    return 1 - available / total if total and available is not None else 0.0


def group_share(limit: int, usage: int, cache: int, machine: int) -> float:
    """From the numbers of a control group; 0 for one without a limit below the *machine*'s memory."""
    if limit <= 0 or (machine and limit >= machine):
        return 0.0
    return max(0.0, usage - cache) / limit


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def go_first() -> None:
    """This process is the first that the kernel may end."""
    _adjust(_FIRST)


def go_with_the_others() -> None:
    """This process does a job: it goes when it holds the most, like any other of this machine."""
    # Its parent's own value: no process may go below what its container was given.
    with contextlib.suppress(OSError, ValueError):
        _adjust(int(Path(f"/proc/{os.getppid()}/oom_score_adj").read_text()))


def _adjust(score: int) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def _group_share(limit: Path, usage: Path, cache: str) -> float:
    try:
        stat = _words(limit.with_name("memory.stat"))
        machine = _words(_MEMINFO).get("MemTotal", 0)
        return group_share(int(limit.read_text()), int(usage.read_text()), stat.get(cache, 0), machine)
    except (OSError, ValueError):
        return 0.0  # no such group, or "max": no limit


def _words(path: Path) -> dict[str, int]:
    """Lines such as `MemTotal:  24683436 kB` or `inactive_file 4096`, in bytes."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, amount, *unit = line.replace(":", " ").split()
            found[name] = int(amount) * (1024 if unit else 1)
    return found

"""Memory: what the machine's and the container's numbers amount to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from supervisors import memory

GIB = 1024**3


def test_what_can_be_had_counts_not_what_is_free() -> None:
    assert memory.machine_share({"MemTotal": 10 * GIB, "MemFree": 0, "MemAvailable": 4 * GIB}) == 0.6


@pytest.mark.parametrize("meminfo", [{}, {"MemTotal": 10 * GIB}])
def test_where_nobody_can_tell_nothing_is_short(meminfo: dict[str, int]) -> None:
    assert memory.machine_share(meminfo) == 0.0


@pytest.mark.parametrize(
    ("limit", "usage", "cache", "expected"),
    [
        (4 * GIB, 3 * GIB, GIB, 0.5),  # what is only cache can be had
        (16 * GIB, 3 * GIB, 0, 0.0),  # no limit: above what the machine has
        (4 * GIB, GIB, 2 * GIB, 0.0),
    ],
)
def test_a_container_has_its_limit(limit: int, usage: int, cache: int, expected: float) -> None:
    assert memory.group_share(limit, usage, cache, 8 * GIB) == expected


def test_this_machine_has_a_share_and_this_process_a_size() -> None:
    assert 0.0 < memory.used() < 1.0
    assert memory.resident(os.getpid()) > 1024**2
    assert memory.resident(2**22 + 1) == 0


def test_a_process_goes_first_and_takes_it_back() -> None:
    """Back to what its parent has: it needs no rights for that."""
    program = (
        "from supervisors import memory\n"
        "read = lambda: print(open('/proc/self/oom_score_adj').read().strip())\n"
        "memory.go_first(); read(); memory.go_with_the_others(); read()"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    with open("/proc/self/oom_score_adj") as own:
        assert found.stdout.split() == ["1000", own.read().strip()]

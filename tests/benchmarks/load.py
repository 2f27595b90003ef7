"""
Load: a process on each core that burns a share of it, in slices; bounded, and gone with who started it.

    python -m tests.benchmarks.load SHARE SECONDS CORE
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.worker import ROOT

SLICE = 0.01
"""Seconds in which the share is burnt once: short beside a scheduler's period, long beside a switch."""

_LIMIT = 120.0
_BUSY = "busy"


def burn(share: float, seconds: float) -> None:
    """
    Use *share* of a core's time for *seconds*; less where others need it more.

    What counts is time on the CPU, not time that passes: who waits for the core has not burnt it.
    """
    end = time.monotonic() + seconds
    while (began_at := time.monotonic()) < end:
        slice_end, enough = began_at + SLICE, time.thread_time() + share * SLICE
        while time.thread_time() < enough and time.monotonic() < slice_end:
            pass
        time.sleep(max(0.0, slice_end - time.monotonic()))


@contextlib.contextmanager
def busy_cores(share: float) -> Iterator[list[int]]:
    """While inside, each core that this process may use is busy for *share* of the time; gives the pids."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load", str(share), str(_LIMIT), str(core)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in sorted(os.sched_getaffinity(0))
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != _BUSY:
                raise RuntimeError(f"the load ended with {process.wait()} before it began")
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def main(share: float, seconds: float, core: int) -> None:
    os.sched_setaffinity(0, {core})
    print(_BUSY, flush=True)
    burn(share, seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))

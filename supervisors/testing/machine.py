"""
Faults of the machine: no CPU, no descriptors.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

from supervisors.testing.nemesis import Nemesis, Skipped, fault

_BURN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


@fault("starve")
def _starve(nemesis: Nemesis) -> None:
    """Twice as many busy loops as there are CPUs; they end by themselves."""
    seconds = nemesis.random.uniform(1.0, 4.0)
    burners: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        for burner in burners:
            burner.kill()
            burner.wait()

    nemesis.did("starve", "CPUs", heal=end, heal_after=seconds, note=f"{seconds:.1f} s")
    for _ in range(2 * (os.cpu_count() or 1)):
        burners.append(
            subprocess.Popen(
                [sys.executable, "-S", "-c", _BURN, str(seconds + 5)],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )


@fault("descriptors")
def _descriptors(nemesis: Nemesis) -> None:
    """No file, pipe or connection more for a process."""
    row = nemesis.member()
    pid = row["pid"]
    try:
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        raise Skipped(f"pid {pid} has ended") from None
    nemesis.signal(pid, signal.Signals(signal.SIGCONT))  # one of ours, and alive

    def restore() -> None:
        with contextlib.suppress(OSError, Skipped):
            nemesis.signal(pid, signal.Signals(signal.SIGCONT))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    seconds = nemesis.random.uniform(0.5, 2.0)
    nemesis.did(
        "descriptors",
        row["name"],
        pid=pid,
        ends=nemesis.in_process(pid),  # who opens files may die of it
        heal=restore,
        heal_after=seconds,
        note=f"{used + 1} at most",
    )
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, limits[1]))

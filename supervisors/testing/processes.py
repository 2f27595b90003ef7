"""
Faults of single processes: ended by a signal, or stopped for a while.
"""

from __future__ import annotations

import contextlib
import signal

from supervisors.testing.nemesis import Nemesis, Skipped, fault


def _signal_member(nemesis: Nemesis, name: str, number: signal.Signals) -> None:
    row = nemesis.member()
    done = nemesis.did(name, row["name"], pid=row["pid"], ends=nemesis.in_process(row["pid"]))
    nemesis.signal(row["pid"], number)
    nemesis.has_hit(done)


@fault("kill")
def _kill(nemesis: Nemesis) -> None:
    _signal_member(nemesis, "kill", signal.SIGKILL)


@fault("terminate")
def _terminate(nemesis: Nemesis) -> None:
    _signal_member(nemesis, "terminate", signal.SIGTERM)


@fault("segfault")
def _segfault(nemesis: Nemesis) -> None:
    _signal_member(nemesis, "segfault", signal.SIGSEGV)


@fault("pause")
def _pause(nemesis: Nemesis) -> None:
    """Shorter than any limit: nobody may die of it."""
    _stop_for(nemesis, "pause", nemesis.random.uniform(0.05, 1.0), ends=False)


@fault("hang")
def _hang(nemesis: Nemesis) -> None:
    """Stopped for good: somebody has to notice."""
    _stop_for(nemesis, "hang", 60.0, ends=True)


def _stop_for(nemesis: Nemesis, name: str, seconds: float, *, ends: bool) -> None:
    row = nemesis.member()
    pid = row["pid"]

    def resume() -> None:
        with contextlib.suppress(Skipped):
            nemesis.signal(pid, signal.SIGCONT)

    nemesis.did(
        name,
        row["name"],
        pid=pid,
        ends=nemesis.in_process(pid) if ends else (),
        heal=resume,
        heal_after=seconds,
        note=f"{seconds:.2f} s",
    )
    nemesis.signal(pid, signal.SIGSTOP)

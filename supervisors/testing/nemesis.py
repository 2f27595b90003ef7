"""
The nemesis: faults by name, one by one or at random times from a seed, each written down and healed.

It hits only processes below the app's house, known by parentage, pid and start time, through a
pidfd that was checked after it was opened. What it starts ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.errors import ActorError
from supervisors import settings
from supervisors.cluster import Cluster
from supervisors.testing.scribe import Hook, Way, plant

QUESTION_LIMIT = 3.0
"""Seconds that an answer of the stage is waited for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, to whom, and when."""

    number: int
    name: str
    target: str
    at: float
    """Monotonic, just before it was done."""
    pid: int = 0
    ends: tuple[str, ...] = ()
    """The members whose lives it ends, if all is as it should be."""
    is_certain: bool = False
    """Whether they have to end: it has hit."""
    healed_at: float | None = None
    """When it was taken back; None for what cannot be and need not be."""
    note: str = ""

    def line(self, began_at: float) -> str:
        """For the fault log."""
        where = f"{self.target} (pid {self.pid})" if self.pid else self.target
        healed = f", healed at {self.healed_at - began_at:.2f}" if self.healed_at is not None else ""
        ends = f" ends {', '.join(self.ends)}" if self.ends else ""
        note = f" [{self.note}]" if self.note else ""
        return f"{self.at - began_at:8.2f} s  #{self.number} {self.name} {where}{ends}{healed}{note}"


class Skipped(Exception):
    """There is nobody to do this to now."""


Injection = Callable[["Nemesis"], None]

FAULTS: dict[str, Injection] = {}
"""All faults by name."""

LONG = frozenset({"hang", "start_hangs"})
"""Faults that need limits of their own; not among the random ones unless asked for."""


def fault(name: str) -> Callable[[Injection], Injection]:
    """Enter a function as the fault *name*; users add their own the same way."""

    def enter(function: Injection) -> Injection:
        FAULTS[name] = function
        return function

    return enter


class Nemesis:
    """
    Does faults to the app of *cluster*; the same *seed* chooses the same faults at the same intervals.

    *directory* is where the scribes keep their ledger; without it nothing can be planted.
    Leaving heals everything. *on_fault* hears of each, for a log that is read while it runs.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        seed: int = 0,
        directory: str | os.PathLike[str] | None = None,
        faults: Sequence[str] | None = None,
        period: float = 4.0,
        services: Sequence[str] | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        on_fault: Callable[[Fault], None] = lambda fault: None,
    ) -> None:
        unknown = sorted(set(faults or ()) - set(FAULTS))
        if unknown:
            raise ValueError(f"unknown faults {', '.join(unknown)}; there are {', '.join(sorted(FAULTS))}")
        self.cluster = cluster
        self.random = random.Random(seed)
        self.directory = Path(directory) if directory is not None else None
        self.names = tuple(faults if faults is not None else (name for name in FAULTS if name not in LONG))
        self.period = period
        self.services = services
        """Who may be hit; None for all."""
        self.sizes = dict(sizes or {})
        """Between which sizes a service may be scaled."""
        self.faults: list[Fault] = []
        self._on_fault = on_fault
        self._heals: dict[int, tuple[Callable[[], None], threading.Timer]] = {}
        self._lock = threading.RLock()
        self._state: dict[str, Any] = {}
        record = settings.find_record(cluster.app_name)
        self._house_pid = record.house_pid or 0

    def __enter__(self) -> Nemesis:
        self.state()
        return self

    def __exit__(self, *exc: object) -> None:
        self.heal()

    # -- doing ---------------------------------------------------------------------------

    def run(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Random faults for *seconds*, *period* seconds apart on average (Poisson); then heal."""
        ends_at = time.monotonic() + seconds
        due_at = time.monotonic()
        try:
            while not is_over():
                due_at = max(time.monotonic(), due_at + self.random.expovariate(1 / self.period))
                if due_at >= ends_at:
                    time.sleep(max(0.0, ends_at - time.monotonic()))
                    return
                time.sleep(max(0.0, due_at - time.monotonic()))
                name = self.random.choice(self.names)
                with contextlib.suppress(Skipped):
                    FAULTS[name](self)
        finally:
            self.heal()

    def inject(self, name: str) -> Fault:
        """Do one fault now and return what was done. `Skipped` when there is nobody to do it to."""
        before = len(self.faults)
        FAULTS[name](self)
        return self.faults[before]

    def heal(self) -> None:
        """Take back everything that is not taken back yet."""
        with self._lock:
            waiting = list(self._heals)
        for number in waiting:
            self._heal(number)

    def did(
        self,
        name: str,
        target: str,
        *,
        pid: int = 0,
        ends: Sequence[str] = (),
        note: str = "",
        heal: Callable[[], None] | None = None,
        heal_after: float = 0.0,
        at: float | None = None,
    ) -> Fault:
        """Write a fault down, just before doing it; *heal* is called *heal_after* seconds later."""
        with self._lock:
            number = len(self.faults) + 1
            done = Fault(
                number,
                name,
                target,
                time.monotonic() if at is None else at,
                pid=pid,
                ends=tuple(ends),
                note=note,
            )
            self.faults.append(done)
            if heal is not None:
                timer = threading.Timer(heal_after, self._heal, (number,))
                timer.daemon = True
                self._heals[number] = (heal, timer)
                timer.start()
        self._on_fault(done)
        return done

    def has_ended(self, fault: Fault) -> None:
        """Note that *fault* could strike until now: a message may wait for a life to strike in."""
        with self._lock:
            known = self.faults[fault.number - 1]
            self.faults[fault.number - 1] = replace(known, healed_at=time.monotonic())

    def has_hit(self, fault: Fault) -> Fault:
        """Note that what *fault* ends has to end."""
        with self._lock:
            self.faults[fault.number - 1] = hit = replace(self.faults[fault.number - 1], is_certain=True)
        return hit

    def _heal(self, number: int) -> None:
        with self._lock:
            found = self._heals.pop(number, None)
        if found is None:
            return
        heal, timer = found
        timer.cancel()
        heal()
        with self._lock:
            self.faults[number - 1] = replace(self.faults[number - 1], healed_at=time.monotonic())

    # -- whom ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What `ps` says, or last said when the stage is away."""
        with contextlib.suppress(ActorError):
            self._state = self.cluster.ps().result(QUESTION_LIMIT)
        return self._state

    def member(self) -> dict[str, Any]:
        """The row of a running member, at random."""
        rows = [
            row
            for row in self.state().get("members", ())
            if row["state"] == "running"
            and row["pid"]
            and (self.services is None or row["service"] in self.services)
        ]
        if not rows:
            raise Skipped("no member is running")
        return self.random.choice(rows)

    def with_it(self, *names: str) -> tuple[str, ...]:
        """The members whose lives end when those of *names* do, by the strategies of their services."""
        state = self._state
        strategies = {row["name"]: row["strategy"] for row in state["services"]}
        ends = dict.fromkeys(names)
        for name in names:
            service = name.partition("/")[0]
            order = [row["name"] for row in state["members"] if row["service"] == service]
            if strategies[service] == "one_for_all":
                ends.update(dict.fromkeys(order))
            elif strategies[service] == "rest_for_one" and name in order:
                ends.update(dict.fromkeys(order[order.index(name) :]))
        return tuple(ends)

    def in_process(self, pid: int) -> tuple[str, ...]:
        """The members that end with the process *pid*."""
        names = [row["name"] for row in self._state["members"] if row["pid"] == pid]
        return self.with_it(*names) if names else ()

    def everybody(self, service: str) -> tuple[str, ...]:
        """All members of *service*."""
        return tuple(row["name"] for row in self._state["members"] if row["service"] == service)

    def planted(self, member: str, hook: Hook, way: Way) -> Path:
        """Have a hook of a scribe go wrong."""
        if self.directory is None:
            raise Skipped("without a directory nothing can be planted")
        return plant(self.directory, member, hook, way)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of this app. `Skipped` for any other, and for one that has ended."""
        from supervisors import _probe

        if not pid or not self._house_pid:
            raise Skipped("the house is not known")
        known = next((each for each in _probe.descendants(self._house_pid) if each.pid == pid), None)
        if known is None:
            raise Skipped(f"pid {pid} is no process of this app")
        if not settings.send_signal(known.pid, known.start_time, number):
            raise Skipped(f"pid {pid} has ended")

    def stage_pid(self) -> int:
        """The stage's process now."""
        try:
            return settings.find_record(self.cluster.app_name).pid
        except ActorError:
            raise Skipped("the stage is away") from None

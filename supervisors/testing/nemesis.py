"""
The nemesis: faults by name, one by one or at random times from a seed, each written down and healed.

It hits only processes below the app's house, known by parentage, pid and start time, through a
pidfd that was checked after it was opened. What it starts ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from actors.errors import ActorError
from supervisors import settings
from supervisors.cluster import Cluster
from supervisors.testing.scribe import Hook, Way, plant

_QUESTION_LIMIT = 3.0
_BURN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


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
            self._state = self.cluster.ps().result(_QUESTION_LIMIT)
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


# -- processes ---------------------------------------------------------------------------------


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


# -- users' code ---------------------------------------------------------------------------------


def _order(nemesis: Nemesis, done: Fault, member: str, method: str) -> None:
    """Have *member* do it to itself; it lasts until that has come out."""
    service, _, number = member.partition("/")
    with contextlib.suppress(ActorError):
        nemesis.cluster.service(service).member(int(number)).options(timeout=5).ask(method).outcome(6)
    nemesis.has_ended(done)


@fault("crash")
def _crash(nemesis: Nemesis) -> None:
    name = nemesis.member()["name"]
    done = nemesis.did("crash", name, ends=nemesis.with_it(name))
    _order(nemesis, done, name, "crash")


@fault("abort")
def _abort(nemesis: Nemesis) -> None:
    row = nemesis.member()
    done = nemesis.did("abort", row["name"], pid=row["pid"], ends=nemesis.in_process(row["pid"]))
    _order(nemesis, done, row["name"], "abort")


@fault("memory")
def _memory(nemesis: Nemesis) -> None:
    """A `MemoryError` in a handler."""
    name = nemesis.member()["name"]
    done = nemesis.did("memory", name, ends=nemesis.with_it(name))
    _order(nemesis, done, name, "hoard")


def _plant_and_crash(nemesis: Nemesis, name: str, hook: Hook, way: Way, seconds: float) -> None:
    """The next lives of a member go wrong for a while."""
    row = nemesis.member()
    path = nemesis.planted(row["name"], hook, way)
    done = nemesis.did(
        name,
        row["name"],
        pid=row["pid"],
        ends=nemesis.with_it(row["name"]),
        heal=partial(path.unlink, missing_ok=True),
        heal_after=seconds,
        note=f"{seconds:.1f} s",
    )
    _order(nemesis, done, row["name"], "crash")


@fault("start_raises")
def _start_raises(nemesis: Nemesis) -> None:
    _plant_and_crash(nemesis, "start_raises", "on_start", "raise", nemesis.random.uniform(0.2, 2.0))


@fault("start_hangs")
def _start_hangs(nemesis: Nemesis) -> None:
    _plant_and_crash(nemesis, "start_hangs", "on_start", "hang", nemesis.random.uniform(0.5, 2.0))


@fault("restart_storm")
def _restart_storm(nemesis: Nemesis) -> None:
    """Dies 10 ms after each start."""
    _plant_and_crash(nemesis, "restart_storm", "life", "short", nemesis.random.uniform(0.5, 2.0))


def _plant_and_terminate(nemesis: Nemesis, name: str, way: Way) -> None:
    row = nemesis.member()
    path = nemesis.planted(row["name"], "on_stop", way)
    nemesis.did(
        name,
        row["name"],
        pid=row["pid"],
        ends=nemesis.in_process(row["pid"]),
        heal=partial(path.unlink, missing_ok=True),
        heal_after=3.0,
    )
    nemesis.signal(row["pid"], signal.SIGTERM)


@fault("stop_raises")
def _stop_raises(nemesis: Nemesis) -> None:
    _plant_and_terminate(nemesis, "stop_raises", "raise")


@fault("stop_hangs")
def _stop_hangs(nemesis: Nemesis) -> None:
    _plant_and_terminate(nemesis, "stop_hangs", "hang")


@fault("mutual_crash")
def _mutual_crash(nemesis: Nemesis) -> None:
    """Two members of one service crash at once."""
    first = nemesis.member()
    others = [name for name in nemesis.everybody(first["service"]) if name != first["name"]]
    if not others:
        raise Skipped(f"{first['name']} is alone")
    pair = first["name"], nemesis.random.choice(others)
    done = nemesis.did("mutual_crash", " and ".join(pair), ends=nemesis.with_it(*pair))
    orders = [(nemesis, done, name, "crash") for name in pair]
    threads = [threading.Thread(target=_order, args=order, daemon=True) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- the control plane ---------------------------------------------------------------------------


@fault("kill_stage")
def _kill_stage(nemesis: Nemesis) -> None:
    nemesis.state()
    pid = nemesis.stage_pid()
    nemesis.did("kill_stage", "stage", pid=pid)
    nemesis.signal(pid, signal.SIGKILL)


@fault("kill_stage_twice")
def _kill_stage_twice(nemesis: Nemesis) -> None:
    """The second time somewhere in its take-over."""
    nemesis.state()
    first = nemesis.stage_pid()
    pause = nemesis.random.uniform(0.0, 0.3)
    nemesis.did("kill_stage_twice", "stage", pid=first, note=f"{pause * 1000:.0f} ms after its return")
    nemesis.signal(first, signal.SIGKILL)
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        with contextlib.suppress(Skipped):
            second = nemesis.stage_pid()
            if second != first:
                time.sleep(pause)
                nemesis.signal(second, signal.SIGKILL)
                return
        time.sleep(0.005)


@fault("kill_stage_and_member")
def _kill_stage_and_member(nemesis: Nemesis) -> None:
    """At the same moment, or while it is away."""
    row = nemesis.member()
    pid = nemesis.stage_pid()
    pause = nemesis.random.choice((0.0, 0.0, 0.1, 0.3, 0.5))
    done = nemesis.did(
        "kill_stage_and_member",
        f"stage and {row['name']}",
        pid=row["pid"],
        ends=nemesis.in_process(row["pid"]),
        note=f"{pause * 1000:.0f} ms apart",
    )
    nemesis.signal(pid, signal.SIGKILL)
    time.sleep(pause)
    nemesis.signal(row["pid"], signal.SIGKILL)
    nemesis.has_hit(done)


@fault("kill_member_and_stage")
def _kill_member_and_stage(nemesis: Nemesis) -> None:
    """The stage dies somewhere in a restart."""
    row = nemesis.member()
    pid = nemesis.stage_pid()
    pause = nemesis.random.uniform(0.0, 0.02)
    done = nemesis.did(
        "kill_member_and_stage",
        f"{row['name']} and stage",
        pid=row["pid"],
        ends=nemesis.in_process(row["pid"]),
        note=f"{pause * 1000:.0f} ms apart",
    )
    nemesis.signal(row["pid"], signal.SIGKILL)
    nemesis.has_hit(done)
    time.sleep(pause)
    nemesis.signal(pid, signal.SIGKILL)


@fault("kill_stage_in_scale")
def _kill_stage_in_scale(nemesis: Nemesis) -> None:
    service, before, size = _new_size(nemesis)
    pid = nemesis.stage_pid()
    pause = nemesis.random.choice((0.0, 0.002, 0.01, 0.1, 0.5))
    nemesis.did(
        "kill_stage_in_scale",
        f"stage and {service}",
        pid=pid,
        ends=_beyond(service, before, size),
        note=f"{before} to {size}, {pause * 1000:.0f} ms apart",
    )
    reply = nemesis.cluster.scale(service, size)
    time.sleep(pause)
    nemesis.signal(pid, signal.SIGKILL)
    with contextlib.suppress(ActorError):
        reply.outcome(_QUESTION_LIMIT)


@fault("kill_understudy")
def _kill_understudy(nemesis: Nemesis) -> None:
    waiting = nemesis.state().get("understudies", ())
    if not waiting:
        raise Skipped("no understudy stands ready")
    row = nemesis.random.choice(waiting)
    nemesis.did("kill_understudy", row["name"], pid=row["pid"])
    nemesis.signal(row["pid"], signal.SIGKILL)


@fault("kill_understudy_and_member")
def _kill_understudy_and_member(nemesis: Nemesis) -> None:
    """The promotion goes to somebody who has just died."""
    row = nemesis.member()
    waiting = nemesis._state.get("understudies", ())
    if not waiting:
        raise Skipped("no understudy stands ready")
    done = nemesis.did(
        "kill_understudy_and_member",
        row["name"],
        pid=row["pid"],
        ends=nemesis.in_process(row["pid"]),
        heal=lambda: None,  # lasts: who was promoted in between dies again
        heal_after=0.5,
    )
    nemesis.signal(row["pid"], signal.SIGKILL)
    nemesis.has_hit(done)
    nemesis.signal(waiting[0]["pid"], signal.SIGKILL)


@fault("scale")
def _scale(nemesis: Nemesis) -> None:
    service, before, size = _new_size(nemesis)
    nemesis.did("scale", service, ends=_beyond(service, before, size), note=f"{before} to {size}")
    with contextlib.suppress(ActorError):
        # Not to its end: other faults come meanwhile.
        nemesis.cluster.scale(service, size).outcome(nemesis.random.uniform(0.0, 1.0))


def _new_size(nemesis: Nemesis) -> tuple[str, int, int]:
    rows = {row["name"]: row for row in nemesis.state().get("services", ())}
    known = [name for name in nemesis.sizes if name in rows]
    if not known:
        raise Skipped("no service may be scaled")
    service = nemesis.random.choice(known)
    least, most = nemesis.sizes[service]
    before = rows[service]["size"]
    sizes = [size for size in range(least, most + 1) if size != before]
    if not sizes:
        raise Skipped(f"{service} has one size")
    return service, before, nemesis.random.choice(sizes)


def _beyond(service: str, before: int, size: int) -> tuple[str, ...]:
    """Who comes or leaves."""
    return tuple(f"{service}/{number}" for number in range(min(before, size), max(before, size)))


# -- the machine ---------------------------------------------------------------------------------


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

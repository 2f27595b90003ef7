"""
Faults of the users' own code: crashes, hooks that go wrong, memory without end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from functools import partial

from actors.errors import ActorError
from supervisors.testing.nemesis import Fault, Nemesis, Skipped, fault
from supervisors.testing.scribe import Hook, Way


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

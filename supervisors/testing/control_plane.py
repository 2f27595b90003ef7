"""
Faults of the control plane: the stage, the understudies, and sizes that change meanwhile.
"""

from __future__ import annotations

import contextlib
import signal
import time

from actors.errors import ActorError
from supervisors.testing.nemesis import QUESTION_LIMIT, Nemesis, Skipped, fault


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
        reply.outcome(QUESTION_LIMIT)


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

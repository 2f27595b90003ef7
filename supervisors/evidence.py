"""
Evidence: what a process leaves behind for whoever asks why it ended or what it is doing.

In the process: a crash file for fatal signals, a farewell that no stage was there to hear, and a
stack file that SIGUSR1 fills, even while a handler holds the GIL. Beside it, on the same machine:
reading them, and looking at the process in `/proc`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import time
from typing import Any

from supervisors import settings
from supervisors.health import Look

_STACK_LIMIT = 0.5
"""Seconds that a process may take to write its stack; 2 to 10 ms is usual."""
_STACK_POLL = 0.02
_LONGEST = 256 * 1024

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def leave_traces(run_dir: str, name: str) -> str:
    """
    From now on fatal signals are written to this process's crash file, and SIGUSR1 writes its stack.

    The path of the crash file.
    """
    # Again, although Ray has enabled it: the last one to install its signal handlers is the first to act.
    faulthandler.disable()
    faulthandler.enable(_new_file(_crash_path(run_dir, name)), all_threads=True)
    faulthandler.register(signal.SIGUSR1, _new_file(_stack_path(run_dir, name)), all_threads=True)
    return _crash_path(run_dir, name)


def leave_farewell(run_dir: str, name: str, exit: tuple[str, str, str]) -> None:
    """Why this process will end, for a stage that is away: kind, one line, traceback."""
    with contextlib.suppress(OSError), _new_file(_farewell_path(run_dir, name)) as file:
        file.write(json.dumps(exit).encode())


def farewell_of(run_dir: str, name: str) -> tuple[str, str, str] | None:
    """What `leave_farewell` has left; None when the process has not."""
    try:
        kind, detail, traceback = json.loads(_read(_farewell_path(run_dir, name)))
    except ValueError:
        return None
    return str(kind), str(detail), str(traceback)


def crash_of(run_dir: str, name: str) -> str:
    """What the process wrote when it crashed; empty when it did not."""
    return _read(_crash_path(run_dir, name))


def take_stack(run_dir: str, name: str, pid: int, start_time: int) -> str:
    """
    Have a process that has left traces write its stack; empty when it does not.

    Blocks for 40 ms or more.
    """
    path = _stack_path(run_dir, name)
    before = len(_read(path))
    # Not to whoever has its pid by now: SIGUSR1 ends a process that does not expect it.
    if not settings.send_signal(pid, start_time, signal.SIGUSR1):
        return ""
    text = ""
    give_up_at = time.monotonic() + _STACK_LIMIT
    while time.monotonic() < give_up_at:
        time.sleep(_STACK_POLL)
        now = _read(path)[before:]
        if now and now == text:
            break
        text = now
    return text


def remove_traces(run_dir: str, name: str) -> None:
    """The process has ended and its files have been read."""
    for path in (_crash_path(run_dir, name), _stack_path(run_dir, name), _farewell_path(run_dir, name)):
        with contextlib.suppress(OSError):
            os.unlink(path)


def look_at(pid: int) -> Look | None:
    """A process now; None when it is gone."""
    stat = _stat(f"/proc/{pid}/stat")
    if stat is None:
        return None
    states = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            if (fields := _stat(f"/proc/{pid}/task/{thread}/stat")) is not None:
                states.add(fields[0])
    return Look(_cpu(stat), stat[0].decode(), is_able=bool(states & {b"R", b"D"}))


def refuses(socket_path: str) -> bool:
    """True when the process that listened there has ended, and left its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(socket_path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # busy, or not of this machine: that proves nothing
    return False


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used; 0 when it is gone."""
    stat = _stat(f"/proc/{pid}/stat")
    return _cpu(stat) if stat is not None else 0.0


def _cpu(stat: list[bytes]) -> float:
    return (int(stat[11]) + int(stat[12])) * _TICK


def _stat(path: str) -> list[bytes] | None:
    """The fields of a stat file from the state on."""
    try:
        with open(path, "rb") as file:
            line = file.read()
    except (OSError, ValueError):
        return None
    return line[line.rindex(b")") + 1 :].split()


def _crash_path(run_dir: str, name: str) -> str:
    return f"{run_dir}/{name}.crash"


def _stack_path(run_dir: str, name: str) -> str:
    return f"{run_dir}/{name}.stack"


def _farewell_path(run_dir: str, name: str) -> str:
    return f"{run_dir}/{name}.farewell"


def _new_file(path: str) -> Any:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError:  # a full disk: this process does its job without
        descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return os.fdopen(descriptor, "wb", buffering=0)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST).decode(errors="replace")
    except OSError:
        return ""

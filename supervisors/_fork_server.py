"""
The fork server: Ray's worker processes on an embedded cluster, forked instead of booted.

Ray starts this file in place of its own `default_worker.py`. The first one of a raylet leaves
behind a server that imports once what every worker needs; each one hands it what Ray said
(arguments, environment, standard streams), has it fork the worker, and ends. An
understudy then costs 0.07 s of CPU instead of 0.85 (0.55 of them `import ray`) and 22 MB of memory
of its own instead of 41: they come back faster than members are killed, also on a busy machine.

The server has one thread and touches neither nng nor Ray's core before it forks. It ends with its
raylet. Where it does not answer, the worker is booted the usual way, in the process that Ray
started; so are all once it has died (a second one was seen to keep Ray from starting the stage of
another app). A worker with a runtime environment
of its own is booted too: its imports are others.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # The interpreter put this package's directory first; `logs` or `memory` are not names of ours alone.
    del sys.path[0]

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import time
import traceback
from dataclasses import dataclass

_ANSWER_LIMIT = 20.0
"""Seconds a worker may take to be forked; the first ones wait for the server's imports."""
_POLL = 0.005
_PLAIN = "--runtime-env-hash=0"
"""Ray's word for a worker without a runtime environment."""
_LONGEST = 4 * 1024 * 1024
_BACKLOG = 128
_IMPORTS = (
    # All that a worker has to import before it can be a host. None of it starts a thread.
    "ray",
    "ray._private.workers.default_worker",
    "supervisors._ray",
    "supervisors.host",
    "pynng",
    "structlog",
    "cloudpickle",
)


@dataclass(frozen=True, slots=True)
class Order:
    """What Ray said when it started a worker; bytes, as the kernel has them."""

    arguments: tuple[bytes, ...]
    environment: tuple[bytes, ...]
    """`NAME=value` each."""
    directory: bytes
    group: int
    """Its process group; 0 for one of its own. Ray ends the whole group of a worker that has ended."""
    niceness: int
    oom_score: bytes

    def pack(self) -> bytes:
        """As it travels: NUL, which none of it can contain, in between."""
        return b"\0".join(
            [
                b"%d" % len(self.arguments),
                b"%d" % self.group,
                b"%d" % self.niceness,
                self.oom_score,
                self.directory,
                *self.arguments,
                *self.environment,
            ]
        )

    @classmethod
    def unpack(cls, data: bytes) -> Order:
        """The inverse of `pack`."""
        count, group, niceness, oom_score, directory, *rest = data.split(b"\0")
        arguments, environment = rest[: int(count)], rest[int(count) :]
        return cls(tuple(arguments), tuple(environment), directory, int(group), int(niceness), oom_score)

    @classmethod
    def received(cls, arguments: list[str]) -> Order:
        """What this process was told."""
        return cls(
            tuple(map(os.fsencode, arguments)),
            tuple(name + b"=" + value for name, value in os.environb.items()),
            os.fsencode(os.getcwd()),
            group if (group := os.getpgrp()) != os.getpid() else 0,
            os.getpriority(os.PRIO_PROCESS, 0),
            _oom_score("self"),
        )


def socket_path(arguments: list[str]) -> str:
    """Beside the raylet's own socket, in a directory that is private."""
    [raylet] = [each.partition("=")[2] for each in arguments if each.startswith("--raylet-name=")]
    return f"{raylet}.fork"


def _failed_path(path: str) -> str:
    return f"{path}.failed"


# --- the process that Ray started -------------------------------------------------------------


class Forked(BaseException):
    """In a child of the server: out of everything the server was doing, and on as a worker."""


def main(arguments: list[str]) -> None:
    """Have the worker forked and end, or be it; in the server's children, be it too."""
    try:
        with contextlib.suppress(OSError, ValueError):
            if _PLAIN not in arguments:
                raise ValueError("it has a runtime environment")
            connection = _connect(socket_path(arguments))
            if _is_forked(connection, Order.received(arguments)):
                os._exit(0)
            connection.close()
    except Forked:
        pass
    else:
        os.execv(sys.executable, [sys.executable, _default_worker(), *arguments])
    import runpy

    runpy.run_path(sys.argv[0], run_name="__main__")


def _connect(path: str) -> socket.socket:
    """To the server, which this process leaves behind if there is none. `OSError`."""
    if os.path.exists(_failed_path(path)):
        raise ConnectionRefusedError("an earlier server could not begin")
    give_up_at = time.monotonic() + _ANSWER_LIMIT
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(path)
                return connection
            except FileNotFoundError:
                connection.close()
                if time.monotonic() > give_up_at:
                    raise
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL)  # another has found the same a moment earlier
            else:
                _leave_server(path, lock)
    finally:
        os.close(lock)


def _leave_server(path: str, lock: int) -> None:
    """A process that listens at *path* from now on, and holds *lock* as long as it lives."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(_BACKLOG)
    raylet = os.getppid()
    raylet_pidfd = os.pidfd_open(raylet)
    if os.fork() == 0:
        _serve(listener, raylet, raylet_pidfd)  # its children close the lock on their way out of here
    listener.close()
    os.close(raylet_pidfd)


def _is_forked(connection: socket.socket, order: Order) -> bool:
    """True when the server has made a process of *order*; it says so itself."""
    connection.settimeout(_ANSWER_LIMIT)
    socket.send_fds(connection, [b"\1"], [0, 1, 2])
    connection.sendall(order.pack())
    connection.shutdown(socket.SHUT_WR)
    return connection.recv(1) == b"\1"


def _default_worker() -> str:
    """Ray's own script; found without importing Ray."""
    from importlib.util import find_spec

    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return os.path.join(spec.submodule_search_locations[0], "_private", "workers", "default_worker.py")


# --- the server -------------------------------------------------------------------------------


def _serve(listener: socket.socket, raylet: int, raylet_pidfd: int) -> None:
    """Fork what is ordered until the raylet ends. Does not return; raises `Forked` in the children."""
    try:
        os.setpgid(0, 0)  # with the group of a worker it would be ended
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are Ray's to watch; none is left a zombie
        # Who is made here is measured by its parent: as much as the raylet, not as Ray's workers.
        _set_oom_score(_oom_score(str(raylet)))
        try:
            _prepare()
        except BaseException:
            # Another one would fail as well, and cost each worker as much as its boot.
            with open(_failed_path(listener.getsockname()), "x"):
                raise
        while connection := _next(listener, raylet_pidfd):
            with connection, contextlib.suppress(OSError, ValueError, IndexError):
                _fork(connection)
    except Forked:
        listener.close()
        os.close(raylet_pidfd)
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _fork(connection: socket.socket) -> None:
    streams, order = _read(connection)
    if os.fork() == 0:
        _become_worker(connection, streams, order)
        raise Forked
    for descriptor in streams:
        os.close(descriptor)


def _prepare() -> None:
    import importlib

    for name in _IMPORTS:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("an import has started a thread: this process must not fork")
    gc.collect()
    gc.freeze()  # what is never looked at stays shared with the children


def _next(listener: socket.socket, raylet_pidfd: int) -> socket.socket | None:
    """The next to ask; None at the end of the raylet."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(raylet_pidfd, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    return None if raylet_pidfd in ready else listener.accept()[0]


def _read(connection: socket.socket) -> tuple[list[int], Order]:
    connection.settimeout(_ANSWER_LIMIT)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    data = bytearray()
    while part := connection.recv(1 << 16):
        data += part
        if len(data) > _LONGEST:
            raise ValueError("too long")
    return streams, Order.unpack(bytes(data))


def _become_worker(connection: socket.socket, streams: list[int], order: Order) -> None:
    """Be the process that Ray meant to start, up to the point where its script begins."""
    try:
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, order.group)
        os.environb.clear()
        os.environb.update(each.split(b"=", 1) for each in order.environment)  # type: ignore[misc]
        os.chdir(order.directory)
        if (more := order.niceness - os.getpriority(os.PRIO_PROCESS, 0)) > 0:
            os.nice(more)
        _set_oom_score(order.oom_score)
        script = _default_worker()
        sys.argv = [script, *map(os.fsdecode, order.arguments)]
        sys.path.insert(0, os.path.dirname(script))
        connection.sendall(b"\1")  # fails when nobody waits any more: then nobody wants this process
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _oom_score(process: str) -> bytes:
    try:
        with open(f"/proc/{process}/oom_score_adj", "rb") as file:
            return file.read().strip()
    except OSError:
        return b""


def _set_oom_score(score: bytes) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(score)


if __name__ == "__main__":
    main(sys.argv[1:])

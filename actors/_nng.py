"""
The nng transport: a Pull0 inbox, a Push0 per peer. The one home of pynng.

Sockets are driven through pynng's cffi layer: its `asend` leaks on timeouts, its
`recv` copies twice. What waits, waits in our own outbox (`send_buffer_size=0`):
nng would deliver a socket's queue to whoever listens next on the same path.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynng
from pynng import ffi, lib

from actors.address import host_id_of, ipc_address, new_host_id, nng_url
from actors.rundir import ensure_private_dir
from actors.transport import Link, LinkLost, Receive
from actors.wire import MAX_FRAME

_BATCH = 256
"""Frames read in one go before they are handed over."""

_NEVER = 24 * 3600 * 1000
"""ms. A closed pipe is not redialled: its address belonged to one process life."""


def _limit_threads() -> None:
    # 13 threads by default on 2 cores, 40 on 64: six serve a process with one inbox.
    # In order: tasks, expiry, pollers, resolver, then the upper limits of the first three.
    for parameter, value in ((1, 2), (2, 1), (3, 1), (4, 1), (5, 2), (6, 1), (7, 1)):
        lib.nng_init_set_parameter(parameter, value)


_limit_threads()


class NngTransport:
    """A process's inbox on ipc, or on 127.0.0.1 for the contract suite, and links to others."""

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = directory
        self._host_id = new_host_id()
        self._address = ""
        self._socket: pynng.Pull0 | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return self._address

    def listen(self, receive: Receive) -> None:
        socket = pynng.Pull0(recv_buffer_size=128, recv_max_size=MAX_FRAME)
        try:
            self._address = self._bind(socket)
        except BaseException:
            socket.close()
            raise
        self._socket = socket
        self._thread = threading.Thread(
            target=_receive_frames, args=(socket.socket, receive), name="understudy-inbox", daemon=True
        )
        self._thread.start()
        _open_transports.add(self)

    def _bind(self, socket: pynng.Pull0) -> str:
        if self._directory is None:
            socket.listen("tcp://127.0.0.1:0")
            bound = ffi.new("int *")
            lib.nng_listener_get_int(socket.listeners[0].listener, b"tcp-bound-port", bound)
            return f"tcp://127.0.0.1:{bound[0]}/{self._host_id:016x}"
        address = ipc_address(ensure_private_dir(self._directory), self._host_id)
        # The directory is closed to others already; the socket file need not wait for a
        # umask to be right.
        mask = os.umask(0o177)
        try:
            socket.listen(address)
        finally:
            os.umask(mask)
        return address

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        host_id_of(address)
        return _NngLink(address, on_lost)

    def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is None:
            return
        _open_transports.discard(self)
        socket.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        if self._address.startswith("ipc://"):
            Path(self._address.removeprefix("ipc://")).unlink(missing_ok=True)


def _receive_frames(socket: Any, receive: Receive) -> None:
    message = ffi.new("nng_msg **")
    while True:
        status = lib.nng_recvmsg(socket, message, 0)
        if status == lib.NNG_ECLOSED:
            return
        frames: list[bytes] = []
        while status == 0:
            frames.append(_taken(message[0]))
            if len(frames) >= _BATCH:
                break
            status = lib.nng_recvmsg(socket, message, lib.NNG_FLAG_NONBLOCK)
        if frames:
            receive(frames)


def _taken(message: Any) -> bytes:
    size = lib.nng_msg_len(message)
    data = ffi.buffer(lib.nng_msg_body(message), size)[:]
    lib.nng_msg_free(message)
    return bytes(data)


class _NngLink:
    """A Push0 socket with one pipe."""

    __slots__ = ("__weakref__", "_address", "_closed", "_lost", "_on_lost", "_socket")

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        self._address = address
        self._on_lost = on_lost
        self._closed = False
        self._lost = False
        self._socket = pynng.Push0(send_buffer_size=0, reconnect_time_min=_NEVER, reconnect_time_max=_NEVER)
        self._socket.add_post_pipe_remove_cb(self._pipe_removed)

    def open(self, timeout: float) -> None:
        # A blocking dial says "refused" at once; a stopped listener accepts in the kernel
        # and never answers, which only closing the socket from outside ends.
        watchdog = threading.Timer(timeout, self.close)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._socket.dial(nng_url(self._address), block=True)
        except pynng.NNGException as error:
            raise LinkLost(f"nobody answers at {self._address} ({error})") from None
        finally:
            watchdog.cancel()

    def send_nowait(self, frame: bytes) -> bool:
        status = lib.nng_send(self._socket.socket, frame, len(frame), lib.NNG_FLAG_NONBLOCK)
        if status == lib.NNG_EAGAIN:
            if self._lost:
                raise LinkLost(f"the pipe to {self._address} closed")
            return False
        self._check(status)
        return True

    def send(self, frame: bytes) -> None:
        self._check(lib.nng_send(self._socket.socket, frame, len(frame), 0))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()

    def _check(self, status: int) -> None:
        if status != 0:
            raise LinkLost(f"{self._address}: {ffi.string(lib.nng_strerror(status)).decode()}")

    def _pipe_removed(self, pipe: Any) -> None:
        # On nng's thread, under the socket's lock: no nng call is allowed in here.
        self._lost = True
        if not self._closed:
            self._on_lost()


_open_transports: weakref.WeakSet[NngTransport] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A socket that outlives the interpreter makes nng panic at its own clean-up.
    for transport in list(_open_transports):
        transport.close()

"""
The nng transport: a Pull0 inbox, a Push0 per peer. The one home of pynng.

Sockets are driven through pynng's cffi layer: its `asend` leaks on timeouts, its
`recv` copies twice. What waits, waits in our own outbox (`send_buffer_size=0`):
nng would deliver a socket's queue to whoever listens next on the same path.

A blocking call that begins while another thread closes the socket never returns
(nng 1.11: a socket's waiters are failed before it counts as closed; 1 of 60 closes).
So the receiving thread closes its socket itself, and sending never blocks in nng.

An inbox that only its loop cares for is read by the loop: between two processes a
question and its answer then take 184 µs, with a receiving thread in each 217, with
Req/Rep and no loop at all 150 (uvloop, 2 cores). A thread that waits for a reply reads
it as a guest while it waits; only where several wait at a time, a thread reads for all.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynng
from pynng import ffi, lib

from actors import _slices
from actors._vigil import LIMIT, Patience
from actors.address import host_id_of, ipc_address, new_host_id, nng_url
from actors.rundir import ensure_private_dir
from actors.transport import Link, LinkLost, Receive, Wait
from actors.wire import MAX_FRAME

_NONBLOCK = lib.NNG_FLAG_NONBLOCK

_BATCH = 256
"""Frames read in one go before they are handed over."""

_BATCH_BYTES = 128 * 1024
"""The same of their bytes: a thousand small messages, 4 ms of work."""

_NEVER = 24 * 3600 * 1000
"""ms. A closed pipe is not redialled: its address belonged to one process life."""


def _limit_threads() -> None:
    # 13 threads by default on 2 cores, 40 on 64: six serve a process with one inbox.
    # In order: tasks, expiry, pollers, resolver, then the upper limits of the first three.
    for parameter, value in ((1, 2), (2, 1), (3, 1), (4, 1), (5, 2), (6, 1), (7, 1)):
        lib.nng_init_set_parameter(parameter, value)


_limit_threads()


class _Closing:
    """
    What is closed by hand, else by a thread.

    pynng closes in `__del__`. Python may collect garbage on any thread, nng's reaper among them when it
    tells of a pipe; there closing waits for the reaper, and every later close of the process with it.
    """

    is_closed = False

    def close(self) -> None:
        self.is_closed = True
        super().close()  # type: ignore[misc]

    def __del__(self) -> None:
        if not self.is_closed:
            with contextlib.suppress(RuntimeError):  # the interpreter ends
                threading.Thread(target=self.close, name="understudy-closing", daemon=True).start()


class _Pull(_Closing, pynng.Pull0):  # type: ignore[misc]
    pass


class _Push(_Closing, pynng.Push0):  # type: ignore[misc]
    pass


class NngTransport:
    """A process's inbox on ipc, or on 127.0.0.1 for the contract suite, and links to others."""

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = directory
        self._host_id = new_host_id()
        self._address = ""
        self._receive: Receive
        self._socket: _Pull | None = None
        self._handle: Any = None
        """nng's own, of `_socket`; pynng's property is a call of Python's each time."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_reads = False
        """False once a thread does, or nobody any more."""
        self._recv_fd = -1
        self._gate: select.epoll | None = None
        """What the loop watches in the place of `_recv_fd`; shut while somebody else receives."""
        self._reading = threading.Lock()
        """Held while the loop reads, and to end that."""
        self._thread: threading.Thread | None = None
        self._message = ffi.new("nng_msg **")
        self._closing = False
        self._hands_back = False
        """True while the thread that reads is to leave that to the loop again."""
        self._call_up = os.urandom(16)
        """A frame of our own, which only wakes who reads."""
        self._waker: _Push | None = None
        self._guest = threading.Lock()
        """Held by the one thread that receives while it waits."""
        self._guest_thread = 0
        self._bell = -1
        """An eventfd that ends that thread's wait; made for the first one, like `_poll`."""
        self._poll = select.poll()
        self._patience = Patience()
        self._rests: deque[Callable[[], None]] = deque()
        """What is left to do on the loop of what the guest has received, oldest first."""

    @property
    def address(self) -> str:
        return self._address

    def listen(self, receive: Receive, loop: asyncio.AbstractEventLoop | None = None) -> None:
        socket = _Pull(recv_buffer_size=128, recv_max_size=MAX_FRAME)
        try:
            self._address = self._bind(socket)
            socket.listen(self._back_door)
            self._recv_fd = socket.recv_fd
        except BaseException:
            socket.close()
            raise
        self._socket, self._handle, self._receive = socket, socket.socket, receive
        _open_sockets.add(self)
        _slices.shorten("nng:")  # 1,000 asks in flight: 7.7 ms in the median instead of 9.6
        _slices.shorten("nng:task", patient=True)
        if loop is None:
            self.receive_apart()
        else:
            self._loop, self._gate, self._loop_reads = loop, select.epoll(), True
            self._gate.register(self._recv_fd, select.EPOLLIN)
            loop.add_reader(self._gate.fileno(), self._read_on_loop)

    def receive_apart(self) -> None:
        with self._reading:
            self._hands_back = False
            if self._thread is None and self._socket is not None and not self._closing:
                self._shut_gate()
                self._loop_reads = False
                self._thread = threading.Thread(
                    target=self._read_on_thread,
                    args=(self._socket,),
                    name="understudy-inbox",
                    daemon=True,
                )
                self._thread.start()
                self._ring()

    def receive_on_loop(self) -> None:
        with self._reading:
            if self._thread is None or self._loop is None or self._closing or self._hands_back:
                return
            self._hands_back = True
        self._wake_reader()

    def _take_back(self) -> None:
        """The loop reads again; what the thread has left to it stands before this in its queue."""
        with self._reading:
            if self._thread is None and not self._closing and self._gate is not None:
                self._loop_reads = True
                self._gate.modify(self._recv_fd, select.EPOLLIN)
        if self._waker is not None and not self._closing:
            self._waker.close()
            self._waker = None

    def receive_here(self, wait: Wait) -> bool:
        if not self._guest.acquire(blocking=False):
            return False
        try:
            with self._reading:
                if not self._loop_reads:
                    return False
                self._shut_gate()
            if self._bell < 0:
                self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._poll.register(self._recv_fd, select.POLLIN)
                self._poll.register(self._bell, select.POLLIN)
            self._guest_thread = threading.get_ident()
            wait.when_ready(self._ring)
            ready, poll, bell = wait.ready, self._poll.poll, self._bell
            keeps_vigil = wait.keeps_vigil and self._patience.is_worth_it()
            vigil_until = time.perf_counter() + LIMIT
            while not ready():
                came = poll(0) if keeps_vigil else poll(_milliseconds(wait.until))
                if (bell, select.POLLIN) in came:
                    os.eventfd_read(bell)
                    return True
                if came:
                    if not self._receive_as_guest():
                        return False
                elif keeps_vigil and time.perf_counter() <= vigil_until:
                    os.sched_yield()
                elif keeps_vigil:
                    keeps_vigil = False
                    self._patience.ended(in_vain=True)
                else:
                    return True  # its time is up
            if keeps_vigil:
                self._patience.ended(in_vain=False)
            return True
        finally:
            self._guest_thread = 0
            with self._reading:
                if self._loop_reads and self._gate is not None:
                    self._gate.modify(self._recv_fd, select.EPOLLIN)
            self._guest.release()

    def _shut_gate(self) -> None:
        # Woken for nothing with each frame, the loop's thread would take a fifth of the time of an ask.
        if self._gate is not None:
            self._gate.modify(self._recv_fd, 0)

    def _receive_as_guest(self) -> bool:
        """Take what is there; False when that is a thread's business from now on."""
        with self._reading:
            if not self._loop_reads:
                return False
            assert self._socket is not None
            # One frame at a time: it may be the answer, and then nobody has to look for more here.
            frames = self._batch(lib.nng_recvmsg(self._handle, self._message, _NONBLOCK), most=1)
            rest = self._receive(frames) if frames else None
            if rest is not None:
                self._leave_to_loop(rest)
        return True

    def _leave_to_loop(self, rest: Callable[[], None]) -> None:
        assert self._loop is not None
        self._rests.append(rest)
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._do_rests)

    def _do_rests(self) -> None:
        while self._rests:
            self._rests.popleft()()

    def _ring(self) -> None:
        if self._guest_thread not in (0, threading.get_ident()):
            os.eventfd_write(self._bell, 1)

    def __del__(self) -> None:
        if self._bell >= 0:
            os.close(self._bell)

    @property
    def _back_door(self) -> str:
        """Where this process itself reaches its inbox, to wake the receiving thread."""
        return f"inproc://understudy-{self._host_id:016x}"

    def _bind(self, socket: _Pull) -> str:
        if self._directory is None:
            socket.listen("tcp://127.0.0.1:0")
            bound = ffi.new("int *")
            lib.nng_listener_get_int(socket.listeners[0].listener, b"tcp-bound-port", bound)
            return f"tcp://127.0.0.1:{bound[0]}/{self._host_id:016x}"
        address = ipc_address(ensure_private_dir(self._directory), self._host_id)
        listener = ffi.new("nng_listener *")
        _require(lib.nng_listener_create(listener, socket.socket, address.encode()), address)
        # The directory is closed to others already; so is the socket, from its first moment.
        _require(lib.nng_listener_set_int(listener[0], b"ipc:permissions", 0o600), address)
        _require(lib.nng_listener_start(listener[0], 0), address)
        return address

    def link(self, address: str, on_lost: Callable[[], None]) -> Link:
        host_id_of(address)
        return _NngLink(address, on_lost)

    def close(self) -> None:
        with self._reading:
            socket, thread = self._socket, self._thread
            if socket is None or self._closing:
                return
            self._closing, self._loop_reads = True, False
            self._ring()
        _open_sockets.discard(self)
        if self._loop is not None and self._gate is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._gate.fileno())
            self._gate.close()
        if thread is None:
            socket.close()
        elif thread is not threading.current_thread():
            self._wake_reader()
            thread.join(timeout=2.0)
        if self._waker is not None:
            self._waker.close()
        if self._address.startswith("ipc://"):
            Path(self._address.removeprefix("ipc://")).unlink(missing_ok=True)

    def _wake_reader(self) -> None:
        # It stays open until the reader has ended: closing drops what was not taken in yet.
        waker = self._waker = _Push()
        try:
            waker.dial(self._back_door, block=True)
            waker.send(self._call_up, block=False)
        except pynng.NNGException:
            pass  # it has seen the flag already

    def _read_on_loop(self) -> None:
        with self._reading:
            if not self._loop_reads:
                return
            assert self._socket is not None
            frames = self._batch(lib.nng_recvmsg(self._handle, self._message, _NONBLOCK))
            rest = self._receive(frames) if frames else None
            if rest is not None:
                self._rests.append(rest)
        self._do_rests()

    def _read_on_thread(self, socket: _Pull) -> None:
        while not self._ends_reading():
            frames = self._batch(lib.nng_recvmsg(self._handle, self._message, 0))
            rest = self._receive(frames) if frames else None
            if rest is not None and self._rests:
                self._leave_to_loop(rest)  # a guest has left something, which comes before
            elif rest is not None:
                rest()
        if self._closing:
            socket.close()
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._take_back)

    def _ends_reading(self) -> bool:
        """True when the thread that reads is to end; then it counts as gone."""
        if not (self._closing or self._hands_back):
            return False
        with self._reading:
            if not (self._closing or self._hands_back):
                return False  # wanted again meanwhile
            self._thread, self._hands_back = None, False
            return True

    def _batch(self, status: int, most: int = _BATCH) -> list[bytes]:
        """What the receiving call with *status* brought and what waits behind it, at most *most* frames."""
        assert self._socket is not None
        handle, message, frames = self._handle, self._message, []
        size = 0
        while status == 0:
            frame = _taken(message[0])
            if frame != self._call_up:
                frames.append(frame)
            size += len(frame)
            if len(frames) >= most or size >= _BATCH_BYTES:
                break
            status = lib.nng_recvmsg(handle, message, _NONBLOCK)
        return frames


def _milliseconds(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1


def _taken(message: Any) -> bytes:
    size = lib.nng_msg_len(message)
    data: bytes = ffi.buffer(lib.nng_msg_body(message), size)[:]
    lib.nng_msg_free(message)
    return data


class _NngLink:
    """A Push0 socket with one pipe."""

    __slots__ = ("__weakref__", "_address", "_closed", "_handle", "_lost", "_on_lost", "_socket", "_waker")

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        self._address = address
        self._on_lost = on_lost
        self._closed = False
        self._lost = False
        self._waker = -1
        """An eventfd that ends a blocking `send`; made by the first one."""
        self._socket = _Push(send_buffer_size=0, reconnect_time_min=_NEVER, reconnect_time_max=_NEVER)
        self._handle = self._socket.socket
        self._socket.add_post_pipe_remove_cb(self._pipe_removed)
        _open_sockets.add(self)

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
        status = lib.nng_send(self._handle, frame, len(frame), _NONBLOCK)
        if status == lib.NNG_EAGAIN:
            # Perhaps only until nng's task has seen the last frame off: it takes the core from nobody.
            os.sched_yield()
            status = lib.nng_send(self._handle, frame, len(frame), _NONBLOCK)
        if status == 0:
            return True
        if status != lib.NNG_EAGAIN:
            raise LinkLost(f"{self._address}: {_text_of(status)}")
        if self._lost:
            raise LinkLost(f"the pipe to {self._address} closed")
        return False

    def send(self, frame: bytes) -> None:
        while not self.send_nowait(frame):
            self.wait_writable()

    def wait_writable(self) -> None:
        if self._waker < 0:
            self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        try:
            poll.register(self._socket.send_fd, select.POLLIN)
        except pynng.NNGException:
            return  # closed: `send_nowait` says so
        if not (self._closed or self._lost):
            poll.poll()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._wake()
            self._socket.close()

    def _wake(self) -> None:
        if self._waker >= 0:
            os.eventfd_write(self._waker, 1)

    def __del__(self) -> None:
        if self._waker >= 0:
            os.close(self._waker)

    def _pipe_removed(self, pipe: Any) -> None:
        # On nng's thread, under the socket's lock: no nng call is allowed in here.
        told, self._lost = self._lost, True
        self._wake()
        if not (told or self._closed):
            self._on_lost()


def _require(status: int, address: str) -> None:
    if status != 0:
        raise OSError(f"{address}: {_text_of(status)}")


def _text_of(status: int) -> str:
    return str(ffi.string(lib.nng_strerror(status)).decode())


_open_sockets: weakref.WeakSet[NngTransport | _NngLink] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A socket that outlives the interpreter makes nng panic at its own clean-up.
    for owner in list(_open_sockets):
        owner.close()

"""
Shared memory: how large messages travel between processes of one machine.

The sender copies pickle and buffers into a segment, the envelope only says where it
is; the receiver reads them in place, arrays as read-only views. A segment is an
anonymous file (memfd) which the receiver opens through the sender's `/proc` entry: no
name, nothing to sweep, gone with its last user however that ends. The receiver gives
it back when the last view is gone; then the sender writes the next message into it,
because fresh pages cost more than the copy (8 MB: 3.2 ms in all against 0.8).

What a receiver sends back to the process it has it from is not copied again: the envelope
names the place in that process's own segment, which stays lent until both are done with it.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SHARED_FROM = 64 * 1024
"""Bytes of a message, or of one buffer in it, from which it travels this way.

250 KB there and back then take 0.6 ms, through the socket 4; 70 KB 0.55 instead of 0.8; 40 KB are
alike both ways.
"""

IDLE_TIME = 10.0
"""Seconds after which memory that nobody uses is given back to the system."""

_MAX_FREE = 256 * 1024 * 1024
"""Bytes of free segments that a process keeps for the next messages."""

_MAX_LENT = 1024 * 1024 * 1024
"""Bytes that others may read at a time; who keeps what it got, pins it. Beyond, the socket serves."""

_MAX_SEGMENTS = 256
"""Each one costs two descriptors; `mmap` has its own."""

_TWO_HANDS_FROM = 32 * 1024 * 1024
"""Bytes that two threads copy."""

_ALIGNMENT = 64

# Process id, descriptor, inode, number and size of a segment; then where each part lies.
_HEAD = struct.Struct("!IIQQQH")
_PART = struct.Struct("!QQ")


class Segment:
    """One anonymous file of this process."""

    __slots__ = ("_map", "_reserved", "fd", "free_since", "inode", "size")

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("understudy", os.MFD_CLOEXEC)
        self.size = size
        self.free_since = 0.0
        self._reserved = 0
        """Bytes that there is memory for."""
        try:
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
            self.inode = os.fstat(self.fd).st_ino
        except BaseException:
            os.close(self.fd)
            raise

    def write(self, parts: Sequence[Any]) -> list[tuple[int, int]]:
        """Copy *parts* into it, without the GIL; where each lies. `OSError` where there is no memory."""
        needed = sum(memoryview(part).nbytes + _ALIGNMENT for part in parts)
        if needed > self._reserved:
            # Else the lack of memory would be a SIGBUS.
            needed = min(needed, self.size)
            os.posix_fallocate(self.fd, self._reserved, needed - self._reserved)
            self._reserved = needed
        places, offset = [], 0
        start = _address_of(self._map)
        for part in parts:
            view = memoryview(part).cast("B")
            places.append((offset, view.nbytes))
            _copy(start + offset, _address_of(view), view.nbytes)
            offset = -(-(offset + view.nbytes) // _ALIGNMENT) * _ALIGNMENT
        return places

    def close(self) -> None:
        """Give it up; receivers that have opened it keep it."""
        self._map.close()
        os.close(self.fd)


class _Buffer(ctypes.Structure):
    """Python's `Py_buffer`, of the stable ABI."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address_of(memory: Any) -> int:
    """Where the bytes of *memory* lie while somebody holds it; ctypes itself tells only of writable ones."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(memory), ctypes.byref(buffer), 0)
    address = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address or 0


def _copy(to: int, source: int, size: int) -> None:
    # 64 MB: 6.7 ms, by two threads 5.0, by `pwrite` 13.3.
    if size < _TWO_HANDS_FROM:
        ctypes.memmove(to, source, size)
        return
    half = size // 2
    other = threading.Thread(target=ctypes.memmove, args=(to + half, source + half, size - half))
    other.start()
    ctypes.memmove(to, source, half)
    other.join()


class _Passed:
    """What others read in a segment that this process has borrowed itself."""

    size = 0
    """It counts where it comes from."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def close(self) -> None:
        self._parts = ()


class Lender:
    """The segments of one process that others read, or may read next. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._lent: dict[int, tuple[str, Segment | _Passed]] = {}
        self._lent_bytes = 0
        self._free: list[Segment] = []
        self._closed = False

    def lend(self, address: str, parts: Sequence[Any]) -> bytes:
        """
        Put *parts* where the process at *address* can read them; the body that says where.

        `OSError` where there is no memory or no descriptor for it, or too much is lent already.
        """
        size = sum(-(-memoryview(part).nbytes // _ALIGNMENT) * _ALIGNMENT for part in parts)
        number = next(self._numbers)
        segment = self._take(size) or Segment(1 << max(size - 1, 1).bit_length())
        try:
            with self._lock:
                if self._closed or len(self._lent) >= _MAX_SEGMENTS or self._lent_bytes + size > _MAX_LENT:
                    raise OSError("too much memory is lent")
                self._lent[number] = (address, segment)
                self._lent_bytes += segment.size
            places = segment.write(parts)
        except BaseException:
            with self._lock:
                self._forget(number)
            segment.close()
            raise
        head = _HEAD.pack(os.getpid(), segment.fd, segment.inode, number, segment.size, len(places))
        return head + b"".join(_PART.pack(*place) for place in places)

    def pass_on(self, address: str, place: Place, data: bytes, parts: Sequence[Any]) -> bytes:
        """
        Let the process at *address* read *parts*, which lie at *place*; *data* goes with the body.

        `OSError` where too much is lent already.
        """
        number = next(self._numbers)
        with self._lock:
            if self._closed or len(self._lent) >= _MAX_SEGMENTS:
                raise OSError("too much memory is lent")
            self._lent[number] = (address, _Passed(parts))
        segment, places = place
        head = _HEAD.pack(segment.pid, segment.fd, segment.inode, number, segment.size, len(places))
        return head + b"".join(_PART.pack(*place) for place in places) + data

    def _take(self, size: int) -> Segment | None:
        with self._lock:
            fitting = [segment for segment in self._free if size <= segment.size <= 4 * size]
            if not fitting:
                return None
            segment = min(fitting, key=lambda segment: segment.size)
            self._free.remove(segment)
            return segment

    def give_back(self, address: str, number: int) -> None:
        """The process at *address* no longer reads segment *number*."""
        with self._lock:
            lent = self._lent.get(number)
            if lent is None or lent[0] != address:
                return
            segment = lent[1]
            self._forget(number)
            if (
                isinstance(segment, _Passed)
                or self._closed
                or segment.size + sum(free.size for free in self._free) > _MAX_FREE
            ):
                segment.close()
            else:
                segment.free_since = time.monotonic()
                self._free.append(segment)

    def lost(self, address: str) -> None:
        """The process at *address* is gone, or only its pipe: what it may still read is not written again."""
        with self._lock:
            for number, (reader, segment) in list(self._lent.items()):
                if reader == address:
                    self._forget(number)
                    segment.close()

    def _forget(self, number: int) -> None:
        if (lent := self._lent.pop(number, None)) is not None:
            self._lent_bytes -= lent[1].size

    def sweep(self) -> bool:
        """Close what has been free for long; True while there is more to sweep later."""
        with self._lock:
            oldest = time.monotonic() - IDLE_TIME
            for segment in [segment for segment in self._free if segment.free_since <= oldest]:
                self._free.remove(segment)
                segment.close()
            return bool(self._free)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            self._closed = True
            segments = [*self._free, *(segment for _, segment in self._lent.values())]
            self._free, self._lent, self._lent_bytes = [], {}, 0
        for segment in segments:
            segment.close()


class Parcel(NamedTuple):
    """What an envelope of shared memory says: a segment and the parts that lie in it."""

    pid: int
    fd: int
    inode: int
    number: int
    size: int
    places: list[tuple[int, int]]
    data: bytes
    """What came in the envelope itself; empty where all lies in the segment."""


Place = tuple[Parcel, list[tuple[int, int]]]
"""A segment that was borrowed, and where parts lie in it."""


def parcel(body: bytes | memoryview) -> Parcel:
    """*body* as a parcel. `ValueError` for what is none."""
    try:
        pid, fd, inode, number, size, count = _HEAD.unpack_from(body)
        places = [_PART.unpack_from(body, _HEAD.size + n * _PART.size) for n in range(count)]
    except struct.error as error:
        raise ValueError(f"this describes no shared memory: {error}") from None
    if count < 1 or any(offset + length > size for offset, length in places):
        raise ValueError("this describes no shared memory: its parts lie outside")
    data = bytes(body[_HEAD.size + count * _PART.size :])
    return Parcel(pid, fd, inode, number, size, places, data)


class Borrower:
    """
    The segments of other processes that this one reads. Any thread.

    A mapping costs a descriptor as long as anybody holds a part of it (`mmap` keeps one).
    """

    def __init__(self) -> None:
        self._mapped: dict[tuple[int, int], tuple[mmap.mmap, float]] = {}
        self._loans: dict[tuple[str, int], tuple[int, Parcel]] = {}
        """What somebody here holds: by its lender and number, where it begins in memory."""
        self._lock = threading.Lock()

    def read(self, lender: str, wanted: Parcel, on_unread: Callable[[], None]) -> list[memoryview]:
        """
        The parts of a parcel from *lender*, read-only, in place. `OSError` when its sender is gone.

        *on_unread* is called when nobody holds any of them: on any thread, inside any lock.
        """
        mapping = self._mapping(wanted)
        # ctypes gives an object that can be watched; a memoryview cannot.
        whole = (ctypes.c_char * wanted.size).from_buffer(mapping)
        self._loans[lender, wanted.number] = ctypes.addressof(whole), wanted
        weakref.finalize(whole, self._ended, lender, wanted.number, on_unread).atexit = False
        view = memoryview(whole).cast("B").toreadonly()
        return [view[offset : offset + length] for offset, length in wanted.places]

    def _ended(self, lender: str, number: int, on_unread: Callable[[], None]) -> None:
        self._loans.pop((lender, number), None)
        on_unread()

    def place_of(self, lender: str, parts: Sequence[memoryview]) -> Place | None:
        """Where *parts* lie, should they all be in one segment of the process at *lender*."""
        wanted = [(_address_of(part), part.nbytes) for part in parts] if self._loans else []
        for (address, _), (start, segment) in list(self._loans.items()):
            # Of this process's own, passed on by that one: who would read it might find it closed.
            if address == lender and segment.pid != os.getpid():
                places = [(at - start, size) for at, size in wanted]
                if all(0 <= offset <= segment.size - size for offset, size in places):
                    return segment, places
        return None

    def _mapping(self, wanted: Parcel) -> mmap.mmap:
        key = (wanted.pid, wanted.inode)
        with self._lock:
            known = self._mapped.get(key)
        mapping = known[0] if known is not None else self._open(wanted)
        with self._lock:
            self._mapped[key] = (mapping, time.monotonic())
        return mapping

    def _open(self, wanted: Parcel) -> mmap.mmap:
        fd = os.open(f"/proc/{wanted.pid}/fd/{wanted.fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if (found.st_ino, found.st_size) != (wanted.inode, wanted.size):
                raise OSError("its sender has given the memory up")
            return mmap.mmap(fd, wanted.size)
        finally:
            os.close(fd)

    def sweep(self) -> bool:
        """Let go of mappings that were not read from for long; True while there is more to sweep later."""
        with self._lock:
            oldest = time.monotonic() - IDLE_TIME
            for key, (_, used_at) in list(self._mapped.items()):
                if used_at <= oldest:
                    del self._mapped[key]
            return bool(self._mapped)

    def close(self) -> None:
        """Let go of all mappings; who holds a part of one keeps it."""
        with self._lock:
            self._mapped.clear()

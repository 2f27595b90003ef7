"""Time slices: nng's threads have short ones, all others keep theirs."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from pathlib import Path

import pytest

from actors import ActorSystem, _slices

pytestmark = pytest.mark.skipif(os.uname().machine not in _slices._CALLS, reason="no numbers for its calls")


def attributes() -> dict[tuple[int, str], tuple[int, ...]]:
    """The `struct sched_attr` of each thread of this process, by its id and name."""
    libc = ctypes.CDLL(None)
    found = {}
    for task in Path("/proc/self/task").iterdir():
        buffer = ctypes.create_string_buffer(48)
        if libc.syscall(_slices._CALLS[os.uname().machine][0], int(task.name), buffer, 48, 0) == 0:
            name = (task / "comm").read_text().strip()
            found[int(task.name), name] = struct.unpack("=IIQiIQQQ", buffer.raw)
    return found


def slices() -> dict[tuple[int, str], int]:
    """The slice of each thread of this process in ns, by its id and name."""
    return {thread: its[5] for thread, its in attributes().items()}


def takes_slices() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 12)


@pytest.mark.skipif(not takes_slices(), reason="Linux takes slices from 6.12 on")
async def test_only_the_threads_of_nng_have_short_ones() -> None:
    async with ActorSystem(listen=True, sinks=()):
        found = slices()

    short = {name for (_, name), slice_ in found.items() if slice_ == _slices._SHORT}
    assert short
    assert all(name.startswith("nng:") for name in short)
    own = [slice_ for (thread, _), slice_ in found.items() if thread == threading.get_native_id()]
    assert own
    assert own[0] != _slices._SHORT


async def test_only_the_tasks_of_nng_wait_until_who_wakes_them_sleeps() -> None:
    async with ActorSystem(listen=True, sinks=()):
        found = attributes()

    patient = {name for (_, name), its in found.items() if its[1] == os.SCHED_BATCH}
    assert patient == {"nng:task"}
    assert all(its[1] == os.SCHED_BATCH for (_, name), its in found.items() if name == "nng:task")


def test_names_that_nobody_has_change_nothing() -> None:
    before = slices()
    assert _slices.shorten("no thread is called so") == 0
    assert slices() == before


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slices, "_CALLS", {})
    assert _slices.shorten("nng:") == 0


def test_a_thread_may_have_any_name() -> None:
    """The kernel cuts names at 15 bytes, inside a letter too."""
    named, done = threading.Event(), threading.Event()

    def run() -> None:
        ctypes.CDLL(None).prctl(15, b"nam\xc3")
        named.set()
        done.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert named.wait(5)
        assert _slices.shorten("no thread is called so") == 0
    finally:
        done.set()
        thread.join()

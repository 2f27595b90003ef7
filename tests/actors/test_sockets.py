"""What befalls transports beyond the ordinary: slow and dying receivers, strangers, what is left behind."""

from __future__ import annotations

import gc
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pynng
import pytest

from actors._memory import MemoryTransport
from actors._nng import NngTransport
from actors.address import new_host_id, nng_url
from actors.errors import InvalidArgument
from actors.testing import wait_until_sync
from actors.transport import Link, LinkLost, Transport, open_nng

from distant import Far  # isort: skip

Make = Callable[[], Transport]
CHUNK = bytes(64 * 1024)
TOO_MANY = 2000
"""Chunks that no transport takes while nobody reads."""


class Inbox:
    """A listening transport and what it has received; while `gate` is closed, its receiver waits."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.frames: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        transport.listen(self._receive)

    @property
    def address(self) -> str:
        return self.transport.address

    def _receive(self, frames: list[bytes]) -> None:
        self.frames.extend(frames)
        self.gate.wait(10)


@pytest.fixture(params=["memory", "ipc", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes what a test has opened, the last one first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(kind: str, run_root: Path, closing: ExitStack) -> Make:
    kinds: dict[str, Make] = {
        "memory": MemoryTransport,
        "ipc": lambda: NngTransport(run_root),
        "tcp": NngTransport,
    }

    def make() -> Transport:
        transport = kinds[kind]()
        closing.callback(transport.close)
        return transport

    return make


@pytest.fixture
def inbox(make: Make, closing: ExitStack) -> Inbox:
    inbox = Inbox(make())
    closing.callback(inbox.gate.set)
    return inbox


class Lost:
    """Counts how often a link said that it was lost."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
def link(make: Make, inbox: Inbox, lost: Lost, closing: ExitStack) -> Link:
    """An open link to `inbox`."""
    link = make().link(inbox.address, lost)
    closing.callback(link.close)
    link.open(1.0)
    return link


def fill(link: Link, inbox: Inbox) -> int:
    """Send until the link takes no more, with nobody reading; how many frames it took."""
    inbox.gate.clear()
    link.send(CHUNK)
    wait_until_sync(lambda: inbox.frames)  # its receiver waits at the gate from here on
    for taken in range(1, TOO_MANY):
        gives_up_at = time.monotonic() + 0.05
        while not link.send_nowait(CHUNK):
            if time.monotonic() > gives_up_at:
                return taken
            time.sleep(0.001)
    pytest.fail(f"{TOO_MANY} chunks were taken although nobody reads")


class Sending:
    """A thread in a blocking send, and how that ended."""

    def __init__(self, link: Link, frame: bytes) -> None:
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._send, args=(link, frame), daemon=True)
        self._thread.start()

    def _send(self, link: Link, frame: bytes) -> None:
        try:
            link.send(frame)
            self._outcome = "sent"
        except LinkLost as error:
            self._outcome = error

    def is_blocked(self) -> bool:
        """True when the thread sits in its send and stays there for a moment."""
        self._thread.join(0.05)
        return self._thread.is_alive()

    def outcome(self, timeout: float = 2.0) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "still blocked"
        return self._outcome


def test_a_slow_receiver_gets_every_frame_in_the_end(link: Link, inbox: Inbox) -> None:
    taken = fill(link, inbox)
    last = Sending(link, b"the last one")
    assert last.is_blocked()

    inbox.gate.set()

    assert last.outcome() == "sent"
    wait_until_sync(lambda: len(inbox.frames) == taken + 1)
    assert inbox.frames == [CHUNK] * taken + [b"the last one"]


def test_links_of_several_senders_keep_their_own_order(make: Make, inbox: Inbox, closing: ExitStack) -> None:
    def send(name: bytes) -> None:
        link = make().link(inbox.address, lambda: None)
        closing.callback(link.close)
        link.open(1.0)
        for number in range(200):
            link.send(b"%s %d" % (name, number))

    threads = [threading.Thread(target=send, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_until_sync(lambda: len(inbox.frames) == 600)
    for name in (b"a", b"b", b"c"):
        mine = [frame for frame in inbox.frames if frame.startswith(name)]
        assert mine == [b"%s %d" % (name, number) for number in range(200)]


def test_a_blocked_sender_wakes_once_the_lost_link_is_given_up(link: Link, inbox: Inbox, lost: Lost) -> None:
    """As the runtime does it: told of the loss, it closes the link."""
    fill(link, inbox)
    sending = Sending(link, b"too late")
    assert sending.is_blocked()

    inbox.gate.set()
    inbox.transport.close()
    wait_until_sync(lambda: lost.times)
    link.close()

    outcome = sending.outcome()
    assert outcome == "sent" or isinstance(outcome, LinkLost)
    assert lost.times == 1


def test_a_sender_blocked_in_a_link_that_is_lost_wakes(link: Link, inbox: Inbox, lost: Lost) -> None:
    """Nobody closes it here: `send` ends when the link goes down, says its contract."""
    fill(link, inbox)
    sending = Sending(link, CHUNK)
    assert sending.is_blocked()

    threading.Timer(0.05, inbox.gate.set).start()
    inbox.transport.close()
    wait_until_sync(lambda: lost.times)

    outcome = sending.outcome()
    assert outcome == "sent" or isinstance(outcome, LinkLost)


def test_a_sender_that_comes_after_the_loss_is_told(link: Link, inbox: Inbox, lost: Lost) -> None:
    inbox.transport.close()
    wait_until_sync(lambda: lost.times)

    assert isinstance(Sending(link, b"too late").outcome(), LinkLost)


def test_a_new_listener_on_the_same_address_gets_nothing_that_was_meant_for_the_old_one(
    kind: str, make: Make, link: Link, inbox: Inbox, lost: Lost, closing: ExitStack, monkeypatch: Any
) -> None:
    """And the link does not redial, as nng would within a tenth of a second."""
    fill(link, inbox)
    sending = Sending(link, b"for the old one")
    assert sending.is_blocked()
    address = inbox.address
    received: list[bytes] = []

    inbox.gate.set()
    inbox.transport.close()
    wait_until_sync(lambda: lost.times)
    if kind == "memory":
        monkeypatch.setattr(secrets, "randbits", lambda bits: int(address[-16:], 16))
        successor = make()
        successor.listen(received.extend)
        assert successor.address == address
    else:
        socket = pynng.Pull0(listen=nng_url(address), recv_timeout=300)
        closing.callback(socket.close)
        with pytest.raises(pynng.Timeout):
            received.append(socket.recv())

    with pytest.raises(LinkLost):
        link.send_nowait(b"for the old one, too")
    link.close()
    sending.outcome()
    assert received == []
    assert lost.times == 1


def test_an_address_that_never_was_is_nobodys(kind: str, make: Make, run_root: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    address = {
        "memory": f"mem://{new_host_id():016x}",
        "ipc": f"ipc://{run_root}/{new_host_id():016x}.ipc",
        "tcp": f"tcp://127.0.0.1:{port}/{new_host_id():016x}",
    }[kind]
    link = make().link(address, lambda: None)

    began = time.monotonic()
    with pytest.raises(LinkLost):
        link.open(10.0)

    assert time.monotonic() - began < 1.0
    link.close()


def test_what_is_no_address_is_refused_by_name(make: Make) -> None:
    with pytest.raises(InvalidArgument, match="nowhere"):
        make().link("nowhere", lambda: None)


def test_nothing_is_left_of_closed_transports(make: Make, run_root: Path) -> None:
    def one_life() -> None:
        near, inbox = make(), Inbox(make())
        near.listen(lambda frames: None)
        link = near.link(inbox.address, lambda: None)
        link.open(1.0)
        link.send(b"x")
        wait_until_sync(lambda: inbox.frames)
        link.close()
        near.close()
        inbox.transport.close()

    def left() -> tuple[int, int, int]:
        names = [thread.name for thread in threading.enumerate()]
        sockets = len(list(run_root.glob("*.ipc")))
        return len(os.listdir("/proc/self/fd")), names.count("understudy-inbox"), sockets

    one_life()  # nng's own descriptors stay
    before = left()
    for _ in range(5):
        one_life()

    wait_until_sync(lambda: all(now <= then for now, then in zip(left(), before, strict=True)))


# -- sockets alone --------------------------------------------------------------------------------


@pytest.fixture
def far(run_root: Path) -> Iterator[Far]:
    far = Far()
    yield far
    far.end()


def test_a_killed_listener_is_a_lost_link_within_moments(
    far: Far, run_root: Path, lost: Lost, closing: ExitStack
) -> None:
    near = open_nng(str(run_root))
    link = near.link(far.address, lost)
    closing.callback(link.close)
    link.open(1.0)

    far.kill()
    wait_until_sync(lambda: lost.times, timeout=1.0)

    path = Path(far.address.removeprefix("ipc://"))
    assert path.exists(), "a killed process leaves its socket's file"
    again = near.link(far.address, lambda: None)
    closing.callback(again.close)
    with pytest.raises(LinkLost):
        again.open(10.0)
    path.unlink()


def test_a_stopped_listener_fails_every_dial_in_time(far: Far, run_root: Path, closing: ExitStack) -> None:
    """Also the second one: the first has left something in the kernel's queue."""
    near = open_nng(str(run_root))
    address = far.address
    far.pause()

    for _ in range(2):
        link = near.link(address, lambda: None)
        closing.callback(link.close)
        began = time.monotonic()
        with pytest.raises(LinkLost):
            link.open(0.2)
        assert 0.15 <= time.monotonic() - began < 1.0


@pytest.mark.parametrize("wrong", ["a file", "a link", "too long"])
def test_a_directory_that_does_not_serve_is_refused_by_name(wrong: str, run_root: Path) -> None:
    directory = run_root / secrets.token_hex(2)
    if wrong == "a file":
        directory.touch(0o600)
    elif wrong == "a link":
        directory.symlink_to("/tmp")
    else:
        directory = directory / ("x" * 60)
    threads = threading.active_count()
    transport = open_nng(str(directory))

    with pytest.raises(InvalidArgument, match=str(directory)):
        transport.listen(lambda frames: None)

    transport.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_bytes_that_are_not_nngs_do_not_disturb_the_inbox(inbox: Inbox, link: Link) -> None:
    """Someone dials the socket and speaks HTTP."""
    address = nng_url(inbox.address)
    if address.startswith("tcp://"):
        host, port = address.removeprefix("tcp://").split(":")
        stranger = socket.create_connection((host, int(port)))
    else:
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(address.removeprefix("ipc://"))

    with stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        link.send(b"from a friend")
        wait_until_sync(lambda: inbox.frames)

    assert inbox.frames == [b"from a friend"]


def test_garbage_that_is_collected_on_a_thread_of_nng_does_not_stop_it(run_root: Path) -> None:
    """Closing a socket there would wait for that very thread, and every later close with it."""
    inbox = open_nng(str(run_root))
    inbox.listen(lambda frames: None)
    collected = threading.Event()

    def collect() -> None:
        gc.collect()
        collected.set()

    gc.disable()
    try:
        dropped: list[Any] = [inbox.link(inbox.address, lambda: None)]
        dropped[0].open(1.0)
        dropped.append(dropped)
        link = inbox.link(inbox.address, collect)
        link.open(1.0)
        del dropped
        inbox.close()
        assert collected.wait(5)
    finally:
        gc.enable()

    closing = threading.Thread(target=link.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()

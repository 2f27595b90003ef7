"""One contract for all transports: nng on ipc and tcp, and memory."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors._memory import MemoryTransport
from actors._nng import NngTransport
from actors.errors import InvalidArgument
from actors.testing import wait_until_sync
from actors.transport import Link, LinkLost, Transport
from actors.wire import MAX_FRAME

Make = Callable[[], Transport]


@pytest.fixture(params=["memory", "ipc", "tcp"])
def make(request: pytest.FixtureRequest, run_root: Path) -> Iterator[Make]:
    """Makes transports of one kind; all are closed afterwards."""
    made: list[Transport] = []

    def make() -> Transport:
        kinds: dict[str, Make] = {
            "memory": MemoryTransport,
            "ipc": lambda: NngTransport(run_root),
            "tcp": NngTransport,
        }
        made.append(kinds[request.param]())
        return made[-1]

    yield make
    for transport in made:
        transport.close()


class Inbox:
    """What a transport received, batch by batch. Can be made to stand still."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, frames: list[bytes]) -> None:
        self.open.wait(10)
        self.batches.append(frames)

    @property
    def frames(self) -> list[bytes]:
        return [frame for batch in self.batches for frame in batch]


class Losses:
    """Counts how often a link says that it is lost."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def connected(make: Make) -> tuple[Transport, Inbox, Link, Losses]:
    """A listening transport, and an open link to it from another one."""
    receiver, sender, inbox, losses = make(), make(), Inbox(), Losses()
    receiver.listen(inbox)
    sender.listen(Inbox())
    link = sender.link(receiver.address, losses)
    link.open(5.0)
    return receiver, inbox, link, losses


def send_until_full(link: Link) -> None:
    while link.send_nowait(b"late"):
        pass


def test_frames_arrive_whole_and_in_order(make: Make) -> None:
    _, inbox, link, _ = connected(make)
    frames = [f"{number}".encode() * (number % 7 + 1) for number in range(2000)]

    for frame in frames:
        link.send(frame)

    wait_until_sync(lambda: len(inbox.frames) == len(frames))
    assert inbox.frames == frames


def test_what_waits_is_handed_over_in_batches(make: Make) -> None:
    _, inbox, link, _ = connected(make)
    inbox.open.clear()
    for number in range(50):
        link.send(b"%d" % number)
    inbox.open.set()

    wait_until_sync(lambda: len(inbox.frames) == 50)

    assert len(inbox.batches) < 50


def test_the_largest_frame_passes(make: Make) -> None:
    _, inbox, link, losses = connected(make)
    frame = bytes(MAX_FRAME)

    link.send(frame)

    wait_until_sync(lambda: inbox.frames)
    assert len(inbox.frames[0]) == MAX_FRAME
    assert losses.count == 0


def test_a_frame_beyond_the_limit_is_not_delivered_and_costs_the_link(make: Make) -> None:
    """Our own layer refuses it before; this is what holds if somebody else sends it."""
    _, inbox, link, losses = connected(make)

    link.send(bytes(MAX_FRAME + 1))

    wait_until_sync(lambda: losses.count == 1)
    assert inbox.frames == []


def test_send_nowait_says_no_when_the_receiver_stands_still(make: Make) -> None:
    _, inbox, link, _ = connected(make)
    inbox.open.clear()

    sent = 0
    while link.send_nowait(bytes(64 * 1024)):
        sent += 1
        assert sent < 10_000, "nothing ever blocked"

    inbox.open.set()
    wait_until_sync(lambda: len(inbox.frames) == sent)


def test_closing_a_link_wakes_who_blocks_in_it(make: Make) -> None:
    _, inbox, link, losses = connected(make)
    inbox.open.clear()
    outcome: list[object] = []

    def send_for_ever() -> None:
        try:
            while True:
                link.send(bytes(64 * 1024))
                outcome.append("sent")
        except LinkLost as error:
            outcome.append(error)

    thread = threading.Thread(target=send_for_ever)
    thread.start()
    stuck_at = -1

    def is_stuck() -> bool:
        nonlocal stuck_at
        before, stuck_at = stuck_at, len(outcome)
        time.sleep(0.05)
        return before == len(outcome) > 0

    wait_until_sync(is_stuck)
    link.close()
    link.close()

    thread.join(5.0)
    assert not thread.is_alive()
    assert isinstance(outcome[-1], LinkLost)
    assert losses.count == 0, "closing it oneself is no loss"
    inbox.open.set()


def test_a_lost_link_is_told_once_and_never_comes_back(make: Make) -> None:
    receiver, _, link, losses = connected(make)

    receiver.close()

    wait_until_sync(lambda: losses.count == 1)
    with pytest.raises(LinkLost):
        send_until_full(link)
    with pytest.raises(LinkLost):
        link.send(b"late")
    assert losses.count == 1


def test_nobody_there_is_said_at_once(make: Make) -> None:
    gone, sender = make(), make()
    gone.listen(Inbox())
    gone.close()
    sender.listen(Inbox())
    losses = Losses()
    link = sender.link(gone.address, losses)
    begun_at = time.monotonic()

    with pytest.raises(LinkLost, match="nobody answers"):
        link.open(5.0)

    assert time.monotonic() - begun_at < 1.0
    assert losses.count == 0
    link.close()


def test_no_two_transports_ever_have_the_same_address(make: Make) -> None:
    addresses = set()
    for _ in range(20):
        transport = make()
        transport.listen(Inbox())
        addresses.add(transport.address)
        transport.close()

    assert len(addresses) == 20


def test_a_new_listener_never_gets_frames_of_an_old_one(make: Make) -> None:
    """nng delivers a socket's queue to whoever listens next on the same path: no path is used twice."""
    old, inbox, link, _ = connected(make)
    inbox.open.clear()
    while link.send_nowait(b"for the old one" * 1000):
        pass
    new, new_inbox = make(), Inbox()

    inbox.open.set()
    old.close()
    new.listen(new_inbox)
    probe = make().link(new.address, Losses())
    probe.open(5.0)
    probe.send(b"for the new one")

    wait_until_sync(lambda: new_inbox.frames)
    assert new_inbox.frames == [b"for the new one"]
    probe.close()


def test_closing_twice_is_fine_and_ends_the_receiving_thread(make: Make) -> None:
    before = {thread.name for thread in threading.enumerate()}
    transport = make()
    transport.listen(Inbox())

    transport.close()
    transport.close()

    assert {thread.name for thread in threading.enumerate()} == before


# -- nng on ipc alone ------------------------------------------------------------------------


def test_the_socket_is_private_and_gone_after_close(run_root: Path) -> None:
    transport = NngTransport(run_root)
    transport.listen(Inbox())
    path = Path(transport.address.removeprefix("ipc://"))

    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    transport.close()

    assert not path.exists()


def test_a_directory_that_others_can_enter_is_refused() -> None:
    directory = Path(f"/tmp/us-open-{os.getpid()}")
    directory.mkdir(mode=0o755)
    try:
        with pytest.raises(InvalidArgument, match="0755 lets other users in"):
            NngTransport(directory).listen(Inbox())
    finally:
        directory.rmdir()


def test_a_missing_directory_is_made_private(run_root: Path) -> None:
    transport = NngTransport(run_root / "new")

    transport.listen(Inbox())

    assert stat.S_IMODE((run_root / "new").stat().st_mode) == 0o700
    transport.close()


STOPPED = """
import sys
from actors._nng import NngTransport
transport = NngTransport(sys.argv[1])
transport.listen(lambda frames: None)
print(transport.address, flush=True)
sys.stdin.read()
"""


def test_a_stopped_listener_fails_the_dial_within_its_time(run_root: Path) -> None:
    """The kernel accepts for a process that is stopped; only the handshake tells."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(run_root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGSTOP)
    wait_until_sync(
        lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    )
    link = NngTransport(run_root).link(address, Losses())
    begun_at = time.monotonic()

    with pytest.raises(LinkLost):
        link.open(0.3)

    assert 0.2 < time.monotonic() - begun_at < 3.0
    process.kill()
    process.communicate()


def test_the_umask_does_not_matter(run_root: Path) -> None:
    before = os.umask(0)
    try:
        transport = NngTransport(run_root)
        transport.listen(Inbox())
        mode = Path(transport.address.removeprefix("ipc://")).lstat().st_mode
    finally:
        os.umask(before)

    assert stat.S_IMODE(mode) == 0o600
    transport.close()

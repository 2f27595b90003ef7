"""A thread that waits for a reply receives meanwhile: what it takes, what it leaves, how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors import Actor, ActorSystem, DeadlockError, _reception
from actors._nng import NngTransport
from actors.testing import wait_until_sync
from actors.transport import Link, Wait

TIME = 10.0


class Inbox:
    """A transport whose loop has its own thread; who received what, and in which order it was done."""

    def __init__(self, run_root: Path) -> None:
        self.received: list[tuple[bytes, int]] = []
        self.done: list[bytes] = []
        self.loop = asyncio.new_event_loop()
        self.transport = NngTransport(run_root)
        self.transport.listen(self._receive, self.loop)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def _receive(self, frames: list[bytes]) -> Callable[[], None] | None:
        self.received += [(frame, threading.get_ident()) for frame in frames]
        return lambda: self.done.extend(frames)

    def wait_here(self, ready: Callable[[], bool]) -> bool:
        return self.transport.receive_here(Wait(ready, lambda ring: None, None, False))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.transport.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIME)
        self.loop.close()


@pytest.fixture
def inbox(run_root: Path) -> Iterator[Inbox]:
    inbox = Inbox(run_root)
    yield inbox
    inbox.close()


@pytest.fixture
def link(inbox: Inbox, run_root: Path) -> Iterator[Link]:
    link = NngTransport(run_root).link(inbox.transport.address, lambda: None)
    link.open(TIME)
    yield link
    link.close()


class Guest:
    """A thread that receives until it is told to stop waiting."""

    def __init__(self, inbox: Inbox) -> None:
        self.ready = False
        self.result: bool | None = None
        self._ring: Callable[[], None] = lambda: None
        self._inbox = inbox
        self._is_in = threading.Event()
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()
        assert self._is_in.wait(TIME)

    def _wait(self) -> None:
        self.result = self._inbox.transport.receive_here(Wait(lambda: self.ready, self._take, None, False))

    def _take(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._is_in.set()

    def leave(self) -> bool | None:
        self.ready = True
        self._ring()
        self.thread.join(TIME)
        assert not self.thread.is_alive()
        return self.result


def test_a_guest_receives_in_the_loops_place_and_leaves_it_the_rest_in_order(
    inbox: Inbox, link: Link
) -> None:
    expected, by_guests = [], 0
    for number in range(30):
        guest = Guest(inbox)
        for part in range(3):
            expected.append(b"%d guest %d" % (number, part))
            link.send(expected[-1])
            wait_until_sync(lambda: len(inbox.received) == len(expected), TIME)
            by_guests += inbox.received[-1][1] == guest.thread.ident
        assert guest.leave() is True
        expected.append(b"%d loop" % number)
        link.send(expected[-1])
        wait_until_sync(lambda: len(inbox.received) == len(expected), TIME)
        assert inbox.received[-1][1] == inbox.thread.ident

    wait_until_sync(lambda: len(inbox.done) == len(expected), TIME)
    assert inbox.done == expected
    assert by_guests > 60, "now and then the loop was on its way already when a guest came"


def test_a_busy_loop_does_not_keep_a_guest_from_receiving(inbox: Inbox, link: Link) -> None:
    may_go_on = threading.Event()
    inbox.loop.call_soon_threadsafe(may_go_on.wait, TIME)
    link.send(b"one")

    assert inbox.wait_here(lambda: bool(inbox.received)) is True

    assert inbox.done == []  # the loop's part waits for the loop
    may_go_on.set()
    wait_until_sync(lambda: inbox.done == [b"one"], TIME)


def test_a_second_guest_is_turned_away(inbox: Inbox) -> None:
    guest = Guest(inbox)
    assert inbox.wait_here(lambda: False) is False
    assert guest.leave() is True


def test_a_guest_leaves_at_its_time(inbox: Inbox) -> None:
    assert inbox.transport.receive_here(Wait(lambda: False, lambda ring: None, 0.0, True)) is True


def test_order_holds_where_a_thread_takes_over_from_a_guest(inbox: Inbox, link: Link) -> None:
    """While the loop has not yet done what the guest left, nothing may overtake that."""
    may_go_on = threading.Event()
    inbox.loop.call_soon_threadsafe(may_go_on.wait, TIME)
    guest = Guest(inbox)
    link.send(b"to the guest")
    wait_until_sync(lambda: len(inbox.received) == 1, TIME)

    inbox.transport.receive_apart()
    link.send(b"to the thread")
    wait_until_sync(lambda: len(inbox.received) == 2, TIME)
    guest.thread.join(TIME)
    assert not guest.thread.is_alive()
    assert len({thread for _, thread in inbox.received}) == 2

    assert inbox.done == []
    may_go_on.set()
    wait_until_sync(lambda: inbox.done == [b"to the guest", b"to the thread"], TIME)
    assert inbox.wait_here(lambda: False) is False  # that is the thread's business now


def test_an_inbox_that_closes_sends_its_guest_away(inbox: Inbox) -> None:
    guest = Guest(inbox)
    inbox.loop.call_soon_threadsafe(inbox.transport.close)
    guest.thread.join(TIME)
    assert not guest.thread.is_alive()


def test_order_holds_where_the_loop_and_a_thread_take_turns(inbox: Inbox, link: Link) -> None:
    expected = [b"%d" % number for number in range(3000)]
    readers = set()
    for number, frame in enumerate(expected):
        link.send(frame)
        if number % 100 == 0:
            inbox.transport.receive_apart()
        if number % 100 == 50:
            inbox.loop.call_soon_threadsafe(inbox.transport.receive_on_loop)
            wait_until_sync(lambda: len(inbox.received) == number + 1, TIME)  # noqa: B023
            readers.add(inbox.received[-1][1])

    wait_until_sync(lambda: len(inbox.done) == len(expected), TIME)
    assert inbox.done == expected
    inbox.loop.call_soon_threadsafe(inbox.transport.receive_on_loop)
    inbox.loop.call_soon_threadsafe(inbox.transport.receive_on_loop)  # twice is once
    wait_until_sync(lambda: inbox.transport._loop_reads, TIME)
    link.send(b"to the loop")
    wait_until_sync(lambda: inbox.received[-1] == (b"to the loop", inbox.thread.ident), TIME)
    assert inbox.thread.ident in readers


def test_an_inbox_closes_while_its_thread_hands_it_back(inbox: Inbox) -> None:
    inbox.transport.receive_apart()
    inbox.loop.call_soon_threadsafe(inbox.transport.receive_on_loop)
    inbox.loop.call_soon_threadsafe(inbox.transport.close)
    wait_until_sync(lambda: inbox.transport._closing and inbox.transport._thread is None, TIME)
    inbox.transport.receive_apart()
    assert inbox.transport._thread is None  # closed is closed


class Echo(Actor):
    concurrency = 100

    async def echo(self, value: int) -> int:
        return value

    async def slow(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


@pytest.mark.parametrize("apart", [False, True], ids=["guest", "apart"])
def test_a_callback_that_waits_for_what_only_its_thread_receives_is_told_so(
    run_root: Path, apart: bool
) -> None:
    """At once, and everything goes on; what this process settles itself may be waited for."""
    with ActorSystem(listen=True) as here, ActorSystem(listen=True) as there:
        there.options(name="echo").spawn(Echo)
        echo, near = here.ref(there.address + "#echo"), here.spawn(Echo)
        if apart:
            assert here._reception is not None
            here._reception.apart()
        found: list[object] = []

        def ask_again(reply: object) -> None:
            found.append(near.echo(1).result(TIME))
            found.append(type(echo.echo(2).outcome(TIME).error))

        def outcome(reply: object) -> None:
            try:
                ask_again(reply)
            except DeadlockError as error:
                found.append(type(error))

        first = echo.slow(0.05)
        first.add_done_callback(outcome)
        assert first.result(TIME) == 0.05
        wait_until_sync(lambda: len(found) == 2, TIME)
        assert found == [1, DeadlockError]
        assert echo.echo(3).result(TIME) == 3


def test_many_threads_ask_at_once_and_after_each_other(run_root: Path) -> None:
    """The first receives as a guest; once there are several, a thread does so for all."""
    with ActorSystem(listen=True) as here, ActorSystem(listen=True) as there:
        there.options(name="echo").spawn(Echo)
        echo = here.ref(there.address + "#echo")
        assert [echo.echo(n).result() for n in range(20)] == list(range(20))
        found: dict[int, list[int]] = {}

        def ask(start: int) -> None:
            found[start] = [echo.echo(n).result(TIME) for n in range(start, start + 50)]

        threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 400, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIME)
        assert found == {start: list(range(start, start + 50)) for start in range(0, 400, 50)}
        assert echo.echo(7).result() == 7


def test_the_loop_receives_again_once_threads_no_longer_wait_together(
    run_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reception, "QUIET", 0.05)
    with ActorSystem(listen=True) as here, ActorSystem(listen=True) as there:
        there.options(name="echo").spawn(Echo)
        echo = here.ref(there.address + "#echo")
        reception = here._reception
        assert reception is not None
        echo.echo(0).result()
        assert not reception.is_apart

        threads = [threading.Thread(target=lambda: echo.slow(0.3).result()) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until_sync(lambda: reception.is_apart, TIME)
        for thread in threads:
            thread.join(TIME)

        wait_until_sync(lambda: not reception.is_apart, TIME)
        assert [echo.echo(n).result() for n in range(20)] == list(range(20))
        assert not reception.is_apart


def test_asks_have_their_answers_whoever_receives(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads come and go all the time, and the reader changes with them."""
    monkeypatch.setattr(_reception, "QUIET", 0.0)
    with ActorSystem(listen=True) as here, ActorSystem(listen=True) as there:
        there.options(name="echo").spawn(Echo)
        echo = here.ref(there.address + "#echo")
        wrong: list[object] = []

        def ask(start: int) -> None:
            try:
                found = [echo.echo(n).result(TIME) for n in range(start, start + 40)]
                if found != list(range(start, start + 40)):
                    wrong.append(found)
            except BaseException as error:
                wrong.append(error)

        for round in range(15):
            threads = [threading.Thread(target=ask, args=(n * 1000,)) for n in range(round % 4 + 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIME)
                assert not thread.is_alive()
        assert wrong == []


def test_somebody_on_another_loop_has_a_thread_receive_for_good(
    run_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reception, "QUIET", 0.0)
    with ActorSystem(listen=True) as here, ActorSystem(listen=True) as there:
        there.options(name="echo").spawn(Echo)
        echo = here.ref(there.address + "#echo")

        async def ask() -> int:
            return await echo.echo(7)

        assert asyncio.run(ask()) == 7
        assert here._reception is not None
        assert here._reception.is_apart
        assert echo.echo(8).result() == 8
        assert here._reception.is_apart

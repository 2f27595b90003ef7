"""When senders of tells hear that theirs were taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors import Actor, ActorSystem
from actors._confirmations import MOST, Confirmations
from actors._peers import BURST


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.due: list[tuple[Timer, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer()
        self.due.append((timer, callback))
        return timer

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for timer, callback in due:
            if not timer.cancelled:
                callback()


class Confirmed:
    """Confirmations without a network: what they would have said."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.said: list[tuple[Any, int]] = []
        self.waiting = Confirmations(self.loop, lambda peer, number: self.said.append((peer, number)))  # type: ignore[arg-type]

    def taken(self, peer: Any, number: int, together: int) -> None:
        self.waiting.taken(peer, number, together)


@pytest.fixture
def confirmed() -> Confirmed:
    return Confirmed()


def test_what_comes_alone_is_confirmed_at_once(confirmed: Confirmed) -> None:
    confirmed.taken("a", 1, 1)
    confirmed.taken("a", 2, 1)

    assert confirmed.said == [("a", 1), ("a", 2)]
    assert not confirmed.loop.due


def test_a_burst_is_confirmed_with_its_end(confirmed: Confirmed) -> None:
    confirmed.taken("a", BURST, BURST)
    confirmed.taken("a", 2 * BURST, BURST)
    assert confirmed.said == []

    confirmed.taken("a", 2 * BURST + 7, 7)
    assert confirmed.said == [("a", 2 * BURST + 7)]

    confirmed.loop.pass_time()
    assert confirmed.said == [("a", 2 * BURST + 7)]


def test_where_nothing_follows_a_full_frame_it_is_confirmed_a_moment_later(confirmed: Confirmed) -> None:
    confirmed.taken("a", BURST, BURST)
    confirmed.taken("b", 3 * BURST, BURST)
    confirmed.taken("a", 2 * BURST, BURST)
    assert confirmed.said == []

    confirmed.loop.pass_time()
    assert sorted(confirmed.said) == [("a", 2 * BURST), ("b", 3 * BURST)]
    assert not confirmed.loop.due

    confirmed.taken("a", 3 * BURST, BURST)
    confirmed.loop.pass_time()
    assert confirmed.said[2:] == [("a", 3 * BURST)]


def test_an_endless_burst_is_confirmed_in_parts(confirmed: Confirmed) -> None:
    for frame in range(1, 101):
        confirmed.taken("a", frame * BURST, BURST)

    numbers = [number for _, number in confirmed.said]
    assert numbers == sorted(numbers)
    assert 100 * BURST - numbers[-1] < MOST
    steps = [after - before for before, after in zip([0, *numbers], numbers, strict=False)]
    assert set(steps) == {MOST}


def test_all_at_once_when_asked_to(confirmed: Confirmed) -> None:
    confirmed.taken("a", BURST, BURST)
    confirmed.waiting.confirm_all()
    confirmed.waiting.confirm_all()
    confirmed.loop.pass_time()

    assert confirmed.said == [("a", BURST)]


class Sink(Actor):
    async def take(self, text: str) -> None: ...


@pytest.mark.parametrize("count", [1, BURST - 1, BURST, BURST + 1, 5 * BURST, 5 * BURST + 3])
async def test_tells_of_a_burst_are_all_confirmed(
    system: ActorSystem, other: ActorSystem, count: int
) -> None:
    sink = other.ref(f"{system.address}#{system.options(mailbox=10_000).spawn(Sink).name}")
    await sink.ask(Sink.take, "the way there is open")
    await sink.tell(Sink.take, "and that of tells")

    for told in [sink.tell(Sink.take, "x") for _ in range(count)]:
        await told


async def test_a_system_that_stops_confirms_what_it_has_taken(
    system: ActorSystem, other: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors._confirmations.DELAY", 60.0)
    sink = other.ref(f"{system.address}#{system.options(mailbox=10_000).spawn(Sink).name}")
    await sink.ask(Sink.take, "the way there is open")
    await sink.tell(Sink.take, "and that of tells")
    told = [sink.tell(Sink.take, "x") for _ in range(BURST)]
    while not system._remote._arrivals.delivery.confirmations._waiting:  # type: ignore[union-attr]
        await sink.ask(Sink.take, "it has come")
    assert not told[0].done

    await system.stop()

    for one in told:
        await one

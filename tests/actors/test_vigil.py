"""Staying awake for a message: when it is tried, and that a loop that does so serves everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, ActorSystem, _vigil
from actors._vigil import RAREST, Patience, Vigil


@given(st.lists(st.booleans(), max_size=400))
def test_vigils_in_vain_become_rare_and_one_success_brings_them_back(outcomes: list[bool]) -> None:
    """After n in a row 2^n - 1 calls are slept for, 63 at most."""
    patience = Patience()
    failures = 0
    for in_vain in outcomes:
        slept = 0
        while not patience.is_worth_it():
            slept += 1
        assert slept == min(2**failures, RAREST) - 1
        patience.ended(in_vain=in_vain)
        failures = failures + 1 if in_vain else 0


class Turns:
    """A loop that is turned by hand."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


def never() -> bool:
    return False


def vigil_of(loop: Turns) -> Vigil:
    return Vigil(cast(asyncio.AbstractEventLoop, loop))


def test_a_vigil_ends_with_the_message_and_another_may_begin() -> None:
    loop, come = Turns(), []
    vigil = vigil_of(loop)

    vigil.keep(lambda: bool(come))
    vigil.keep(never)  # one at a time
    loop.turn()
    assert len(loop.soon) == 1
    come.append(1)
    loop.turn()
    assert loop.soon == []

    vigil.keep(never)
    assert len(loop.soon) == 1


def test_the_next_vigil_may_begin_in_the_turn_in_which_the_message_came() -> None:
    """As at whoever answers: the question is answered, and the next awaited, before the vigil's own turn."""
    loop, come = Turns(), [0]
    vigil = vigil_of(loop)

    def kept_for(number: int) -> Callable[[], bool]:
        return lambda: come[0] >= number

    vigil.keep(kept_for(1))
    for n in range(1, 4):
        come[0] = n
        vigil.keep(kept_for(n + 1))
        loop.turn()
        assert len(loop.soon) == 1, "still awake, and only once"
    come[0] = 4
    loop.turn()
    assert loop.soon == []


def test_a_vigil_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, now = Turns(), [100.0]
    monkeypatch.setattr(_vigil, "perf_counter", lambda: now[0])
    vigil = vigil_of(loop)

    vigil.keep(never)
    now[0] += _vigil.LIMIT * 0.9
    loop.turn()
    assert len(loop.soon) == 1
    now[0] += _vigil.LIMIT * 0.2
    loop.turn()
    assert loop.soon == []

    vigil.keep(never)
    assert loop.soon == [], "the last one was in vain: this message is slept for"
    vigil.keep(never)
    assert len(loop.soon) == 1


async def test_others_run_while_a_vigil_is_kept() -> None:
    """It never holds the loop for longer than a turn."""
    loop = asyncio.get_running_loop()
    come: list[int] = []
    loop.call_soon(loop.call_soon, come.append, 1)
    Vigil(loop).keep(lambda: bool(come))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert come


class Echo(Actor):
    async def echo(self, value: int) -> int:
        return value

    async def echo_later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value


async def test_whoever_answers_a_lone_question_awaits_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the answer took its time: then nobody asks in a hurry."""
    kept: list[Vigil] = []
    keep = Vigil.keep

    def noted(self: Vigil, has_come: Callable[[], bool]) -> None:
        kept.append(self)
        keep(self, has_come)

    monkeypatch.setattr(Vigil, "keep", noted)
    async with ActorSystem(listen=True, sinks=()) as host, ActorSystem(listen=True, sinks=()) as caller:
        assert host._remote is not None
        host.options(name="echo").spawn(Echo)
        echo = caller.ref(f"{host.address}#echo")
        questions = host._remote._question_vigil

        assert await echo.echo(1) == 1
        assert kept.count(questions) == 1
        assert await echo.echo_later(2) == 2
        assert kept.count(questions) == 1
        assert await echo.echo(3) == 3
        assert kept.count(questions) == 2

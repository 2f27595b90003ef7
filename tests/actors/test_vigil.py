"""Staying awake for an answer: when it is tried, and that a loop that does so serves everybody else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from actors import _vigil
from actors._calls import Call
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


def test_a_vigil_ends_with_the_answer_and_another_may_begin() -> None:
    loop, call = Turns(), SimpleNamespace(done=False)
    vigil = Vigil(cast(asyncio.AbstractEventLoop, loop))

    vigil.keep(cast(Call, call))
    vigil.keep(cast(Call, SimpleNamespace(done=False)))  # one at a time
    loop.turn()
    assert len(loop.soon) == 1
    call.done = True
    loop.turn()
    assert loop.soon == []

    vigil.keep(cast(Call, call))
    assert len(loop.soon) == 1


def test_a_vigil_ends_with_its_time(monkeypatch: Any) -> None:
    loop, now = Turns(), [100.0]
    monkeypatch.setattr(_vigil, "perf_counter", lambda: now[0])
    vigil = Vigil(cast(asyncio.AbstractEventLoop, loop))

    vigil.keep(cast(Call, SimpleNamespace(done=False)))
    now[0] += _vigil.LIMIT * 0.9
    loop.turn()
    assert len(loop.soon) == 1
    now[0] += _vigil.LIMIT * 0.2
    loop.turn()
    assert loop.soon == []

    vigil.keep(cast(Call, SimpleNamespace(done=False)))
    assert loop.soon == [], "the last one was in vain: this call is slept for"
    vigil.keep(cast(Call, SimpleNamespace(done=False)))
    assert len(loop.soon) == 1


async def test_others_run_while_a_vigil_is_kept() -> None:
    """It never holds the loop for longer than a turn."""
    loop = asyncio.get_running_loop()
    call = SimpleNamespace(done=False)
    loop.call_soon(loop.call_soon, setattr, call, "done", True)
    Vigil(loop).keep(cast(Call, call))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert call.done

"""
A vigil: the loop stays awake while one answer is about to come.

A loop that sleeps is woken by nng's threads through another core, and that takes longer
than all of our own code for a message. So whoever asks and has nothing else under way goes
round its loop for a moment instead, offering the core to anybody else at each turn. Where
answers take longer than that, it is tried ever more rarely.
"""

from __future__ import annotations

import asyncio
import os
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors._calls import Call

LIMIT = 0.000_5
"""Seconds that a vigil lasts at most; an answer that was slept for takes about 350 µs here."""

RAREST = 64
"""Calls of which at least one is waited for awake."""


class Patience:
    """
    Which calls to keep a vigil for, from how the last ones went.

    After n vigils in vain 2^n - 1 calls are slept for, at most `RAREST` - 1; one that was not in
    vain starts over. So calls that take their time cost at most `LIMIT` / `RAREST` each in the end.
    """

    __slots__ = ("_pause", "_skip")

    def __init__(self) -> None:
        self._pause = 1
        self._skip = 0

    def is_worth_it(self) -> bool:
        """Whether to keep a vigil for the next call."""
        if self._skip:
            self._skip -= 1
            return False
        return True

    def ended(self, *, in_vain: bool) -> None:
        """The last vigil has ended."""
        self._pause = min(self._pause * 2, RAREST) if in_vain else 1
        self._skip = self._pause - 1


class Vigil:
    """The one vigil of a loop. Loop thread only."""

    __slots__ = ("_call", "_loop", "_patience", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._patience = Patience()
        self._call: Call | None = None
        self._until = 0.0

    def keep(self, call: Call) -> None:
        """Stay awake until *call* is settled, for `LIMIT` at most; not while another vigil is kept."""
        if self._call is None and self._patience.is_worth_it():
            self._call = call
            self._until = perf_counter() + LIMIT
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        call = self._call
        assert call is not None
        in_vain = False
        if not call.done:
            in_vain = perf_counter() > self._until
            if not in_vain:
                os.sched_yield()
                self._loop.call_soon(self._turn)
                return
        self._call = None
        self._patience.ended(in_vain=in_vain)

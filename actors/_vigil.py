"""
A vigil: the loop stays awake while one message is about to come.

A loop that sleeps is woken by nng's threads through another core, and that takes longer
than all of our own code for a message. So whoever asks and has nothing else under way goes
round its loop for a moment instead, offering the core to anybody else at each turn, and so
does whoever has answered a lone question, for the next one. Where what is awaited takes
longer than that, it is tried ever more rarely.

Awake at both ends, asks one after the other take 96 to 122 µs in the median; awake at the
asking end only, 170 to 187 (sync code, 2 cores, by turns).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import perf_counter

LIMIT = 0.000_5
"""Seconds that a vigil lasts at most; an answer that was slept for takes about 350 µs here."""

RAREST = 64
"""Messages of which at least one is waited for awake."""


class Patience:
    """
    Which messages to keep a vigil for, from how the last ones went.

    After n vigils in vain 2^n - 1 messages are slept for, at most `RAREST` - 1; one that was not in
    vain starts over. So messages that take their time cost at most `LIMIT` / `RAREST` each in the end.
    """

    __slots__ = ("_pause", "_skip")

    def __init__(self) -> None:
        self._pause = 1
        self._skip = 0

    def is_worth_it(self) -> bool:
        """Whether to keep a vigil for the next message."""
        if self._skip:
            self._skip -= 1
            return False
        return True

    def ended(self, *, in_vain: bool) -> None:
        """The last vigil has ended."""
        self._pause = min(self._pause * 2, RAREST) if in_vain else 1
        self._skip = self._pause - 1


class Vigil:
    """A loop's vigils for one kind of message, one at a time. Loop thread only."""

    __slots__ = ("_has_come", "_loop", "_patience", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._patience = Patience()
        self._has_come: Callable[[], bool] | None = None
        self._until = 0.0

    def keep(self, has_come: Callable[[], bool]) -> None:
        """Stay awake until *has_come* is true, for `LIMIT` at most; not while another vigil is kept."""
        if self._has_come is None:
            if not self._patience.is_worth_it():
                return
            self._loop.call_soon(self._turn)
        elif self._has_come():
            self._patience.ended(in_vain=False)  # in this very turn: the next one follows at once
        else:
            return
        self._has_come = has_come
        self._until = perf_counter() + LIMIT

    def _turn(self) -> None:
        assert self._has_come is not None
        in_vain = False
        if not self._has_come():
            in_vain = perf_counter() > self._until
            if not in_vain:
                os.sched_yield()
                self._loop.call_soon(self._turn)
                return
        self._has_come = None
        self._patience.ended(in_vain=in_vain)

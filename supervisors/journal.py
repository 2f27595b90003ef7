"""
The journal: the events of one app, the newest kept, read as a stream.

A storm costs little: of equal events about the same child the first five are written down,
then one each second, with the number of those it stands for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Hashable
from functools import partial
from typing import Any

from actors.clock import Clock
from actors.throttle import Throttle

_KEPT_EVENTS = 10_000
_PERIOD = 1.0
_ABOUT = ("member", "child", "service", "target", "reason")
"""What an event is about: the first of these that it has."""


class Journal:
    """Loop thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._number = 0
        self._listeners: set[asyncio.Event] = set()
        self._throttle = Throttle(period=_PERIOD)
        self._kept_back: dict[Hashable, tuple[str, dict[str, Any]]] = {}
        """The newest of each kind that has to wait."""

    def note(self, event: str, **fields: Any) -> None:
        """Write down an event and wake who listens."""
        # The members that went down together, where a new process each time would hide the repetition.
        about = fields.get("members") or next((fields[key] for key in _ABOUT if fields.get(key)), "")
        kind = event, str(about)
        left_out = self._throttle.admit(kind, self._clock.now())
        if left_out is not None:
            self._write(event, fields, left_out)
            self._kept_back.pop(kind, None)
            return
        if kind not in self._kept_back:
            self._clock.call_later(_PERIOD, partial(self._write_kept, kind))
        self._kept_back[kind] = event, fields

    def _write_kept(self, kind: Hashable) -> None:
        """The end of a storm is told too."""
        if kind in self._kept_back:
            event, fields = self._kept_back.pop(kind)
            left_out = self._throttle.admit(kind, self._clock.now())
            # None if one went out just now; what is newest is told all the same.
            self._write(event, fields, max(0, (left_out or 0) - 1))

    def _write(self, event: str, fields: dict[str, Any], left_out: int) -> None:
        self._number += 1
        entry = {"number": self._number, "time": time.time(), "event": event, **fields}
        if left_out:
            entry["left_out"] = left_out
        self._events.append(entry)
        for listener in self._listeners:
            listener.set()

    async def read(self, follow: bool, last: int) -> AsyncGenerator[dict[str, Any], None]:
        """The *last* events, oldest first; with *follow* all that come, until the stream is cancelled."""
        seen = self._number - last if last else self._number
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while True:
                news.clear()
                for event in list(self._events):
                    if event["number"] > seen:
                        seen = event["number"]
                        yield event
                if not follow:
                    return
                await news.wait()
        finally:
            self._listeners.discard(news)

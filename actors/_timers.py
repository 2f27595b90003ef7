"""
Timers: messages that an actor sends to itself, once or again and again.

They belong to one life and end with it. A tick that still waits in the mailbox is
not followed by another.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from actors._message import TimerMessage
from actors.context import TimerHandle

if TYPE_CHECKING:
    from actors._life import Life
    from actors.actor import Method
    from actors.clock import Timer


class Timers:
    """The timers of one life, by key."""

    __slots__ = ("_life", "_timer_by_key")

    def __init__(self, life: Life) -> None:
        self._life = life
        self._timer_by_key: dict[Any, _Ticking] = {}

    def start(
        self, key: Any, delay: float, period: float | None, method: Method, args: tuple[Any, ...]
    ) -> TimerHandle:
        """Begin a timer, *key* None for one of its own; see `Context.after`. Any thread."""
        system = self._life.cell.system
        ticking = _Ticking(key if key is not None else object(), period, method, args)
        system._on_loop(self._begin, ticking, delay)
        return TimerHandle(partial(system._on_loop, self.cancel, ticking))

    def _begin(self, ticking: _Ticking, delay: float) -> None:
        if self._life.is_over:
            return
        if (older := self._timer_by_key.get(ticking.key)) is not None:
            self.cancel(older)
        self._timer_by_key[ticking.key] = ticking
        self._arm(ticking, delay)

    def _arm(self, ticking: _Ticking, delay: float) -> None:
        ticking.timer = self._life.cell.system.clock.call_later(delay, partial(self._tick, ticking))

    def cancel(self, ticking: _Ticking) -> None:
        """Send no more."""
        if ticking.timer is not None:
            ticking.timer.cancel()
            ticking.timer = None
        if self._timer_by_key.get(ticking.key) is ticking:
            del self._timer_by_key[ticking.key]

    def cancel_all(self) -> None:
        """The life is ending."""
        for ticking in list(self._timer_by_key.values()):
            self.cancel(ticking)

    def _tick(self, ticking: _Ticking) -> None:
        if ticking.period is None:
            self.cancel(ticking)
        else:
            self._arm(ticking, ticking.period)
        if ticking.message is None or not ticking.message.waits:
            ticking.message = message = TimerMessage(ticking.method, ticking.args, self._life)
            message.waits = self._life.cell.deliver(message)


class _Ticking:
    """One timer."""

    __slots__ = ("args", "key", "message", "method", "period", "timer")

    def __init__(self, key: Any, period: float | None, method: Method, args: tuple[Any, ...]) -> None:
        self.key = key
        self.period = period
        self.method = method
        self.args = args
        self.timer: Timer | None = None
        self.message: TimerMessage | None = None
        """The last one sent."""

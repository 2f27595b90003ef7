"""
The driver: carries out what a supervision decides, and feeds back what became of it.

One for each supervisor, whether its children live in this process or on hosts: the
launcher is what differs. Nothing here decides or waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from actors.clock import Clock, Timer
from actors.exit import Exit
from supervisors import actions, facts
from supervisors.orders import Order
from supervisors.spec import Shutdown
from supervisors.supervision import Supervision


class Launcher(Protocol):
    """Begins and ends lives; what comes of it is reported to the driver as facts."""

    def start(self, child_id: str) -> None: ...
    def halt(self, child_id: str, shutdown: Shutdown) -> None: ...
    def forget(self, child_id: str) -> None: ...


class Driver:
    """Runs one supervision. Loop thread only."""

    def __init__(
        self,
        supervision: Supervision,
        launcher: Launcher,
        clock: Clock,
        *,
        on_report: Callable[[actions.Report], None],
        on_finished: Callable[[Exit], None],
    ) -> None:
        self.supervision = supervision
        self._launcher = launcher
        self._clock = clock
        self._on_report = on_report
        self._on_finished = on_finished
        self._tokens = itertools.count(1)
        self._answers: dict[Any, asyncio.Future[str | None]] = {}
        self._retries: dict[str, Timer] = {}
        self._events: deque[facts.Fact | Order] = deque()
        self._is_feeding = False

    def feed(self, event: facts.Fact | Order) -> None:
        """Take in a fact or an order and do what it leads to."""
        self._events.append(event)
        if self._is_feeding:
            return  # an action of ours reported at once: its turn comes when this one is done
        self._is_feeding = True
        try:
            while self._events:
                for action in self.supervision.decide(self._events.popleft(), self._clock.now()):
                    self._perform(action)
        finally:
            self._is_feeding = False

    def order(self, make: Callable[..., Order], *args: Any) -> asyncio.Future[str | None]:
        """Give an order (its class and arguments after the token); the future has its answer."""
        token = next(self._tokens)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answers[token] = future
        self.feed(make(token, *args))
        return future

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.Start(id):
                self._launcher.start(id)
            case actions.Halt(id, shutdown):
                self._launcher.halt(id, shutdown)
            case actions.Forget(id):
                self._launcher.forget(id)
            case actions.RetryAfter(id, delay):
                self._retry_after(id, delay)
            case actions.CancelRetry(id):
                self._cancel_retry(id)
            case actions.Answer(order, value, error):
                self._answer(order, value, error)
            case actions.Report():
                self._on_report(action)
            case actions.Finished(exit):
                for id in list(self._retries):
                    self._cancel_retry(id)
                self._on_finished(exit)

    def _retry_after(self, id: str, delay: float) -> None:
        self._cancel_retry(id)
        if delay <= 0:
            # Behind what waits already, whatever the clock: a stop is served between two tries.
            self._retries[id] = asyncio.get_running_loop().call_soon(partial(self._retry, id))
        else:
            self._retries[id] = self._clock.call_later(delay, partial(self._retry, id))

    def _retry(self, id: str) -> None:
        self._retries.pop(id, None)
        self.feed(facts.RetryDue(id))

    def _cancel_retry(self, id: str) -> None:
        timer = self._retries.pop(id, None)
        if timer is not None:
            timer.cancel()

    def _answer(self, order: Any, value: str | None, error: BaseException | None) -> None:
        future = self._answers.pop(order, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
            future.exception()  # an order is carried out whether or not its giver still listens

"""
The heartbeat: the stage asks every host whether it is there, and looks at those that do not say so.

One small question per host and fifth of its limit; `/proc` is read only of hosts that owe an
answer for the whole limit. A host that hangs is reported with the stack of its threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from actors.errors import ActorError, Refusal
from actors.ref import Ref
from supervisors import evidence, health
from supervisors.health import Pulse

_LEAST_LIMIT = 1.0
"""Seconds below which silence says nothing: a garbage collection or an import may take so long."""


class Host(Protocol):
    """What the heartbeat knows of a host."""

    name: str
    pid: int
    start_time: int
    ref: Ref[Any] | None
    dead: bool
    handler_timeout: float
    """Of the service it is open for."""
    starting: set[str]
    """Members whose `__init__` and `on_start` may be running."""


class _Patient:
    """One host and what has been heard of it."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        self.question: asyncio.Task[None] | None = None
        self.rests = 0.0
        """Seconds until it is asked again."""
        self.examination: asyncio.Task[None] | None = None


class Heartbeat:
    """Rounds over all hosts. Loop thread only."""

    def __init__(
        self,
        limit: float,
        epoch: int,
        run_dir: str,
        hosts: Callable[[], list[Any]],
        *,
        on_hung: Callable[[Any, str, str], None],
        on_refused: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._epoch = epoch
        self._run_dir = run_dir
        self._hosts = hosts
        self._on_hung = on_hung
        self._on_refused = on_refused
        self._patient_by_host: dict[Any, _Patient] = {}

    async def run(self) -> None:
        """Make rounds until cancelled."""
        last_at = time.monotonic()
        while True:
            period = self._period()
            await asyncio.sleep(period)
            now = time.monotonic()
            self._round(health.watched(now - last_at, period))
            last_at = now

    def _period(self) -> float:
        return health.beat(min([self._limit, *(self._limit_of(host) for host in self._hosts())]))

    def _limit_of(self, host: Host) -> float:
        """Its `handler_timeout` where that is shorter: a handler may hold the loop that watches over it."""
        if host.starting:
            return self._limit
        return max(min(_LEAST_LIMIT, self._limit), min(self._limit, host.handler_timeout))

    def _round(self, seconds: float) -> None:
        hosts = [host for host in self._hosts() if host.ref is not None and not host.dead]
        for gone in self._patient_by_host.keys() - set(hosts):
            question = self._patient_by_host.pop(gone).question
            if question is not None:
                question.cancel()
        for host in hosts:
            patient = self._patient_by_host.get(host)
            if patient is None:
                patient = self._patient_by_host[host] = _Patient(Pulse(self._limit))
            patient.pulse.limit = self._limit_of(host)
            self._visit(host, patient, seconds)

    def _visit(self, host: Host, patient: _Patient, seconds: float) -> None:
        patient.pulse.wait(seconds)
        patient.rests -= seconds
        if patient.pulse.is_silent and patient.examination is None:
            examination = asyncio.get_running_loop().create_task(self._examine(host, patient))
            patient.examination = examination
        if patient.question is None and patient.rests <= 0:
            patient.rests = health.beat(patient.pulse.limit)
            patient.pulse.ask(evidence.cpu_of(host.pid))
            patient.question = asyncio.get_running_loop().create_task(self._ask(host, patient))

    async def _ask(self, host: Host, patient: _Patient) -> None:
        assert host.ref is not None
        try:
            await host.ref.ping(self._epoch)
        except Refusal:
            self._on_refused()
        except ActorError:
            pass  # it has not reached anybody: asked again in the next round, and silent meanwhile
        else:
            patient.pulse.hear()
        finally:
            patient.question = None

    async def _examine(self, host: Host, patient: _Patient) -> None:
        try:
            look = evidence.look_at(host.pid)
            how = patient.pulse.judge(look) if look is not None else ""
            if not how or look is None:
                return
            stack = ""
            if look.state != "T":  # a stopped process writes nothing, and must not go on before it is ended
                stack = await self.take_stack(host)
            if patient.pulse.is_silent and not host.dead:
                self._on_hung(host, how, stack)
        finally:
            patient.examination = None

    async def take_stack(self, host: Host) -> str:
        """Where the threads of *host* are now."""
        return await asyncio.to_thread(
            evidence.take_stack, self._run_dir, host.name, host.pid, host.start_time
        )

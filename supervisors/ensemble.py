"""
The ensemble: the services and groups of one group under their supervisor, an actor in the stage.

Its children are troupes and other ensembles. It starts and stops them by message and hears when
one gives up; a supervision with OTP's rules decides what follows, as for any supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.errors import ActorError, InvalidArgument, ServiceFailed, StartFailed
from actors.exit import Exit
from actors.ref import Ref
from actors.reply import Reply
from supervisors import facts
from supervisors.actions import Report
from supervisors.control import ControlActor
from supervisors.driver import Driver
from supervisors.group import GroupPlan
from supervisors.orders import Begin, Stop
from supervisors.playbill import GroupEntry
from supervisors.spec import Kind, Restart, Shutdown
from supervisors.supervision import Supervision
from supervisors.troupe import GAVE_UP, Superior


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A service or group as the supervision of its group sees it (`orders.Spec`)."""

    id: str
    restart: Restart = "permanent"
    shutdown_time: Shutdown = math.inf
    kind: Kind = "supervisor"
    significant: bool = False


class Ensemble(ControlActor):
    """
    Supervises one group. Its messages are orders of the stage and of the group around it.

    *part* gives the actor of a service or group, which is made the first time. *adopted* are the
    beginnings of parts that an earlier stage has left running: they are all under way already.
    Without a *superior*, at the top of the app, a group that gives up has failed with all that is in it.
    """

    def __init__(
        self,
        plan: GroupPlan,
        part: Callable[[str], Ref[Any]],
        on_event: Callable[..., None],
        commit: Callable[[GroupEntry], Awaitable[None]],
        failed: str = "",
        adopted: dict[str, Reply[None]] | None = None,
        superior: Superior | None = None,
    ) -> None:
        self.plan = plan
        self._part = part
        self._on_event = on_event
        self._commit = commit
        self._superior = superior
        self._failed = failed
        self._adopted = adopted if adopted is not None else {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, str] = {}
        """Why each part ended, or did not start, the last time."""
        self._bad_start = ""
        """Why the last part that did not start did not."""
        self._reason = ""
        """Why the group itself gave up."""
        self._is_stopping = False
        self._is_leaving = False
        self._halts = 0
        self._has_started = False
        """`begin` has succeeded, so that giving up is the superior's business."""
        self._end: asyncio.Future[Exit] | None = None
        """Of the life under way; None before the first."""
        self._keeping: asyncio.Task[None] | None = None
        self._driver = self._new_driver()

    async def on_start(self) -> None:
        if self._failed:
            self._end = asyncio.get_running_loop().create_future()
            self._end.set_result(GAVE_UP)
            self._fail_parts(self._failed)

    async def on_stop(self, exit: Exit) -> None:
        await self.halt(for_good=True)

    def _new_driver(self) -> Driver:
        supervision = Supervision(
            strategy=self.plan.strategy, intensity=self.plan.intensity, period=self.plan.period
        )
        return Driver(
            supervision,
            _PartLauncher(self),
            self.context.system.clock,
            on_report=self._reported,
            on_finished=self._finished,
        )

    # -- lives of the group ----------------------------------------------------------

    async def begin(self) -> None:
        """
        Start the parts, one after the other, with fresh limits.

        `StartFailed` when one of them cannot start by its own limits; then the others have stopped.
        """
        if self._end is not None:
            self._driver = self._new_driver()
        self._failed, self._reason, self._is_stopping, self._has_started = "", "", False, False
        end = self._end = asyncio.get_running_loop().create_future()
        begun = self._driver.order(Begin, tuple(PartSpec(name) for name in self.plan.parts))
        begun.add_done_callback(partial(self._begun, end))
        await asyncio.wait([begun])  # carried out whether or not the giver of the order still listens
        if begun.exception() is not None:
            await asyncio.shield(end)
        if end.done():
            raise StartFailed(f"{self.plan.name} {self._reason or 'was stopped while it started'}")

    def _begun(self, end: asyncio.Future[Exit], begun: asyncio.Future[str | None]) -> None:
        self._has_started = not begun.cancelled() and begun.exception() is None and not end.done()

    async def halt(self, for_good: bool = False) -> None:
        """Stop the parts in reverse order. `begin` may follow, unless *for_good*."""
        self._is_stopping, self._is_leaving = True, for_good
        self._halts += 1
        if self._end is not None:
            self._driver.feed(Stop(Exit("shutdown")))
            await asyncio.shield(self._end)

    async def fail(self, reason: str) -> None:
        """Have failed with all of the group around this one: callers are told at once. `halt` may follow."""
        self._failed = reason
        for name in self.plan.parts:
            await self._part(name).fail(reason)

    async def reset(self) -> bool:
        """Revive a group that has failed, and all that is in it, with fresh limits; False when it has not."""
        if not self._failed:
            return False
        self._failed = ""
        if self._end is not None:
            await asyncio.shield(self._end)  # what runs of it is still being stopped
        await self._commit(GroupEntry(self.plan.name, ""))
        with contextlib.suppress(StartFailed):
            await self.begin()
        return not self._failed

    async def restart(self, names: list[str], rolling: bool = False) -> list[str]:
        """
        Give each of the parts *names* (all when empty) new lives; an order, so nothing is counted.

        One after the other where they do not depend on each other; else all stop in reverse order
        and start in order, as after a failure of the first, which names and *rolling* do not go with.
        """
        if self._failed:
            raise ServiceFailed(f"group {self.plan.name} has failed ({self._failed})", reason=self._failed)
        if self.plan.strategy == "one_for_one":
            for name in names or self.plan.parts:
                await self._part(name).restart([], rolling)
        elif names or rolling:
            raise InvalidArgument(
                f"group {self.plan.name} is {self.plan.strategy}: its parts stop and start together"
            )
        else:
            await self._renew()
        return list(names or self.plan.parts)

    async def _renew(self) -> None:
        this = self._halts + 1
        await self.halt()
        if self._halts > this:
            return  # whoever has halted it meanwhile has the word
        try:
            await self.begin()
        except StartFailed:
            # Of a group at the top all has failed by now; in a group it is an incident of that.
            if self._superior is not None:
                self._superior(GAVE_UP, self._reason)
            raise

    async def ended(self, name: str, exit: Exit, reason: str) -> None:
        """A part has given up, with everything in it stopped."""
        start = self._starts.get(name)
        if start is not None and not start.done():
            await asyncio.wait([start])  # that it had started is told on another way
        self._reasons[name] = reason
        self._driver.feed(facts.Exited((name,), exit))

    async def describe(self) -> dict[str, Any]:
        """Why the group has failed, if it has, and what its supervisor knows of each part."""
        children = self._driver.supervision.children()
        return {
            "name": self.plan.name,
            "failed": self._failed,
            "parts": {
                child.id: {
                    "restarts": child.restarts,
                    "last_exit": str(child.last_exit) if child.last_exit is not None else None,
                }
                for child in children
            },
        }

    # -- what the supervision decided ---------------------------------------------------

    def _reported(self, report: Report) -> None:
        reason = self._reasons.get(report.id) or (str(report.exit) if report.exit is not None else "")
        self._on_event(
            f"group.{report.what}",
            supervisor=self.plan.name,
            context=report.what,
            reason=reason,
            child=report.id,
            group=self.plan.name,
            restarts=report.restarts,
        )
        if report.what == "gave_up":
            self._reason = f"gave up: {report.id} {reason}"
            if self._superior is None:
                # Now, and not when all have stopped: whoever calls one of them waits for nothing.
                self._fail_all()

    def _finished(self, exit: Exit) -> None:
        assert self._end is not None
        self._end.set_result(exit)
        if self._is_stopping:
            return
        self._reason = self._reason or f"did not start: {self._bad_start}"
        if self._superior is None:
            self._fail_all()
        elif self._has_started:
            self._superior(exit, self._reason)

    def _fail_all(self) -> None:
        if self._failed:
            return
        self._failed = self._reason
        self._keeping = asyncio.get_running_loop().create_task(self._keep())
        self._on_event(
            "group.failed",
            supervisor="stage",
            context="gave_up",
            reason=self._reason,
            child=self.plan.name,
            group=self.plan.name,
        )
        self._fail_parts(self._reason)

    def _fail_parts(self, reason: str) -> None:
        for name in self.plan.parts:
            self._part(name).tell("fail", f"group {self.plan.name} {reason}")

    async def _keep(self) -> None:
        await self._commit(GroupEntry(self.plan.name, self._failed))

    def _start_failed(self, name: str, error: ActorError) -> Exit:
        self._reasons[name] = self._bad_start = str(error)
        return Exit("start_failed", str(error))


class _PartLauncher:
    """Begins and halts services and groups by message (`driver.Launcher`)."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, child_id: str) -> None:
        ensemble = self._ensemble
        adopted = ensemble._adopted.pop(child_id, None)
        if adopted is None:
            ensemble._starts[child_id] = self._task(self._start(child_id))
            return
        # It runs already: none may wait for what becomes of another.
        ensemble._driver.feed(facts.Started(child_id))
        ensemble._starts[child_id] = self._task(self._adopt(child_id, adopted))

    async def _start(self, name: str) -> None:
        try:
            await self._ensemble._part(name).begin()
        except ActorError as error:
            exit = self._ensemble._start_failed(name, error)
            self._ensemble._driver.feed(facts.StartFailed(name, exit))
        else:
            self._ensemble._driver.feed(facts.Started(name))

    async def _adopt(self, name: str, begun: Reply[None]) -> None:
        try:
            await begun
        except ActorError as error:
            exit = self._ensemble._start_failed(name, error)
            self._ensemble._driver.feed(facts.Exited((name,), exit))

    def halt(self, child_id: str, shutdown: Shutdown) -> None:
        start = self._ensemble._starts.get(child_id)
        if start is not None:
            start.cancel()
        self._task(self._halt(child_id))

    async def _halt(self, name: str) -> None:
        with contextlib.suppress(ActorError):
            await self._ensemble._part(name).halt(self._ensemble._is_leaving)
        self._ensemble._driver.feed(facts.Stopped(name, Exit("shutdown")))

    def forget(self, child_id: str) -> None:
        """Nothing: the actor of a service or group outlives the lives that it begins and ends."""

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

"""
The branch: a supervisor's children in this process, kept by what its supervision decides.

What `Supervisor` and `DynamicSupervisor` have in common. It carries out starts and
stops, hears what became of them, and tells the system's sinks what was decided.
"""

from __future__ import annotations

import asyncio
from typing import Any

from actors.children import Children
from actors.context import Context
from actors.errors import AlreadyStarted
from actors.exit import Exit
from actors.ref import Ref
from supervisors import facts
from supervisors.actions import Report
from supervisors.child import ChildRow
from supervisors.driver import Driver
from supervisors.events import ChildReported
from supervisors.orders import Begin, RestartChild, StartChild, Stop
from supervisors.spec import ChildInfo, ChildSpec, Shutdown
from supervisors.supervision import Supervision


class Branch:
    """The children of the actor that *context* belongs to. Loop thread only."""

    def __init__(self, context: Context, supervision: Supervision) -> None:
        self.supervision = supervision
        self._context = context
        self._children = Children(context, self, on_stopping=self._stopping, overseer=self)
        self._driver = Driver(
            supervision, self, context.system.clock, on_report=self._reported, on_finished=self._finished
        )
        self._end: asyncio.Future[Exit] | None = None

    # -- what its supervisor wants ---------------------------------------------------------

    async def begin(self, specs: tuple[ChildSpec, ...] = ()) -> None:
        """Start the first children; raises what failed. Its supervisor answers questions meanwhile."""
        self._end = asyncio.get_running_loop().create_future()
        self._context.serve_early()
        await self._driver.order(Begin, specs)

    async def stop(self, exit: Exit) -> None:
        """Stop all children, which may have begun."""
        self._driver.feed(Stop(exit))
        if self._end is not None:
            await self._end

    def _stopping(self) -> None:
        # Orders that still wait for a child would hold up the stop: they are refused now.
        self._driver.feed(Stop(Exit("shutdown")))

    async def start_child(self, spec: ChildSpec) -> Ref[Any] | None:
        """Add a child and start it; None when it said `Ignore`."""
        return await self._launched(StartChild, spec.id, spec)

    async def restart_child(self, id: str) -> Ref[Any] | None:
        """Start a child that is stopped; None when it said `Ignore`."""
        return await self._launched(RestartChild, id, id)

    async def _launched(self, kind: Any, id: str, what: Any) -> Ref[Any] | None:
        try:
            started = await self._driver.order(kind, what)
        except AlreadyStarted as error:
            error.ref = error.ref or self._children.ref(id)
            raise
        return None if started is None else self._children.ref(id)

    async def order(self, kind: Any, id: str) -> None:
        """Give an order about child *id*, and wait until it is carried out."""
        await self._driver.order(kind, id)

    def infos(self) -> list[ChildInfo]:
        """All children in start order."""
        return [
            ChildInfo(row.id, self._children.ref(row.id), row.shown, row.kind, row.restarts, row.last_exit)
            for row in self.supervision.children()
        ]

    @property
    def strategy(self) -> str:
        """Which children restart together."""
        return self.supervision.strategy

    def rows(self) -> list[ChildRow]:
        """All children in start order, those at rest too (`actors.children.Overseer`)."""
        return self.supervision.children()

    def spec(self, id: str) -> ChildSpec:
        """The spec of child *id*. `NotFound`."""
        spec = self.supervision.spec(id)
        assert isinstance(spec, ChildSpec)
        return spec

    def id_of(self, ref: Ref[Any]) -> str | None:
        """The child that *ref* means; None for strangers, and for lives that are over."""
        return self._children.id_of(ref)

    # -- what the supervision decided --------------------------------------------------------

    def _reported(self, report: Report) -> None:
        name = self._context.name
        self._context.system.emit(
            ChildReported(name, report.what, report.exit, report.id, report.restarts, report.delay)
        )

    def _finished(self, exit: Exit) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(exit)
        if exit.kind == "shutdown":
            # It gave up or shut itself down; when it was told to stop, it is on its way already.
            self._context.stop(exit.kind, exit.detail)

    # -- its launcher (`driver.Launcher`) ------------------------------------------------------

    def start(self, child_id: str) -> None:
        spec = self.spec(child_id)
        self._children.start(
            child_id,
            spec.actor_class,
            spec.args,
            dict(spec.kwargs),
            start_timeout=spec.start_timeout,
            shutdown=_seconds(spec.shutdown_time),
            mailbox=spec.mailbox,
            overflow=spec.overflow,
            concurrency=spec.concurrency,
            handler_timeout=spec.handler_timeout,
        )

    def halt(self, child_id: str, shutdown: Shutdown) -> None:
        # The mailbox stays: a sibling in a group restart goes on with it. `forget` empties it.
        exit = Exit("killed", "brutal_kill") if isinstance(shutdown, str) else Exit("shutdown")
        self._children.halt(child_id, exit, _seconds(shutdown), keep_mailbox=True)

    def forget(self, child_id: str) -> None:
        self._children.forget(child_id)

    # -- what became of them (`actors.children.Reports`) -----------------------------------------

    def started(self, child_id: str) -> None:
        self._driver.feed(facts.Started(child_id))

    def worked(self, child_id: str) -> None: ...

    def ignored(self, child_id: str) -> None:
        self._driver.feed(facts.Ignored(child_id))

    def start_failed(self, child_id: str, exit: Exit) -> None:
        self._driver.feed(facts.StartFailed(child_id, exit))

    def exited(self, child_id: str, exit: Exit, handled: int) -> None:
        self._driver.feed(facts.Exited((child_id,), exit, handled))

    def stopped(self, child_id: str, exit: Exit) -> None:
        self._driver.feed(facts.Stopped(child_id, exit))


def _seconds(shutdown: Shutdown) -> float:
    """A shutdown as seconds; "brutal_kill" is 0."""
    return 0.0 if isinstance(shutdown, str) else float(shutdown)

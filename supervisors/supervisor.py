"""
`Supervisor`: an actor whose children are actors of this process. OTP's rules, OTP's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from actors.actor import Actor
from actors.children import Children
from actors.errors import ActorError, AlreadyStarted, InvalidArgument
from actors.exit import Exit
from actors.ref import Ref
from supervisors import facts
from supervisors.actions import Report
from supervisors.backoff import Backoff
from supervisors.driver import Driver
from supervisors.events import ChildReported
from supervisors.orders import Begin, DeleteChild, RestartChild, StartChild, Stop, TerminateChild
from supervisors.spec import ChildCounts, ChildInfo, ChildSpec, Shutdown
from supervisors.strategy import Strategy
from supervisors.supervision import Supervision, check_flags


class Supervisor(Actor):
    """
    Starts its children in order, restarts what fails, stops them in reverse order.

    By default one_for_one, and 3 restarts in 5 s (Elixir's default): one more and it stops all
    children and ends with `Exit("shutdown", "intensity")`. A first start that fails fails the
    supervisor's own start. Wrong flags are `InvalidArgument` before anything starts. Its messages
    are orders: they have no deadline. Children started by message are lost when it restarts.
    """

    is_supervisor: ClassVar[bool] = True
    expected: ClassVar[tuple[type[BaseException], ...]] = (ActorError,)  # orders that cannot be carried out
    ask_timeout: ClassVar[float | None] = None
    concurrency: ClassVar[int] = 10_000  # orders wait for starts and stops, questions must not
    mailbox: ClassVar[int] = 100_000

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        strategy: Strategy = "one_for_one",
        intensity: int = 3,
        period: float = 5.0,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        check_flags(strategy, intensity, period)
        self._specs = tuple(children)
        check_specs(self._specs)
        local = LocalLauncher(self)
        self._children = Children(self.context, local)
        self._driver = Driver(
            Supervision(strategy=strategy, intensity=intensity, period=period, backoff=backoff),
            local,
            self.context.system.clock,
            on_report=self._reported,
            on_finished=self._finished,
        )
        self._end: asyncio.Future[Exit] | None = None

    async def on_start(self) -> None:
        self._end = asyncio.get_running_loop().create_future()
        self.context.serve_early()  # questions are answered while children start
        await self._driver.order(Begin, self._specs)

    async def on_stop(self, exit: Exit) -> None:
        self._driver.feed(Stop(exit))
        if self._end is not None:
            await self._end

    # -- messages ------------------------------------------------------------------

    async def start_child(self, spec: ChildSpec) -> Ref[Any] | None:
        """
        Add a child, last in start order. None when it said `Ignore`.

        `AlreadyStarted`, `AlreadyPresent` by id alone; `StartFailed` (the spec is not kept).
        """
        check_specs((spec,))
        try:
            started = await self._driver.order(StartChild, spec)
        except AlreadyStarted as error:
            error.ref = error.ref or self._children.ref(spec.id)
            raise
        return None if started is None else self._children.ref(spec.id)

    async def terminate_child(self, id: str) -> None:
        """Stop a child, or give up on its restart. Its spec stays, unless it is temporary. `NotFound`."""
        await self._driver.order(TerminateChild, id)

    async def restart_child(self, id: str) -> Ref[Any] | None:
        """
        Start a child that is stopped.

        `NotFound`, `AlreadyStarted` (it runs), `Refusal` (it is restarting), `StartFailed`.
        """
        try:
            started = await self._driver.order(RestartChild, id)
        except AlreadyStarted as error:
            error.ref = error.ref or self._children.ref(id)
            raise
        return None if started is None else self._children.ref(id)

    async def delete_child(self, id: str) -> None:
        """Forget the spec of a child that is stopped. `NotFound`, `Refusal` (running or restarting)."""
        await self._driver.order(DeleteChild, id)

    async def which_children(self) -> list[ChildInfo]:
        """All children in start order."""
        return [
            ChildInfo(row.id, self._children.ref(row.id), row.shown, row.kind, row.restarts, row.last_exit)
            for row in self._driver.supervision.children()
        ]

    async def count_children(self) -> ChildCounts:
        """How many there are and how many run."""
        return self._driver.supervision.counts()

    async def get_childspec(self, id: str) -> ChildSpec:
        """The spec of a child. `NotFound`."""
        spec = self._driver.supervision.spec(id)
        assert isinstance(spec, ChildSpec)
        return spec

    # -- what became of it ---------------------------------------------------------------

    def _reported(self, report: Report) -> None:
        system = self.context.system
        system.emit(
            ChildReported(
                self.context.name, report.what, report.exit, report.id, report.restarts, report.delay
            )
        )

    def _finished(self, exit: Exit) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(exit)
        if exit.kind == "shutdown" and exit.detail == "intensity":
            self.context.stop("shutdown", "intensity")


class LocalLauncher:
    """Children in this process: the supervisor's launcher, and its ear for what became of them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def start(self, child_id: str) -> None:
        supervisor = self._supervisor
        spec = supervisor._driver.supervision.spec(child_id)
        assert isinstance(spec, ChildSpec)
        supervisor._children.start(
            child_id,
            spec.actor_class,
            spec.args,
            dict(spec.kwargs),
            start_timeout=spec.start_timeout,
            shutdown=shutdown_seconds(spec.shutdown_time),
            mailbox=spec.mailbox,
            concurrency=spec.concurrency,
            handler_timeout=spec.handler_timeout,
        )

    def halt(self, child_id: str, shutdown: Shutdown) -> None:
        # The mailbox stays: a sibling in a group restart goes on with it. `forget` empties it.
        exit = Exit("killed", "brutal_kill") if isinstance(shutdown, str) else Exit("shutdown")
        self._supervisor._children.halt(child_id, exit, shutdown_seconds(shutdown), keep_mailbox=True)

    def forget(self, child_id: str) -> None:
        self._supervisor._children.forget(child_id)

    def started(self, child_id: str) -> None:
        self._supervisor._driver.feed(facts.Started(child_id))

    def worked(self, child_id: str) -> None: ...

    def ignored(self, child_id: str) -> None:
        self._supervisor._driver.feed(facts.Ignored(child_id))

    def start_failed(self, child_id: str, exit: Exit) -> None:
        self._supervisor._driver.feed(facts.StartFailed(child_id, exit))

    def exited(self, child_id: str, exit: Exit, handled: int) -> None:
        self._supervisor._driver.feed(facts.Exited((child_id,), exit, handled))

    def stopped(self, child_id: str, exit: Exit) -> None:
        self._supervisor._driver.feed(facts.Stopped(child_id, exit))


def check_specs(specs: tuple[Any, ...]) -> None:
    """`InvalidArgument` unless these are `ChildSpec`s with ids of their own."""
    seen: set[str] = set()
    for spec in specs:
        if not isinstance(spec, ChildSpec):
            raise InvalidArgument(f"Supervisor children={spec!r} is not a ChildSpec")
        if spec.id in seen:
            raise InvalidArgument(f"Supervisor children: the id {spec.id!r} stands twice")
        seen.add(spec.id)


def shutdown_seconds(shutdown: Shutdown) -> float:
    """A shutdown as seconds; "brutal_kill" is 0."""
    return 0.0 if isinstance(shutdown, str) else float(shutdown)

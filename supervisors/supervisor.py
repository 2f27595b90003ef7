"""
`Supervisor`: an actor whose children are actors of this process. OTP's rules, OTP's words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from actors.actor import Actor
from actors.errors import ActorError, InvalidArgument
from actors.exit import Exit
from actors.ref import Ref
from supervisors.backoff import Backoff
from supervisors.branch import Branch
from supervisors.budget import Intensity, check_intensity
from supervisors.orders import DeleteChild, TerminateChild
from supervisors.significance import AutoShutdown, check_significance
from supervisors.spec import ChildCounts, ChildInfo, ChildSpec
from supervisors.strategy import Strategy
from supervisors.supervision import Supervision, check_flags


class Supervisor(Actor):
    """
    Starts its children in order, restarts what fails, stops them in reverse order.

    By default one_for_one, and 3 restarts in 5 s (Elixir's default): one more and it stops all
    children and ends with `Exit("shutdown", "intensity")`. A mapping as *intensity* counts each kind
    of exit for itself, those it does not name up to 3. With *auto_shutdown* it ends with
    `Exit("shutdown")` when any, or the last, significant child has ended by itself. A first start
    that fails fails the supervisor's own start. Wrong flags are `InvalidArgument` before anything
    starts. Its messages are orders: they have no deadline. Children started by message are lost when
    it restarts.
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
        intensity: Intensity = 3,
        period: float = 5.0,
        *,
        backoff: Backoff | None = None,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        check_intensity("Supervisor", intensity)  # None is for services alone
        check_flags(strategy, intensity, period, auto_shutdown)
        self._auto_shutdown: AutoShutdown = auto_shutdown
        self._specs = tuple(children)
        check_specs(self._specs, auto_shutdown)
        supervision = Supervision(
            strategy=strategy,
            intensity=intensity,
            period=period,
            backoff=backoff,
            auto_shutdown=auto_shutdown,
        )
        self._branch = Branch(self.context, supervision)

    async def on_start(self) -> None:
        await self._branch.begin(self._specs)

    async def on_stop(self, exit: Exit) -> None:
        await self._branch.stop(exit)

    # -- messages ------------------------------------------------------------------

    async def start_child(self, spec: ChildSpec) -> Ref[Any] | None:
        """
        Add a child, last in start order. None when it said `Ignore`.

        `AlreadyStarted`, `AlreadyPresent` by id alone; `StartFailed` (the spec is not kept).
        """
        check_specs((spec,), self._auto_shutdown)
        return await self._branch.start_child(spec)

    async def terminate_child(self, id: str) -> None:
        """
        Stop a child, or give up on its pending restart. `NotFound`.

        Its spec stays, unless it is temporary.
        """
        await self._branch.order(TerminateChild, id)

    async def restart_child(self, id: str) -> Ref[Any] | None:
        """
        Start a child that is stopped. None when it said `Ignore`.

        `NotFound`, `AlreadyStarted` (it runs), `Refusal` (it is restarting), `StartFailed`.
        """
        return await self._branch.restart_child(id)

    async def delete_child(self, id: str) -> None:
        """Forget the spec of a stopped child, for good. `NotFound`, `Refusal` (running or restarting)."""
        await self._branch.order(DeleteChild, id)

    async def which_children(self) -> list[ChildInfo]:
        """All children in start order."""
        return self._branch.infos()

    async def count_children(self) -> ChildCounts:
        """How many there are and how many run."""
        return self._branch.supervision.counts()

    async def get_childspec(self, id: str) -> ChildSpec:
        """The spec of a child. `NotFound`."""
        return self._branch.spec(id)


def check_specs(specs: tuple[Any, ...], auto_shutdown: AutoShutdown) -> None:
    """`InvalidArgument` unless these are `ChildSpec`s with ids of their own that go with *auto_shutdown*."""
    seen: set[str] = set()
    for spec in specs:
        if not isinstance(spec, ChildSpec):
            raise InvalidArgument(f"Supervisor children={spec!r} is not a ChildSpec")
        if spec.id in seen:
            raise InvalidArgument(f"Supervisor children: the id {spec.id!r} stands twice")
        seen.add(spec.id)
        check_significance(spec, auto_shutdown)

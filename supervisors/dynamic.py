"""
`DynamicSupervisor`: any number of children of one class, started by message. OTP's simple_one_for_one.
"""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import suppress
from typing import Any, ClassVar

from actors.actor import Actor, Overflow
from actors.errors import ActorError, InvalidArgument, NotFound
from actors.exit import Exit
from actors.ref import Ref
from supervisors import checks
from supervisors.backoff import Backoff
from supervisors.branch import Branch
from supervisors.budget import Intensity, check_intensity
from supervisors.orders import TerminateChild
from supervisors.spec import (
    ChildCounts,
    ChildInfo,
    ChildSpec,
    Restart,
    Shutdown,
    check_class,
    check_options,
)
from supervisors.supervision import Supervision, check_flags


class DynamicSupervisor(Actor):
    """
    Starts a child of *actor_class* for each `start_child`, with the arguments given there.

    It starts empty. A child that fails restarts with its own arguments, alone; one that ends and is
    not restarted is gone. Intensity and period are as with `Supervisor`, one window for all. All
    children stop at the same time, within one shutdown time. They are lost when it restarts.
    """

    is_supervisor: ClassVar[bool] = True
    expected: ClassVar[tuple[type[BaseException], ...]] = (ActorError,)  # orders that cannot be carried out
    ask_timeout: ClassVar[float | None] = None
    concurrency: ClassVar[int] = 10_000  # orders wait for starts and stops, questions must not
    mailbox: ClassVar[int] = 100_000

    def __init__(
        self,
        actor_class: type[Actor],
        *,
        max_children: int | None = None,
        restart: Restart = "permanent",
        shutdown: Shutdown | None = None,
        intensity: Intensity = 3,
        period: float = 5.0,
        backoff: Backoff | None = None,
        start_timeout: float = 60.0,
        mailbox: int | None = None,
        overflow: Overflow | None = None,
        concurrency: int | None = None,
        handler_timeout: float | None = None,
    ) -> None:
        check_class("DynamicSupervisor", actor_class)
        self._actor_class = actor_class
        self._options: dict[str, Any] = {
            "restart": restart,
            "shutdown": shutdown,
            "start_timeout": start_timeout,
            "mailbox": mailbox,
            "overflow": overflow,
            "concurrency": concurrency,
            "handler_timeout": handler_timeout,
        }
        check_options("DynamicSupervisor", **self._options)
        check_intensity("DynamicSupervisor", intensity)
        check_flags("one_for_one", intensity, period, owner="DynamicSupervisor")
        if max_children is not None:
            checks.whole("DynamicSupervisor", "max_children", max_children)
        self._ids = (f"{actor_class.__name__.lower()}-{number}" for number in itertools.count(1))
        supervision = Supervision(
            intensity=intensity, period=period, backoff=backoff, dynamic=True, max_children=max_children
        )
        self._branch = Branch(self.context, supervision)

    async def on_start(self) -> None:
        await self._branch.begin()

    async def on_stop(self, exit: Exit) -> None:
        await self._branch.stop(exit)

    # -- messages ------------------------------------------------------------------

    async def start_child(self, /, *args: Any, **kwargs: Any) -> Ref[Any] | None:
        """
        Start a child with these arguments of its class. None when it said `Ignore`.

        `InvalidArgument` when they do not fit, `Refusal` beyond `max_children`, `StartFailed`: in all
        these cases nothing is left of it.
        """
        spec = ChildSpec(next(self._ids), self._actor_class, args=args, kwargs=kwargs, **self._options)
        return await self._branch.start_child(spec)

    async def terminate_child(self, ref: Ref[Any]) -> None:
        """
        Stop a child, or give up on its pending restart. Nothing to do for one that is dead already.

        `NotFound` when *ref* is somebody else.
        """
        if not isinstance(ref, Ref):
            raise InvalidArgument(f"DynamicSupervisor.terminate_child: ref={ref!r} is not a Ref")
        id = self._branch.id_of(ref)
        if id is not None:
            with suppress(NotFound):  # it has ended before its turn came
                await self._branch.order(TerminateChild, id)
        elif await ref.is_alive():
            raise NotFound(f"{ref!r} is no child of {self.context.name}")

    async def which_children(self) -> list[ChildInfo]:
        """All children in start order; their ids are None."""
        return [dataclasses.replace(info, id=None) for info in self._branch.infos()]

    async def count_children(self) -> ChildCounts:
        """One spec, and how many children there are and run."""
        return self._branch.supervision.counts()

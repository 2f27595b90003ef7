"""
Children: the lives of one actor's supervised children. What a supervisor is built on.

It carries out orders and reports facts; it decides nothing. A child's name, mailbox
and watchers outlive its restarts, until it is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from actors.context import Context
from actors.errors import ActorError
from actors.exit import Exit
from actors.ref import Ref

if TYPE_CHECKING:
    from actors._cell import Cell


class Reports(Protocol):
    """Who hears what became of the children; called on the system's loop."""

    def started(self, child_id: str) -> None: ...
    def ignored(self, child_id: str) -> None: ...
    def start_failed(self, child_id: str, exit: Exit) -> None: ...
    def worked(self, child_id: str) -> None:
        """A life has finished its first message without crashing."""

    def exited(self, child_id: str, exit: Exit, handled: int) -> None:
        """A life ended by itself."""

    def stopped(self, child_id: str, exit: Exit) -> None:
        """A life ended because of `halt`."""


class ChildRow(Protocol):
    """What a supervisor knows of one child."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def restarts(self) -> int: ...
    @property
    def last_exit(self) -> Exit | None: ...


class Overseer(Protocol):
    """Who can say of the children what they do not know themselves."""

    @property
    def strategy(self) -> str: ...
    def rows(self) -> Sequence[ChildRow]: ...


class Children:
    """
    The supervised children of the actor that *context* belongs to.

    *on_stopping* is called when an orderly stop of that actor begins, before it waits for handlers:
    they may be orders that wait for children. *overseer* is asked by whoever looks at the tree.
    """

    def __init__(
        self,
        context: Context,
        reports: Reports,
        *,
        on_stopping: Callable[[], None] | None = None,
        overseer: Overseer | None = None,
    ) -> None:
        self._life = context._life
        self._life.on_stopping = on_stopping
        self._life.overseer = overseer
        self._reports = reports
        self._cell_by_id: dict[str, Cell] = {}
        self._id_by_cell: dict[Cell, str] = {}
        self._halting: set[str] = set()

    def start(
        self,
        child_id: str,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        start_timeout: float = math.inf,
        shutdown: float = 5.0,
        mailbox: int | None = None,
        overflow: str | None = None,
        concurrency: int | None = None,
        handler_timeout: float | None = None,
        name: str | None = None,
        uid: int | None = None,
        incarnation: int | None = None,
    ) -> None:
        """
        Begin the next life of a child, its first one included.

        Its name is `<parent>/<child_id>`, unless *name* and *uid* say which registration it is,
        one that may move to another process: then refs to it ask the system's directory.

        A name that somebody else has is a failed start with `AlreadyStarted` as its cause, and what
        an interceptor refuses one with its error.
        """
        cell = self._cell_by_id.get(child_id)
        if cell is None:
            system = self._life.cell.system
            try:
                cell = system._register(
                    name or f"{self._life.cell.name}/{child_id}",
                    cls,
                    args,
                    kwargs,
                    parent=self._life,
                    owner=self,
                    mailbox=mailbox,
                    overflow=overflow,
                    concurrency=concurrency,
                    handler_timeout=handler_timeout,
                    shutdown=shutdown,
                    uid=uid,
                    roams=name is not None,
                )
            except ActorError as error:
                self._reports.start_failed(child_id, Exit("start_failed", error))
                return
            self._cell_by_id[child_id] = cell
            self._id_by_cell[cell] = child_id
        cell.start(start_timeout, incarnation)

    def halt(self, child_id: str, exit: Exit, shutdown: float, *, keep_mailbox: bool) -> None:
        """End a child's life within *shutdown* seconds (0: at once, no `on_stop`); `stopped` reports it."""
        cell = self._cell_by_id.get(child_id)
        if cell is None or cell.state in ("down", "ended"):
            self._reports.stopped(child_id, exit)
            return
        self._halting.add(child_id)
        cell.stop(exit, shutdown, hand_back=not keep_mailbox)

    def forget(self, child_id: str) -> None:
        """End a child's registration: its name is free, its watchers are told."""
        cell = self._cell_by_id.pop(child_id, None)
        if cell is not None:
            self._id_by_cell.pop(cell, None)
            cell.end(cell.exit or Exit("shutdown"))

    def ref(self, child_id: str) -> Ref[Any] | None:
        """A ref to a child that was started, None for others."""
        cell = self._cell_by_id.get(child_id)
        return cell.ref() if cell is not None else None

    def id_of(self, ref: Ref[Any]) -> str | None:
        """The child that *ref* means; None for strangers, and for lives of a child that are over."""
        cell = self._life.cell.system._names.cells.get(ref._name)
        if cell is None or ref._uid not in (0, cell.uid) or ref._pin not in (0, cell.incarnation):
            return None
        return self._id_by_cell.get(cell)

    # -- what cells report (`_cell.Owner`) ---------------------------------------------

    def child_started(self, cell: Cell) -> None:
        if (child_id := self._id_by_cell.get(cell)) is not None:
            self._reports.started(child_id)

    def child_worked(self, cell: Cell) -> None:
        if (child_id := self._id_by_cell.get(cell)) is not None:
            self._reports.worked(child_id)

    def child_ignored(self, cell: Cell) -> None:
        if (child_id := self._id_by_cell.get(cell)) is not None:
            self._reports.ignored(child_id)

    def child_start_failed(self, cell: Cell, exit: Exit) -> None:
        if (child_id := self._id_by_cell.get(cell)) is None:
            return
        if child_id in self._halting:
            self._halting.discard(child_id)
            self._reports.stopped(child_id, exit)
        else:
            self._reports.start_failed(child_id, exit)

    def child_exited(self, cell: Cell, exit: Exit, handled: int) -> None:
        if (child_id := self._id_by_cell.get(cell)) is None:
            return
        if child_id in self._halting:
            self._halting.discard(child_id)
            self._reports.stopped(child_id, exit)
        else:
            self._reports.exited(child_id, exit, handled)

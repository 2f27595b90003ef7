"""
Names: which cell has which, and which registrations ended lately.

A name belongs to one cell at a time and is free the moment its registration ends.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from actors.errors import AlreadyStarted, NotFound, nearest
from actors.exit import Exit

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._life import Life

_REMEMBERED = 10_000
"""Ended registrations whose names still say `ActorStopped` rather than `NotFound`."""


class Names:
    """The names of one system. Reading and taking: any thread."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self._gone: OrderedDict[str, tuple[int, Exit]] = OrderedDict()
        self._numbers: dict[str, itertools.count[int]] = {}
        self._lock = threading.Lock()

    def take(self, cell: Cell) -> None:
        """Register *cell* under its name. `AlreadyStarted` when somebody else has it."""
        with self._lock:
            taken = self.cells.setdefault(cell.name, cell)
        if taken is not cell:
            raise AlreadyStarted(f"{cell.name} is running already", taken.ref())

    def free(self, cell: Cell) -> None:
        """*cell*'s registration has ended; loop thread only."""
        if self.cells.get(cell.name) is cell:
            del self.cells[cell.name]
        self._gone[cell.name] = (cell.uid, _plain(cell.exit))
        self._gone.move_to_end(cell.name)
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def invent(self, word: str, parent: Life | None) -> str:
        """A name that is free: `<word>-<n>`, behind its parent's."""
        numbers = self._numbers if parent is None else parent.numbers
        prefix = "" if parent is None else f"{parent.cell.name}/"
        with self._lock:
            number = numbers.setdefault(word, itertools.count(1))
        while (name := f"{prefix}{word}-{next(number)}") in self.cells:
            pass
        return name

    def find(self, name: str) -> Cell:
        """Who has *name* now. `NotFound` otherwise."""
        cell = self.cells.get(name)
        if cell is None:
            raise NotFound(f"no actor is named {name!r}{nearest(name, self.cells)}")
        return cell

    def cell_of(self, name: str, uid: int) -> Cell:
        """The cell of one registration, *uid* 0 for any. `NotFound`, or what `gone` says of it."""
        cell = self.cells.get(name)
        if cell is not None and uid in (0, cell.uid):
            return cell
        exit = self.exit_of(name, uid)
        if exit is not None or cell is not None:
            from actors._cell import gone

            raise gone(name, exit)
        return self.find(name)

    def exit_of(self, name: str, uid: int) -> Exit | None:
        """How a registration ended that is remembered."""
        known = self._gone.get(name)
        return known[1] if known is not None and uid in (0, known[0]) else None


def _plain(exit: Exit | None) -> Exit:
    # An exception holds its traceback, and that holds the frames of a handler.
    if exit is None:
        return Exit("normal")
    if isinstance(exit.detail, BaseException):
        return Exit(exit.kind, f"{type(exit.detail).__name__}: {exit.detail}")
    return exit

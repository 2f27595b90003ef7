"""
Watches: who is told when an actor has ended for good, in this process and in others.

The watching life keeps what undoes each of its watches, the watched cell keeps whom
to tell. Everything here runs on the system's loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._cell import ENDED, Cell
from actors.errors import Unavailable
from actors.exit import Exit, Terminated
from actors.ref import Ref

if TYPE_CHECKING:
    from actors._life import Life
    from actors.system import ActorSystem

Notify = Callable[[Terminated], None]


class Watches:
    """The watches of one system's actors."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system

    def begin(self, life: Life, ref: Ref[Any]) -> None:
        """See `Context.watch`; any thread."""
        self._system._on_loop(self._begin, life, ref)

    def end(self, life: Life, ref: Ref[Any]) -> None:
        """See `Context.unwatch`; any thread."""
        self._system._on_loop(self._end, life, ref)

    def forget(self, life: Life) -> None:
        """*life* is over: nobody need tell it anything."""
        watches, life.watches = life.watches, None
        for undo in (watches or {}).values():
            undo()

    def _begin(self, life: Life, ref: Ref[Any]) -> None:
        key = (ref._name, ref._uid)
        if life.is_over or (life.watches is not None and key in life.watches):
            return
        if life.watches is None:
            life.watches = {}
        life.watches[key] = _nothing
        notify = partial(self._ended, life, key)
        system = self._system
        try:
            place = system._place(ref)
        except Exception as error:
            dead = isinstance(error, Unavailable)
            notify(Terminated(ref, Exit("killed", str(error)) if dead else Exit("not_found")))
            return
        if isinstance(place, Cell):
            undo = self.watch_cell(place, (life, key), notify)
        elif not ref._home and system.directory is not None:
            undo = system.directory.watch(ref._name, ref._uid, lambda exit: notify(Terminated(ref, exit)))
        else:
            assert system._remote is not None
            undo = system._remote.watch(place, ref, notify)
        if life.watches is not None and key in life.watches:
            life.watches[key] = undo

    def watch_cell(self, cell: Cell, key: Any, notify: Notify) -> Callable[[], None]:
        """Have *notify* called when *cell*'s registration ends; returns what undoes it."""
        if cell.state == ENDED:
            notify(Terminated(cell.ref()._with(pin=cell.incarnation), Exit("not_found")))
            return _nothing
        if cell.watchers is None:
            cell.watchers = {}
        watchers = cell.watchers
        watchers[key] = notify
        return lambda: watchers.pop(key, None)

    def _ended(self, life: Life, key: Any, terminated: Terminated) -> None:
        if life.watches is not None and life.watches.pop(key, None) is not None and life.cell.life is life:
            life.cell.notify(key, terminated)

    def _end(self, life: Life, ref: Ref[Any]) -> None:
        key = (ref._name, ref._uid)
        undo = (life.watches or {}).pop(key, None)
        if undo is not None:
            undo()
        elif life.cell.life is life:
            life.cell.withdraw(key)


def _nothing() -> None:
    """What undoes a watch that is over."""

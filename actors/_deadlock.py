"""
Deadlocks: asks that would wait for themselves through a chain of asks.

A message carries the chain of asks that wait for it. It waits for itself when every
handler of its actor that could end and make room has made one of those asks and
waits for it. What is not waited for yet is looked at again as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors import DeadlockError

if TYPE_CHECKING:
    from actors._calls import Call
    from actors._cell import Cell
    from actors._message import Message


def blockers(cell: Cell, message: Message) -> list[Call]:
    """
    The calls of *message*'s chain that the running handlers of *cell* have made, one each.

    Empty unless all of them have made one. While all are waited for, *message* waits for itself.
    """
    life = cell.life
    if life is None or not life.is_busy:
        return []
    running = [*life.running]
    if life.stepping is not None:
        running.append(life.stepping)
    if len(running) < cell.concurrency:
        return []
    system = cell.system
    own = [system._calls.find(step.call_id) for step in message.chain if step.system_id == system._id]
    made_by = {call.asker: call for call in own if call is not None}
    found = [made_by[handled] for handled in running if handled in made_by]
    return found if len(found) == len(running) else []


def found(cell: Cell, message: Message, calls: list[Call]) -> DeadlockError | None:
    """The error to refuse *message* with, when all of its blockers *calls* are waited for."""
    if not calls or not all(call.is_awaited for call in calls):
        return None
    first = calls[0]
    assert first.asker is not None
    steps = [(step.system_id, step.call_id) for step in message.chain]
    circle = message.chain[steps.index((cell.system._id, first.call_id)) :]
    chain = " → ".join([f"{cell.name}.{first.asker.method}()", *(step.asked for step in circle)])
    return DeadlockError(f"{chain} would wait for itself")

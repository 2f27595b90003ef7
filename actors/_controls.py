"""
Controls: what one may ask of an actor as a whole. They overtake every message, and need no mailbox.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._cell import DOWN, ENDED, IGNORED, TEMPORARY, Cell
from actors.errors import ActorError, ActorStopped, NotFound, Unavailable
from actors.exit import Exit
from actors.reply import Reply, failed, settled

if TYPE_CHECKING:
    from actors.ref import Ref
    from actors.system import ActorSystem

MARK = "$"
"""What the method name of a control begins with, between processes."""


def control(system: ActorSystem, ref: Ref[Any], verb: str, args: tuple[Any, ...]) -> Reply[Any]:
    """Carry out *verb* where the actor lives; any thread. Orders inherit no deadline."""
    try:
        place = system._place(ref)
    except Exception as error:
        return _absent(system, ref, verb, error)
    if isinstance(place, str):
        timeout = 5.0 if verb == "$is_alive" else None
        far = ref._with(timeout=timeout, timeout_given=True, detached=timeout is None)
        answer = system._sending.ask(far, verb, args, {})
        if verb != "$is_alive":
            return answer
        alive: Reply[Any] = Reply(system)
        answer.add_done_callback(partial(_alive_if_it_answers, alive))
        return alive
    reply: Reply[Any] = Reply(system)
    system._on_loop(_carry_out, place, verb, args, ref._pin, reply)
    if system._closed:
        # Its loop may have ended before it saw the order; nothing changes there any more.
        _carry_out(place, verb, args, ref._pin, reply)
    return reply


def _carry_out(cell: Cell, verb: str, args: tuple[Any, ...], pin: int, reply: Reply[Any]) -> None:
    if pin and pin != cell.incarnation and cell.state != ENDED:
        over = ActorStopped(f"incarnation {pin} of {cell.name} is over")
        outcome = _said_of_nobody(verb, over, cell.exit)
    elif verb in _CONTROLS:
        outcome = _CONTROLS[verb](cell, *args)
    else:
        outcome = failed(NotFound(f"{verb!r} is no control"))
    outcome.add_done_callback(partial(copy_outcome, reply))


def _absent(system: ActorSystem, ref: Ref[Any], verb: str, error: Exception) -> Reply[Any]:
    """What a control says of an actor that is not there."""
    exit = system._names.exit_of(ref._name, ref._uid) if isinstance(error, ActorError) else None
    return _said_of_nobody(verb, error, exit)


def _said_of_nobody(verb: str, error: Exception, exit: Exit | None) -> Reply[Any]:
    if verb == "$is_alive":
        return settled(False)
    if verb == "$wait_stopped" and (exit is not None or isinstance(error, (ActorStopped, NotFound))):
        return settled(exit or Exit("not_found"))
    if verb == "$wait_started" and exit == IGNORED:
        return settled(False)
    return failed(error)


def _alive_if_it_answers(alive: Reply[Any], answer: Reply[Any]) -> None:
    if isinstance(answer._error, Unavailable):
        answer._read = True
        alive._resolve(False)
    else:
        copy_outcome(alive, answer)


def _is_alive(cell: Cell) -> Reply[Any]:
    return settled(cell.is_alive)


def _stop(cell: Cell, kind: str) -> Reply[Any]:
    return _ordered(cell, Exit(kind), cell.shutdown)  # type: ignore[arg-type]


def _kill(cell: Cell) -> Reply[Any]:
    return _ordered(cell, Exit("killed"), 0.0)


def _ordered(cell: Cell, exit: Exit, shutdown: float) -> Reply[Any]:
    if cell.state == ENDED:
        return failed(cell.gone())
    if cell.state == DOWN and cell.owner is TEMPORARY:
        cell.end(exit)
        return settled()
    done: Reply[Any] = Reply()
    cell.wait_stopped(for_good=False).add_done_callback(lambda _: done._resolve(None))
    cell.stop(exit, shutdown, hand_back=cell.owner is TEMPORARY)
    return done


_CONTROLS: dict[str, Callable[..., Reply[Any]]] = {
    "$is_alive": _is_alive,
    "$wait_started": Cell.wait_started,
    "$wait_stopped": Cell.wait_stopped,
    "$stop": _stop,
    "$kill": _kill,
}


def copy_outcome(target: Reply[Any], source: Reply[Any]) -> None:
    """Settle *target* as *source* was."""
    source._read = True
    if source._error is not None:
        target._reject(source._error)
    else:
        target._resolve(source._value)

"""
The passage of calls through interceptors, and of what they carry to those who need it.

The plain path never comes here: a system goes this way once `tracing.carriage` is on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._message import Message, current_message
from actors.errors import ActorError, Refusal
from actors.interceptors import Ended, Interception, Interceptor, What
from actors.reply import Reply, mark_passed_through
from actors.tracing import Metadata, metadata_now

if TYPE_CHECKING:
    from actors._calls import Call
    from actors._cell import Cell
    from actors.actor import Method
    from actors.ref import Ref
    from actors.system import ActorSystem

Interceptors = tuple[Interceptor, ...]

_CONTROL = "$"

_inside: ContextVar[bool] = ContextVar("understudy_intercepting", default=False)
"""True in an interceptor: what it sends passes none."""


def _enter(interceptors: Interceptors, hook: str, call: Interception) -> list[Ended]:
    """Pass *call* through, the outermost first; what they want to be told of the outcome."""
    wanted: list[Ended] = []
    token = _inside.set(True)
    try:
        for interceptor in interceptors:
            ended = getattr(interceptor, hook)(call)
            if ended is not None:
                wanted.append(ended)
    except BaseException as error:
        _leave(wanted, error)
        raise
    finally:
        _inside.reset(token)
    return wanted


def _leave(wanted: list[Ended], error: BaseException | None) -> None:
    """Tell the outcome, the innermost first. Their mistakes are logged and harm nobody."""
    token = _inside.set(True)
    try:
        for ended in reversed(wanted):
            try:
                ended(error)
            except Exception:
                logging.getLogger("actors").exception("an interceptor failed on an outcome: %r", ended)
    finally:
        _inside.reset(token)


def _settled(wanted: list[Ended], reply: Reply[Any]) -> None:
    _leave(wanted, reply._error)


# -- sending -----------------------------------------------------------------------------------------


def _interceptors_at(system: ActorSystem, ref: Ref[Any], sender: Message | None) -> Interceptors:
    if ref._detached or _inside.get():
        return ()
    return system._interceptors if sender is None or sender.cell is None else sender.cell.interceptors


def _sender_name(sender: Message | None) -> str | None:
    return sender.cell.name if sender is not None and sender.cell is not None else None


def is_plain(system: ActorSystem, ref: Ref[Any], method: str, sender: Message | None) -> bool:
    """True when a message sent here and now carries nothing and passes nobody, as no control ever does."""
    if method.startswith(_CONTROL):
        return True
    return not _interceptors_at(system, ref, sender) and metadata_now() is None


def may_leave(
    system: ActorSystem,
    call: Call,
    ref: Ref[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    sender: Message | None,
) -> bool:
    """Give *call* what it carries; False when an interceptor refused it: then it is settled."""
    interceptors = _interceptors_at(system, ref, sender)
    call.metadata = metadata_now()
    if not interceptors:
        return True
    metadata = call.metadata = call.metadata or Metadata()
    now, name = system.clock.now, _sender_name(sender)
    passing = Interception(
        "ask",
        ref._name,
        call.method,
        args,
        kwargs,
        name,
        metadata,
        now,
        call.deadline_at,
        takes_limit=True,
    )
    try:
        wanted = _enter(interceptors, "on_send", passing)
    except Exception as error:
        call._reject(error)
        return False
    if passing._deadline_at < call.deadline_at:
        call.timeout = passing._deadline_at - now()
        call.deadline_at = call.bound_at = passing._deadline_at
    if wanted:
        call.add_done_callback(partial(_settled, wanted))
    return True


def tell(
    system: ActorSystem,
    ref: Ref[Any],
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    sender: Message | None,
) -> Reply[None]:
    """A tell that is not plain."""
    metadata = metadata_now() or Metadata()
    wanted: list[Ended] = []
    if interceptors := _interceptors_at(system, ref, sender):
        name, now = _sender_name(sender), system.clock.now
        passing = Interception("tell", ref._name, method, args, kwargs, name, metadata, now)
        try:
            wanted = _enter(interceptors, "on_send", passing)
        except Exception as error:
            return system._sending.lost_tell(ref, method, sender, error)
    reply = system._sending.tell(ref, method, args, kwargs, metadata)
    if wanted:
        reply.add_done_callback(partial(_settled, wanted))
    return reply


# -- spawning ----------------------------------------------------------------------------------------


def spawning(cell: Cell) -> Callable[[], None]:
    """*cell* is about to be registered. Raises what refuses it; to be called once it is."""
    sender = current_message.get()
    passing = Interception(
        "spawn",
        cell.name,
        cell.cls.__name__,
        cell.args,
        cell.kwargs,
        _sender_name(sender),
        metadata_now() or Metadata(),
        cell.system.clock.now,
    )
    try:
        wanted = _enter(cell.interceptors, "on_spawn", passing)
    except ActorError:
        raise
    except Exception as error:
        raise Refusal(f"{cell.name} was not started: {type(error).__name__}: {error}") from error
    return partial(cell.system._on_loop, _tell_when_started, cell, wanted)


def _tell_when_started(cell: Cell, wanted: list[Ended]) -> None:
    if wanted:
        cell.wait_started().add_done_callback(partial(_started, wanted))


def _started(wanted: list[Ended], reply: Reply[Any]) -> None:
    reply._read = True
    _leave(wanted, reply._error)


# -- handling ----------------------------------------------------------------------------------------


def _begin(interceptors: Interceptors, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Ended]:
    """The handler of the current message is about to run."""
    message = current_message.get()
    assert message is not None
    assert message.cell is not None
    cell = message.cell
    metadata = message.metadata = message.metadata or Metadata()
    what: What = "tell" if message.answer is None else "ask"
    name, now = message.sender_name, cell.system.clock.now
    passing = Interception(
        what,
        cell.name,
        message.method,
        args,
        kwargs,
        name,
        metadata,
        now,
        message.deadline_at,
    )
    try:
        return _enter(interceptors, "on_handle", passing)
    except Exception as error:
        mark_passed_through(error)  # an answer: nothing of the actor has run
        raise


def around(method: Method, interceptors: Interceptors) -> Method:
    """*method* inside *interceptors*."""
    function = method.function

    async def handled(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        wanted = _begin(interceptors, args, kwargs)
        try:
            result = await function(self, *args, **kwargs)
        except BaseException as error:
            _leave(wanted, error)
            raise
        _leave(wanted, None)
        return result

    def handled_on_thread(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        wanted = _begin(interceptors, args, kwargs)
        try:
            result = function(self, *args, **kwargs)
        except BaseException as error:
            _leave(wanted, error)
            raise
        if asyncio.iscoroutine(result):
            return _awaited(wanted, result)
        _leave(wanted, None)
        return result

    async def streamed(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        wanted, outcome = _begin(interceptors, args, kwargs), None
        try:
            items = function(self, *args, **kwargs)
            try:
                async for item in items:
                    yield item
            finally:
                await items.aclose()
        except GeneratorExit:
            raise  # its reader has left: that is no error
        except BaseException as error:
            outcome = error
            raise
        finally:
            _leave(wanted, outcome)

    def streamed_on_thread(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        wanted, outcome = _begin(interceptors, args, kwargs), None
        try:
            yield from function(self, *args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as error:
            outcome = error
            raise
        finally:
            _leave(wanted, outcome)

    of_kind: dict[str, Callable[..., Any]] = {
        "async": handled,
        "sync": handled_on_thread,
        "stream": streamed,
        "sync_stream": streamed_on_thread,
    }
    return dataclasses.replace(method, function=functools.wraps(function)(of_kind[method.kind]))


async def _awaited(wanted: list[Ended], coroutine: Any) -> Any:
    try:
        result = await coroutine
    except BaseException as error:
        _leave(wanted, error)
        raise
    _leave(wanted, None)
    return result

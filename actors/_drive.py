"""
Driving handlers: a coroutine is stepped inside the cell's own task, in a context of its own.

A task per message costs 5.4 µs, this 0.5 µs. What a handler sets in context
variables ends with its message; `asyncio.current_task`, `asyncio.timeout` and task
groups work as anywhere, for the cell's task runs it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Run = Callable[..., Any]
"""`Context.run` of the message's context."""


@types.coroutine
def resume(coroutine: Coroutine[Any, Any, Any], run: Run, future: Any) -> Generator[Any, Any, Any]:
    """Go on with a *coroutine* that was stepped once and waits for *future*."""
    while True:
        try:
            value = yield future
        except BaseException as error:
            try:
                future = run(coroutine.throw, error)
            except StopIteration as stop:
                return stop.value
        else:
            try:
                future = run(coroutine.send, value)
            except StopIteration as stop:
                return stop.value


@types.coroutine
def drive(awaitable: Any, run: Run) -> Generator[Any, Any, Any]:
    """Run an awaitable to its end inside a context."""
    try:
        future = run(awaitable.send, None)
    except StopIteration as stop:
        return stop.value
    return (yield from resume(awaitable, run, future))

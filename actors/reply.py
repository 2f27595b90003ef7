"""
Replies: what every operation returns, for async and sync code alike.

A `Reply` is settled exactly once, by whichever thread learns the outcome, and may
be read many times from any loop or thread. A stream's reply carries items until it
is settled. Not a `concurrent.futures.Future`: one of those costs 30 µs to await
from a loop, this one about 2.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from actors._loop import LoopInbox, inbox_of
from actors._threads import waiting
from actors.errors import Cancelled, DeadlineExceeded, DeadlockError, Unavailable
from actors.transport import Wait

if TYPE_CHECKING:
    from types import TracebackType

    from actors.stream import Window
    from actors.system import ActorSystem

T = TypeVar("T")

_NOT_YET: Any = object()

_LOOK = 1.0
"""Seconds after which a thread that is to be woken looks whether it may receive itself by now."""

# One lock for all replies, held for a few assignments: 40 ns, and 56 bytes a reply saved.
_settling = threading.Lock()

# Exceptions that came out of a Reply carry this attribute: escaping a handler
# unchanged they are an answer, not a crash (`is_passed_through`).
_MARK = "_understudy_came_from_a_reply"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How an operation ended: a value, or an error that was not raised."""

    value: T | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """True when there is a value."""
        return self.error is None

    def unwrap(self) -> T:
        """The value; raises the error."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


class Reply(Generic[T]):
    """
    The outcome of something that was started: `await` it, or `.result()` it in sync code.

    A stream is read with `async for` or `for` instead, once; leaving the loop early
    ends it at the far end. `await` on a stream and `async for` on a value are a
    `TypeError` that names the other.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_batch_size",
        "_callbacks",
        "_done",
        "_error",
        "_items",
        "_read",
        "_system",
        "_traceback",
        "_value",
        "_waiters",
        "_window",
    )

    # Of a stream alone, from its first item on.
    _window: Window
    _batch: list[Any]
    """What is being read; `_items` come behind."""
    _batch_size: tuple[int, int]
    """Items and bytes of the whole."""

    def __init__(self, system: ActorSystem | None = None) -> None:
        self._system = system
        """Whose loop settles it: that loop's thread must not block for it."""
        self._done = False
        self._read = False
        self._value: Any = _NOT_YET
        self._error: BaseException | None = None
        self._items: deque[tuple[list[Any], int]] | None = None
        """Of a stream: items as they came together, the last one first, and their bytes."""
        self._waiters: list[Callable[[], None]] | None = None
        """Whoever waits for an outcome or an item, woken once. Made when needed: most are read later."""
        self._callbacks: list[Callable[[Reply[T]], None]] | None = None

    # -- reading -------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True once the outcome is known. Does not count as looking at it."""
        return self._done

    def __await__(self) -> Generator[Any, None, T]:
        while not self._done and self._items is None:
            future = self._future()
            try:
                yield from future
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._error is None and self._items is None:
            self._read = True  # `_unwrap` written out for the usual case
            return self._value  # type: ignore[no-any-return]
        return self._unwrap()

    def result(self, timeout: float | None = None) -> T:
        """
        Wait in this thread for the value and return it; raise the error.

        *timeout* (seconds, default none) bounds this wait only: when it runs out
        `DeadlineExceeded` is raised and the call goes on. On the thread of the
        system's own loop this raises `DeadlockError` at once: await there. So it does in a
        callback (`add_done_callback`) on the thread that receives the answers.
        """
        self._wait(timeout, lambda: self._done or self._items is not None)
        return self._unwrap()

    def outcome(self, timeout: float | None = None) -> Outcome[T]:
        """Like `result`, as an `Outcome` that does not raise the operation's error."""
        self._wait(timeout, lambda: self._done or self._items is not None)
        try:
            return Outcome(value=self._unwrap())
        except BaseException as error:
            if error is not self._error:
                raise
            return Outcome(error=error)

    def cancel(self) -> None:
        """Cancel the operation, at its far end too. Nothing happens once it is settled."""
        self._reject(Cancelled("cancelled by the caller"))

    def add_done_callback(self, callback: Callable[[Reply[T]], None]) -> None:
        """Call *callback(reply)* when it is settled, on the thread that settles it; at once if it is."""
        with _settling:
            if self._callbacks is None:
                self._callbacks = []
        self._callbacks.append(callback)
        if self._done:
            self._call_back()

    def __aiter__(self) -> AsyncIterator[T]:
        return StreamReader(self)

    def __iter__(self) -> Iterator[T]:
        return StreamReader(self)

    def __bool__(self) -> bool:
        raise TypeError("a Reply is not an answer yet: await it, or call .result()")

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error is not None else "done"
        return f"<{type(self).__name__} {self._describe()} {state}>"

    # -- settling (the runtime's side) -----------------------------------------

    def _resolve(self, value: Any) -> None:
        with _settling:
            if self._done:
                return
            self._value = value
            self._done = True
        self._settled()

    def _reject(self, error: BaseException) -> None:
        with _settling:
            if self._done:
                return
            self._error = error
            self._traceback: TracebackType | None = error.__traceback__
            self._done = True
        self._settled()

    def _settled(self) -> None:
        if self._waiters:
            self._wake()
        if self._callbacks is not None:
            self._call_back()

    def _open_items(self, window: Window) -> None:
        """It is a stream: its items come next."""
        self._window = window
        self._batch = []
        self._items = deque()

    def _push(self, items: list[Any], size: int, first: int | None = None) -> bool:
        """
        More items of a stream, *size* bytes in all; *first* is the number of the first one.

        The list is given away. False, and the end of the stream, when items before it are missing.
        """
        if self._done or not items:
            return True
        assert self._items is not None
        if first is not None and first != self._window.arrived:
            self._lose_items()
            return False
        self._window.arrived += len(items)
        items.reverse()  # the reader takes them from the end
        self._items.append((items, size))
        if self._waiters:
            self._wake()
        return True

    def _finish(self, total: int | None = None) -> None:
        """The stream ended well, after *total* items if that is known."""
        if total is not None and total != (0 if self._items is None else self._window.arrived):
            self._lose_items()
            return
        if self._items is None:
            self._batch = []
            self._items = deque()
        self._resolve(None)

    def _lose_items(self) -> None:
        text = f"items of {self._describe() or 'a stream'} were lost on their way"
        self._reject(Unavailable(text, reason="items lost"))

    # -- inside ----------------------------------------------------------------

    def _describe(self) -> str:
        return ""

    def _begin_reading(self) -> None:
        """A reader iterates: from here the timeout is the one between items."""

    def _refill(self) -> bool:
        """The reader has read what it had; False when nothing more lies there."""
        if not self._items:
            return False
        try:
            self._batch, size = self._items.popleft()
        except IndexError:
            return False  # a cancel has dropped it
        self._batch_size = len(self._batch), size
        return True

    def _taken(self, items: int, size: int) -> None:
        """The reader has taken the last one of *items*, *size* bytes in all."""

    def _unwrap(self) -> T:
        self._read = True
        error = self._error
        if error is not None:
            mark_passed_through(error)
            try:
                # As it was when it came: each reading would leave its frames in it.
                raise error.with_traceback(self._traceback)
            finally:
                del self, error  # the traceback holds this frame: without this, a cycle
        if self._items is not None:
            self.cancel()
            raise TypeError(
                f"{self._describe() or 'this'} is a stream: read it with `async for` (or `for`), not `await`"
            )
        return cast(T, self._value)

    def _add_waiter(self, wake: Callable[[], None]) -> None:
        if self._waiters is None:
            with _settling:
                if self._waiters is None:
                    self._waiters = []
        # Lock-free: list operations are atomic, and whoever pops a waiter runs it.
        # What came before the waiter stood in the list is looked for afterwards.
        self._waiters.append(wake)
        if self._done or self._items:
            self._wake()

    def _future(self) -> asyncio.Future[None]:
        """A future of the running loop that is done when there is something to look at."""
        thread, system = threading.get_ident(), self._system
        loop = system._loop if system is not None and thread == system._loop_thread else None
        if system is not None and loop is not None and loop.is_running():
            inbox = system._inbox  # the running loop need not be asked for: that is a call of the kernel's
        else:
            loop = asyncio.get_running_loop()
            inbox = inbox_of(loop)
            if system is not None:
                system._awaited_elsewhere()
        future: asyncio.Future[None] = loop.create_future()
        self._add_waiter(partial(wake_loop, inbox, thread, future))
        return future

    def _wake(self) -> None:
        waiters = self._waiters
        if waiters is None:
            return
        for _ in range(len(waiters)):
            try:
                wake = waiters.pop(0)
            except IndexError:
                return
            wake()

    def _call_back(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                # It runs on the thread that settles, which has others to serve.
                logging.getLogger("actors").exception("a callback of %r failed", self)

    def _drop(self) -> None:
        """Its reader is gone before the end; from `__del__`, so on any thread and inside any lock."""
        self.cancel()

    def _would_block_itself(self) -> bool:
        """True on the one thread that must not wait for this reply."""
        return self._system is not None and self._system._is_loop_thread()

    def _comes_from_afar(self) -> bool:
        """True when another process settles it."""
        return False

    def _expire_if_due(self) -> None:
        """Settle by deadline, should the loop that watches deadlines be busy."""

    def _due_at(self) -> float | None:
        """The monotonic instant of the operation's own deadline."""
        return None

    def _wait(self, timeout: float | None, ready: Callable[[], bool]) -> None:
        if ready():
            return
        if self._would_block_itself():
            raise DeadlockError(f"{self._describe() or 'this reply'} would wait for itself: await it")
        reception = None if self._system is None else self._system._reception
        if self._system is not None and self._system._receives_here():
            # In a callback on the thread that receives: what it is to wait for, nobody would take in.
            if self._comes_from_afar():
                raise DeadlockError(
                    f"{self._describe()} would wait for itself: its answer comes to this thread"
                )
            reception = None
        give_up_at = None if timeout is None else time.monotonic() + timeout
        lock, is_free = threading.Lock(), True
        with waiting():
            while not ready():
                until = self._until(give_up_at)
                wait = Wait(ready, self._add_waiter, until, self._comes_from_afar())
                if reception is None or not reception.here(wait):
                    if is_free:
                        lock.acquire()
                        self._add_waiter(lock.release)
                    seconds = _LOOK if until is None else min(_LOOK, _seconds_to(until))
                    with nullcontext() if reception is None else reception.waiting():
                        is_free = lock.acquire(timeout=seconds)
                    if is_free:
                        lock.release()
                if ready():
                    return
                if give_up_at is not None and give_up_at <= time.monotonic():
                    raise DeadlineExceeded(
                        f"{self._describe() or 'this'} gave no result within {timeout:g} s"
                    )
                self._expire_if_due()

    def _until(self, give_up_at: float | None) -> float | None:
        """The monotonic instant at which a wait has something else to do."""
        instants = [at for at in (give_up_at, self._due_at()) if at is not None]
        return min(instants, default=None)


def _seconds_to(instant: float) -> float:
    return max(0.0, instant - time.monotonic()) + 0.001


def settled(value: Any = None) -> Reply[Any]:
    """A reply that has its value already."""
    reply: Reply[Any] = Reply()
    reply._resolve(value)
    return reply


def failed(error: BaseException) -> Reply[Any]:
    """A reply that has failed already."""
    reply: Reply[Any] = Reply()
    reply._reject(error)
    return reply


def is_passed_through(error: BaseException) -> bool:
    """True for an exception that came out of a `Reply` unchanged, also inside a group of only such."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_passed_through(inner) for inner in error.exceptions)
    return getattr(error, _MARK, False) is True


def mark_passed_through(error: BaseException) -> None:
    """Remember that *error* came out of a `Reply`, or is an answer like one that did."""
    try:
        object.__setattr__(error, _MARK, True)
    except (AttributeError, TypeError):
        pass  # an exception class that allows no attributes: its escape counts as a crash


def wake_loop(inbox: LoopInbox, thread: int, future: asyncio.Future[None]) -> None:
    """Set *future*, which belongs to *thread*'s loop; any thread."""
    if threading.get_ident() != thread:
        inbox.post(_set, future)
    elif not future.done():
        future.set_result(None)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class StreamReader:
    """The one reader of a stream. Dropping it before the end cancels the stream."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply[Any]) -> None:
        self._reply = reply
        if reply._items is None:
            reply._batch = []
        reply._begin_reading()

    def __aiter__(self) -> StreamReader:
        return self

    def __iter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> Any:
        reply = self._reply
        while True:
            batch = reply._batch
            if batch:
                try:
                    item = batch.pop()
                except IndexError:
                    continue  # a cancel has dropped them
                if not batch:
                    reply._taken(*reply._batch_size)
                return item
            # Asked first: what came before the end is there by then.
            done = reply._done
            if not reply._refill():
                if done:
                    return self._end(StopAsyncIteration)
                future = reply._future()
                try:
                    await future
                except asyncio.CancelledError:
                    reply.cancel()
                    raise

    def __next__(self) -> Any:
        reply = self._reply
        while True:
            batch = reply._batch
            if batch:
                try:
                    item = batch.pop()
                except IndexError:
                    continue
                if not batch:
                    reply._taken(*reply._batch_size)
                return item
            done = reply._done
            if not reply._refill():
                if done:
                    return self._end(StopIteration)
                reply._wait(None, lambda: bool(reply._items) or reply._done)

    def _end(self, end: type[Exception]) -> Any:
        reply = self._reply
        reply._read = True
        if reply._error is not None:
            reply._unwrap()
        if reply._items is None:
            raise TypeError(
                f"{reply._describe() or 'this'} is a value: await it (or call .result()), it is no stream"
            )
        raise end

    def __del__(self) -> None:
        reply = self._reply
        if not reply._done:
            reply._read = True
            reply._drop()


def gather(replies: dict[str, Reply[Any]]) -> Reply[dict[str, Outcome[Any]]]:
    """All outcomes by name, once the last is there; failures do not fail it. Cancelling it cancels all."""
    return _Gathered(replies)


class _Gathered(Reply[dict[str, Outcome[Any]]]):
    __slots__ = ("_lock", "_outcomes", "_replies")

    def __init__(self, replies: dict[str, Reply[Any]]) -> None:
        super().__init__(next((reply._system for reply in replies.values()), None))
        self._replies = replies
        self._outcomes: dict[str, Outcome[Any]] = {}
        self._lock = threading.Lock()
        if not replies:
            self._resolve({})
        for name, reply in replies.items():
            reply.add_done_callback(partial(self._take, name))

    def _take(self, name: str, reply: Reply[Any]) -> None:
        outcome = reply.outcome(0)
        with self._lock:
            self._outcomes[name] = outcome
            complete = len(self._outcomes) == len(self._replies)
        if complete:
            self._resolve({name: self._outcomes[name] for name in self._replies})

    def cancel(self) -> None:
        for reply in self._replies.values():
            reply.cancel()

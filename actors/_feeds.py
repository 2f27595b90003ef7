"""
Feeds: async iterators that travel as arguments.

Where the call is made, the iterator becomes a `Feed`, which pumps it as the handler asks
for items: not one before that, so a call that never ran has used nothing up and may go to
another member. Where the call is handled, an `Intake` takes the items, and the handler
reads them through an `Incoming`. A feed ends with its iterator, or with its call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from actors._loop import inbox_of
from actors._outlet import ARGUMENT, Outlet, RemotePipe
from actors.errors import Cancelled, InvalidArgument, SerializationError, Unavailable
from actors.ref import decoding
from actors.reply import Reply, StreamReader
from actors.stream import BETWEEN, INSIDE, NOTHING, Limits, Window, is_stream, pack_limits
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    from actors._calls import Call
    from actors._cell import Cell
    from actors._peers import Peer
    from actors.system import ActorSystem

_TURN = 64
"""Items of an iterator that never waits before others on its loop get their turn."""

_LAST_TURN = 1.0
"""Seconds that iterators are given to end when their system stops."""


class Feeds:
    """The feeds of one system that have not ended. Any thread."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._ids = itertools.count(1)
        self._sent: dict[int, Feed] = {}
        """By the id under which another process reads it."""
        self._of_call: weakref.WeakKeyDictionary[Call, list[Feed]] = weakref.WeakKeyDictionary()
        self._pumps: set[asyncio.Task[None]] = set()

    def of(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Feed]:
        """The feeds of a call's arguments, the same ones when it goes another way."""
        feeds = self._of_call.get(call)
        if feeds is None:
            values = (*args, *kwargs.values())
            feeds = [
                Feed(self._system, self, value, call._describe()) for value in values if is_stream(value)
            ]
            self._of_call[call] = feeds
            close = partial(_close_all, feeds)
            call.add_done_callback(close)
            weakref.finalize(call, close).atexit = False  # dropped by its caller before anybody read it
        return feeds

    def send(
        self, feeds: list[Feed], args: tuple[Any, ...], kwargs: dict[str, Any], place: Cell | str
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they go to *place*."""
        left = iter(feeds)

        def sent(value: Any) -> Any:
            return next(left).send_to(place) if is_stream(value) else value

        return tuple(map(sent, args)), {name: sent(value) for name, value in kwargs.items()}

    def enter(self, feed: Feed) -> int:
        """An id for *feed* in another process."""
        stream_id = next(self._ids)
        self._sent[stream_id] = feed
        return stream_id

    def leave(self, stream_id: int) -> None:
        """Nobody there reads it any more."""
        self._sent.pop(stream_id, None)

    def allow(self, stream_id: int, limits: Limits) -> None:
        """The far reader's word."""
        if (feed := self._sent.get(stream_id)) is not None:
            feed.allow(limits)

    def closed(self, stream_id: int) -> None:
        """The far reader wants no more."""
        if (feed := self._sent.get(stream_id)) is not None:
            feed.close()

    def pumps(self, task: asyncio.Task[None]) -> None:
        """*task* pumps an iterator."""
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def wait_ended(self) -> None:
        """Give the iterators whose calls have failed a moment for their `finally`; on the system's loop."""
        own = [task for task in list(self._pumps) if task.get_loop() is self._system._loop]
        if own:
            await asyncio.wait(own, timeout=_LAST_TURN)


class Feed:
    """One async iterator, pumped on the loop and in the context it was handed over in."""

    def __init__(self, system: ActorSystem, feeds: Feeds, iterator: Any, what: str) -> None:
        self._system = system
        self._feeds = feeds
        self._iterator = iterator
        self._what = what
        self._context = copy_context()
        try:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        except RuntimeError:
            # Sync code has none: the system's own will do.
            assert system._loop is not None
            self._loop, self._thread = system._loop, system._loop_thread
        self._outlet: Outlet | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_pumping = False
        self._is_closed = False

    def send_to(self, place: Cell | str) -> Any:
        """What goes to *place* in the iterator's stead; whoever had it before has it no longer."""
        self._detach("the call went to somebody else")
        system = self._system
        if isinstance(place, str):
            assert system._remote is not None
            peer = system._remote.peer(place)
            stream_id = self._feeds.enter(self)
            leave = partial(self._feeds.leave, stream_id)
            pipe = RemotePipe(system, peer, stream_id, Codec.PICKLE, ARGUMENT, leave)
            self._outlet = Outlet(pipe, NOTHING)
            return Sent(stream_id)
        intake = Intake(system, self._what, INSIDE, self.allow, self.close)
        self._outlet = Outlet(_IntakePipe(intake), NOTHING)
        return Incoming(intake)

    def allow(self, limits: Limits) -> None:
        """The reader's word; the first one starts the pump. Any thread."""
        self._at_home(self._allow, limits)

    def close(self) -> None:
        """Nobody reads on: end the iterator. Any thread."""
        self._at_home(self._close)

    def _at_home(self, callback: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            callback(*args)
        else:
            inbox_of(self._loop).post(callback, *args)

    def _allow(self, limits: Limits) -> None:
        assert self._outlet is not None
        self._outlet.allow(limits)
        if self._task is None and not self._is_closed:
            self._start(self._pump())

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._detach(f"{self._what} is over")
        if self._task is None:
            self._start(self._end_iterator())
        elif self._is_pumping:  # else its first step ends it: cancelled before that, it would never run
            self._task.cancel()

    def _detach(self, reason: str) -> None:
        if self._outlet is not None:
            self._outlet.fail(Cancelled(f"the stream was closed: {reason}"))

    def _start(self, work: Any) -> None:
        if self._loop.is_closed():
            work.close()
            return
        self._task = self._loop.create_task(work, context=self._context)
        self._feeds.pumps(self._task)

    async def _pump(self) -> None:
        outlet, following = self._outlet, self._iterator.__anext__
        assert outlet is not None
        self._is_pumping = True
        count = 0
        try:
            while not outlet.is_closed:
                if not outlet.is_open:
                    await outlet.wait_open()
                    continue
                outlet.put(await following())
                count += 1
                if count % _TURN == 0:
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            outlet.end()
        except asyncio.CancelledError:
            outlet.fail(Cancelled(f"the stream was cancelled where it is made: {self._what}"))
        except Exception as error:
            outlet.fail(error)
        except SystemExit:
            # In a task it would end the whole loop, at the reader's the actor: neither is meant.
            outlet.fail(Unavailable(f"an argument of {self._what} raised SystemExit", reason="SystemExit"))
        finally:
            self._is_closed = True
            await self._end_iterator()

    async def _end_iterator(self) -> None:
        aclose = getattr(self._iterator, "aclose", None)
        try:
            if aclose is not None:
                await aclose()
        except Exception:
            # Whoever would care has ended already.
            logging.getLogger("actors").exception("an argument of %s failed while it ended", self._what)


def _close_all(feeds: list[Feed], call: object = None) -> None:
    for feed in feeds:
        feed.close()


# -- the reading end -------------------------------------------------------------------------


class Sent:
    """Stands for an iterator in the arguments that leave; unpickled it is an `Incoming`."""

    __slots__ = ("_stream_id",)

    def __init__(self, stream_id: int) -> None:
        self._stream_id = stream_id

    def __reduce__(self) -> tuple[Any, ...]:
        return incoming, (self._stream_id,)


def incoming(stream_id: int) -> Incoming:
    """What `Sent` is where it arrives; on the thread that decodes what came from a peer."""
    system: ActorSystem | None = getattr(decoding, "system", None)
    peer: Peer | None = getattr(decoding, "peer", None)
    if system is None or peer is None:
        raise SerializationError("a stream is an argument of a call; it cannot be stored")
    send = partial(_say, system, peer, stream_id)
    intake = Intake(
        system,
        "a stream of its caller",
        BETWEEN,
        lambda limits: send(Kind.FED_READ, pack_limits(limits)),
        lambda: send(Kind.FED_CLOSED, b""),
    )
    peer.intakes[stream_id] = intake
    if peer.is_lost:  # since: nobody will tell this one
        intake._reject(gone(peer, "its process is gone"))
    return Incoming(intake)


def _say(system: ActorSystem, peer: Peer, stream_id: int, kind: Kind, body: bytes) -> None:
    if system._remote is not None and not peer.is_lost:
        system._remote.send(peer, kind, stream_id, body)


def gone(peer: Peer, reason: str) -> Unavailable:
    """What the reader of an argument is told when the caller's process is gone."""
    return Unavailable(f"the caller's process is gone ({reason})", reason=reason)


class Intake(Reply[Any]):
    """The items of one argument, until the handler reads them."""

    __slots__ = ("_close", "_has_asked", "_raise_limits", "_what")

    def __init__(
        self,
        system: ActorSystem,
        what: str,
        window: Limits,
        raise_limits: Callable[[Limits], None],
        close: Callable[[], None],
    ) -> None:
        super().__init__(system)
        self._open_items(Window(window, NOTHING))
        self._what = what
        self._raise_limits = raise_limits
        self._close = close
        self._has_asked = False
        """True once the writer may begin."""

    def cancel(self) -> None:
        """The handler reads no more."""
        if not self._done:
            self._reject(Cancelled(f"the stream was closed: {self._what}"))
            self._close()

    def _add_waiter(self, wake: Callable[[], None]) -> None:
        super()._add_waiter(wake)
        if not self._has_asked and not self._done:
            self._has_asked = True
            self._raise_limits(self._window.raised())

    def _taken(self, items: int, size: int) -> None:
        if self._window.read(items, size) and not self._done:
            self._raise_limits(self._window.raised())

    def _drop(self) -> None:
        assert self._system is not None
        self._system._inbox.post(self.cancel)

    def _describe(self) -> str:
        return self._what


class Incoming(StreamReader):
    """
    An async iterator that came as an argument: `async for`, in `def` handlers `for`.

    It ends with the caller's iterator, raises what that raised, `Cancelled` when the call is over
    and `Unavailable` when the caller's process died. Leaving the loop early keeps the rest
    for a second one; `aclose()` (or `close()`), or the handler's end, ends the caller's iterator.
    """

    __slots__ = ()

    async def aclose(self) -> None:
        """Read no more: the caller's iterator ends."""
        self._reply.cancel()

    def close(self) -> None:
        """The same in sync code."""
        self._reply.cancel()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a stream travels as an argument of an ask only, not inside one")

    def __repr__(self) -> str:
        return f"<stream of {self._reply._describe()}>"


class _IntakePipe:
    """The way to an intake of this process."""

    __slots__ = ("_intake",)

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def send(self, item: Any) -> int:
        self._intake._push([item], 0)
        return 0

    def end(self) -> None:
        self._intake._finish()

    def fail(self, error: BaseException) -> None:
        self._intake._reject(error)


def refuse_streams(target: str, method: str) -> InvalidArgument:
    """What a tell with a stream among its arguments is told."""
    return InvalidArgument(
        f"{target}.{method}() was told, not asked: an async iterator travels with an ask or a stream, "
        "which say when it has been read"
    )

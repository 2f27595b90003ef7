"""
Outlets: the writing end of a stream, of answers or of an argument.

An outlet lets through what its reader allows (`stream.Credit`) and makes its writer wait
for the rest: a task, or a thread. Behind it is a pipe, to another process or to a reply
of this one. What is written in one turn of the loop leaves in one envelope.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from actors import pickling
from actors._loop import inbox_of
from actors._message import encode_error, untransportable
from actors._shared import parcel
from actors._threads import waiting
from actors.foreign import to_json
from actors.reply import mark_passed_through, wake_loop
from actors.stream import Credit, Limits, pack_batch, pack_total
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    from actors._calls import Call
    from actors._message import Message
    from actors._peers import Peer
    from actors.system import ActorSystem

_PICKLE, _SHARED = int(Codec.PICKLE), int(Codec.SHARED)

_BATCH_BYTES = 64 * 1024
"""A batch this large leaves before the turn has ended."""


class Pipe(Protocol):
    """The way from an outlet to its reader; any thread, in order."""

    def send(self, item: Any) -> int:
        """Send one item; its bytes on the way. `SerializationError` when it cannot travel."""

    def end(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Outlet:
    """
    One writer's end. Written by one task or thread at a time; allowed and closed from any thread.

    It takes the place of a message's `Answer` once the handler turns out to be a stream.
    """

    __slots__ = ("_credit", "_pipe", "_wakers", "is_closed", "is_open")

    def __init__(self, pipe: Pipe, limits: Limits) -> None:
        self._pipe = pipe
        self._credit = Credit(limits)
        self._wakers: list[Callable[[], None]] = []
        self.is_closed = False
        """True once nothing more gets through."""
        self.is_open = self._credit.is_open
        """
        True when one more item may be put, or none ever will get through; else `wait_open`.

        False may be old news: it is for the writer, who asks again before it waits.
        """

    def put(self, item: Any) -> None:
        """Send *item*; the caller has seen to it that the outlet is open."""
        if not self.is_closed:
            self.is_open = self._credit.spend(self._pipe.send(item))

    def _look(self) -> bool:
        self.is_open = is_open = self.is_closed or self._credit.is_open
        return is_open

    async def wait_open(self) -> None:
        """Wait until the reader allows one more, or the outlet is closed; on any loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._wait(partial(wake_loop, inbox_of(loop), threading.get_ident(), future))
        await future

    def wait_open_blocking(self) -> None:
        """The same in a thread, which lends its place in the pool meanwhile."""
        lock = threading.Lock()
        lock.acquire()
        self._wait(lock.release)
        with waiting():
            lock.acquire()

    def _wait(self, wake: Callable[[], None]) -> None:
        # As `Reply._add_waiter`: whoever pops it runs it, and what came before is looked for afterwards.
        self._wakers.append(wake)
        if self._look():
            self._wake()

    def _wake(self) -> None:
        while self._wakers:
            try:
                wake = self._wakers.pop()
            except IndexError:
                return
            wake()

    def allow(self, limits: Limits) -> None:
        """The reader's word."""
        self._credit.allow(limits)
        if self._look():
            self._wake()

    def close(self) -> bool:
        """Let nothing more through and wake the writer; True for the first time."""
        if self.is_closed:
            return False
        self.is_closed = self.is_open = True
        self._wake()
        return True

    def end(self) -> None:
        """The stream ended well."""
        if self.close():
            self._pipe.end()

    def fail(self, error: BaseException) -> None:
        """The stream ended with *error*."""
        if self.close():
            self._pipe.fail(error)

    # -- as the way back of a message (`_message.Answer`) ------------------------------

    def _answer(self, value: Any) -> None:
        self.end()

    def _answer_error(self, error: BaseException) -> None:
        self.fail(error)

    def _answer_refused(self, error: BaseException) -> None:
        self.fail(error)

    def _open_outlet(self) -> Outlet | None:
        return self


def open_outlet(message: Message) -> Outlet | None:
    """The outlet of a stream that begins now, in the place of *message*'s answer. None: nobody reads it."""
    answer = message.answer
    if answer is None:
        return None
    message.answer = outlet = answer._open_outlet()
    return outlet


def pour(items: Any, outlet: Outlet | None, message: Message) -> None:
    """Send what a plain generator yields, on the thread it runs on, until the end or a cancel."""
    try:
        while not message.cancelled and (outlet is None or not outlet.is_closed):
            if outlet is not None and not outlet.is_open:
                outlet.wait_open_blocking()
                continue
            try:
                item = next(items)
            except StopIteration:
                return
            if outlet is not None:
                outlet.put(to_json(item) if message.foreign else item)
    finally:
        items.close()


# -- to another process --------------------------------------------------------------------


class Kinds(NamedTuple):
    """The envelopes of a stream in one direction."""

    item: Kind
    end: Kind
    error: Kind


ANSWERS = Kinds(Kind.ITEM, Kind.END, Kind.ERROR)
ARGUMENT = Kinds(Kind.FED, Kind.FED_END, Kind.FED_ERROR)


class RemotePipe:
    """The way to a reader in another process."""

    __slots__ = (
        "_bodies",
        "_bytes",
        "_codec",
        "_kinds",
        "_on_end",
        "_peer",
        "_sent",
        "_stream_id",
        "_system",
    )

    def __init__(
        self,
        system: ActorSystem,
        peer: Peer,
        stream_id: int,
        codec: int,
        kinds: Kinds,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self._system = system
        self._peer = peer
        self._stream_id = stream_id
        self._codec = codec
        self._kinds = kinds
        self._on_end = on_end
        """Called on the loop before the last envelope is queued."""
        self._bodies: list[bytes] = []
        """Items of this turn. From here on: loop thread only."""
        self._bytes = 0
        self._sent = 0

    def send(self, item: Any) -> int:
        # Encoded now, not when the batch leaves: a generator may change what it has yielded.
        system = self._system
        try:
            if self._codec == _PICKLE and type(item) in pickling.FLAT:
                body = pickling.dumps(item)
                size = len(body)
                if size < _BATCH_BYTES and get_ident() == system._loop_thread:
                    self._join(body, size)  # most items are like this: 0.8 µs less
                    return size
            if self._codec == _PICKLE:
                is_flat = type(item) in pickling.FLAT
                codec, body = self._remote.parcels.pack(self._peer, item, is_flat=is_flat)
            else:
                codec, body = self._codec, to_json(item).encode()
        except Exception as error:
            problem = untransportable("an item", item, error)
            mark_passed_through(problem)  # ends the stream, not the actor
            raise problem from error
        system._on_loop(self._add, codec, body)
        return size_of(codec, body)

    @property
    def _remote(self) -> Any:
        return self._system._remote

    def _add(self, codec: int, body: bytes) -> None:
        if codec == _PICKLE:
            self._join(body, len(body))
        else:
            self.flush()
            self._sent += 1
            self._put(self._kinds.item, codec, body)

    def _join(self, body: bytes, size: int) -> None:
        if not self._bodies:
            self._remote.departures.flush_soon(self)
        self._bodies.append(body)
        self._bytes += size
        if self._bytes >= _BATCH_BYTES:
            self.flush().flush()

    @property
    def items_waiting(self) -> int:
        """Items of the batch that has not left."""
        return len(self._bodies)

    def flush(self) -> Peer:
        """Queue the batch, if there is one; returns the peer, whose outbox may now be flushed."""
        bodies = self._bodies
        if bodies:
            self._bodies, self._bytes = [], 0
            batch = pack_batch(self._sent, bodies)
            self._sent += len(bodies)
            self._remote.queue(self._peer, self._kinds.item, _PICKLE, self._stream_id, batch)
        return self._peer

    def end(self) -> None:
        self._system._on_loop(self._end, self._kinds.end, None)

    def fail(self, error: BaseException) -> None:
        self._system._on_loop(self._end, self._kinds.error, encode_error(error, self._codec))

    def _end(self, kind: Kind, body: bytes | None) -> None:
        self.flush()
        if self._on_end is not None:
            self._on_end()
        self._put(kind, self._codec, pack_total(self._sent) if body is None else body)

    def _put(self, kind: int, codec: int, body: bytes) -> None:
        self._remote.send_back(self._peer, kind, codec, self._stream_id, body)


def size_of(codec: int, body: bytes | memoryview) -> int:
    """The bytes of one item as writer and reader count them."""
    return len(body) if codec != _SHARED else sum(length for _, length in parcel(body).places)


# -- to a reply of this process --------------------------------------------------------------


class CallPipe:
    """The way to a call of this process. Its caller alone keeps the call: who drops it ends the stream."""

    __slots__ = ("_call", "_system")

    def __init__(self, call: Call) -> None:
        self._system = call.system
        self._call = weakref.ref(call)

    def send(self, item: Any) -> int:
        self._system._on_loop(self._push, item)
        return 0

    def _push(self, item: Any) -> None:
        if (call := self._call()) is not None:
            call._answer_items([item], 0)

    def end(self) -> None:
        self._system._on_loop(self._end)

    def _end(self) -> None:
        if (call := self._call()) is not None:
            call._answer_end()

    def fail(self, error: BaseException) -> None:
        self._system._on_loop(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if (call := self._call()) is not None:
            call._answer_error(error)

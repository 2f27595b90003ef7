"""
Doors: how foreign programs talk to an actor. JSON both ways, nothing is ever unpickled.

A door has an inbox but no actors and no event loop, so a command-line tool is in and out
in a tenth of a second.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from actors._peers import Peer
from actors.address import host_id_of
from actors.errors import DeadlineExceeded, SerializationError, Unavailable
from actors.foreign import ForeignError
from actors.stream import BETWEEN, Window, pack_limits
from actors.transport import open_nng
from actors.wire import BadFrame, Codec, Envelope, Kind, Sealer, envelopes, head_of


class Door:
    """A client of the process at *address*; `with Door(…) as door`. One thread may use it at a time."""

    def __init__(self, address: str, directory: str, key: bytes) -> None:
        self._address = address
        self._transport = open_nng(directory)
        self._sealer = Sealer(key)
        self._host_id = 0
        self._peer: Peer | None = None
        self._news: SimpleQueue[Envelope | _Gone] = SimpleQueue()
        self._last_call = 0
        self._last_frame = 0
        self._unsent: set[int] = set()
        """Calls that never left."""

    def __enter__(self) -> Door:
        self._transport.listen(self._receive)
        own = self._transport.address
        self._host_id = host_id_of(own)
        self._peer = Peer(self._address, self._transport.link, self._sealer, own, self._lost)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._peer is not None:
            self._peer.lose()
        self._transport.close()

    def ask(self, actor: str, method: str, *args: Any, timeout: float | None = 5.0) -> Any:
        """The value of a call in *timeout* seconds; `ForeignError`, `Unavailable`, `DeadlineExceeded`."""
        call_id = self._send(actor, method, args, timeout)
        answer = self._next(call_id, timeout, method)
        if answer.kind != Kind.VALUE:
            self._cancel(call_id)
            raise SerializationError(f"{actor}.{method}() is a stream, not a value")
        return json.loads(bytes(answer.body))

    def stream(self, actor: str, method: str, *args: Any, timeout: float | None = None) -> Iterator[Any]:
        """The items of a stream; *timeout* is between two. Leaving it early ends it at the far side."""
        call_id = self._send(actor, method, args, timeout)
        window = Window(BETWEEN)
        ended = False
        try:
            while True:
                answer = self._next(call_id, timeout, method)
                ended = answer.kind != Kind.ITEM
                if answer.kind == Kind.VALUE:
                    raise SerializationError(f"{actor}.{method}() is a value, no stream")
                if ended:
                    return
                yield json.loads(bytes(answer.body))
                if window.read(1, len(answer.body)):
                    self._say(Kind.READ, call_id, pack_limits(window.raised()))
        finally:
            if not ended:
                self._cancel(call_id)

    def _send(self, actor: str, method: str, args: tuple[Any, ...], timeout: float | None) -> int:
        assert self._peer is not None, "enter the door first"
        try:
            body = json.dumps([args, {}, None]).encode()
        except (TypeError, ValueError) as error:
            raise SerializationError(f"the arguments of {actor}.{method}() are no JSON: {error}") from error
        self._last_call += 1
        remaining = math.inf if timeout is None else timeout
        number, head = self._last_call, head_of(actor, 0, 0, method)
        owner = _Sent(number, self._never_sent)
        self._peer.put((Kind.ASK, Codec.JSON, number, body, head, remaining, owner))
        self._peer.flush()
        return self._last_call

    def _never_sent(self, call_id: int, reason: str) -> None:
        self._unsent.add(call_id)
        self._news.put(_Gone(call_id, reason))

    def _cancel(self, call_id: int) -> None:
        self._say(Kind.CANCEL, call_id, b"")

    def _say(self, kind: Kind, call_id: int, body: bytes) -> None:
        if self._peer is not None:
            self._peer.put((kind, Codec.JSON, call_id, body, b"", math.inf, None))
            self._peer.flush()

    def _next(self, call_id: int, timeout: float | None, method: str) -> Envelope:
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            try:
                news = self._news.get(timeout=left)
            except Empty:
                raise DeadlineExceeded(f"no answer to {method}() within {timeout:g} s") from None
            if isinstance(news, _Gone):
                if news.call_id in (0, call_id):
                    text = f"{method}(): the process is gone ({news.reason})"
                    # The end of the process may be older news than this call.
                    raise Unavailable(text, may_have_run=call_id not in self._unsent, reason=news.reason)
                continue
            if news.call_id == call_id:
                if news.kind in (Kind.ERROR, Kind.REFUSED_ASK):
                    raise ForeignError(json.loads(bytes(news.body)))
                return news

    def _receive(self, frames: list[bytes]) -> None:
        for data in frames:
            try:
                frame = self._sealer.open(data, self._host_id)
                if frame.address != self._address or frame.sequence <= self._last_frame:
                    continue  # of somebody who was not asked, or once more
                self._last_frame = frame.sequence
                for parts in envelopes(frame.body):
                    one = Envelope(*parts)
                    if one.codec == Codec.JSON:
                        self._news.put(one)
            except BadFrame:
                continue  # not ours: dropped before anything in it was looked at

    def _lost(self, peer: Peer, reason: str) -> None:
        # From nng's threads too, where nothing of nng may be called: closing is left to a thread.
        threading.Thread(target=self._lose, args=(peer, reason), name="understudy-door", daemon=True).start()

    def _lose(self, peer: Peer, reason: str) -> None:
        unsent, _ = peer.lose()
        for owner in unsent:
            owner.never_sent(reason)
        self._news.put(_Gone(0, reason))


class _Gone(NamedTuple):
    """The process is gone: for every call under way, or for one that was never sent."""

    call_id: int
    reason: str


class _Sent:
    """An ask in the outbox (`_peers.Unsent`)."""

    __slots__ = ("_call_id", "_never_sent")

    def __init__(self, call_id: int, never_sent: Callable[[int, str], None]) -> None:
        self._call_id = call_id
        self._never_sent = never_sent

    def never_sent(self, reason: str) -> None:
        self._never_sent(self._call_id, reason)

"""
The remote half of a system: its inbox, its peers, and what travels between them.

The receiving thread verifies, decodes and settles replies; everything else it hands
to the loop, once for all that is there. What leaves from the loop leaves at the end
of its turn, one frame per peer.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import events, pickling
from actors._calls import Call
from actors._message import Message, RemoteAnswer, RemoteTell
from actors._peers import MAX_BODY, OutboxFull, Peer
from actors.errors import ActorError, MailboxFull, SerializationError, Unavailable
from actors.exit import Exit, Terminated
from actors.ref import Ref, decoding
from actors.reply import Reply, failed
from actors.rundir import KEY_NAME, ensure_private_dir, make_key, read_key, run_root
from actors.transport import Transport
from actors.wire import BadFrame, Codec, Envelope, Kind, Sealer, envelope, envelopes

if TYPE_CHECKING:
    from actors.system import ActorSystem

_BURST = 256
"""Messages of one turn after which a frame leaves early, so that both sides of a burst work at once."""

_LINGER = 0.02
"""Seconds between the last frame handed to nng and closing its socket, which drops what is unwritten."""


class Remote:
    """One process's connection to all others."""

    def __init__(
        self, system: ActorSystem, transport: Transport | None, key: bytes | None, *, foreign: bool
    ) -> None:
        self._system = system
        self._transport = transport
        self._key = key
        self._codec = Codec.JSON if foreign else Codec.PICKLE
        self._peers: dict[str, Peer] = {}
        self._peers_lock = threading.Lock()
        self._dirty: list[Peer] = []
        self._tell_ids = _Counter()
        self._watch_ids = _Counter()
        self.rejected_frames = 0
        self.address = ""

    def open(self) -> None:
        """Open the inbox. Without a transport: nng in the run root, with the key that all systems there share."""
        if self._transport is None:
            from actors._nng import NngTransport

            root = ensure_private_dir(run_root())
            self._key = self._key or read_key(make_key(root / KEY_NAME))
            self._transport = NngTransport(root)
        self._sealer = Sealer(self._key or bytes(32))
        self._transport.listen(self._receive)
        self.address = self._transport.address

    async def flush_out(self) -> None:
        """Give what is queued a second to leave."""
        self._flush_dirty()
        for _ in range(100):
            if all(peer.is_idle for peer in self._peers.values()):
                break
            await asyncio.sleep(0.01)
        if self._peers:
            await asyncio.sleep(_LINGER)

    def close(self) -> None:
        """Close all links and the inbox."""
        for peer in list(self._peers.values()):
            peer.lose()
        self._peers.clear()
        if self._transport is not None:
            self._transport.close()

    # -- sending ---------------------------------------------------------------------

    def ask(
        self,
        call: Call,
        address: str,
        ref: Ref[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> None:
        """Send an ask; failing to is an outcome of the call like any other."""
        remaining = None if call.deadline_at == math.inf else call.deadline_at - self._system.clock.now()
        try:
            body = self._encode(ref, call.method, remaining, args, kwargs, sender)
            peer = self._peer(address)
            call.peer = peer
            peer.put(envelope(Kind.ASK, self._codec, call.call_id, body), call)
        except OutboxFull as error:
            self._system._calls.refuse(call, MailboxFull(f"the way to {ref._name} is full: {error}"))
        except ActorError as error:
            self._system._calls.fail(call, error)
        else:
            self._flush(peer)

    def tell(
        self,
        address: str,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> Reply[None]:
        """Send a tell; its reply resolves when the receiver has confirmed taking it."""
        try:
            body = self._encode(ref, method, None, args, kwargs, sender)
        except ActorError as error:
            return failed(error)
        tell = SentTell(
            self._system,
            ref._name,
            method,
            sender.cell.name if sender is not None and sender.cell is not None else None,
        )
        peer = self._peer(address)
        with self._tell_ids.lock:
            # Under one lock, so that numbers leave in order: one confirmation covers all before it.
            tell_id = self._tell_ids.next()
            peer.unacknowledged.append((tell_id, tell))
            try:
                peer.put(envelope(Kind.TELL, self._codec, tell_id, body), tell)
            except OutboxFull as error:
                peer.unacknowledged.pop()
                return failed(MailboxFull(f"the way to {ref._name} is full: {error}"))
        self._flush(peer)
        return tell

    def cancel(self, call: Call) -> None:
        """Tell the far end that nobody waits for *call* any more."""
        if call.peer is not None:
            self._send(call.peer, Kind.CANCEL, self._codec, call.call_id, b"")

    def send_back(self, peer: Peer, kind: int, codec: int, call_id: int, body: bytes) -> None:
        """An answer to *peer*; one too large to travel becomes an error that says so."""
        if len(body) > MAX_BODY:
            problem = SerializationError(f"the result has {len(body)} bytes, a message at most {MAX_BODY}")
            body = pickling.dumps(pickling.encode_error(problem))
            kind, codec = Kind.ERROR, Codec.PICKLE
        self._send(peer, kind, codec, call_id, body)

    def _send(self, peer: Peer, kind: int, codec: int, call_id: int, body: bytes) -> None:
        try:
            peer.put(envelope(kind, codec, call_id, body))
        except OutboxFull:
            self._lost(peer, "it does not read what we send")
        else:
            self._flush(peer)

    def _encode(
        self,
        ref: Ref[Any],
        method: str,
        remaining: float | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> bytes:
        target = (ref._name, ref._uid, ref._pin)
        if self._codec == Codec.JSON:
            return json.dumps([target, method, remaining, None, args, kwargs]).encode()
        cell = sender.cell if sender is not None else None
        origin = None if cell is None else (cell.name, cell.uid, cell.incarnation)
        body = pickling.encode_call(
            (target, method, remaining, origin, args, kwargs), ref._name, method, args, kwargs
        )
        if len(body) > MAX_BODY:
            raise SerializationError(
                f"the arguments of {ref._name}.{method}() have {len(body)} bytes, a message at most {MAX_BODY}"
            )
        return body

    def _flush(self, peer: Peer) -> None:
        if self._system._is_loop_thread():
            if not peer.dirty:
                peer.dirty = True
                if not self._dirty:
                    assert self._system._loop is not None
                    self._system._loop.call_soon(self._flush_dirty)
                self._dirty.append(peer)
            elif peer.waits % _BURST == 0:
                peer.flush()
        else:
            peer.flush()

    def _flush_dirty(self) -> None:
        peers, self._dirty = self._dirty, []
        for peer in peers:
            peer.dirty = False
            peer.flush()

    # -- peers -------------------------------------------------------------------------

    def _peer(self, address: str) -> Peer:
        peer = self._peers.get(address)
        if peer is None:
            with self._peers_lock:
                peer = self._peers.get(address)
                if peer is None:
                    assert self._transport is not None
                    peer = Peer(address, self._transport.link, self._sealer, self.address, self._lost)
                    self._peers[address] = peer
        return peer

    def _lost(self, peer: Peer, reason: str) -> None:
        """Any thread, nng's callbacks among them: nothing of nng may be called here."""
        self._system._inbox.post(self._lose, peer, reason)

    def _lose(self, peer: Peer, reason: str) -> None:
        if self._peers.get(peer.address) is peer:
            del self._peers[peer.address]
        calls = self._system._calls
        for owner in peer.lose():
            owner.never_sent(reason)
        for call in calls.of_peer(peer):
            calls.fail(
                call,
                Unavailable(
                    f"{call._describe()}: the process of {call.target._name} is gone ({reason})",
                    reason=reason,
                ),
            )
        while peer.unacknowledged:
            peer.unacknowledged.popleft()[1].lost(reason)
        for message in list(peer.serving.values()):
            if message.cell is not None:
                message.cell.cancel(message)
        peer.serving.clear()
        watched, peer.watched = peer.watched, {}
        for notify in watched.values():
            notify(Exit("killed", reason))
        self._system._emit(events.PeerLost(peer.address, reason))

    # -- receiving: on the inbox's thread ---------------------------------------------------

    def _receive(self, frames: list[bytes]) -> None:
        decoding.system = self._system
        work: list[tuple[Peer, Envelope, Any]] = []
        own_id = int(self.address.removesuffix(".ipc")[-16:], 16)
        for data in frames:
            try:
                frame = self._sealer.open(data, own_id)
                peer = self._peer(frame.address)
                for one in envelopes(frame.body):
                    self._sort(peer, one, work)
            except (BadFrame, ActorError) as error:
                self.rejected_frames += 1
                self._system._inbox.post(self._system._emit, events.FrameRejected(str(error), len(data)))
        if work:
            self._system._inbox.post(self._take_in, work)

    def _sort(self, peer: Peer, one: Envelope, work: list[tuple[Peer, Envelope, Any]]) -> None:
        """Settle an answer here and now, or decode a message for the loop."""
        kind = one.kind
        if kind in (Kind.VALUE, Kind.ERROR, Kind.ITEM, Kind.END):
            self._settle(one)
        elif kind == Kind.REFUSED_ASK:
            self._refuse_ask(one)
        elif kind == Kind.TAKEN:
            self._confirm(peer, one.call_id)
        elif kind == Kind.REFUSED:
            self._refuse(peer, one)
        elif kind in (Kind.ASK, Kind.TELL):
            try:
                work.append((peer, one, self._decode(one)))
            except Exception as error:
                work.append(
                    (
                        peer,
                        one,
                        SerializationError(
                            f"the receiver cannot decode the message: {type(error).__name__}: {error}"
                        ),
                    )
                )
        else:
            work.append((peer, one, None))

    def _decode(self, one: Envelope) -> Any:
        if one.codec == Codec.JSON:
            return json.loads(one.body)
        if self._codec == Codec.JSON:
            raise SerializationError("this process unpickles nothing")
        return pickling.loads(one.body)

    def _settle(self, one: Envelope) -> None:
        calls = self._system._calls
        call = calls.find(one.call_id) if one.kind == Kind.ITEM else calls.take(one.call_id)
        if call is None:
            return  # late: its caller has its outcome already
        try:
            value = self._decode(one) if one.body else None
        except Exception as error:
            calls.take(one.call_id)
            call._reject(
                SerializationError(
                    f"the answer of {call._describe()} cannot be decoded: {type(error).__name__}: {error}"
                )
            )
            return
        if one.kind == Kind.VALUE:
            call._resolve(value)
        elif one.kind == Kind.ITEM:
            call._answer_item(value)
        elif one.kind == Kind.END:
            call._finish()
        else:
            call._reject(self._error(one, value))

    def _error(self, one: Envelope, value: Any) -> BaseException:
        return ForeignError(value) if one.codec == Codec.JSON else pickling.decode_error(value)

    def _refuse_ask(self, one: Envelope) -> None:
        call = self._system._calls.find(one.call_id)
        if call is not None:
            # On the loop: going another way asks the directory, and sends.
            self._system._inbox.post(self._system._calls.refuse, call, self._error(one, self._decode(one)))

    def _confirm(self, peer: Peer, tell_id: int) -> None:
        waiting = peer.unacknowledged
        while waiting and waiting[0][0] <= tell_id:
            waiting.popleft()[1]._resolve(None)

    def _refuse(self, peer: Peer, one: Envelope) -> None:
        error = pickling.decode_error(self._decode(one))
        for tell_id, tell in list(peer.unacknowledged):
            if tell_id == one.call_id:
                tell._reject(error)
                return

    # -- receiving: on the loop ---------------------------------------------------------------

    def _take_in(self, work: list[tuple[Peer, Envelope, Any]]) -> None:
        tells: dict[Peer, int] = {}
        for peer, one, content in work:
            if one.kind == Kind.ASK:
                self._take_ask(peer, one, content)
            elif one.kind == Kind.TELL:
                self._take_tell(peer, one, content)
                tells[peer] = one.call_id
            elif one.kind == Kind.CANCEL:
                message = peer.serving.get(one.call_id)
                if message is not None and message.cell is not None:
                    message.cell.cancel(message)
            else:
                self._take_watch(peer, one)
        for peer, tell_id in tells.items():
            peer.acknowledge(tell_id)
            self._flush(peer)

    def _take_ask(self, peer: Peer, one: Envelope, content: Any) -> None:
        answer = RemoteAnswer(self._system, peer, one.call_id, one.codec)
        if isinstance(content, SerializationError):
            answer._answer_error(content)
            return
        message = self._message(peer, content, answer)
        target = content[0]
        if message.method.startswith("$"):
            self._take_control(peer, target, message, answer)
            return
        peer.serving[one.call_id] = message
        self._hand_in(target, message, answer)

    def _take_tell(self, peer: Peer, one: Envelope, content: Any) -> None:
        answer = RemoteTell(self._system, peer, one.call_id)
        if isinstance(content, SerializationError):
            answer._answer_error(content)
            return
        message = self._message(peer, content, answer)
        message.is_tell = True
        self._hand_in(content[0], message, answer)

    def _message(self, peer: Peer, content: Any, answer: Any) -> Message:
        target, method, remaining, origin, args, kwargs = content
        sender = None
        if origin is not None:
            name, uid, incarnation = origin
            sender = Ref(self._system, name, uid, peer.address, pin=incarnation)
        deadline_at = math.inf if remaining is None else self._system.clock.now() + remaining
        if method.startswith("%"):
            # A foreign call: its one argument is JSON text, and so is its answer.
            message = Message(method[1:], tuple(args), {}, answer, sender, deadline_at)
            message.foreign = True
        else:
            message = Message(method, tuple(args), kwargs, answer, sender, deadline_at)
        message.pin = target[2]
        return message

    def _hand_in(self, target: Any, message: Message, answer: Any) -> None:
        name, uid, _pin = target
        try:
            cell = self._system._cell_of(name, uid)
        except ActorError as error:
            self._system._counts.refused += 1
            self._system._dead_letter(name, message, type(error).__name__)
            answer._answer_refused(error)
        else:
            self._system._deliver(cell, message, None)

    def _take_control(self, peer: Peer, target: Any, message: Message, answer: RemoteAnswer) -> None:
        name, uid, pin = target
        ref: Ref[Any] = Ref(self._system, name, uid, self.address, pin=pin)
        outcome = self._system._control(ref, message.method, message.args)
        outcome.add_done_callback(partial(_pass_on, answer))

    def _take_watch(self, peer: Peer, one: Envelope) -> None:
        if one.kind == Kind.TERMINATED:
            notify = peer.watched.pop(one.call_id, None)
            if notify is not None:
                notify(pickling.loads(one.body))
            return
        name, uid = pickling.loads(one.body)
        key = (peer.address, one.call_id)
        try:
            cell = self._system._cell_of(name, uid)
        except ActorError:
            if one.kind == Kind.WATCH:
                self._send(
                    peer, Kind.TERMINATED, Codec.PICKLE, one.call_id, pickling.dumps(Exit("not_found"))
                )
            return
        if one.kind == Kind.UNWATCH:
            (cell.watchers or {}).pop(key, None)
        else:
            notify_far = partial(self._send_terminated, peer, one.call_id)
            self._system._watch_cell(cell, key, notify_far, cell.ref())

    def _send_terminated(self, peer: Peer, watch_id: int, terminated: Terminated) -> None:
        exit = terminated.exit
        try:
            body = pickling.dumps(exit)
        except Exception:
            body = pickling.dumps(Exit(exit.kind, str(exit.detail)))
        self._send(peer, Kind.TERMINATED, Codec.PICKLE, watch_id, body)

    # -- watching actors of other processes ------------------------------------------------------

    def watch(self, address: str, ref: Ref[Any], notify: Callable[[Terminated], None]) -> Callable[[], None]:
        """Hear of the end of *ref*'s registration, or of its process; returns what undoes it. Loop thread only."""
        peer = self._peer(address)
        watch_id = self._watch_ids.next()
        peer.watched[watch_id] = lambda exit: notify(Terminated(ref, exit))
        target = pickling.dumps((ref._name, ref._uid))
        self._send(peer, Kind.WATCH, Codec.PICKLE, watch_id, target)

        def undo() -> None:
            if peer.watched.pop(watch_id, None) is not None:
                self._send(peer, Kind.UNWATCH, Codec.PICKLE, watch_id, target)

        return undo


class SentTell(Reply[None]):
    """A tell on its way to another process, until the far end has taken it."""

    __slots__ = ("_method", "_sender", "_system", "_target")

    def __init__(self, system: ActorSystem, target: str, method: str, sender: str | None) -> None:
        super().__init__()
        self._system = system
        self._target = target
        self._method = method
        self._sender = sender

    def never_sent(self, reason: str) -> None:
        """Its envelope did not leave this process (`_peers.Unsent`)."""
        self._fail(reason, may_have_run=False)

    def lost(self, reason: str) -> None:
        """It left, and the far end died before it confirmed."""
        self._fail(reason, may_have_run=True)

    def _fail(self, reason: str, *, may_have_run: bool) -> None:
        if not self._done:
            self._reject(
                Unavailable(
                    f"{self._target}.{self._method}(): {reason}", may_have_run=may_have_run, reason=reason
                )
            )
            self._system._emit(events.DeadLettered(self._target, self._sender, self._method, reason))

    def _describe(self) -> str:
        return f"{self._target}.{self._method}()"

    def _would_block_itself(self) -> bool:
        return self._system._is_loop_thread()


class ForeignError(ActorError):
    """An error as a foreign door gets it: type, text and status, no pickle."""

    def __init__(self, plain: dict[str, Any]) -> None:
        super().__init__(plain["message"])
        self.plain = plain
        self.status = plain["status"]


class _Counter:
    """Numbers from 1, in order over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


def _pass_on(answer: RemoteAnswer, outcome: Reply[Any]) -> None:
    outcome._read = True
    if outcome._error is not None:
        answer._answer_error(outcome._error)
    else:
        answer._answer(outcome._value)

"""
Arrivals: what comes in from other processes.

Whoever reads the inbox, the loop or a thread for it, verifies, decodes and settles
replies; everything else is for the loop, handed over once for all that is there. A
frame that fails a check is dropped and counted before anything in it is decoded; a
message that cannot be decoded is refused and harms no other.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import _controls, events, foreign, pickling
from actors._message import Message, Origin, RemoteAnswer, RemoteTell, Step
from actors._overflow import UNLIMITED, waiting_room
from actors._peers import CREDIT_EVERY, MESSAGE_OVERHEAD, Peer
from actors._reliable import inquired, take_in
from actors.address import host_id_of
from actors.errors import ActorError, InvalidArgument, SerializationError
from actors.exit import Exit, Terminated
from actors.ref import Ref, decoding
from actors.reply import Reply
from actors.wire import BadFrame, Codec, Envelope, Kind, Sealer, envelopes

if TYPE_CHECKING:
    from actors._remote import Remote
    from actors.system import ActorSystem
    from actors.transport import Transport

_AT_ONCE = 0.002
"""Seconds that idle actors may handle what came in before the loop does anything else."""

_FEW = 8
"""Messages of one turn up to which that is worth it: behind a mailbox each next one costs 0.7 µs less."""

_PICKLE = int(Codec.PICKLE)
_CALLS = (int(Kind.ASK), int(Kind.TELL))

_Work = list[tuple[Peer, Envelope, Any]]


class Arrivals:
    """The receiving side of one process."""

    def __init__(
        self, system: ActorSystem, remote: Remote, transport: Transport, sealer: Sealer, *, foreign: bool
    ) -> None:
        self._system = system
        self._remote = remote
        self._transport = transport
        self._sealer = sealer
        self._unpickles = not foreign
        self._own_id = 0
        self._at_once_until = 0.0
        self.rejected_frames = 0
        # An answer is settled here and now; the rest concerns cells, and they live on the loop.
        self._at_once: dict[int, Callable[[Peer, Envelope], None]] = {
            Kind.VALUE: self._value,
            Kind.ERROR: self._error,
            Kind.REFUSED_ASK: self._refused_ask,
            Kind.ITEM: self._item,
            Kind.END: self._end,
            Kind.TAKEN: self._taken,
            Kind.REFUSED: self._refused,
            Kind.PARKED: self._parked,
            Kind.ADMITTED: self._admitted,
            Kind.GRANT: self._granted,
            Kind.CREDIT: self._credited,
        }
        self._on_loop: dict[int, Callable[[Peer, Envelope, Any], None]] = {
            Kind.ASK: self._ask,
            Kind.TELL: self._tell,
            Kind.CANCEL: self._cancel,
            Kind.WATCH: self._watch,
            Kind.UNWATCH: self._unwatch,
            Kind.TERMINATED: self._terminated,
            Kind.UNREAD: self._unread,
            Kind.WANT: self._want,
            Kind.RELIABLE: self._reliable,
            Kind.INQUIRY: self._inquiry,
            Kind.RECEIVED: self._received,
            Kind.MISSING: self._missing,
            Kind.GONE: self._gone,
        }

    # -- on the thread that reads the inbox --------------------------------------------

    def receive(self, frames: list[bytes]) -> Callable[[], None] | None:
        """Take frames as they came; never raises. See `transport.Receive`."""
        decoding.system = self._system
        own_id = self._own_id = self._own_id or host_id_of(self._transport.address)
        work: _Work = []
        credits: dict[Peer, int] = {}
        settles = self._at_once.get
        for data in frames:
            try:
                frame = self._sealer.open(data, own_id)
                batch = envelopes(frame.body)
                peer = self._remote.peer(frame.address)
                if frame.sequence <= peer.last_sequence:
                    raise BadFrame("sequence")
                peer.last_sequence = frame.sequence
                peer.charged_bytes += len(frame.body) + MESSAGE_OVERHEAD * len(batch)
                if peer.charged_bytes >= CREDIT_EVERY:
                    peer.charged_bytes = 0
                    credits[peer] = frame.sequence
            except Exception as error:
                self._reject(str(error), len(data))
                continue
            for one in batch:
                try:
                    at_once = settles(one.kind)
                    if at_once is not None:
                        at_once(peer, one)
                    else:
                        work.append((peer, one, self._content(peer, one) if one.kind in _CALLS else None))
                except Exception as error:
                    self._reject(f"{type(error).__name__}: {error}", len(one.body))
        if work:
            return partial(self._system._on_loop, self._take_in, work, credits)
        _give(credits)
        return None

    def _reject(self, reason: str, size: int) -> None:
        self.rejected_frames += 1
        self._system.emit(events.FrameRejected(reason, size))

    def _decode(self, peer: Peer, one: Envelope) -> Any:
        if one.codec == _PICKLE and self._unpickles:
            return pickling.loads(one.body)
        if one.codec == Codec.JSON:
            return json.loads(bytes(one.body))
        if not self._unpickles:
            raise SerializationError("this process unpickles nothing")
        if one.codec == Codec.SHARED:
            return self._remote.unpack_shared(peer, one.body)
        raise SerializationError(f"codec {one.codec} is unknown")

    def _content(self, peer: Peer, one: Envelope) -> Any:
        try:
            return self._decode(peer, one)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return SerializationError(f"the receiver cannot decode the message: {reason}")

    def _value(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.take(one.call_id)
        if call is None:
            self._late(peer, one)
            return
        try:
            value = self._decode(peer, one)
        except Exception as error:
            call._reject(_undecodable(call, error))
        else:
            call._resolve(value)

    def _late(self, peer: Peer, one: Envelope) -> None:
        """The caller has its outcome already: what came lies there for nobody."""
        if one.codec == Codec.SHARED:
            self._remote.leave_unread(peer, one.body)

    def _item(self, peer: Peer, one: Envelope) -> None:
        calls = self._system._calls
        call = calls.find(one.call_id)
        if call is None:
            self._late(peer, one)
            return
        try:
            item = self._decode(peer, one)
        except Exception as error:
            calls.fail(call, _undecodable(call, error))
            self._remote.cancel(call)
        else:
            call._answer_item(item)

    def _end(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.take(one.call_id)
        if call is not None:
            call._finish()

    def _error(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.take(one.call_id)
        if call is not None:
            call._reject(self._decoded_error(peer, one))

    def _refused_ask(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.find(one.call_id)
        if call is not None:
            self._system._calls.refuse(call, self._decoded_error(peer, one))

    def _decoded_error(self, peer: Peer, one: Envelope) -> BaseException:
        try:
            plain = self._decode(peer, one)
            return foreign.error_of(plain) if one.codec == Codec.JSON else pickling.decode_error(plain)
        except Exception as error:
            return SerializationError(f"an error cannot be decoded: {type(error).__name__}: {error}")

    def _taken(self, peer: Peer, one: Envelope) -> None:
        """All tells up to this one were taken, but for those refused before."""
        for tell in peer.told(one.call_id):
            tell._resolve(None)

    def _refused(self, peer: Peer, one: Envelope) -> None:
        """This tell was refused; refusals come in order, so those before it were taken."""
        refused = peer.admitted(one.call_id)
        if refused is None:
            *taken, refused = peer.told(one.call_id)
            for tell in taken:
                tell._resolve(None)
        refused._reject(self._decoded_error(peer, one))

    def _parked(self, peer: Peer, one: Envelope) -> None:
        for tell in peer.parked(str(one.body, "utf-8"), one.call_id):
            tell._resolve(None)

    def _admitted(self, peer: Peer, one: Envelope) -> None:
        tell = peer.admitted(one.call_id)
        if tell is not None:
            tell._resolve(None)

    def _granted(self, peer: Peer, one: Envelope) -> None:
        peer.granted(str(one.body, "utf-8"), one.call_id)

    def _credited(self, peer: Peer, one: Envelope) -> None:
        peer.credited(one.call_id)

    # -- on the loop ---------------------------------------------------------------------

    def _take_in(self, work: _Work, credits: dict[Peer, int]) -> None:
        told: dict[Peer, int] = {}
        until = self._at_once_until = time.monotonic() + _AT_ONCE if len(work) <= _FEW else 0.0
        self._remote.hold_back()
        for peer, one, content in work:
            take = self._on_loop.get(one.kind, self._unknown)
            try:
                take(peer, one, content)
            except Exception as error:
                self._reject(f"{type(error).__name__}: {error}", len(one.body))
            if one.kind == Kind.TELL:
                told[peer] = one.call_id
        for peer, tell_id in told.items():
            self._remote.send(peer, Kind.TAKEN, tell_id, b"")
        self._remote.let_go(at_once=time.monotonic() < until)
        if credits:
            _give(credits)

    def _ask(self, peer: Peer, one: Envelope, content: Any) -> None:
        answer = RemoteAnswer(self._system, peer, one.call_id, _answered_in(one.codec))
        try:
            message, target = self._message(peer, content, answer)
        except ActorError as error:
            answer._answer_refused(error)
            return
        if message.method[0] == _controls.MARK and not message.foreign:
            self._control(target, message, answer)
        else:
            peer.serving[one.call_id] = message
            self._hand_in(target, message, now=time.monotonic() < self._at_once_until)

    def _tell(self, peer: Peer, one: Envelope, content: Any) -> None:
        answer = RemoteTell(self._system, peer, one.call_id, _answered_in(one.codec))
        try:
            message, target = self._message(peer, content, answer)
        except ActorError as error:
            answer._answer_refused(error)
            return
        self._hand_in(target, message)
        if not message.is_parked:
            message.answer = None

    def _message(self, peer: Peer, content: Any, answer: Any) -> tuple[Message, tuple[str, int]]:
        if isinstance(content, SerializationError):
            raise content
        try:
            (name, uid, pin), method, remaining, origin, args, kwargs = content[:6]
            sender = None if origin is None else Origin(origin[0], origin[1], origin[2], peer.address)
            deadline_at = math.inf if remaining is None else self._system.clock.now() + remaining
            message = Message(method, tuple(args), kwargs, answer, sender, deadline_at)
            if len(content) > 6:
                message.chain = tuple(Step(*step) for step in content[6:])
            message.pin = pin
            message.via = peer
            if method[0] == foreign.MARK:
                message.method = method[1:]
                message.foreign = True
        except (TypeError, ValueError, LookupError) as error:
            raise InvalidArgument(f"this is no call: {error}") from error
        return message, (name, uid)

    def _hand_in(self, target: tuple[str, int], message: Message, *, now: bool = False) -> None:
        system = self._system
        try:
            cell = system._names.cell_of(*target)
        except ActorError as error:
            system._refuse_unreached(target[0], message.sender_name, message.method, error)
            assert message.answer is not None
            message.answer._answer_refused(error)
        else:
            cell.deliver(message, now=now)

    def _control(self, target: tuple[str, int], message: Message, answer: RemoteAnswer) -> None:
        name, uid = target
        ref: Ref[Any] = Ref(self._system, name, uid, self._remote.address, pin=message.pin)
        outcome = _controls.control(self._system, ref, message.method, message.args)
        outcome.add_done_callback(partial(_pass_on, answer))

    def _cancel(self, peer: Peer, one: Envelope, content: Any) -> None:
        message = peer.serving.pop(one.call_id, None)
        if message is not None and message.cell is not None:
            message.cell.cancel(message)

    def _watch(self, peer: Peer, one: Envelope, content: Any) -> None:
        notify = partial(self._send_terminated, peer, one.call_id, one.codec)
        name, uid = json.loads(bytes(one.body))
        try:
            cell = self._system._cell_of(name, uid)
        except ActorError:
            notify(None)
            return
        peer.watching[one.call_id] = cell
        self._system._watches.watch_cell(cell, (peer.address, one.call_id), notify)

    def _unwatch(self, peer: Peer, one: Envelope, content: Any) -> None:
        cell = peer.watching.pop(one.call_id, None)
        if cell is not None and cell.watchers is not None:
            cell.watchers.pop((peer.address, one.call_id), None)

    def _send_terminated(self, peer: Peer, watch_id: int, codec: int, terminated: Terminated | None) -> None:
        peer.watching.pop(watch_id, None)
        exit = Exit("not_found") if terminated is None else terminated.exit
        incarnation = 0 if terminated is None else terminated.ref._pin
        if codec == Codec.JSON:
            body = json.dumps([incarnation, exit.kind, str(exit.detail)]).encode()
        else:
            body = pickling.dumps((incarnation, exit))
        self._remote.send(peer, Kind.TERMINATED, watch_id, body, codec)

    def _want(self, peer: Peer, one: Envelope, content: Any) -> None:
        name = str(one.body, "utf-8")
        cell = self._system._names.cells.get(name)
        if cell is None or cell.refuses:
            self._remote.send(peer, Kind.GRANT, UNLIMITED, name.encode())
        else:
            waiting_room(cell).want(peer)

    def _reliable(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._check_unpickles()
        take_in(self._system, peer, one)

    def _inquiry(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._check_unpickles()
        inquired(self._system, peer, one)

    def _received(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._check_unpickles()
        self._system._reliable.received(one)

    def _missing(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._system._reliable.missing(one)

    def _gone(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._check_unpickles()
        self._system._reliable.gone(one)

    def _check_unpickles(self) -> None:
        if not self._unpickles:
            raise SerializationError("this process unpickles nothing")

    def _unread(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._remote.returned(peer, one.call_id)

    def _terminated(self, peer: Peer, one: Envelope, content: Any) -> None:
        notify = peer.watched.pop(one.call_id, None)
        if notify is None:
            return
        if one.codec == Codec.JSON:
            incarnation, kind, detail = json.loads(bytes(one.body))
            notify(incarnation, Exit(kind, detail))
        else:
            notify(*self._decode(peer, one))

    def _unknown(self, peer: Peer, one: Envelope, content: Any) -> None:
        self._reject(f"kind {one.kind}", len(one.body))


def _give(credits: dict[Peer, int]) -> None:
    """Let senders know how far their frames were taken in."""
    for peer, sequence in credits.items():
        peer.credit(sequence)


def _answered_in(codec: int) -> int:
    return codec if codec != Codec.SHARED else _PICKLE


def _undecodable(call: Any, error: Exception) -> SerializationError:
    reason = f"{type(error).__name__}: {error}"
    return SerializationError(f"the answer of {call._describe()} cannot be decoded: {reason}")


def _pass_on(answer: RemoteAnswer, outcome: Reply[Any]) -> None:
    outcome._read = True
    if outcome._error is not None:
        answer._answer_error(outcome._error)
    else:
        answer._answer(outcome._value)

"""
Arrivals: what comes in from other processes.

Whoever reads the inbox, the loop or a thread for it, verifies, decodes and settles
replies; everything else is for the loop, handed over once for all that is there. A
frame that fails a check is dropped and counted before anything in it is decoded; a
message that cannot be decoded is refused and harms no other.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import batch, events, foreign, pickling
from actors._calls import SentTell
from actors._delivery import BATCHES, Batch, Delivery, Part, Work, give
from actors._outbox import MESSAGE_OVERHEAD
from actors._outlet import size_of
from actors._peers import CREDIT_EVERY, Peer
from actors.address import host_id_of
from actors.errors import SerializationError
from actors.pickling import loads
from actors.ref import decoding
from actors.stream import unpack_batch, unpack_limits, unpack_total
from actors.wire import Codec, Envelope, Kind, Parts, Sealer, envelopes

if TYPE_CHECKING:
    import asyncio

    from actors._remote import Remote
    from actors.system import ActorSystem
    from actors.transport import Transport

_PICKLE = int(Codec.PICKLE)
_VALUE = int(Kind.VALUE)
_CALLS = (int(Kind.ASK), int(Kind.TELL), int(Kind.ASK_NAMED))


class Arrivals:
    """The receiving side of one process."""

    def __init__(
        self,
        system: ActorSystem,
        remote: Remote,
        transport: Transport,
        sealer: Sealer,
        loop: asyncio.AbstractEventLoop,
        *,
        foreign: bool,
    ) -> None:
        self._system = system
        self._remote = remote
        self._transport = transport
        self._sealer = sealer
        self._unpickles = not foreign
        self.delivery = Delivery(system, remote, loop, self._decode, self._reject, unpickles=not foreign)
        """What does on the loop what is to be done there."""
        self._own_id = 0
        self.receiver = 0
        """The thread that is taking in frames just now; 0: none. What it settles, it tells callbacks of."""
        self.rejected_frames = 0
        self._counting = threading.Lock()
        # An answer is settled here and now; the rest concerns cells, and they live on the loop.
        self._at_once: dict[int, Callable[[Peer, Envelope], None]] = {
            Kind.VALUE: self._value,
            Kind.VALUES: self._values,
            Kind.ERROR: self._error,
            Kind.REFUSED_ASK: self._refused_ask,
            Kind.ITEM: self._item,
            Kind.END: self._end,
            Kind.TAKEN: self._taken,
            Kind.REFUSED: self._refused,
            Kind.FED: self._fed,
            Kind.FED_END: self._fed_end,
            Kind.FED_ERROR: self._fed_error,
            Kind.FED_READ: self._fed_read,
            Kind.FED_CLOSED: self._fed_closed,
            Kind.PARKED: self._parked,
            Kind.ADMITTED: self._admitted,
            Kind.GRANT: self._granted,
            Kind.CREDIT: self._credited,
        }

    # -- on the thread that reads the inbox --------------------------------------------

    def receive(self, frames: list[bytes]) -> Callable[[], None] | None:
        """Take frames as they came; never raises. See `transport.Receive`."""
        self.receiver = threading.get_ident()
        try:
            return self._receive(frames)
        finally:
            self.receiver = 0

    def _receive(self, frames: list[bytes]) -> Callable[[], None] | None:
        decoding.system = self._system
        own_id = self._own_id = self._own_id or host_id_of(self._transport.address)
        work: Work = []
        credits: dict[Peer, int] = {}
        for data in frames:
            try:
                frame = self._sealer.open(data, own_id)
                came = envelopes(frame.body)
                decoding.peer = peer = self._remote.sender_of(frame)
                peer.charged_bytes += len(frame.body) + MESSAGE_OVERHEAD * len(came)
                if peer.charged_bytes >= CREDIT_EVERY:
                    peer.charged_bytes = 0
                    credits[peer] = frame.sequence
            except Exception as error:
                self._reject(str(error), len(data))
                continue
            if rest := self._settle(peer, came):
                work.append((peer, rest))
        if work:
            return partial(self._system._on_loop, self.delivery.take_in, work, credits)
        if credits:
            give(credits)
        return None

    def _settle(self, peer: Peer, came: list[Parts]) -> list[Part]:
        """Settle what is being waited for; returns what is for the loop."""
        take = self._system._calls.take_from
        settles = self._at_once.get
        rest: list[Part] = []
        for one in came:
            kind, codec, call_id, remaining, head, body = one
            try:
                if kind in BATCHES:
                    calls = self._opened(peer, kind, codec, call_id, body)
                    rest.append((kind, codec, call_id, remaining, head, calls))
                elif kind == _VALUE and codec == _PICKLE and self._unpickles:
                    # Written out: most of what comes to whoever asks.
                    call = take(peer, call_id)
                    if call is not None:
                        try:
                            value = loads(body)
                        except Exception as error:
                            call._reject(_undecodable(call, error))
                        else:
                            call._resolve(value)
                elif kind in _CALLS:
                    # Decoded here: what else comes may belong to a stream among the arguments.
                    try:
                        if codec == _PICKLE and self._unpickles:
                            content = loads(body)
                        else:
                            content = self._decode(peer, codec, body)
                    except Exception as error:
                        reason = f"{type(error).__name__}: {error}"
                        content = SerializationError(f"the receiver cannot decode the message: {reason}")
                    rest.append((kind, codec, call_id, remaining, head, content))
                elif (at_once := settles(kind)) is not None:
                    at_once(peer, Envelope(*one))
                else:
                    rest.append(one)
            except Exception as error:
                self._reject(f"{type(error).__name__}: {error}", len(body))
        return rest

    def _opened(self, peer: Peer, kind: int, codec: int, first: int, body: bytes | memoryview) -> Batch:
        """What is in a batch; `BadFrame` where not even the numbers are."""
        numbers, remaining, pickled = batch.unpack(kind, first, body)
        peer.charged_bytes += MESSAGE_OVERHEAD * len(numbers)
        contents: Any
        heads = None
        try:
            contents, heads = batch.check(numbers, self._decode(peer, codec, pickled))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            contents = SerializationError(f"the receiver cannot decode the message: {reason}")
        return numbers, remaining, contents, heads

    def _values(self, peer: Peer, one: Envelope) -> None:
        numbers, _, values, _ = self._opened(peer, one.kind, one.codec, one.call_id, one.body)
        calls = self._system._calls
        if not isinstance(values, SerializationError):
            calls.resolve_from(peer, numbers, values)
            return
        for number in numbers:
            call = calls.take_from(peer, number)
            if call is not None:
                call._reject(_undecodable(call, values))

    def _reject(self, reason: str, size: int) -> None:
        with self._counting:  # the loop rejects, too
            self.rejected_frames += 1
        self._system.emit(events.FrameRejected(reason, size))

    def _decode(self, peer: Peer, codec: int, body: bytes | memoryview) -> Any:
        if codec == _PICKLE and self._unpickles:
            return loads(body)
        if codec == Codec.JSON:
            return json.loads(bytes(body))
        if not self._unpickles:
            raise SerializationError("this process unpickles nothing")
        if codec == Codec.SHARED:
            return self._remote.parcels.unpack(peer, body)
        raise SerializationError(f"codec {codec} is unknown")

    def _value(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.take_from(peer, one.call_id)
        if call is None:
            self._late(peer, one)
            return
        try:
            value = self._decode(peer, one.codec, one.body)
        except Exception as error:
            call._reject(_undecodable(call, error))
        else:
            call._resolve(value)

    def _late(self, peer: Peer, one: Envelope) -> None:
        """The caller has its outcome already: what came lies there for nobody."""
        if one.codec == Codec.SHARED:
            self._remote.parcels.leave_unread(peer, one.body)

    def _item(self, peer: Peer, one: Envelope) -> None:
        calls = self._system._calls
        call = calls.find_from(peer, one.call_id)
        if call is None:
            self._late(peer, one)
            return
        try:
            items, size, first = self._items(peer, one)
        except Exception as error:
            calls.fail(call, _undecodable(call, error))
            self._remote.cancel(call)
        else:
            if not call._answer_items(items, size, first):
                self._remote.cancel(call)

    def _items(self, peer: Peer, one: Envelope) -> tuple[list[Any], int, int | None]:
        """The items in an envelope, their bytes, and the number of the first where that is known."""
        if one.codec != _PICKLE or not self._unpickles:
            return [self._decode(peer, one.codec, one.body)], size_of(one.codec, one.body), None
        first, bodies, size = unpack_batch(one.body)
        return list(map(pickling.loads, bodies)), size, first

    def _end(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.find_from(peer, one.call_id)
        if call is not None:
            call._answer_end(unpack_total(one.body))

    def _error(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.find_from(peer, one.call_id)
        if call is not None:
            self._system._calls.fail(call, self._decoded_error(peer, one))

    def _refused_ask(self, peer: Peer, one: Envelope) -> None:
        call = self._system._calls.find_from(peer, one.call_id)
        if call is not None:
            self._system._calls.refuse(call, self._decoded_error(peer, one))

    def _decoded_error(self, peer: Peer, one: Envelope) -> BaseException:
        try:
            plain = self._decode(peer, one.codec, one.body)
            return foreign.error_of(plain) if one.codec == Codec.JSON else pickling.decode_error(plain)
        except Exception as error:
            return SerializationError(f"an error cannot be decoded: {type(error).__name__}: {error}")

    # Streams that came as arguments, and those that were sent as such.

    def _fed(self, peer: Peer, one: Envelope) -> None:
        intake = peer.intakes.get(one.call_id)
        if intake is None or intake.done:
            self._late(peer, one)
            return
        try:
            intake._push(*self._items(peer, one))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            intake._reject(SerializationError(f"the receiver cannot decode an item: {reason}"))
        if intake.done:
            self._remote.send(peer, Kind.FED_CLOSED, one.call_id, b"")

    def _fed_end(self, peer: Peer, one: Envelope) -> None:
        intake = peer.intakes.pop(one.call_id, None)
        if intake is not None:
            intake._finish(unpack_total(one.body))

    def _fed_error(self, peer: Peer, one: Envelope) -> None:
        intake = peer.intakes.pop(one.call_id, None)
        if intake is not None:
            intake._reject(self._decoded_error(peer, one))

    def _fed_read(self, peer: Peer, one: Envelope) -> None:
        self._system._feeds.allow(one.call_id, unpack_limits(one.body))

    def _fed_closed(self, peer: Peer, one: Envelope) -> None:
        self._system._feeds.closed(one.call_id)

    def _taken(self, peer: Peer, one: Envelope) -> None:
        """All tells up to this one were taken, but for those refused before."""
        SentTell.taken(peer.told(one.call_id))

    def _refused(self, peer: Peer, one: Envelope) -> None:
        """This tell was refused; refusals come in order, so those before it were taken."""
        refused = peer.admitted(one.call_id)
        if refused is None:
            *taken, refused = peer.told(one.call_id)
            SentTell.taken(taken)
        refused._reject(self._decoded_error(peer, one))

    def _parked(self, peer: Peer, one: Envelope) -> None:
        SentTell.taken(peer.parked(str(one.body, "utf-8"), one.call_id))

    def _admitted(self, peer: Peer, one: Envelope) -> None:
        tell = peer.admitted(one.call_id)
        if tell is not None:
            tell._resolve(None)

    def _granted(self, peer: Peer, one: Envelope) -> None:
        peer.granted(str(one.body, "utf-8"), one.call_id)

    def _credited(self, peer: Peer, one: Envelope) -> None:
        peer.credited(one.call_id)


def _undecodable(call: Any, error: Exception) -> SerializationError:
    reason = f"{type(error).__name__}: {error}"
    return SerializationError(f"the answer of {call._describe()} cannot be decoded: {reason}")

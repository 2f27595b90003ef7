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
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import _controls, batch, events, foreign, pickling
from actors._answered import deliver_named
from actors._incoming import inquired, take_in
from actors._message import Origin, RemoteAsk, RemoteMessage, RemoteTell, Step, encode_error
from actors._named import RemoteNamedAsk, tag_in
from actors._outbox import MESSAGE_OVERHEAD
from actors._outlet import Outlet, size_of
from actors._overflow import UNLIMITED, waiting_room
from actors._peers import CREDIT_EVERY, Peer
from actors.address import host_id_of
from actors.errors import ActorError, InvalidArgument, MailboxFull, SerializationError
from actors.exit import Exit, Terminated
from actors.pickling import loads
from actors.ref import Ref, decoding
from actors.reply import Reply
from actors.stream import unpack_batch, unpack_limits, unpack_total
from actors.tracing import metadata_of
from actors.wire import Codec, Envelope, Kind, Parts, Sealer, envelopes, target_of

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors._remote import Remote
    from actors.system import ActorSystem
    from actors.transport import Transport

_TARGETS = 10_000
"""Heads of calls that are remembered; reading one takes 3 µs."""
_LONG_HEAD = 1024
"""Bytes from which a head is not worth remembering: ten thousand of the longest would be 650 MB."""

MAX_SERVING = 200_000
"""Asks of one other process that may run or wait here at a time; 100 MB."""

_PICKLE = int(Codec.PICKLE)
_ASK, _TELL, _VALUE = int(Kind.ASK), int(Kind.TELL), int(Kind.VALUE)
_ASKS, _TELLS, _VALUES = int(Kind.ASKS), int(Kind.TELLS), int(Kind.VALUES)
_ASK_NAMED = int(Kind.ASK_NAMED)
_ORIGINS = 1000
"""Actors of one other process that are remembered as senders."""

_new = tuple.__new__  # 0.15 µs; a named tuple's own constructor takes 0.4

_CALLS = (_ASK, _TELL, _ASK_NAMED)
_BATCHES = (_ASKS, _TELLS)
_PLAIN = {tuple}
"""What calls are that say no more than their arguments."""
_MARKS = (_controls.MARK, foreign.MARK)
"""First letters of what is no plain method."""

_Target = tuple[str, int, int, str, bool]
"""Whom a call is for: name, uid, pin and method, and whether that is no plain one."""

_Part = tuple[int, int, int, float, bytes | memoryview, Any]
"""An envelope for the loop; of a call, its content in the place of its body, of a batch, a `_Batch`."""

_Batch = tuple[Sequence[int], Sequence[float], Any, Sequence[bytes] | None]
"""
Calls that came together: numbers, seconds left of asks, their contents, or an error, and their heads.

No heads where the envelope has that of all.
"""

_Work = list[tuple[Peer, list[_Part]]]


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
        self.receiver = 0
        """The thread that is taking in frames just now; 0: none. What it settles, it tells callbacks of."""
        self._targets: dict[bytes | memoryview, _Target] = {}
        self.readings = 0
        """How often something came that was for the loop."""
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
        self._on_loop: dict[int, Callable[[Peer, Envelope], None]] = {
            Kind.ASK_NAMED: self._ask_named,
            Kind.CANCEL: self._cancel,
            Kind.WATCH: self._watch,
            Kind.UNWATCH: self._unwatch,
            Kind.TERMINATED: self._terminated,
            Kind.UNREAD: self._unread,
            Kind.READ: self._reader_allows,
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
        self.receiver = threading.get_ident()
        try:
            return self._receive(frames)
        finally:
            self.receiver = 0

    def _receive(self, frames: list[bytes]) -> Callable[[], None] | None:
        decoding.system = self._system
        own_id = self._own_id = self._own_id or host_id_of(self._transport.address)
        work: _Work = []
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
            return partial(self._system._on_loop, self._take_in, work, credits)
        if credits:
            _give(credits)
        return None

    def _settle(self, peer: Peer, came: list[Parts]) -> list[_Part]:
        """Settle what is being waited for; returns what is for the loop."""
        take = self._system._calls.take_from
        settles = self._at_once.get
        rest: list[_Part] = []
        for one in came:
            kind, codec, call_id, remaining, head, body = one
            try:
                if kind in _BATCHES:
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

    def _opened(self, peer: Peer, kind: int, codec: int, first: int, body: bytes | memoryview) -> _Batch:
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
        for tell in peer.told(one.call_id):
            tell.taken()

    def _refused(self, peer: Peer, one: Envelope) -> None:
        """This tell was refused; refusals come in order, so those before it were taken."""
        refused = peer.admitted(one.call_id)
        if refused is None:
            *taken, refused = peer.told(one.call_id)
            for tell in taken:
                tell.taken()
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
        remote, runners = self._remote, self._system._runners
        departures = remote.departures
        self.readings += 1
        departures.hold_back(is_lone=_is_lone(work))
        runners.gather()
        now = self._system.clock.now()
        for peer, came in work:
            told = 0
            if len(peer.serving) > MAX_SERVING:
                came = self._without_asks(peer, came)
            for one in came:
                kind = one[0]
                if kind in _BATCHES:
                    self._take_batch(peer, one, now)
                    if kind == _TELLS:
                        told = one[-1][0][-1]
                else:
                    self._take_one(peer, one, now)
                    if kind == _TELL:
                        told = one[2]
            if told:
                remote.send(peer, Kind.TAKEN, told, b"")
        departures.let_go(at_once=runners.work_at_once())
        if credits:
            _give(credits)

    def _take_batch(self, peer: Peer, one: _Part, now: float) -> None:
        """Deliver calls that came together."""
        kind, codec, _, _, head, (numbers, remaining, contents, heads) = one
        try:
            if isinstance(contents, SerializationError):
                contents = [contents] * len(numbers)
            elif set(map(type, contents)) == _PLAIN:
                if heads is not None:
                    self._deliver_mixed(peer, kind, numbers, remaining, contents, heads, now)
                    return
                if (found := self._known(head)) is not None:
                    self._deliver_alike(peer, kind, *found, numbers, remaining, contents, now)
                    return
        except Exception as error:
            self._reject(f"{type(error).__name__}: {error}", 0)
            return
        single = _ASK if kind == _ASKS else _TELL
        for at, number in enumerate(numbers):
            left = remaining[at] if remaining else math.inf
            its_head = head if heads is None else heads[at]
            self._take_one(peer, (single, codec, number, left, its_head, contents[at]), now)

    def _known(self, head: bytes | memoryview) -> tuple[_Target, Cell] | None:
        """Whom a call with this *head* is for; None where that is nobody, or takes a closer look."""
        target = self._targets.get(head)
        if target is None or target[-1]:
            return None
        cell = self._system._names.cells.get(target[0])
        return (target, cell) if cell is not None and target[1] in (0, cell.uid) else None

    def _deliver_alike(
        self,
        peer: Peer,
        kind: int,
        target: _Target,
        cell: Cell,
        numbers: Sequence[int],
        remaining: Sequence[float],
        contents: Sequence[tuple[Any, ...]],
        now: float,
    ) -> None:
        """
        Deliver calls to one method of one actor.

        Most calls in flight come like that: 0.5 µs less for each.
        """
        _, _, pin, method, _ = target
        remote = self._remote
        if kind == _TELLS:
            tells = [
                RemoteTell(method, args, pin, math.inf, remote, peer, number, _PICKLE, cell)
                for number, args in zip(numbers, contents, strict=True)
            ]
            _deliver_tells(cell, tells)
        else:
            asks = [
                RemoteAsk(method, args, pin, now + left, remote, peer, number, _PICKLE, cell)
                for number, left, args in zip(numbers, remaining, contents, strict=True)
            ]
            serving = peer.serving
            for ask in asks:
                serving[ask._call_id] = ask
            cell.deliver_alike(asks)

    def _deliver_mixed(
        self,
        peer: Peer,
        kind: int,
        numbers: Sequence[int],
        remaining: Sequence[float],
        contents: Sequence[tuple[Any, ...]],
        heads: Sequence[bytes],
        now: float,
    ) -> None:
        """Deliver calls to several methods, or actors; to each actor those for it together."""
        remote, serving = self._remote, peer.serving
        asks: dict[Cell, list[RemoteAsk]] = {}
        tells: dict[Cell, list[RemoteTell]] = {}
        for at, number in enumerate(numbers):
            args, head = contents[at], heads[at]
            left = remaining[at] if remaining else math.inf
            if (found := self._known(head)) is None:
                _deliver_all(asks, tells)  # first: it may concern them
                single = _ASK if kind == _ASKS else _TELL
                self._take_one(peer, (single, _PICKLE, number, left, head, args), now)
                continue
            (_, _, pin, method, _), cell = found
            if kind == _TELLS:
                tell = RemoteTell(method, args, pin, math.inf, remote, peer, number, _PICKLE, cell)
                tells.setdefault(cell, []).append(tell)
            else:
                ask = RemoteAsk(method, args, pin, now + left, remote, peer, number, _PICKLE, cell)
                serving[number] = ask
                asks.setdefault(cell, []).append(ask)
        _deliver_all(asks, tells)

    def _take_one(self, peer: Peer, one: _Part, now: float) -> None:
        kind = one[0]
        try:
            if kind == _ASK:
                self._ask(peer, one, now)
            elif kind == _TELL:
                self._tell(peer, one)
            else:
                self._on_loop.get(kind, self._unknown)(peer, Envelope(*one))
        except Exception as error:
            self._reject(f"{type(error).__name__}: {error}", 0)

    def _without_asks(self, peer: Peer, came: list[_Part]) -> list[_Part]:
        """Refuse what is asked in what *came*: that process has more under way than it may have."""
        serving = f"{len(peer.serving)} asks of {peer.address} run or wait"
        full = MailboxFull(f"{serving} in {self._system.address}, which takes at most {MAX_SERVING}")
        rest = []
        for one in came:
            if one[0] in (_ASK, _ASK_NAMED, _ASKS):
                for number in one[-1][0] if one[0] == _ASKS else (one[2],):
                    self._system._counts.refused += 1
                    self._refuse_ask(peer, one[1], number, full)
            else:
                rest.append(one)
        return rest

    def _refuse_ask(self, peer: Peer, codec: int, call_id: int, error: ActorError) -> None:
        codec = codec if codec == Codec.JSON else _PICKLE
        self._remote.send(peer, Kind.REFUSED_ASK, call_id, encode_error(error, codec), codec)

    def _ask(self, peer: Peer, one: _Part, now: float) -> None:
        _, codec, call_id, remaining, head, content = one
        try:
            name, uid, pin, method, is_special = self._targets.get(head) or self._target(head)
        except ValueError as error:
            problem = InvalidArgument(f"this is no call: {error}")
            self._refuse_ask(peer, codec, call_id, problem)
            return
        is_plain = type(content) is tuple
        args = content if is_plain else ()
        message = RemoteAsk(method, args, pin, now + remaining, self._remote, peer, call_id, codec)
        peer.serving[call_id] = message
        try:
            if not is_plain:
                self._fill(message, content)
            if is_special and self._is_special(name, uid, message):
                return
            cell = self._system._names.cells.get(name)
            if cell is None or (uid and uid != cell.uid):
                cell = self._system._names.cell_of(name, uid)
        except ActorError as error:
            self._reached_nobody(name, message, error)
        else:
            cell.deliver(message)

    def _ask_named(self, peer: Peer, one: Envelope) -> None:
        name, uid, pin, method, _ = self._target(one.head)
        remaining = one.remaining
        deadline_at = self._system.clock.now() + remaining if remaining < math.inf else math.inf
        message = RemoteNamedAsk(method, (), pin, deadline_at, self._remote, peer, one.call_id, one.codec)
        peer.serving[one.call_id] = message
        try:
            self._fill(message, one.body)
            message.tag = tag_in(message.kwargs)
            cell = self._system._names.cell_of(name, uid)
        except ActorError as error:
            self._reached_nobody(name, message, error)
        else:
            deliver_named(cell, message)

    def _tell(self, peer: Peer, one: _Part) -> None:
        _, codec, tell_id, _, head, content = one
        name, uid, pin, method, _ = self._targets.get(head) or self._target(head)
        is_plain = type(content) is tuple
        args = content if is_plain else ()
        message = RemoteTell(method, args, pin, math.inf, self._remote, peer, tell_id, codec)
        try:
            if not is_plain:
                self._fill(message, content)
            if method[0] == foreign.MARK:
                _make_foreign(message)
            cell = self._system._names.cells.get(name)
            if cell is None or (uid and uid != cell.uid):
                cell = self._system._names.cell_of(name, uid)
        except ActorError as error:
            self._reached_nobody(name, message, error)
        else:
            cell.deliver(message)
        if not message.is_parked:
            message.answer = None

    def _target(self, head: bytes | memoryview) -> _Target:
        name, uid, pin, method = target_of(head)
        target = name, uid, pin, method, method[0] in _MARKS
        if len(head) < _LONG_HEAD:
            if len(self._targets) >= _TARGETS:
                self._targets.clear()
            self._targets[bytes(head)] = target
        return target

    def _fill(self, message: RemoteMessage, content: Any) -> None:
        """Take over what a call says beyond plain arguments. `SerializationError`, `InvalidArgument`."""
        if isinstance(content, SerializationError):
            raise content
        try:
            args, message.kwargs, origin, *rest = content
            message.args = tuple(args)
            if origin is not None:
                origins, origin = message._peer.origins, tuple(origin)
                message.sender = origins.get(origin) or _origin(message._peer, origin)
            if rest:
                carried, *chain = rest
                if carried is not None:
                    message.metadata = metadata_of(carried)
                if chain:
                    message.chain = tuple([_step(step) for step in chain])
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"this is no call: {error}") from error

    def _is_special(self, name: str, uid: int, message: RemoteAsk) -> bool:
        """Mark a call in JSON as such; True when *message* was for the runtime, and is on its way."""
        if message.method[0] == foreign.MARK:
            _make_foreign(message)
            return False
        message.answer = None
        message._peer.serving.pop(message._call_id, None)
        ref: Ref[Any] = Ref(self._system, name, uid, self._remote.address, pin=message.pin)
        outcome = _controls.control(self._system, ref, message.method, message.args)
        outcome.add_done_callback(partial(_pass_on, message))
        return True

    def _reached_nobody(self, name: str, message: RemoteAsk | RemoteTell, error: ActorError) -> None:
        self._system._sending.refuse_unreached(name, message.sender_name, message.method, error)
        message._answer_refused(error)
        message.answer = None

    def _cancel(self, peer: Peer, one: Envelope) -> None:
        message = peer.serving.pop(one.call_id, None)
        if message is not None and message.cell is not None:
            message.cell.cancel(message)

    def _reader_allows(self, peer: Peer, one: Envelope) -> None:
        message = peer.serving.get(one.call_id)
        if message is not None and isinstance(message.answer, Outlet):
            message.answer.allow(unpack_limits(one.body))

    def _watch(self, peer: Peer, one: Envelope) -> None:
        notify = partial(self._send_terminated, peer, one.call_id, one.codec)
        name, uid = json.loads(bytes(one.body))
        try:
            cell = self._system._cell_of(name, uid)
        except ActorError:
            notify(None)
            return
        peer.watching[one.call_id] = cell
        self._system._watches.watch_cell(cell, (peer.address, one.call_id), notify)

    def _unwatch(self, peer: Peer, one: Envelope) -> None:
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

    def _want(self, peer: Peer, one: Envelope) -> None:
        name = str(one.body, "utf-8")
        cell = self._system._names.cells.get(name)
        if cell is None or cell.refuses:
            self._remote.send(peer, Kind.GRANT, UNLIMITED, name.encode())
        else:
            waiting_room(cell).want(peer)

    def _reliable(self, peer: Peer, one: Envelope) -> None:
        self._check_unpickles()
        take_in(self._system, peer, one)

    def _inquiry(self, peer: Peer, one: Envelope) -> None:
        self._check_unpickles()
        inquired(self._system, peer, one)

    def _received(self, peer: Peer, one: Envelope) -> None:
        self._check_unpickles()
        self._system._reliable.received(one)

    def _missing(self, peer: Peer, one: Envelope) -> None:
        self._system._reliable.missing(one)

    def _gone(self, peer: Peer, one: Envelope) -> None:
        self._check_unpickles()
        self._system._reliable.gone(one)

    def _check_unpickles(self) -> None:
        if not self._unpickles:
            raise SerializationError("this process unpickles nothing")

    def _unread(self, peer: Peer, one: Envelope) -> None:
        self._remote.parcels.returned(peer, one.call_id)

    def _terminated(self, peer: Peer, one: Envelope) -> None:
        notify = peer.watched.pop(one.call_id, None)
        if notify is None:
            return
        if one.codec == Codec.JSON:
            incarnation, kind, detail = json.loads(bytes(one.body))
            notify(incarnation, Exit(kind, detail))
        else:
            notify(*self._decode(peer, one.codec, one.body))

    def _unknown(self, peer: Peer, one: Envelope) -> None:
        self._reject(f"kind {one.kind}", len(one.body))


def _deliver_tells(cell: Cell, tells: list[RemoteTell]) -> None:
    cell.deliver_alike(tells)
    for tell in tells:
        if not tell.is_parked:
            tell.answer = None


def _deliver_all(asks: dict[Cell, list[RemoteAsk]], tells: dict[Cell, list[RemoteTell]]) -> None:
    for cell, its_asks in asks.items():
        cell.deliver_alike(its_asks)
    for cell, its_tells in tells.items():
        _deliver_tells(cell, its_tells)
    asks.clear()
    tells.clear()


def _is_lone(work: _Work) -> bool:
    """True for one message, and no more."""
    return len(work) == 1 and len(work[0][1]) == 1 and work[0][1][0][0] not in _BATCHES


def _origin(peer: Peer, told: tuple[Any, ...]) -> Origin:
    """One object for all messages of one sender: who is served in turn tells senders apart by it."""
    name, uid, incarnation = told
    if len(peer.origins) >= _ORIGINS:
        peer.origins.clear()
    peer.origins[told] = origin = Origin(name, uid, incarnation, peer.address)
    return origin


def _step(told: Any) -> Step:
    if len(told) != 3:
        raise ValueError("a step of a chain has three parts")
    return _new(Step, told)


def _give(credits: dict[Peer, int]) -> None:
    """Let senders know how far their frames were taken in."""
    for peer, sequence in credits.items():
        peer.credit(sequence)


def _undecodable(call: Any, error: Exception) -> SerializationError:
    reason = f"{type(error).__name__}: {error}"
    return SerializationError(f"the answer of {call._describe()} cannot be decoded: {reason}")


def _make_foreign(message: RemoteMessage) -> None:
    message.method = message.method[1:]
    message.foreign = True


def _pass_on(answer: RemoteAsk, outcome: Reply[Any]) -> None:
    outcome._read = True
    if outcome._error is not None:
        answer._answer_error(outcome._error)
    else:
        answer._answer(outcome._value)

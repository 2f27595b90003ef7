"""
Delivery: what came from other processes and is for the loop, from frame to mailbox.

`_arrivals` has verified and decoded it. Calls that came together are delivered together; what is
said of actors beside them (watches, cancels, room) is done here, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import _controls, foreign, pickling
from actors._answered import deliver_named
from actors._confirmations import Confirmations
from actors._incoming import inquired, take_in
from actors._message import Origin, RemoteAsk, RemoteMessage, RemoteTell, Step, encode_error
from actors._named import RemoteNamedAsk, tag_in
from actors._outlet import Outlet
from actors._overflow import UNLIMITED, waiting_room
from actors._peers import Peer
from actors.errors import ActorError, InvalidArgument, MailboxFull, SerializationError
from actors.exit import Exit, Terminated
from actors.ref import Ref
from actors.reply import Reply
from actors.stream import unpack_limits
from actors.tracing import metadata_of
from actors.wire import Codec, Envelope, Kind, target_of

if TYPE_CHECKING:
    import asyncio

    from actors._cell import Cell
    from actors._remote import Remote
    from actors.system import ActorSystem

_TARGETS = 10_000
"""Heads of calls that are remembered; reading one takes 3 µs."""
_LONG_HEAD = 1024
"""Bytes from which a head is not worth remembering: ten thousand of the longest would be 650 MB."""

MAX_SERVING = 200_000
"""Asks of one other process that may run or wait here at a time; 100 MB."""

_PICKLE = int(Codec.PICKLE)
_ASK, _TELL = int(Kind.ASK), int(Kind.TELL)
_ASKS, _TELLS = int(Kind.ASKS), int(Kind.TELLS)
_ASK_NAMED = int(Kind.ASK_NAMED)
_ORIGINS = 1000
"""Actors of one other process that are remembered as senders."""

_new = tuple.__new__  # 0.15 µs; a named tuple's own constructor takes 0.4

BATCHES = (_ASKS, _TELLS)
_PLAIN = {tuple}
"""What calls are that say no more than their arguments."""
_MARKS = (_controls.MARK, foreign.MARK)
"""First letters of what is no plain method."""

_Target = tuple[str, int, int, str, bool]
"""Whom a call is for: name, uid, pin and method, and whether that is no plain one."""

Part = tuple[int, int, int, float, bytes | memoryview, Any]
"""An envelope for the loop; of a call, its content in the place of its body, of a batch, a `Batch`."""

Batch = tuple[Sequence[int], Sequence[float], Any, Sequence[bytes] | None]
"""
Calls that came together: numbers, seconds left of asks, their contents, or an error, and their heads.

No heads where the envelope has that of all.
"""

Work = list[tuple[Peer, list[Part]]]
"""What came in one go, by whom it came from."""


class Delivery:
    """The loop's end of what comes in. Loop thread only."""

    def __init__(
        self,
        system: ActorSystem,
        remote: Remote,
        loop: asyncio.AbstractEventLoop,
        decode: Callable[[Peer, int, bytes | memoryview], Any],
        reject: Callable[[str, int], None],
        *,
        unpickles: bool,
    ) -> None:
        self._system = system
        self._remote = remote
        self._decode = decode
        self._reject = reject
        self._unpickles = unpickles
        self._targets: dict[bytes | memoryview, _Target] = {}
        self.confirmations = Confirmations(loop, self._confirm)
        self.readings = 0
        """How often something came that was for the loop."""
        self._by_kind: dict[int, Callable[[Peer, Envelope], None]] = {
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

    def take_in(self, work: Work, credits: dict[Peer, int]) -> None:
        """Deliver what came, serve those it was for, and let senders with *credits* go on."""
        remote, runners = self._remote, self._system._runners
        departures = remote.departures
        self.readings += 1
        departures.hold_back(is_lone=_is_lone(work))
        runners.gather()
        now = self._system.clock.now()
        for peer, came in work:
            told = together = 0
            if len(peer.serving) > MAX_SERVING:
                came = self._without_asks(peer, came)
            for one in came:
                kind = one[0]
                if kind in BATCHES:
                    self._take_batch(peer, one, now)
                    if kind == _TELLS:
                        numbers = one[-1][0]
                        told, together = numbers[-1], len(numbers)
                else:
                    self._take_one(peer, one, now)
                    if kind == _TELL:
                        told, together = one[2], 1
            if told:
                self.confirmations.taken(peer, told, together)
        departures.let_go(at_once=runners.work_at_once())
        if credits:
            give(credits)

    def _confirm(self, peer: Peer, told: int) -> None:
        self._remote.send(peer, Kind.TAKEN, told, b"")

    def _take_batch(self, peer: Peer, one: Part, now: float) -> None:
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

    def _take_one(self, peer: Peer, one: Part, now: float) -> None:
        kind = one[0]
        try:
            if kind == _ASK:
                self._ask(peer, one, now)
            elif kind == _TELL:
                self._tell(peer, one)
            else:
                self._by_kind.get(kind, self._unknown)(peer, Envelope(*one))
        except Exception as error:
            self._reject(f"{type(error).__name__}: {error}", 0)

    def _without_asks(self, peer: Peer, came: list[Part]) -> list[Part]:
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

    def _ask(self, peer: Peer, one: Part, now: float) -> None:
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

    def _tell(self, peer: Peer, one: Part) -> None:
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
                origins, origin = message.via.origins, tuple(origin)
                message.sender = origins.get(origin) or _origin(message.via, origin)
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
        message.via.serving.pop(message._call_id, None)
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


def _is_lone(work: Work) -> bool:
    """True for one message, and no more."""
    return len(work) == 1 and len(work[0][1]) == 1 and work[0][1][0][0] not in BATCHES


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


def give(credits: dict[Peer, int]) -> None:
    """Let senders know how far their frames were taken in."""
    for peer, sequence in credits.items():
        peer.credit(sequence)


def _make_foreign(message: RemoteMessage) -> None:
    message.method = message.method[1:]
    message.foreign = True


def _pass_on(answer: RemoteAsk, outcome: Reply[Any]) -> None:
    outcome._read = True
    if outcome._error is not None:
        answer._answer_error(outcome._error)
    else:
        answer._answer(outcome._value)

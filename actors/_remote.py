"""
The remote half of a system: its inbox, its peers, and what is sent to them.

What comes in is `_arrivals`' business, when something leaves `_departures`', and what goes through
shared memory `_parcels`'.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from actors import events, pickling
from actors._arrivals import Arrivals
from actors._calls import Call, SentTell
from actors._departures import Departures
from actors._feeds import gone
from actors._message import Message, Step, encode_error
from actors._outbox import OutboxFull
from actors._parcels import Parcels
from actors._peers import BURST, MAX_BODY, Peer, TooLarge
from actors._reception import Reception
from actors._senders import Senders
from actors._shared import SHARED_FROM
from actors._vigil import Vigil
from actors._way import Way
from actors.address import host_id_of
from actors.blame import blame
from actors.errors import ActorError, MailboxFull, SerializationError, Unavailable
from actors.exit import Exit, Terminated
from actors.ref import Ref
from actors.remains import InHand, has_remains
from actors.reply import Reply, failed
from actors.rundir import KEY_NAME, ensure_private_dir, make_key, read_key, run_root
from actors.transport import Transport, open_nng
from actors.wire import BadFrame, Codec, Frame, Kind, Sealer, head_of

if TYPE_CHECKING:
    from actors.system import ActorSystem
    from actors.tracing import Metadata

_ASK, _ASK_NAMED, _TELL = int(Kind.ASK), int(Kind.ASK_NAMED), int(Kind.TELL)
_PICKLE, _JSON = int(Codec.PICKLE), int(Codec.JSON)

_HEADS = 10_000
"""Heads of calls that are remembered; writing one takes 3 µs."""

MAX_PEERS = 10_000
"""Processes that may be known at a time; frames of one more are refused."""

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
        self._senders = Senders()
        self._peers_lock = threading.Lock()
        """Guards changes of both."""
        self._closed = False
        self._watch_ids = itertools.count(1)
        self._arrivals: Arrivals | None = None
        self.parcels = Parcels(system, self.send)
        self._heads: dict[tuple[str, int, int, str], bytes] = {}
        """Of calls that were made lately."""
        self.in_hand: InHand | None = None
        """Where this process notes what it is handling, should it be sent again."""
        self.address = ""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the inbox. Without a transport: nng in the run root, with the key all systems there share."""
        if self._transport is None:
            root = ensure_private_dir(run_root())
            self._key = self._key or read_key(make_key(root / KEY_NAME))
            self._transport = open_nng(str(root))
        self._sealer = Sealer(self._key or bytes(32))
        foreign = self._codec == Codec.JSON
        self._arrivals = Arrivals(self._system, self, self._transport, self._sealer, loop, foreign=foreign)
        self._answer_vigil, self._question_vigil = Vigil(loop), Vigil(loop)
        self.departures = Departures(loop, self._system._loop_thread, self._system._counts)
        self.reception = Reception(self._transport, loop, self._system._inbox.post)
        self._transport.listen(self._arrivals.receive, loop)
        self.address = self._transport.address
        if has_remains(self.address):
            self.in_hand = InHand(self.address, self._system._crash_file)
        if self._codec == Codec.PICKLE:
            self.parcels.open(self.address)

    async def flush_out(self) -> None:
        """Give what is queued a second to leave."""
        if self._arrivals is not None:
            self._arrivals.delivery.confirmations.confirm_all()
        self.departures.flush_all()
        for _ in range(100):
            if all(peer.is_idle for peer in self._peers.values()):
                break
            await asyncio.sleep(0.01)
        if self._peers:
            await asyncio.sleep(_LINGER)

    def close(self) -> None:
        """Close all links and the inbox; whoever still waits is told."""
        with self._peers_lock:
            self._closed = True
        for peer in list(self._peers.values()):
            self._lose(peer, "this process's system stopped")
        self.parcels.close()
        if self.in_hand is not None:
            self.in_hand.close()
        if self._transport is not None:
            self._transport.close()

    @property
    def rejected_frames(self) -> int:
        """Frames that were dropped before anything in them was decoded."""
        return self._arrivals.rejected_frames if self._arrivals is not None else 0

    def receives_here(self) -> bool:
        """True on the thread that is taking in frames just now, in a callback of what came."""
        return self._arrivals is not None and self._arrivals.receiver == get_ident()

    # -- sending ---------------------------------------------------------------------

    def ask(
        self,
        call: Call,
        address: str,
        ref: Ref[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
        chain: tuple[Step, ...],
    ) -> None:
        """Send an ask; failing to is an outcome of the call like any other."""
        deadline_at = call.deadline_at
        remaining = math.inf if deadline_at == math.inf else deadline_at - self._system.clock.now()
        calls = self._system._calls
        peer = self._peers.get(address) or self.peer(address)
        kind = _ASK
        if call.tag is not None:
            kind, kwargs = _ASK_NAMED, {**kwargs, "": tuple(call.tag)}
        try:
            codec, head, body = self._encode(
                peer, ref, call.method, args, kwargs, sender, chain, call.metadata
            )
            call.peer = peer  # before it can leave: only its answers are taken
            waits = peer.put((kind, codec, call.call_id, body, head, remaining, call))
        except OutboxFull as error:
            self.parcels.take_back(peer, codec, body)
            full = MailboxFull(f"the way to {ref._name} is full: {error}")
            calls.refuse(call, blame(full, ref._name))
        except ActorError as error:
            calls.fail(call, error)
        else:
            self.leaves(call, peer, waits)

    def way(self, ref: Ref[Any], address: str, method: str, version: int) -> Way | None:
        """The way of plain messages from *ref* to *method* at *address*; None where there is none now."""
        peer = self._peers.get(address)
        if peer is None or self._codec != Codec.PICKLE:
            return None
        head = self._heads.get((ref._name, ref._uid, ref._pin, method))
        if head is None:
            return None  # the message could not be written
        return Way(self._system, self, ref, method, peer, head, version)

    def leaves(self, call: Call, peer: Peer, waits: int) -> None:
        """*call* stands in the outbox of *peer*."""
        calls = self._system._calls
        if peer.is_lost:
            return  # it is told by whoever loses the peer, or was by the outbox
        if peer.dirty:
            if waits % BURST == 0 or get_ident() != self._system._loop_thread:
                peer.flush()
        elif len(calls.by_id) != 1:
            self.departures.flush(peer, waits)
        else:
            # The only call under way: nothing is about to join it.
            if self.departures.holds_back:
                self.departures.flush(peer, waits)
            else:
                peer.flush()
            if not self.reception.is_apart and get_ident() == self._system._loop_thread:
                self._answer_vigil.keep(lambda: call.done)

    def tell(
        self,
        address: str,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
        metadata: Metadata | None = None,
    ) -> Reply[None]:
        """Send a tell; its reply resolves when the receiver has confirmed taking it."""
        peer = self._peers.get(address) or self.peer(address)
        try:
            codec, head, body = self._encode(peer, ref, method, args, kwargs, sender, (), metadata)
        except ActorError as error:
            return failed(error)
        name = sender.cell.name if sender is not None and sender.cell is not None else None
        tell = SentTell(self._system, ref._name, method, name)
        try:
            waits = peer.put((_TELL, codec, 0, body, head, math.inf, tell))
        except OutboxFull as error:
            self.parcels.take_back(peer, codec, body)
            return failed(MailboxFull(f"the way to {ref._name} is full: {error}"))
        self.departures.flush(peer, waits)
        return tell

    def cancel(self, call: Call) -> None:
        """Tell the far end that nobody waits for *call* any more."""
        if call.peer is not None:
            self.send(call.peer, Kind.CANCEL, call.call_id, b"")

    def send_back(self, peer: Peer, kind: int, codec: int, call_id: int, body: bytes) -> None:
        """An answer to *peer*; one too large to travel becomes an error that says so."""
        if len(body) > MAX_BODY:
            problem = SerializationError(f"the result has {len(body)} bytes, a message at most {MAX_BODY}")
            kind, body = Kind.ERROR, encode_error(problem, codec)
        try:
            waits = peer.put((kind, codec, call_id, body, b"", math.inf, None))
        except OutboxFull:
            self.parcels.take_back(peer, codec, body)
            self.gives_up(peer)
            return
        if not peer.dirty or waits % BURST == 0 or get_ident() != self._system._loop_thread:
            self.answer_leaves(peer, waits)

    def answer_leaves(self, peer: Peer, waits: int) -> None:
        """An answer stands in the outbox of *peer*, as the last of so many."""
        if self.departures.answers_at_once and get_ident() == self._system._loop_thread:
            self.departures.answers_at_once = False
            peer.flush()  # before its actor's turn is ended: nothing else is about to leave
            if not self.reception.is_apart and self._arrivals is not None:
                delivery = self._arrivals.delivery
                readings = delivery.readings
                self._question_vigil.keep(lambda: delivery.readings != readings)
        else:
            self.departures.flush(peer, waits)

    def queue(self, peer: Peer, kind: int, codec: int, call_id: int, body: bytes) -> None:
        """One envelope that nobody waits for, to leave with the next flush."""
        try:
            peer.put((kind, codec, call_id, body, b"", math.inf, None))
        except OutboxFull:
            self.parcels.take_back(peer, codec, body)
            self.gives_up(peer)

    def send(self, peer: Peer, kind: int, call_id: int, body: bytes, codec: int | None = None) -> None:
        """One envelope that nobody waits for."""
        try:
            codec = self._codec if codec is None else codec
            waits = peer.put((kind, codec, call_id, body, b"", math.inf, None))
        except OutboxFull:
            self.gives_up(peer)
        else:
            self.departures.flush(peer, waits)

    def _encode(
        self,
        peer: Peer,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
        chain: tuple[Step, ...],
        metadata: Metadata | None,
    ) -> tuple[int, bytes, bytes]:
        """
        Codec, head and body of a call. `SerializationError` names the argument that cannot travel.

        The body is the tuple of positional arguments where that is all, else a list: arguments,
        keyword arguments, sender, metadata by name, the asks that wait for this one.
        """
        key = (ref._name, ref._uid, ref._pin, method)
        try:
            head = self._heads.get(key) or self._head(key)
            content: Any = args
            is_flat = not kwargs
            if kwargs or sender is not None or metadata is not None or self._codec == Codec.JSON:
                life = sender.life if sender is not None else None
                origin = None if life is None else (life.cell.name, life.cell.uid, life.incarnation)
                carried = metadata.to_plain() if metadata is not None else None
                # Plain tuples: of a named one the pickle would name the class, 3 µs on both sides.
                content = [args, kwargs, origin, carried, *map(tuple, chain)]
                if self._codec == Codec.JSON:
                    return _JSON, head, json.dumps(content).encode()
            for arg in args:
                kind = type(arg)
                if kind not in pickling.FLAT or (kind is bytes and len(arg) >= SHARED_FROM):
                    is_flat = False
            if is_flat:
                body = pickling.dumps_flat(content)
                if len(body) < SHARED_FROM:
                    return _PICKLE, head, body
            codec, body = self.parcels.pack(peer, content, is_flat=is_flat)
            return codec, head, body
        except TooLarge as error:
            raise SerializationError(f"the arguments of {ref._name}.{method}() have {error}") from None
        except ActorError:
            raise
        except Exception as error:
            if self._codec == Codec.JSON:
                problem = f"the arguments of {ref._name}.{method}() are no JSON: {error}"
            else:
                problem = pickling.misfit(ref._name, method, args, kwargs, error)
            raise SerializationError(problem) from error

    def _head(self, key: tuple[str, int, int, str]) -> bytes:
        head = head_of(*key)
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[key] = head
        return head

    # -- peers -------------------------------------------------------------------------

    def peer(self, address: str) -> Peer:
        """The process at *address*; any thread."""
        peer = self._peers.get(address)
        if peer is None:
            with self._peers_lock:
                peer = self._peers.get(address)
                if peer is None:
                    assert self._transport is not None
                    seen = self._senders.found(host_id_of(address))
                    peer = Peer(address, self._transport.link, self._sealer, self.address, self._lost, seen)
                    if self._closed:
                        peer.lose()  # whatever is put there never leaves, and is told so
                    else:
                        self._peers[address] = peer
        return peer

    def sender_of(self, frame: Frame) -> Peer:
        """Who has sent *frame*. `BadFrame` for one that came before, and for one process too many."""
        peer = self._peers.get(frame.address)
        if peer is None:
            with self._peers_lock:
                last, count = self._senders.last_of(host_id_of(frame.address)), len(self._peers)
            if frame.sequence <= last:
                raise BadFrame("sequence")
            if count >= MAX_PEERS:
                raise BadFrame("peers")
            peer = self.peer(frame.address)
        seen = peer.seen
        if frame.sequence <= seen.last:
            raise BadFrame("sequence")
        seen.last = frame.sequence
        return peer

    def gives_up(self, peer: Peer) -> None:
        """The outbox of *peer* is full."""
        self._lost(peer, "it does not read what we send")

    def _lost(self, peer: Peer, reason: str) -> None:
        """Any thread, nng's callbacks among them: nothing of nng may be called here."""
        self._system._inbox.post(self._lose, peer, reason)

    def _lose(self, peer: Peer, reason: str) -> None:
        if peer.is_lost:
            return
        with self._peers_lock:
            if self._peers.get(peer.address) is peer:
                del self._peers[peer.address]
                self._senders.lost(peer.host_id, peer.seen)
        calls = self._system._calls
        unsent, unconfirmed = peer.lose()
        self.parcels.lost(peer)
        for owner in unsent:
            owner.never_sent(reason)
        for call in calls.of_peer(peer):
            calls.fail(call, _gone(call, reason))
        for tell in unconfirmed:
            tell.lost(reason)
        self._system._reliable.lost(peer)
        serving, peer.serving = peer.serving, {}
        for message in serving.values():
            if message.cell is not None:
                message.cell.cancel(message)
        intakes, peer.intakes = peer.intakes, {}
        for intake in intakes.values():
            intake._reject(gone(peer, reason))
        watching, peer.watching = peer.watching, {}
        for watch_id, cell in watching.items():
            (cell.watchers or {}).pop((peer.address, watch_id), None)
        watched, peer.watched = peer.watched, {}
        for notify in watched.values():
            notify(0, Exit("killed", reason))
        self._system._emit(events.PeerLost(peer.address, reason))

    # -- watching actors of other processes ------------------------------------------------

    def watch(self, address: str, ref: Ref[Any], notify: Callable[[Terminated], None]) -> Callable[[], None]:
        """Hear of the end of *ref*'s registration, or of its process; returns what undoes it. Loop only."""
        peer = self.peer(address)
        watch_id = next(self._watch_ids)
        target = json.dumps([ref._name, ref._uid]).encode()

        def ended(incarnation: int, exit: Exit) -> None:
            notify(Terminated(ref._with(pin=ref._pin or incarnation), exit))

        def undo() -> None:
            if peer.watched.pop(watch_id, None) is not None:
                self.send(peer, Kind.UNWATCH, watch_id, target)

        peer.watched[watch_id] = ended
        self.send(peer, Kind.WATCH, watch_id, target)
        return undo


def _gone(call: Call, reason: str) -> Unavailable:
    text = f"{call._describe()}: the process of {call.target._name} is gone ({reason})"
    return blame(Unavailable(text, reason=reason), call.target._name)

"""
Sending: asks and tells of one process, to its own cells and to other processes.

Inside the process a message is a method call away from its mailbox; between processes it leaves
through `_remote`. What was sent once the same way, plainly, goes by its `_way` from then on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from actors import _passage, events
from actors._answered import deliver_named
from actors._calls import STREAM_TIMEOUT, Call
from actors._feeds import refuse_streams
from actors._message import Message, NoAnswer, Step, current_message
from actors._named import NamedMessage, ask_named
from actors._way import TAKEN, NearWay
from actors.idempotency import idempotency_of
from actors.pickling import FLAT
from actors.reply import Reply, failed
from actors.stream import is_stream
from actors.tracing import Metadata, carriage

if TYPE_CHECKING:
    from actors._cell import Cell
    from actors.ref import Ref
    from actors.system import ActorSystem

_LONGEST_CHAIN = 32
"""Asks of a chain of asks that travel with a message; a longer circle is not recognised."""


class Sending:
    """What one process sends. Any thread, but for what says otherwise."""

    __slots__ = ("_refusal", "_system")

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._refusal = _Refusal()

    def ask(
        self,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        streams: bool = False,
        said: Any = None,
    ) -> Reply[Any]:
        """`Ref.ask` and `Ref.stream`. *said* is what the caller gave for the method: name or function."""
        system = self._system
        naming = ref._naming
        if naming is not None and naming.covers(method):
            return ask_named(system, ref, method, args, kwargs, naming.key, streams=streams)
        sender = current_message.get()
        carries = carriage.on and not _passage.is_plain(system, ref, method, sender)
        timeout = ref._timeout
        call = Call(system, ref, method, timeout)
        call.given_timeout = ref._timeout_given
        if streams or sender is not None:
            self.set_deadline(call, ref, sender, streams=streams)
        elif timeout is not None:
            call.deadline_at = system.clock.now() + timeout
        if carries and not _passage.may_leave(system, call, ref, args, kwargs, sender):
            return call
        version = 0 if ref._cell is not None else self.directory_version
        system._calls.add(call)
        self.dispatch(call, ref, args, kwargs, sender)
        if sender is None and call.peer is not None:
            self.know_way(ref, method, said, call.peer.address, version)
        return call

    @property
    def directory_version(self) -> int:
        """How often the news of who lives where have changed; 0 without a directory."""
        directory = self._system.directory
        return 0 if directory is None else directory.version

    def know_way(self, ref: Ref[Any], method: str, said: Any, address: str, version: int) -> None:
        """
        The next plain message of *ref* to that *method* finds its way at once.

        *version* is the directory's before it was asked for *address*.
        """
        way, remote = ref._way, self._system._remote
        if remote is not None and (way is None or not way.leads_to(method, address)):
            way = ref._way = remote.way(ref, address, method, version)
        if way is not None:
            # The ref itself asks and tells: a way that is short for one may pass over the other's promises.
            naming = ref._naming
            is_plain = not (ref._reliable or (naming is not None and naming.covers(method)))
            way.said = said if is_plain and idempotency_of(said) is None else None

    def set_deadline(
        self, call: Call, ref: Ref[Any], sender: Message | None, *, streams: bool = False
    ) -> None:
        """From now on *call* has its timeout, and in a handler no more time than that has."""
        if streams and not call.given_timeout:
            call.timeout = STREAM_TIMEOUT
        if call.timeout is not None:
            call.deadline_at = self._system.clock.now() + call.timeout
        if sender is not None:
            call.asker = sender
            if not ref._detached:
                call.bound_at = sender.deadline_at
                if sender.deadline_at < call.deadline_at:
                    call.deadline_at = sender.deadline_at
                    call.timeout = None

    def dispatch(
        self, call: Call, ref: Ref[Any], args: tuple[Any, ...], kwargs: dict[str, Any], sender: Message | None
    ) -> None:
        """Send a registered call to where *ref* lives."""
        system = self._system
        feeds = None
        for arg in args if not kwargs else (*args, *kwargs.values()):
            if type(arg) not in FLAT and is_stream(arg):
                feeds = system._feeds.of(call, args, kwargs)
                break
        try:
            place = system._place(ref)
        except Exception as error:
            system._calls.refuse(call, error)
            return
        if feeds is not None:
            args, kwargs = system._feeds.send(feeds, args, kwargs, place)
        chain: tuple[Step, ...] = ()
        if sender is not None:
            step: Step = tuple.__new__(Step, (system._id, call.call_id, f"{ref._name}.{call.method}()"))
            chain = (*sender.chain[1 - _LONGEST_CHAIN :], step) if sender.chain else (step,)
        if isinstance(place, str):
            assert system._remote is not None
            system._remote.ask(call, place, ref, args, kwargs, sender, chain)
        else:
            life = sender.life if sender is not None else None
            deadline_at = call.deadline_at
            if call.tag is None:
                message = Message(call.method, args, kwargs, call, life, deadline_at)
            else:
                message = NamedMessage(call.method, args, kwargs, call, life, deadline_at)
                message.tag = call.tag
            message.pin = ref._pin
            message.chain = chain
            message.metadata = call.metadata
            call.message = message
            call.target = ref
            system._on_loop(self._deliver if call.tag is None else self._deliver_named, place, message)
        if system._closed:
            system._calls.fail(call, system._unreachable(ref))

    def tell(
        self,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        metadata: Metadata | None = None,
        *,
        said: Any = None,
    ) -> Reply[None]:
        """`Ref.tell`; with *metadata* it has passed its interceptors. *said* as in `ask`."""
        system = self._system
        sender = current_message.get()
        if carriage.on and metadata is None and not _passage.is_plain(system, ref, method, sender):
            return _passage.tell(system, ref, method, args, kwargs, sender)
        for arg in args if not kwargs else (*args, *kwargs.values()):
            if type(arg) not in FLAT and is_stream(arg):
                return self.lost_tell(ref, method, sender, refuse_streams(ref._name, method))
        if ref._reliable:
            return system._reliable.tell(ref, method, args, kwargs, sender, metadata)
        cell = ref._cell
        if (
            cell is not None
            and metadata is None
            and threading.get_ident() == system._loop_thread
            and not (cell.roams or system._closed or cell.overflow == "block")
        ):
            if not ref._pin and said is not None:
                if type(ref._way) is NearWay:
                    ref._way.method, ref._way.said = method, said
                else:
                    ref._way = NearWay(cell, method, said)
            return self._tell_at_once(cell, ref, method, args, kwargs, sender)
        version = 0 if ref._cell is not None else self.directory_version
        try:
            place = system._place(ref)
        except Exception as error:
            return self.lost_tell(ref, method, sender, error)
        if isinstance(place, str):
            assert system._remote is not None
            told = system._remote.tell(place, ref, method, args, kwargs, sender, metadata)
            if sender is None:
                self.know_way(ref, method, said, place, version)
            return told
        reply: Reply[None] = Reply(system)
        message = Message(
            method, args, kwargs, _TellAnswer(reply), sender.life if sender is not None else None
        )
        message.pin = ref._pin
        message.metadata = metadata
        system._on_loop(self._deliver_tell, place, message, reply)
        if system._closed:
            reply._reject(system._unreachable(ref))
        return reply

    def _tell_at_once(
        self,
        cell: Cell,
        ref: Ref[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sender: Message | None,
    ) -> Reply[None]:
        """A tell inside the process and on its loop: what became of it is known on return."""
        refusal = self._refusal
        message = Message(method, args, kwargs, refusal, sender.life if sender is not None else None)
        message.pin = ref._pin
        self._deliver(cell, message)
        message.answer = None
        if refusal.error is None:
            return TAKEN
        error, refusal.error = refusal.error, None
        return failed(error)

    def _deliver(self, cell: Cell, message: Message) -> None:
        if message.pin and message.pin < cell.incarnation:
            cell.refuse_pin(message)
        else:
            cell.deliver(message)

    def _deliver_named(self, cell: Cell, message: Message) -> None:
        if message.pin and message.pin < cell.incarnation:
            cell.refuse_pin(message)
        else:
            deliver_named(cell, message)

    def _deliver_tell(self, cell: Cell, message: Message, reply: Reply[None]) -> None:
        self._deliver(cell, message)
        if message.is_parked:
            return  # its reply is settled when there is room
        message.answer = None  # taken, or refused by now: what becomes of it is nobody's business
        reply._resolve(None)

    def lost_tell(
        self, ref: Ref[Any], method: str, sender: Message | None, error: BaseException
    ) -> Reply[None]:
        """The reply to a tell that *error* kept from leaving; it is accounted for."""
        name = sender.cell.name if sender is not None and sender.cell is not None else None
        self._system._on_loop(self.refuse_unreached, ref._name, name, method, error)
        return failed(error)

    def refuse_unreached(self, target: str, sender: str | None, method: str, error: BaseException) -> None:
        """Account for a message that found no cell; loop thread only."""
        self._system._counts.refused += 1
        self._system._emit(events.DeadLettered(target, sender, method, type(error).__name__))


class _Refusal(NoAnswer):
    """Keeps the refusal of a tell whose sender waits for it on the stack."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def _answer_refused(self, error: BaseException) -> None:
        self.error = error


class _TellAnswer(NoAnswer):
    """Where the refusal of a tell goes: the reply that its sender may look at."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply[None]) -> None:
        self._reply = reply

    def _answer_refused(self, error: BaseException) -> None:
        self._reply._reject(error)

    def _answer_taken(self) -> None:
        self._reply._resolve(None)

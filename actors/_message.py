"""
Messages: what lies in a mailbox, whether it came from this process or another.

A message knows how to answer its sender. A tell has a way back only until the
mailbox has taken it: refusals matter, outcomes go nowhere.
"""

from __future__ import annotations

import json
import math
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from actors import pickling
from actors._outbox import LATE, OutboxFull
from actors._peers import BURST, TooLarge
from actors.batch import MOST_BYTES, is_small
from actors.errors import ActorError, SerializationError
from actors.foreign import plain_error, to_json
from actors.ref import Ref
from actors.stream import BETWEEN
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    import asyncio

    from actors._cell import Cell
    from actors._life import Life
    from actors._outlet import Outlet
    from actors._peers import Peer
    from actors._remote import Remote
    from actors.actor import Method
    from actors.clock import Timer
    from actors.remains import Tag
    from actors.system import ActorSystem
    from actors.tracing import Metadata


class Answer(Protocol):
    """The way back to whoever sent a message: one value, one error, or an outlet for items."""

    def _answer(self, value: Any) -> None: ...
    def _answer_error(self, error: BaseException) -> None: ...
    def _answer_refused(self, error: BaseException) -> None:
        """It certainly never ran, so it may go to somebody else."""

    def _open_outlet(self) -> Outlet | None:
        """What takes its place when the handler turns out to be a stream; None where nobody reads."""


class Receipt(Protocol):
    """Whoever has to know what becomes of a message, answer or not. Loop thread only."""

    has_begun: bool
    """True once a handler of it was cut short: it goes to the next life, and says so."""

    def ended(self) -> None:
        """Its handler has ended, however."""

    def reached_nobody(self, error: ActorError | None) -> None:
        """It will not be handled."""


class Origin(NamedTuple):
    """The actor of another process that sent a message."""

    name: str
    uid: int
    incarnation: int
    address: str


class Step(NamedTuple):
    """One ask of a chain of asks: who asks whom, and in which process the asker waits."""

    system_id: int
    call_id: int
    asked: str


class Message:
    """One message to one actor."""

    __slots__ = (
        "answer",
        "args",
        "cancelled",
        "cell",
        "chain",
        "deadline_at",
        "foreign",
        "is_parked",
        "kwargs",
        "life",
        "metadata",
        "method",
        "pin",
        "sender",
        "task",
        "threaded",
        "via",
        "watch",
    )

    is_special = False
    """True for what no caller sent: timers, which are pinned, and notices, which name no method."""
    redelivered: bool = False
    """True when it was sent before, and may have been handled."""
    receipt: Receipt | None = None
    """Whom its end concerns beyond its answer: a reliable tell is acknowledged then."""
    tag: Tag | None = None
    """What it is known by where it can be sent again: the calls of `_named`, and reliable tells."""

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answer: Answer | None,
        sender: Life | Origin | None = None,
        deadline_at: float = math.inf,
    ) -> None:
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.answer = answer
        """None where nobody cares: timers, and tells that were taken."""
        self.sender = sender
        self.deadline_at = deadline_at
        self.via: Peer | None = None
        """The process it came from; None for this one."""
        self.pin = 0
        """The only incarnation that may handle it; 0 for any."""
        self.chain: tuple[Step, ...] = ()
        """The asks that wait for this one, the first one first."""
        self.metadata: Metadata | None = None
        """What it carries beside its arguments."""
        self.threaded = False
        """True while a thread works on it: nothing can interrupt that."""
        self.foreign = False
        """True when its argument is JSON text and its answer must be."""
        self.cell: Cell | None = None
        """Whom it has reached."""
        self.life: Life | None = None
        """Who handles it."""
        self.task: asyncio.Task[Any] | None = None
        """The task that its handler waits in; None before it does."""
        self.watch: Timer | None = None
        """Runs while its handler does, where the actor has a `handler_timeout`."""
        self.is_parked = False
        """True while it waits for room in a mailbox that has not taken it."""
        self.cancelled = ""
        """Why it should not run on: `caller`, `deadline`, `stop`, or empty."""

    @property
    def sender_name(self) -> str | None:
        """Who sent it, for dead letters."""
        sender = self.sender
        if sender is None:
            return None
        return sender.name if isinstance(sender, Origin) else sender.cell.name

    def sender_ref(self, system: ActorSystem) -> Ref[Any] | None:
        """A ref to the incarnation that sent it."""
        sender = self.sender
        if sender is None:
            return None
        if isinstance(sender, Origin):
            return Ref(system, sender.name, sender.uid, sender.address, pin=sender.incarnation)
        return sender.cell.ref()._with(pin=sender.incarnation)


class HookMessage(Message):
    """Stands for the runtime itself while `__init__`, `on_start` and `on_stop` run: nobody sent it."""

    __slots__ = ()

    def __init__(self, life: Life) -> None:
        super().__init__("on_start", (), {}, None)
        self.cell = life.cell
        self.life = life


class ReliableMessage(Message):
    """A tell that is acknowledged, and may have come before."""

    __slots__ = ("carried", "receipt", "redelivered", "tag")

    carried: Metadata | None
    """What its sender gave it; `metadata` may be changed by interceptors around its handler."""
    receipt: Receipt | None
    redelivered: bool
    tag: Tag | None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.carried = None
        self.receipt = None
        self.redelivered = False
        self.tag = None

    def carry(self, carried: Metadata | None) -> None:
        """Take what its sender gave it. Each time it is handled is a span of its own."""
        self.carried = carried
        self.metadata = carried.copy() if carried is not None else None


class Notice(Message):
    """Of the control lane: a watched actor ended."""

    __slots__ = ("key",)
    is_special = True

    def __init__(self, key: Any, terminated: Any) -> None:
        super().__init__("on_terminated", (terminated,), {}, None)
        self.key = key


class TimerMessage(Message):
    """A timer's tick. Meant for the life that started the timer, no other."""

    __slots__ = ("function", "waits")
    is_special = True

    def __init__(self, function: Method, args: tuple[Any, ...], life: Life) -> None:
        super().__init__(function.name, args, {}, None)
        self.life = life
        self.pin = life.incarnation
        self.function = function
        """Timers may name private methods too."""
        self.waits = True
        """True until it is taken out of the mailbox: a late tick is not followed by another."""


current_message: ContextVar[Message | None] = ContextVar("understudy_message", default=None)
"""The message whose handler is running here: sender, deadline, and whose actor it is."""


_PICKLE, _SHARED, _VALUE = int(Codec.PICKLE), int(Codec.SHARED), int(Kind.VALUE)

NO_KEYWORDS: dict[str, Any] = {}
"""The keyword arguments of most calls. Nobody changes them: a handler gets a copy."""


class NoAnswer:
    """Nobody waits for the outcome of a tell. Its refusals matter to those who override this."""

    __slots__ = ()

    def _answer(self, value: Any) -> None: ...
    def _answer_error(self, error: BaseException) -> None: ...
    def _answer_refused(self, error: BaseException) -> None: ...
    def _open_outlet(self) -> Outlet | None: ...

    def _answer_taken(self) -> None:
        """The mailbox, which was full when it came, has taken it."""


class RemoteMessage(Message):
    """
    A message from another process, and the way back there: one object for both.

    As its own `answer` it is a reference cycle, which ends with `answer = None`.
    """

    __slots__ = ("_call_id", "_codec", "_remote")
    via: Peer

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        pin: int,
        deadline_at: float,
        remote: Remote,
        peer: Peer,
        call_id: int,
        codec: int,
        cell: Cell | None = None,
    ) -> None:
        # `Message.__init__` written out: it runs for every message of a host.
        self.method = method
        self.args = args
        self.kwargs = NO_KEYWORDS
        self.answer: Answer | None = self  # type: ignore[assignment]
        self.sender = None
        self.deadline_at = deadline_at
        self.pin = pin
        self.chain = ()
        self.threaded = self.foreign = self.is_parked = False
        self.via = peer
        self.cell = cell
        self.life = self.task = self.watch = self.metadata = None
        self.cancelled = ""
        self._remote = remote
        self._call_id = call_id
        self._codec = codec if codec != _SHARED else _PICKLE
        """What an answer is encoded in."""


class RemoteAsk(RemoteMessage):
    """Its outcome goes back."""

    __slots__ = ()

    def _answer(self, value: Any) -> None:
        # Short text written out: the usual answer.
        if self._codec == _PICKLE and (
            len(value) <= MOST_BYTES if type(value) is str else is_small((value,))
        ):
            peer, call_id = self.via, self._call_id
            peer.serving.pop(call_id, None)
            try:
                waits = peer.put((_VALUE, LATE, call_id, value, b"", math.inf, None))
            except OutboxFull:
                self._remote.gives_up(peer)
            else:
                if not peer.dirty or waits % BURST == 0:
                    self._remote.answer_leaves(peer, waits)  # else it leaves with the others
            return
        try:
            codec, body = self._encode(value)
        except Exception as error:
            self._answer_error(untransportable("the result", value, error))
        else:
            self.via.serving.pop(self._call_id, None)
            self._remote.send_back(self.via, _VALUE, codec, self._call_id, body)

    def _answer_error(self, error: BaseException) -> None:
        self._end(Kind.ERROR, encode_error(error, self._codec))

    def _answer_refused(self, error: BaseException) -> None:
        self._end(Kind.REFUSED_ASK, encode_error(error, self._codec))

    def _open_outlet(self) -> Outlet | None:
        from actors._outlet import ANSWERS, Outlet, RemotePipe

        peer, call_id = self.via, self._call_id
        served = partial(peer.serving.pop, call_id, None)
        return Outlet(RemotePipe(self._remote._system, peer, call_id, self._codec, ANSWERS, served), BETWEEN)

    def _encode(self, value: Any) -> tuple[int, bytes]:
        if self._codec == _PICKLE:
            return self._remote.parcels.pack(self.via, value)
        return self._codec, to_json(value).encode()

    def _end(self, kind: Kind, body: bytes) -> None:
        self.via.serving.pop(self._call_id, None)
        self._remote.send_back(self.via, kind, self._codec, self._call_id, body)


class RemoteTell(RemoteMessage, NoAnswer):
    """Refusals go back, one by one; nobody waits for the outcome."""

    __slots__ = ()

    @property
    def tell_id(self) -> int:
        """Which tell of its process it is."""
        return self._call_id

    def _answer_taken(self) -> None:
        self._remote.send_back(self.via, Kind.ADMITTED, self._codec, self._call_id, b"")

    def _answer_refused(self, error: BaseException) -> None:
        body = encode_error(error, self._codec)
        self._remote.send_back(self.via, Kind.REFUSED, self._codec, self._call_id, body)


def encode_error(error: BaseException, codec: int) -> bytes:
    """The body of an envelope that carries *error*."""
    if codec == Codec.JSON:
        return json.dumps(plain_error(error)).encode()
    return pickling.dumps(pickling.encode_error(error))


def untransportable(what: str, value: Any, error: Exception) -> SerializationError:
    """What is said of a *value* that *error* kept from leaving."""
    if isinstance(error, TooLarge):
        return SerializationError(f"{what} has {error}")
    return SerializationError(f"{what} cannot be pickled: {pickling.shown(value)} ({error})")

"""
Named calls: asks of idempotent methods. Each has a name that it keeps when it is sent again.

What may have run is sent again within the deadline, by the rules of `retry`, unless it was in the
handler when its process died, twice: then it is poison, a dead letter with the stack of the crash.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from actors import _passage, events
from actors._calls import Call
from actors._message import Message, RemoteAsk, current_message
from actors.blame import blame, blamed
from actors.errors import ActorStopped, InvalidArgument, Unavailable
from actors.remains import NOTHING, POISONOUS, Remains, Tag, has_remains, remains_of
from actors.retry import MAX_ATTEMPTS, RetryBudget, wait_before
from actors.tracing import carriage

if TYPE_CHECKING:
    from actors._peers import Peer
    from actors.ref import Ref
    from actors.reply import Reply
    from actors.system import ActorSystem

_LAST_LOOK = 0.25
"""Seconds that a process whose pipe has closed may take to be dead."""
_LOOK_PAUSE = 0.01

_numbers = itertools.count(1)
_chances: WeakKeyDictionary[Peer, float] = WeakKeyDictionary()


class NamedMessage(Message):
    """A message that may have come before, or may come again."""

    __slots__ = ("tag",)

    tag: Tag | None

    @property
    def redelivered(self) -> bool:  # type: ignore[override]
        return self.tag is not None and self.tag.attempt > 1


class RemoteNamedAsk(RemoteAsk):
    """The same, from another process."""

    __slots__ = ("tag",)

    tag: Tag | None

    @property
    def redelivered(self) -> bool:  # type: ignore[override]
        return self.tag is not None and self.tag.attempt > 1


def tag_in(kwargs: dict[str, Any]) -> Tag:
    """Take the tag out of the arguments that it came with. `InvalidArgument` where there is none."""
    try:
        return Tag(*kwargs.pop(""))
    except (KeyError, TypeError) as error:
        raise InvalidArgument(f"this is no call with a name: {error}") from error


class NamedCall(Call):
    """An ask that may be sent again."""

    __slots__ = ("attempts", "tag")

    tag: Tag

    def __init__(
        self, system: ActorSystem, target: Ref[Any], method: str, timeout: float | None, key: str | None
    ) -> None:
        super().__init__(system, target, method, timeout)
        self.tag = Tag(system._id, next(_numbers), key)
        self.attempts: Attempts | None = None

    def retry(self, error: BaseException) -> bool:
        return self.attempts is not None and self.attempts.failed(error)

    def reroute(self, error: BaseException) -> bool:
        return self.attempts is not None and self.attempts.refused(error)

    def _reject(self, error: BaseException) -> None:
        earlier = self.attempts.error if self.attempts is not None else None
        if earlier is not None and never_ran(error):
            error = earlier  # true of the last attempt only
        super()._reject(error)


class Attempts:
    """The attempts of one named call: whether another follows, and when."""

    __slots__ = ("_budget", "_call", "_on_failed", "_send", "_waits", "error")

    def __init__(
        self,
        call: NamedCall,
        budget: RetryBudget,
        send: Callable[[], None],
        on_failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._call = call
        self._budget = budget
        self._send = send
        """Sends the call to where its target lives then; any thread."""
        self._on_failed = on_failed
        """Told first of each failure."""
        self._waits = 1
        self.error: Unavailable | None = None
        """Of the last attempt that may have run."""
        call.attempts = self
        call.add_done_callback(self._settled)

    def _settled(self, call: Reply[Any]) -> None:
        if not isinstance(call._error, Unavailable):
            self._budget.succeeded()
        self._call.attempts = None  # a circle would outlive the last reference

    def failed(self, error: BaseException) -> bool:
        """`Calls.fail` asks, who has taken the call out: True when it is sent again. Any thread."""
        call = self._call
        if not (isinstance(error, Unavailable) and error.may_have_run and blamed(error) == call.target._name):
            return False
        self._on_failed(error)
        self._budget.failed()
        self.error = error
        if call.tag.attempt >= MAX_ATTEMPTS or not self._budget.allows_retries or call.target._pin:
            return False
        peer, call.peer, call.message = call.peer, None, None
        call.tag = call.tag.again()
        return self._wait(wait_before(call.tag.attempt, partial(_chance_after, peer)), peer)

    def refused(self, error: BaseException) -> bool:
        """`Calls.refuse` asks, of a ref to one actor: True when it waits until that is back."""
        call = self._call
        if self.error is None or not never_ran(error) or not isinstance(error, Unavailable):
            return False
        if call.target._home:
            return False  # nobody else will ever listen there
        self._waits += 1
        call.peer = call.message = None
        return self._wait(wait_before(self._waits), None)

    def _wait(self, seconds: float, peer: Peer | None) -> bool:
        call = self._call
        system = call.system
        now = system.clock.now()
        if now + seconds >= call.deadline_at:
            return False
        system._calls.add(call)
        look_until = now + max(seconds, _LAST_LOOK)
        is_lost = peer is not None and has_remains(peer.address)
        address = peer.address if peer is not None and is_lost else ""
        system._on_loop(self._later, seconds, address, look_until)
        return True

    def _later(self, seconds: float, address: str, look_until: float) -> None:
        again = partial(self._again, address, look_until)
        self._call.system.clock.call_later(seconds, again)

    def _again(self, address: str, look_until: float) -> None:
        call = self._call
        system = call.system
        remains = remains_of(address) if address else NOTHING
        if remains is None and system.clock.now() < look_until:
            self._later(_LOOK_PAUSE, address, look_until)
            return
        if system._calls.take(call.call_id) is None:
            return  # its time is up, or nobody wants it any more
        if remains is not None and (call.tag.origin, call.tag.number) in remains.deaths_by_call:
            call.tag = call.tag.after_death()
            if call.tag.deaths >= POISONOUS:
                self._give_up(remains)
                return
        self._send()

    def _give_up(self, remains: Remains) -> None:
        call = self._call
        asker = call.asker.cell if call.asker is not None else None
        letter = events.DeadLettered(
            call.target._name,
            asker.name if asker is not None else None,
            call.method,
            "poison",
            remains.crash(),
        )
        call.system._emit(letter)
        text = f"{call._describe()} was being handled when its process died, {call.tag.deaths} times:"
        error = Unavailable(f"{text} it is poison and is not sent again", reason="poison")
        error.__cause__ = self.error
        call._reject(blame(error, call.target._name))


def _chance_after(peer: Peer | None) -> float:
    """The chance in a wait: one for all calls that were lost with a process, so they keep their order."""
    if peer is None or not peer.is_lost:
        return random.random()
    return _chances.setdefault(peer, random.random())


def never_ran(error: BaseException) -> bool:
    """True for a refusal after which the message may go elsewhere."""
    return isinstance(error, ActorStopped) or (isinstance(error, Unavailable) and not error.may_have_run)


def ask_named(
    system: ActorSystem,
    ref: Ref[Any],
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    key: str | None,
    *,
    streams: bool = False,
) -> NamedCall:
    """Ask an idempotent method of one actor, or any by a name of the caller's."""
    call = NamedCall(system, ref, method, ref._timeout, key)
    call.given_timeout = ref._timeout_given
    sender = current_message.get()
    system._sending.set_deadline(call, ref, sender, streams=streams)
    if carriage.on and not _passage.may_leave(system, call, ref, args, kwargs, sender):
        return call

    def send() -> None:
        call.target = ref
        system._calls.add(call)
        system._sending.dispatch(call, ref, args, kwargs, sender)

    Attempts(call, system._retry_budgets.of(ref._name), send)
    send()
    return call

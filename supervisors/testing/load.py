"""
The load: callers that send numbered messages to scribes and write down what became of each.

They use every way there is to wait: callbacks, blocked threads and another event loop; through
the service, and to one member; asks and tells.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.errors import (
    ActorStopped,
    DeadlineExceeded,
    MailboxFull,
    NotFound,
    Refusal,
    StartFailed,
    Unavailable,
)
from actors.reply import Reply
from supervisors.cluster import Cluster
from supervisors.testing.ledger import FAILED, MAY_HAVE_RUN, NEVER_RAN, OK, Ledger

TELL_LIMIT = 15.0
"""Seconds in which a tell's reply has to settle: it was taken, or it was not."""
_MOST_OPEN = 200


class Load:
    """
    Calls *services* (name → the most members it may have) about *rate* times a second until it is left.

    `Scribe`s, or actors with the same `write(sender, seq)` and `note(sender, seq)`.
    """

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        services: Mapping[str, int],
        *,
        rate: float = 200.0,
        timeout: float = 2.0,
        seed: int = 0,
        name: str = "caller",
    ) -> None:
        self.name = name
        """What the senders' names begin with: two loads on one ledger need two."""
        self._cluster = cluster
        self._ledger = ledger
        self._services = dict(services)
        self._timeout = timeout
        self._stopping = threading.Event()
        self._open = 0
        self._settled = threading.Condition()
        ways: list[Callable[[Caller], None]] = [_call_back, _call_back, _block, _block, _await]
        self._callers = [
            Caller(self, f"{name}-{number}", way, len(ways) / rate, random.Random(f"{seed}/{number}"))
            for number, way in enumerate(ways)
        ]

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self, timeout: float = 30.0) -> None:
        """Send no more, and wait until everything that was sent has an outcome, *timeout* seconds at most."""
        self._stopping.set()
        give_up_at = time.monotonic() + timeout
        for caller in self._callers:
            caller.join(max(0.0, give_up_at - time.monotonic()))
        with self._settled:
            self._settled.wait_for(lambda: self._open == 0, max(0.0, give_up_at - time.monotonic()))

    @property
    def problems(self) -> list[BaseException]:
        """What ended a caller that should have gone on: defects of the test, or of what refs raise."""
        return [caller.problem for caller in self._callers if caller.problem is not None]

    # -- sending -------------------------------------------------------------------------

    def send(self, caller: Caller) -> Reply[Any] | None:
        """The next message of *caller*; None when it would have gone to a member that is not there."""
        service = caller.random.choice(list(self._services))
        ref: Any = self._cluster.service(service)
        target = service
        way = caller.random.choices(("ask", "member ask", "tell"), (5, 3, 2))[0]
        if way != "ask":
            number = caller.random.randrange(self._services[service])
            target = f"{service}/{number}"
            try:
                ref = ref.member(number)
            except NotFound:
                return None
        if way == "tell":
            return self._tell(caller, ref, target)
        return self._ask(caller, ref, target)

    def _ask(self, caller: Caller, ref: Any, target: str) -> Reply[Any]:
        sender, seq = caller.next_of(f"ask {target}")
        self._ledger.write(
            "sent", target, sender, seq, detail="ask write", due_at=time.monotonic() + self._timeout
        )
        self._begin()
        reply: Reply[Any] = ref.options(timeout=self._timeout).write(sender, seq)
        reply.add_done_callback(lambda done: self._answered(done, target, sender, seq))
        return reply

    def _tell(self, caller: Caller, ref: Any, target: str) -> Reply[Any]:
        sender, seq = caller.next_of(f"tell {target}")
        self._ledger.write(
            "sent", target, sender, seq, detail="tell note", due_at=time.monotonic() + TELL_LIMIT
        )
        self._begin()
        reply: Reply[Any] = ref.tell("note", sender, seq)
        reply.add_done_callback(lambda done: self._taken(done, target, sender, seq))
        return reply

    def _begin(self) -> None:
        with self._settled:
            self._open += 1

    def _end(self) -> None:
        with self._settled:
            self._open -= 1
            self._settled.notify_all()

    def _answered(self, reply: Reply[Any], target: str, sender: str, seq: int) -> None:
        outcome = reply.outcome(0)
        if outcome.error is None:
            name, incarnation, pid = outcome.unwrap()
            self._ledger.write("outcome", name, sender, seq, incarnation=incarnation, pid=pid, detail=OK)
        else:
            self._ledger.write("outcome", target, sender, seq, detail=word_for(outcome.error))
        self._end()

    def _taken(self, reply: Reply[Any], target: str, sender: str, seq: int) -> None:
        error = reply.outcome(0).error
        if error is None:
            self._ledger.write("accepted", target, sender, seq)
        else:
            self._ledger.write("outcome", target, sender, seq, detail=word_for(error))
        self._end()

    @property
    def is_full(self) -> bool:
        """True when so much is under way that more would only queue."""
        return self._open >= _MOST_OPEN


class Caller(threading.Thread):
    """One source of messages, in a thread of its own."""

    def __init__(
        self, load: Load, name: str, way: Callable[[Caller], None], pause: float, random: random.Random
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.load = load
        self.pause = pause
        self.random = random
        self.problem: BaseException | None = None
        self._way = way
        self._numbers: dict[str, itertools.count[int]] = {}

    def next_of(self, channel: str) -> tuple[str, int]:
        """Sender and number of the next message on *channel*: what goes one way has numbers of its own."""
        numbers = self._numbers.setdefault(channel, itertools.count(1))
        return f"{self.name} {channel}", next(numbers)

    def run(self) -> None:
        try:
            self._way(self)
        except BaseException as error:
            self.problem = error

    @property
    def is_stopping(self) -> bool:
        return self.load._stopping.is_set()

    def rest(self) -> None:
        """Until the next message is due."""
        self.load._stopping.wait(self.random.expovariate(1 / self.pause))


def _call_back(caller: Caller) -> None:
    """Waits for nothing: what settles a reply calls back."""
    while not caller.is_stopping:
        if not caller.load.is_full:
            caller.load.send(caller)
        caller.rest()


def _block(caller: Caller) -> None:
    """Blocks its thread for each outcome."""
    while not caller.is_stopping:
        reply = caller.load.send(caller)
        if reply is not None:
            reply.outcome()
        caller.rest()


def _await(caller: Caller) -> None:
    """Awaits on a loop that is not the system's, several at once."""
    asyncio.run(_await_all(caller))


async def _await_all(caller: Caller) -> None:
    while not caller.is_stopping:
        replies = [reply for _ in range(4) if (reply := caller.load.send(caller)) is not None]
        await asyncio.gather(*replies, return_exceptions=True)
        await asyncio.sleep(caller.random.expovariate(1 / (4 * caller.pause)))


def word_for(error: BaseException) -> str:
    """How an error reads in the ledger: what it says of whether the call ran, then its type."""
    kind = type(error).__name__
    if isinstance(error, Unavailable):
        return f"{MAY_HAVE_RUN if error.may_have_run else NEVER_RAN} {kind} ({error.reason})"
    if isinstance(error, (ActorStopped, NotFound, MailboxFull, StartFailed, Refusal)):
        return f"{NEVER_RAN} {kind} ({error})"
    if isinstance(error, DeadlineExceeded):
        return f"{MAY_HAVE_RUN} {kind}"
    return f"{FAILED} {kind} ({error})"

"""Exactly one outcome per ask, by its deadline, whatever dies, is late or is lost in between."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors import (
    Actor,
    ActorError,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    MailboxFull,
    NotFound,
    Ref,
    Refusal,
    Reply,
    Unavailable,
    UnknownMethod,
)
from actors._memory import MemoryTransport
from actors.testing import Fault, FaultyTransport, memory_system, wait_until
from supervisors import ChildSpec, Supervisor

EXAMPLES = 400 if os.environ.get("UNDERSTUDY_LONG") else 25

LATE = 1.0
"""Seconds after its deadline in which an outcome must be there: this machine has others to serve."""


class Boom(Exception):
    """A crash."""


class Log:
    """What the far side saw."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.late: list[int] = []


class Chef(Actor):
    """Notes which calls begin, and how they end."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def _begin(self, number: int) -> None:
        self.log.begun[number] += 1
        deadline = self.context.deadline
        if deadline is not None and deadline.expired:
            self.log.late.append(number)

    async def cook(self, number: int) -> int:
        self._begin(number)
        self.log.ended[number] += 1
        return number

    async def simmer(self, number: int, seconds: float) -> int:
        self._begin(number)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.log.ended[number] += 1
        return number

    async def burn(self, number: int) -> int:
        self._begin(number)
        self.log.ended[number] += 1
        raise Boom(number)

    async def refuse(self, number: int) -> int:
        self._begin(number)
        self.log.ended[number] += 1
        raise Refusal(str(number))


NEVER_RAN = (MailboxFull, NotFound, UnknownMethod)

asks = st.tuples(
    st.sampled_from(["cook", "cook", "simmer", "simmer", "burn", "refuse", "bake", "stranger"]),
    st.floats(0.01, 0.2),
    st.booleans(),
)
deeds = st.sampled_from(["turn", "turn", "wait", "cancel", "kill", "break", "break back", "die", "end"])
odds = st.fixed_dictionaries(
    {},
    optional={
        "drop": st.floats(0, 0.2),
        "delay": st.floats(0, 0.3),
        "duplicate": st.floats(0, 0.2),
        "fail": st.floats(0, 0.05),
    },
)


class World:
    """One who asks, one who is asked in another process, and a way between them that cannot be trusted."""

    def __init__(self, there: dict[Fault, float], back: dict[Fault, float], seed: int) -> None:
        self.chance = random.Random(seed)
        self.there = FaultyTransport(MemoryTransport(), odds=there, seed=seed, delay=(0.0, 0.02))
        self.back = FaultyTransport(MemoryTransport(), odds=back, seed=seed + 1, delay=(0.0, 0.02))
        self.is_trusty = not there and not back
        self.log = Log()
        self.asked: list[tuple[int, str, float, float, Reply[Any]]] = []
        self.settled: Counter[int] = Counter()
        self.settled_at: dict[int, float] = {}

    async def open(self, near: ActorSystem, far: ActorSystem, **options: Any) -> None:
        self.near, self.far = near, far
        spec = ChildSpec("chef", Chef, args=(self.log,), **options)
        await far.options(name="sup").spawn(Supervisor, [spec], "one_for_one", 10_000).wait_started()
        self.chef: Ref[Any] = near.ref(f"{far.address}#sup/chef")
        self.stranger: Ref[Any] = near.ref(f"{far.address}#stranger")

    def ask(self, method: str, timeout: float, cancels: bool) -> None:
        number = len(self.asked)
        ref = self.stranger if method == "stranger" else self.chef
        extra = (self.chance.random() * 0.1,) if method == "simmer" else ()
        name = "cook" if method == "stranger" else method
        asked_at = time.monotonic()
        reply = ref.options(timeout=timeout).ask(name, number, *extra)
        self.asked.append((number, method, asked_at, timeout, reply))
        reply.add_done_callback(lambda _: self._settle(number))
        if cancels and number % 3 == 0:
            reply.cancel()

    def _settle(self, number: int) -> None:
        self.settled[number] += 1
        self.settled_at[number] = time.monotonic()

    async def do(self, deed: str) -> None:
        if deed == "turn":
            await asyncio.sleep(0)
        elif deed == "wait":
            await asyncio.sleep(0.01)
        elif deed == "cancel" and self.asked:
            self.chance.choice(self.asked)[-1].cancel()
        elif deed == "kill":
            self.far.find("sup/chef").kill()
        elif deed == "break":
            self.there.script("fail")
        elif deed == "break back":
            self.back.script("fail")
        elif deed == "die":
            self.back.close()
        elif deed == "end":
            self.far.find("sup").kill()

    async def check(self) -> None:
        await wait_until(lambda: len(self.settled) == len(self.asked))
        outcomes = [(number, method, reply.outcome(0)) for number, method, _, _, reply in self.asked]
        await asyncio.sleep(0.03)  # what is still on its way would come now
        await wait_until(lambda: self.far.statistics().in_progress == 0)
        begun = self.log.begun

        assert set(self.settled.values()) <= {1}
        assert max(begun.values(), default=0) <= 1
        assert not self.log.late, "work began after its deadline"
        assert self.log.ended == begun, "a handler was not told that nobody waits"
        for number, _, asked_at, timeout, reply in self.asked:
            assert self.settled_at[number] - asked_at < timeout + LATE
            assert reply.outcome(0) == outcomes[number][2], "a late answer reached somebody"
        for number, method, outcome in outcomes:
            self._check_one(number, method, outcome.value, outcome.error)

    def _check_one(self, number: int, method: str, value: Any, error: BaseException | None) -> None:
        begun = self.log.begun[number]
        if error is None:
            assert (value, begun) == (number, 1)
            assert method in ("cook", "simmer")
        elif isinstance(error, Boom):
            assert (method, error.args, begun) == ("burn", (number,), 1)
        elif isinstance(error, Refusal):
            assert (method, str(error), begun) == ("refuse", str(number), 1)
        else:
            assert isinstance(error, ActorError), error
            assert isinstance(error, (*NEVER_RAN, Unavailable, DeadlineExceeded, Cancelled, ActorStopped)), (
                error
            )
            if isinstance(error, (*NEVER_RAN, ActorStopped)) or (
                isinstance(error, Unavailable) and not error.may_have_run
            ):
                assert begun == 0, f"call {number} ran, and {error!r} said that it never did"


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    there=odds,
    back=odds,
    seed=st.integers(0, 2**32),
    overflow=st.sampled_from(["reject", "drop_oldest", "block"]),
    mailbox=st.integers(1, 5),
    concurrency=st.integers(1, 2),
    steps=st.lists(st.one_of(asks, asks, deeds), max_size=40),
)
def test_every_ask_has_one_outcome_that_is_true(
    there: dict[Fault, float],
    back: dict[Fault, float],
    seed: int,
    overflow: str,
    mailbox: int,
    concurrency: int,
    steps: list[Any],
) -> None:
    async def play() -> None:
        world = World(there, back, seed)
        async with (
            memory_system(sinks=(), transport=world.there) as near,
            memory_system(sinks=(), transport=world.back) as far,
        ):
            await world.open(near, far, overflow=overflow, mailbox=mailbox, concurrency=concurrency)
            for step in steps:
                if isinstance(step, str):
                    try:
                        await world.do(step)
                    except NotFound:
                        pass  # it has ended before
                else:
                    world.ask(*step)
            await world.check()

    asyncio.run(play())


async def test_c46_c39_cancelled_and_late_work_is_told_so_on_a_trusty_way(
    system: ActorSystem, other: ActorSystem
) -> None:
    log = Log()
    other.options(name="chef", concurrency=50).spawn(Chef, log)
    chef = system.ref(f"{other.address}#chef")
    late = [chef.options(timeout=0.05).simmer(number, 30.0) for number in range(20)]
    cancelled = [chef.simmer(number, 30.0) for number in range(20, 40)]
    await wait_until(lambda: len(log.begun) == 40)

    for reply in cancelled:
        reply.cancel()
    outcomes = await asyncio.gather(*late, *cancelled, return_exceptions=True)

    assert [type(error) for error in outcomes] == [DeadlineExceeded] * 20 + [Cancelled] * 20
    await wait_until(lambda: other.statistics().in_progress == 0)
    assert log.ended == log.begun

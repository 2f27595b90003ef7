"""Tracing: a call carries its trace and its baggage to the handler, and on to whoever that asks."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from distant import Far, Relay

from actors import ActorSystem, InvalidArgument, Ref, _delivery, tracing
from actors.rundir import KEY_NAME, read_key
from actors.testing import FaultyTransport, wait_until
from actors.traces import Trace
from actors.tracing import carrying, current_baggage, current_trace
from actors.transport import open_nng
from actors.wire import Kind

TRACE = Trace.new()
NOWHERE = ("None", {})


def trace_ids(seen: list[tuple[str, dict[str, str]]]) -> set[str]:
    found = [Trace.parse(text) for text, _ in seen]
    assert all(found), seen
    return {trace.trace_id for trace in found if trace is not None}


def span_ids(seen: list[tuple[str, dict[str, str]]]) -> list[str]:
    return [trace.span_id for text, _ in seen if (trace := Trace.parse(text)) is not None]


@pytest.fixture(params=["here", "between systems", "between processes"])
async def relays(
    request: pytest.FixtureRequest, system: ActorSystem, other: ActorSystem, lasting: Far, run_root: Any
) -> AsyncIterator[list[Ref[Any]]]:
    """Three that can ask each other, wherever they are."""
    if request.param == "here":
        yield [system.spawn(Relay) for _ in range(3)]
    elif request.param == "between systems":
        names = [system.spawn(Relay).name, other.spawn(Relay).name, system.spawn(Relay).name]
        places = [system.address, other.address, system.address]
        yield [other.ref(f"{place}#{name}") for place, name in zip(places, names, strict=True)]
    else:
        async with ActorSystem(listen=True, sinks=()) as near:
            hand = lasting.actor(near, "stagehand")
            yield [await hand.start(Relay), near.spawn(Relay), await hand.start(Relay)]


async def test_a_trace_goes_along_a_chain_of_asks_each_a_span_of_its_own(relays: list[Ref[Any]]) -> None:
    with carrying(TRACE, baggage={"tenant": "7", "name": "Éva, x=y; 100 %"}):
        seen = await relays[0].along(*relays[1:])

    assert trace_ids(seen) == {TRACE.trace_id}
    assert len({*span_ids(seen), TRACE.span_id}) == 4
    assert [baggage for _, baggage in seen] == [{"tenant": "7", "name": "Éva, x=y; 100 %"}] * 3


async def test_it_goes_along_from_thread_to_thread(relays: list[Ref[Any]]) -> None:
    with carrying(TRACE, baggage={"tenant": "7"}):
        seen = await relays[0].along_on_threads(*relays[1:])

    assert trace_ids(seen) == {TRACE.trace_id}
    assert [baggage for _, baggage in seen] == [{"tenant": "7"}] * 3


async def test_streams_tells_and_named_calls_carry_it_too(relays: list[Ref[Any]]) -> None:
    relay, second = relays[0], relays[1]
    with carrying(TRACE):
        items = [item async for item in relay.items()]
        named = await relay.here_once()
        by_name = await relay.options(idempotency_key="one").here_once()
        await relay.tell(Relay.note)
        await relay.tell_on(second)
    await wait_until(lambda: _has_noted(second))
    noted = [*await relay.noted(), *await second.noted()]

    assert trace_ids([(items[0], {}), named, by_name, *noted]) == {TRACE.trace_id}
    assert items[0] == items[1], "one handler, one span"
    assert len(noted) == 2


async def test_reliable_tells_carry_it_from_handler_to_handler(relays: list[Ref[Any]]) -> None:
    relay, second = relays[0], relays[1]
    with carrying(TRACE, baggage={"tenant": "7"}):
        await relay.options(reliable=True).tell(Relay.note)
        await relay.tell_on_reliably(second)
    await relay.options(reliable=True).tell(Relay.note)
    first, *rest = await relay.noted()
    seen = [first, *await second.noted()]

    assert trace_ids(seen) == {TRACE.trace_id}
    assert len({*span_ids(seen), TRACE.span_id}) == 3
    assert [baggage for _, baggage in seen] == [{"tenant": "7"}] * 2
    assert rest == [NOWHERE]


async def test_a_reliable_tell_that_is_sent_again_carries_what_it_carried(
    lasting: Far, run_root: Path, frames_of_tells: list[int]
) -> None:
    """Another process gets it from the second frame, when the block it was sent in is long over."""
    faults = FaultyTransport(open_nng(str(run_root)))
    address = lasting.address  # from then on its key is there too
    async with ActorSystem(transport=faults, key=read_key(run_root / KEY_NAME), sinks=()) as near:
        relay = await near.ref(f"{address}#stagehand").start(Relay)
        await relay.noted()
        faults.script("drop")
        with carrying(TRACE, baggage={"tenant": "7"}):
            tell = relay.options(reliable=True).tell(Relay.note)
        await tell
        noted = await relay.noted()
        await relay.stop()

    assert len(frames_of_tells) > 1
    assert trace_ids(noted) == {TRACE.trace_id}
    assert [baggage for _, baggage in noted] == [{"tenant": "7"}]


async def _has_noted(relay: Ref[Any]) -> bool:
    return bool(await relay.noted())


async def test_without_a_trace_nothing_travels_and_none_begins(relays: list[Ref[Any]]) -> None:
    with carrying(TRACE):
        await relays[0].here()

    assert await relays[0].along(*relays[1:]) == [NOWHERE] * 3
    assert await relays[0].along_on_threads(*relays[1:]) == [NOWHERE] * 3


async def test_baggage_travels_without_a_trace(relays: list[Ref[Any]]) -> None:
    with carrying(baggage={"tenant": "7"}):
        assert await relays[0].along(*relays[1:]) == [("None", {"tenant": "7"})] * 3


async def test_a_timer_begins_outside_of_the_trace_that_started_it(relays: list[Ref[Any]]) -> None:
    with carrying(TRACE, baggage={"tenant": "7"}):
        await relays[0].note_later()

    await wait_until(lambda: _has_noted(relays[0]))
    assert await relays[0].noted() == [NOWHERE]


async def test_calls_side_by_side_do_not_mix_their_traces(relays: list[Ref[Any]]) -> None:
    async def ask(number: int) -> list[Any]:
        with carrying(Trace.new(), baggage={"number": str(number)}):
            begun = current_trace()
            assert begun is not None
            return [begun.trace_id, *await relays[number % 3].along(*relays[: number % 3])]

    for number, (trace_id, *seen) in enumerate(await asyncio.gather(*map(ask, range(30)))):
        assert trace_ids(seen) == {trace_id}
        assert [baggage for _, baggage in seen] == [{"number": str(number)}] * len(seen)


async def test_where_there_is_nothing_to_carry_the_body_is_the_plain_one(
    system: ActorSystem, other: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[Any] = []
    take_in = _delivery.Delivery.take_in

    def note(self: Any, work: Any, credits: Any) -> None:
        bodies.extend(one[-1] for _, batch in work for one in batch if one[0] == Kind.ASK)
        take_in(self, work, credits)

    monkeypatch.setattr(_delivery.Delivery, "take_in", note)
    relay = other.ref(f"{system.address}#{system.spawn(Relay).name}")

    await relay.here()
    with carrying(TRACE):
        await relay.here()
    await relay.here()

    assert bodies == [(), [(), {}, None, {"traceparent": str(TRACE)}], ()]


# -- carrying ----------------------------------------------------------------------------------------


def test_blocks_nest_and_end() -> None:
    inner = Trace.new()
    with carrying(TRACE, baggage={"a": "1"}):
        with carrying(inner, baggage={"b": "2"}):
            assert (current_trace(), current_baggage()) == (inner, {"a": "1", "b": "2"})
        with carrying(baggage={"a": "3"}):
            assert (current_trace(), current_baggage()) == (TRACE, {"a": "3"})
        assert (current_trace(), current_baggage()) == (TRACE, {"a": "1"})
    assert (current_trace(), current_baggage()) == (None, {})


def test_wrong_baggage_is_refused_where_it_is_packed() -> None:
    with pytest.raises(InvalidArgument, match="baggage"), carrying(baggage={"a b": "1"}):
        pass
    with carrying(baggage={"a": "x" * 8000}), pytest.raises(InvalidArgument, match="8192"):
        carrying(baggage={"b": "x" * 300}).__enter__()


async def test_a_handler_may_begin_a_trace_of_its_own(system: ActorSystem) -> None:
    class Beginner(Relay):
        async def begin(self, ref: Ref[Any]) -> Any:
            with carrying(TRACE):
                inside = await ref.here()
            return inside, await ref.here()

    inside, behind = await system.spawn(Beginner).begin(system.spawn(Relay))

    assert trace_ids([inside]) == {TRACE.trace_id}
    assert behind == NOWHERE


async def test_what_was_carried_where_the_system_began_is_not_its_handlers() -> None:
    with carrying(TRACE, baggage={"tenant": "7"}):
        system = ActorSystem(sinks=())
    async with system:
        assert await system.spawn(Relay).here() == NOWHERE


def test_threads_carry_what_they_say_they_carry() -> None:
    with ActorSystem(sinks=()) as system:
        relay = system.spawn(Relay)
        seen: list[Any] = []

        def ask(trace: Trace | None) -> None:
            if trace is None:
                seen.append((None, relay.here().result()))
                return
            with carrying(trace):
                seen.append((trace.trace_id, relay.here().result()))

        threads = [threading.Thread(target=ask, args=(trace,)) for trace in (Trace.new(), None, Trace.new())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(seen) == 3
    for trace_id, found in seen:
        assert found == NOWHERE if trace_id is None else trace_ids([found]) == {trace_id}


async def test_odd_metadata_is_as_if_it_had_not_come(system: ActorSystem) -> None:
    for plain in ({}, {"traceparent": "?"}, {"traceparent": 5, "baggage": []}, {"x": {"y": 1}}, {1: 2}):
        assert tracing.metadata_of(plain) is None
    half = tracing.metadata_of({"traceparent": "?", "baggage": "a=1,?"})
    assert half is not None
    assert (half.trace, half.baggage) == (None, {"a": "1"})


# -- OpenTelemetry -----------------------------------------------------------------------------------


class FakeSpan:
    """As much of a span of OpenTelemetry as is read."""

    def __init__(self, trace: Trace | None) -> None:
        self.trace_id = int(trace.trace_id, 16) if trace else 0
        self.span_id = int(trace.span_id, 16) if trace else 0
        self.trace_flags = trace.flags if trace else 0
        self.is_valid = trace is not None

    def get_span_context(self) -> FakeSpan:
        return self


NO_SPAN = FakeSpan(None)


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> ContextVar[FakeSpan]:
    """The current span of a program that uses OpenTelemetry."""
    current: ContextVar[FakeSpan] = ContextVar("span", default=NO_SPAN)
    trace = types.ModuleType("opentelemetry.trace")
    trace.get_current_span = current.get  # type: ignore[attr-defined]
    context = types.ModuleType("opentelemetry.context")
    context.Context = lambda: NO_SPAN  # type: ignore[attr-defined]
    context.attach = current.set  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", context)
    tracing.look_for_opentelemetry.cache_clear()
    return current


async def test_a_span_of_opentelemetry_is_the_trace(telemetry: ContextVar[FakeSpan]) -> None:
    telemetry.set(FakeSpan(Trace.new()))
    async with ActorSystem(sinks=()) as system:
        relays = [system.spawn(Relay) for _ in range(3)]
        telemetry.set(FakeSpan(TRACE))

        seen = await relays[0].along(*relays[1:])

        assert trace_ids(seen) == {TRACE.trace_id}
        assert len({*span_ids(seen), TRACE.span_id}) == 4
        telemetry.set(NO_SPAN)
        assert await relays[0].here() == NOWHERE


async def test_what_the_program_says_itself_comes_before_opentelemetry(
    telemetry: ContextVar[FakeSpan], system: ActorSystem
) -> None:
    telemetry.set(FakeSpan(Trace.new()))
    with carrying(TRACE):
        assert trace_ids([await system.spawn(Relay).here()]) == {TRACE.trace_id}

"""Two and three real processes: what arrives, what is refused, and what the living learn of the dead."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors import (
    Actor,
    ActorError,
    ActorStopped,
    ActorSystem,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    MailboxFull,
    NotFound,
    Ref,
    SerializationError,
    Terminated,
    Unavailable,
    UnknownMethod,
)
from actors.address import host_id_of, new_host_id
from actors.events import DeadLettered, Event, FrameRejected, PeerLost
from actors.pickling import RemoteTraceback
from actors.rundir import KEY_NAME, read_key
from actors.testing import Probe, wait_until
from actors.transport import open_nng
from actors.wire import MAX_FRAME, Codec, Kind, Sealer, envelope, head_of

from distant import Brittle, Echo, Far, Unlucky, Watcher  # isort: skip


@pytest.fixture
def events() -> list[Event]:
    """What `near` had to tell."""
    return []


@pytest.fixture
async def near(run_root: Path, events: list[Event]) -> AsyncIterator[ActorSystem]:
    """This process's system."""
    async with ActorSystem(listen=True, sinks=(events.append,)) as system:
        yield system


@pytest.fixture
def hand(near: ActorSystem, lasting: Far) -> Ref[Any]:
    """The stagehand of the lasting process."""
    return lasting.actor(near, "stagehand")


@pytest.fixture
async def echo(hand: Ref[Any]) -> AsyncIterator[Ref[Any]]:
    """A fresh `Echo` in the lasting process; its ref has travelled."""
    echo: Ref[Any] = await hand.start(Echo, concurrency=3)
    yield echo
    await echo.kill()


def causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def letters(events: list[Event]) -> list[DeadLettered]:
    return [event for event in events if isinstance(event, DeadLettered)]


# -- messages that arrive -----------------------------------------------------------------------


async def test_values_come_back_as_they_went(echo: Ref[Any]) -> None:
    value = {"soup": [1, 2.5, None, b"\0"], ("a", 1): {3}}

    assert await echo.same(value) == value


@pytest.mark.parametrize(("sent", "wanted"), [(0, 0), (0, 314_159), (271_828, 0), (271_828, 314_159)])
async def test_c45_bodies_of_every_size_arrive_exactly(echo: Ref[Any], sent: int, wanted: int) -> None:
    body = os.urandom(sent)

    assert await echo.same(body) == body
    assert await echo.sized(b"x" + body, wanted) == ((b"x" + body)[:4], b"x" * wanted)


async def test_c45_large_bodies_at_the_same_time_do_not_mix(echo: Ref[Any]) -> None:
    bodies = [n.to_bytes(4, "big") + bytes(271_824) for n in range(256)]

    answers = await asyncio.gather(*(echo.options(timeout=20).sized(body, 314_159) for body in bodies[:100]))

    assert [head for head, _ in answers] == [body[:4] for body in bodies[:100]]
    assert {len(reply) for _, reply in answers} == {314_159}


async def test_a_stream_arrives_in_order_and_ends(echo: Ref[Any]) -> None:
    assert [number async for number in echo.count(500)] == list(range(500))


async def test_leaving_a_stream_early_ends_its_generator_at_the_far_end(echo: Ref[Any]) -> None:
    async for number in echo.endless():
        if number == 3:
            break

    await wait_until(lambda: _has_noted(echo, "stream closed"))


async def test_an_error_in_a_stream_comes_behind_its_items(echo: Ref[Any]) -> None:
    stream = aiter(echo.one_then_failure())

    assert await anext(stream) == 1
    with pytest.raises(Unlucky, match="burnt"):
        await anext(stream)


async def test_a_tell_is_confirmed_when_the_far_mailbox_has_it(echo: Ref[Any]) -> None:
    tells = [echo.tell("note", number) for number in range(100)]

    assert await asyncio.gather(*tells) == [None] * 100
    assert await echo.noted() == list(range(100))


class Sender(Actor):
    """Tells numbered messages to several receivers in turn."""

    async def send(self, n: int, *receivers: Ref[Any]) -> None:
        for number in range(n):
            for receiver in receivers:
                receiver.tell("note", (self.context.name, number))
            if number % 50 == 0:
                await asyncio.sleep(0)


async def test_c49_order_holds_for_each_sender_and_receiver(near: ActorSystem, hand: Ref[Any]) -> None:
    receivers = [await hand.start(Echo, mailbox=10_000) for _ in range(2)]
    senders = [near.spawn(Sender) for _ in range(4)]

    await asyncio.gather(*(sender.options(timeout=20).send(1000, *receivers) for sender in senders))

    for receiver in receivers:
        await wait_until(lambda receiver=receiver: _has_noted_n(receiver, 4000))
        noted = await receiver.noted()
        for name in {name for name, _ in noted}:
            assert [number for who, number in noted if who == name] == list(range(1000))
        await receiver.kill()


async def test_threads_send_too_and_wait_without_a_loop(near: ActorSystem, lasting: Far) -> None:
    echo = lasting.actor(near, "echo")

    results = await asyncio.gather(
        *(asyncio.to_thread(lambda n=n: [echo.same((n, i)).result(10) for i in range(20)]) for n in range(4))
    )

    assert results == [[(n, i) for i in range(20)] for n in range(4)]


async def test_a_system_on_its_own_thread_talks_as_well(lasting: Far, run_root: Path) -> None:
    def talk() -> list[Any]:
        with ActorSystem(listen=True, sinks=()) as system:
            echo = lasting.actor(system, "echo")
            return [echo.same(1).result(5), *echo.count(3)]

    assert await asyncio.to_thread(talk) == [1, 0, 1, 2]


async def test_the_receiver_knows_which_actor_of_which_process_sent(
    near: ActorSystem, lasting: Far, echo: Ref[Any]
) -> None:
    asker = near.options(name="asker").spawn(Echo)

    assert await echo.sender_name() is None
    assert await asker.pass_on(echo, "sender_name") == "<Ref asker@1>"


async def test_a_ref_in_a_message_works_at_the_receiver(near: ActorSystem, echo: Ref[Any]) -> None:
    at_home = near.spawn(Echo)

    assert await echo.pass_on(at_home, "same", "there and back") == "there and back"


async def test_a_ref_works_in_a_third_process(near: ActorSystem, echo: Ref[Any], far: Far) -> None:
    third = far.actor(near, "echo")

    assert await third.pass_on(echo, "same", "round the corner") == "round the corner"
    back = await third.same(echo)
    assert back == echo
    assert await back.same(1) == 1


async def test_orders_and_questions_reach_an_actor_elsewhere(hand: Ref[Any]) -> None:
    echo = await hand.start(Echo)

    assert await echo.wait_started() is True
    assert await echo.is_alive() is True
    await echo.stop()
    assert await echo.is_alive() is False
    assert (await echo.wait_stopped()).kind == "shutdown"


# -- deadlines and cancels ------------------------------------------------------------------------


async def test_what_is_left_of_the_deadline_travels(echo: Ref[Any]) -> None:
    left = await echo.options(timeout=3).remaining()

    assert 1.0 < left <= 3.0
    assert await echo.options(timeout=None).remaining() is None


async def test_a_deadline_cuts_the_handler_at_the_far_end(echo: Ref[Any]) -> None:
    with pytest.raises(DeadlineExceeded):
        await echo.options(timeout=0.05).nap(30)

    await wait_until(lambda: _has_noted(echo, "cut"))


async def test_a_cancel_cuts_the_handler_at_the_far_end(echo: Ref[Any]) -> None:
    reply = echo.nap(30)
    await echo.same("the nap has begun")

    reply.cancel()

    with pytest.raises(Cancelled):
        await reply
    await wait_until(lambda: _has_noted(echo, "cut"))


async def test_cancelling_the_task_that_waits_cuts_the_handler_at_the_far_end(echo: Ref[Any]) -> None:
    async def wait() -> None:
        await echo.nap(30)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)  # it asks first
    await echo.same("the nap has begun")
    task.cancel()

    await wait_until(lambda: _has_noted(echo, "cut"))


# -- refusals -------------------------------------------------------------------------------------


async def test_c40_a_name_that_never_was_is_not_found_at_once(
    near: ActorSystem, lasting: Far, hand: Ref[Any]
) -> None:
    nobody = lasting.actor(near, "nobody")
    began = time.monotonic()

    with pytest.raises(NotFound, match="nobody"):
        await nobody.options(timeout=10).same(1)
    with pytest.raises(NotFound, match="nobody"):
        await nobody.tell("same", 1)

    assert time.monotonic() - began < 2.0
    assert [letter.target for letter in await hand.dead_letters()][-2:] == ["nobody", "nobody"]


async def test_an_actor_that_ended_says_so(hand: Ref[Any]) -> None:
    echo = await hand.start(Echo)
    await echo.stop()

    with pytest.raises(ActorStopped):
        await echo.same(1)
    with pytest.raises(ActorStopped):
        await echo.tell("same", 1)


async def test_unknown_methods_and_wrong_arguments_are_refused_by_name(echo: Ref[Any]) -> None:
    with pytest.raises(UnknownMethod, match=r"sane.*same"):
        await echo.sane(1)
    with pytest.raises(UnknownMethod, match="_secret"):
        await echo.ask("_secret")
    with pytest.raises(InvalidArgument, match="value"):
        await echo.same()
    assert await echo.same("alive") == "alive"


async def test_tells_are_refused_one_by_one(hand: Ref[Any]) -> None:
    """The two that found room are confirmed, the others are told; all of them came in one frame."""
    echo = await hand.start(Echo, mailbox=2)
    await echo.wait_started()
    nap = echo.options(timeout=None).nap(30)
    await wait_until(lambda: _in_progress(hand, 2))  # the nap, and the question

    tells = [echo.tell("note", number) for number in range(5)]
    outcomes = await asyncio.gather(*tells, return_exceptions=True)

    assert outcomes[:2] == [None, None]
    assert [type(outcome) for outcome in outcomes[2:]] == [MailboxFull] * 3
    nap.cancel()
    await wait_until(lambda: _has_room(hand))
    assert await echo.noted() == ["cut", 0, 1]
    await echo.kill()


async def test_an_ask_that_finds_the_mailbox_full_is_refused(hand: Ref[Any]) -> None:
    echo = await hand.start(Echo, mailbox=1)
    nap = echo.options(timeout=None).nap(30)
    await wait_until(lambda: _in_progress(hand, 2))

    waiting = echo.same("waits")
    with pytest.raises(MailboxFull, match="1 messages waiting"):
        await echo.same("too much")

    nap.cancel()
    assert await waiting == "waits"
    await echo.kill()


# -- errors ---------------------------------------------------------------------------------------


async def test_an_exception_keeps_its_class_and_its_remote_traceback_is_at_the_bottom(echo: Ref[Any]) -> None:
    with pytest.raises(Unlucky, match="no soup") as caught:
        await echo.fail_because()

    upper, lower, bottom = causes(caught.value)
    assert (type(upper), type(lower), type(bottom)) == (Unlucky, KeyError, RemoteTraceback)
    assert "distant.py" in str(bottom)
    assert 'raise Unlucky("no soup")' in str(bottom)


async def test_our_own_errors_keep_their_attributes(echo: Ref[Any]) -> None:
    with pytest.raises(Unavailable) as caught:
        await echo.fail(Unavailable("gone", may_have_run=False, reason="because"))

    assert (caught.value.may_have_run, caught.value.reason, str(caught.value)) == (False, "because", "gone")


@pytest.mark.parametrize(
    ("method", "type_name", "text"),
    [
        ("fail_with_lock", "distant.HoldsLock", "it is locked"),
        ("fail_with_two", "distant.NeedsTwo", "salt and pepper"),
        ("fail_unknown", "only_there.Broken", "nobody else has me"),
    ],
    ids=["cannot be pickled", "cannot be unpickled", "is of a class that only the sender has"],
)
async def test_an_exception_that_cannot_travel_is_told_by_type_and_text(
    echo: Ref[Any], method: str, type_name: str, text: str
) -> None:
    with pytest.raises(ActorError, match=f"{type_name}: {text}") as caught:
        await echo.ask(method)

    assert not isinstance(caught.value, (Unavailable, SerializationError)), (
        "the call did run, and was answered"
    )
    assert isinstance(causes(caught.value)[-1], RemoteTraceback)
    assert await echo.same("alive") == "alive"


async def test_a_crash_is_answered_and_ends_the_actor(hand: Ref[Any]) -> None:
    brittle = await hand.start(Brittle)

    with pytest.raises(ValueError, match="cracked"):
        await brittle.crash(ValueError("cracked"))

    assert (await brittle.wait_stopped()).kind == "error"
    with pytest.raises(ActorStopped):
        await brittle.crash(ValueError("again"))


# -- what cannot travel -----------------------------------------------------------------------------


async def test_an_argument_that_cannot_be_pickled_is_named(echo: Ref[Any]) -> None:
    with pytest.raises(SerializationError, match=r"argument 2 of .*\.sized\(\).*lock"):
        await echo.sized(b"x", threading.Lock())
    with pytest.raises(SerializationError, match="argument 'value'"):
        await echo.tell("note", value=threading.Lock())
    assert await echo.noted() == []


async def test_a_result_that_cannot_be_pickled_is_an_error_and_no_crash(echo: Ref[Any]) -> None:
    with pytest.raises(SerializationError, match=r"the result cannot be pickled.*lock"):
        await echo.lock()
    assert await echo.same("alive") == "alive"


async def test_an_item_that_cannot_be_pickled_ends_the_stream_and_not_the_actor(hand: Ref[Any]) -> None:
    brittle = await hand.start(Brittle)
    stream = aiter(brittle.one_then_lock())

    assert await anext(stream) == 1
    with pytest.raises(SerializationError, match="an item cannot be pickled"):
        await anext(stream)
    assert await brittle.is_alive() is True
    await brittle.kill()


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that the far process does not find."""
    (tmp_path / "only_here.py").write_text("class Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    yield only_here
    del sys.modules["only_here"]


async def test_a_class_that_the_receiver_lacks_is_a_typed_error_and_the_actor_lives(
    echo: Ref[Any], only_here: Any
) -> None:
    with pytest.raises(SerializationError, match="only_here"):
        await echo.same(only_here.Thing())
    with pytest.raises(SerializationError, match="only_here"):
        await echo.tell("note", only_here.Thing())
    assert await echo.noted() == []


async def test_a_result_of_a_class_that_the_caller_lacks_is_a_typed_error(echo: Ref[Any]) -> None:
    with pytest.raises(SerializationError, match="only_there"):
        await echo.unknown()
    assert await echo.same("alive") == "alive"


MAIN = """
import asyncio, sys
from actors import Actor, ActorSystem

class Dish:
    def __init__(self, name):
        self.name = name

class Burnt(Exception):
    pass

async def main():
    async with ActorSystem(listen=True, sinks=()) as system:
        echo = system.ref(sys.argv[1] + "#echo")
        back = await echo.same(Dish("soup"))
        assert type(back) is Dish and back.name == "soup"
        assert await echo.same(Dish) is Dish
        assert await echo.same(lambda x: x + 1) is not None
        try:
            await echo.fail(Burnt("to a crisp"))
        except Burnt as error:
            assert str(error) == "to a crisp"
    print("identical")

asyncio.run(main())
"""


def test_a_class_of_main_travels_by_value_and_comes_back_as_itself(lasting: Far, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MAIN)

    result = subprocess.run(
        [sys.executable, str(program), lasting.address],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (result.stdout, result.stderr) == ("identical\n", "")


async def test_what_is_too_large_is_refused_where_it_is_sent(
    near: ActorSystem, echo: Ref[Any], events: list[Event]
) -> None:
    large = bytes(MAX_FRAME)

    with pytest.raises(SerializationError, match=r"same\(\) have \d+ bytes, a message at most \d+"):
        await echo.same(large)
    with pytest.raises(SerializationError, match=r"note\(\) have \d+ bytes, a message at most \d+"):
        await echo.tell("note", large)

    assert await echo.noted() == []
    assert [event for event in events if isinstance(event, PeerLost)] == []


async def test_a_result_that_is_too_large_is_an_error_that_says_so(echo: Ref[Any]) -> None:
    with pytest.raises(SerializationError, match="at most"):
        await echo.options(timeout=20).sized(b"x", MAX_FRAME)
    assert await echo.same("alive") == "alive"


# -- strangers ------------------------------------------------------------------------------------


async def test_garbage_and_foreign_frames_are_counted_and_dropped(
    near: ActorSystem, events: list[Event], run_root: Path
) -> None:
    """And the actors behind the socket go on."""
    echo = near.spawn(Echo)
    transport = open_nng(str(run_root))
    transport.listen(lambda frames: None)
    link = transport.link(near.address, lambda: None)
    link.open(1.0)
    key, own, to = read_key(run_root / KEY_NAME), host_id_of(transport.address), host_id_of(near.address)

    def frame(key: bytes, receiver: int) -> bytes:
        call = envelope(Kind.ASK, Codec.JSON, 1, b"[[1], {}, null]", head_of("echo-1", 0, 0, "note"))
        return Sealer(key).seal(receiver, own, 1, transport.address.encode(), [call])

    bad = [b"", b"garbage", os.urandom(500), frame(bytes(32), to), frame(key, to ^ 1), frame(key, to)[:-1]]
    for data in bad:
        link.send(data)

    await wait_until(lambda: near.statistics().rejected_frames == len(bad))
    await wait_until(lambda: len([e for e in events if isinstance(e, FrameRejected)]) == len(bad))
    assert await echo.noted() == []
    link.send(frame(key, to))
    await wait_until(lambda: _has_noted(echo, 1))
    link.close()
    transport.close()


async def test_systems_with_different_keys_do_not_understand_each_other(
    near: ActorSystem, run_root: Path
) -> None:
    near.options(name="echo").spawn(Echo)
    async with ActorSystem(listen=True, key=os.urandom(32), sinks=()) as stranger:
        with pytest.raises(DeadlineExceeded):
            await stranger.ref(f"{near.address}#echo").options(timeout=0.1).same(1)

    assert near.statistics().rejected_frames >= 1
    assert near.statistics().accepted == 0


# -- the dead -------------------------------------------------------------------------------------


async def test_c42_tells_to_somebody_who_never_speaks_do_not_block_and_are_not_lost_silently(
    near: ActorSystem, events: list[Event], run_root: Path
) -> None:
    path = run_root / f"{new_host_id():016x}.ipc"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        silent = near.ref(f"ipc://{path}#anybody")

        began = time.monotonic()
        tells = [silent.tell("same", number) for number in range(100)]
        assert time.monotonic() - began < 1.0

        outcomes = await asyncio.gather(*tells, return_exceptions=True)
    path.unlink()

    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert not any(outcome.may_have_run for outcome in outcomes if isinstance(outcome, Unavailable))
    assert [letter.method for letter in letters(events)] == ["same"] * 100


async def test_an_address_where_nobody_is_is_told_at_once(near: ActorSystem, run_root: Path) -> None:
    nobody = near.ref(f"ipc://{run_root}/{new_host_id():016x}.ipc#echo")
    began = time.monotonic()

    with pytest.raises(Unavailable) as caught:
        await nobody.options(timeout=10).same(1)

    assert caught.value.may_have_run is False
    assert time.monotonic() - began < 2.0


async def test_an_actor_whose_process_is_gone_is_not_alive(near: ActorSystem, run_root: Path) -> None:
    nobody = near.ref(f"ipc://{run_root}/{new_host_id():016x}.ipc#echo")

    assert await nobody.is_alive() is False


async def test_a_killed_process_fails_what_waits_for_it_at_once(
    near: ActorSystem, far: Far, events: list[Event]
) -> None:
    """Asks, streams and sync waiters are told within moments, not at their timeouts; later asks never ran."""
    echo = await far.actor(near, "stagehand").start(Echo, concurrency=10)
    stream = aiter(echo.options(timeout=60).one_then_nothing())
    asks = [echo.options(timeout=60).nap(60) for _ in range(5)]
    endless = echo.options(timeout=None).nap(60)
    in_thread = asyncio.create_task(asyncio.to_thread(lambda: echo.options(timeout=60).nap(60).outcome()))
    assert await anext(stream) == 1
    await wait_until(lambda: _in_progress(far.actor(near, "stagehand"), 9))

    far.kill()
    killed_at = time.monotonic()

    for ask in [*asks, endless]:
        with pytest.raises(Unavailable) as caught:
            await ask
        assert caught.value.may_have_run is True
    with pytest.raises(Unavailable) as caught:
        await anext(stream)
    assert caught.value.may_have_run is True
    outcome = await in_thread
    assert isinstance(outcome.error, Unavailable)
    assert time.monotonic() - killed_at < 1.0

    with pytest.raises(Unavailable) as caught:
        await echo.options(timeout=60).same(1)
    assert caught.value.may_have_run is False
    with pytest.raises(Unavailable) as caught:
        await echo.tell("note", 1)
    assert caught.value.may_have_run is False
    assert time.monotonic() - killed_at < 2.0
    assert near.statistics().pending_asks == 0


async def test_tells_that_a_killed_process_had_not_confirmed_are_dead_letters(
    near: ActorSystem, far: Far, events: list[Event]
) -> None:
    echo = far.actor(near, "echo")
    await echo.same("connected")
    far.pause()
    tells = [echo.tell("note", number) for number in range(50)]
    await asyncio.sleep(0)  # they leave at the end of the loop's turn

    far.kill()
    outcomes = await asyncio.gather(*tells, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert {outcome.may_have_run for outcome in outcomes if isinstance(outcome, Unavailable)} == {True}
    assert [(letter.target, letter.method) for letter in letters(events)] == [("echo", "note")] * 50


async def test_what_had_not_left_when_the_process_died_never_ran(
    near: ActorSystem, far: Far, events: list[Event]
) -> None:
    """More than the kernel and nng hold waits in the outbox: that part is safe to send again."""
    echo = far.actor(near, "echo").options(timeout=60)
    await echo.same("connected")
    far.pause()
    asks = []
    for _ in range(300):
        asks.append(echo.same(bytes(64 * 1024)))
        await asyncio.sleep(0)

    far.kill()
    errors = await asyncio.gather(*asks, return_exceptions=True)

    assert {type(error) for error in errors} == {Unavailable}
    ran = [error.may_have_run for error in errors if isinstance(error, Unavailable)]
    assert ran == sorted(ran, reverse=True), "those that left come before those that did not"
    assert ran[0] is True
    assert ran[-1] is False
    assert len([event for event in events if isinstance(event, PeerLost)]) == 1


async def test_a_stopped_process_that_goes_on_answers_late_and_nobody_is_harmed(
    near: ActorSystem, far: Far
) -> None:
    """A late answer reaches nobody, the next call gets its own (C39)."""
    echo = far.actor(near, "echo")
    await echo.same("connected")
    far.pause()

    with pytest.raises(DeadlineExceeded):
        await echo.options(timeout=0.05).same("late")
    in_time = echo.same("in time")
    far.resume()

    assert await in_time == "in time"
    assert near.statistics().pending_asks == 0


async def test_a_process_that_is_stopped_before_the_first_contact_never_ran_anything(
    near: ActorSystem, far: Far
) -> None:
    echo = far.actor(near, "echo")
    far.pause()

    with pytest.raises(Unavailable) as caught:
        await echo.options(timeout=30).same(1)

    assert caught.value.may_have_run is False


async def test_a_process_that_ends_in_order_answers_and_refuses_first(near: ActorSystem, far: Far) -> None:
    echo = await far.actor(near, "stagehand").start(Echo)
    first = echo.options(timeout=30).nap(0.2)
    queued = [echo.options(timeout=30).same(number) for number in range(3)]
    await wait_until(lambda: _in_progress(far.actor(near, "stagehand"), 2))

    far.process.stdin.close()  # type: ignore[union-attr]

    assert await first is None
    for reply in queued:
        with pytest.raises(ActorStopped):
            await reply


async def test_a_watch_on_actors_of_a_killed_process_fires_once_for_each(near: ActorSystem, far: Far) -> None:
    probe = Probe()
    echo, hand = far.actor(near, "echo"), far.actor(near, "stagehand")
    await near.spawn(Watcher, probe, echo, hand).wait_started()
    await echo.same("the watch, sent before, has arrived")

    far.kill()
    await probe.wait_for(2, timeout=1.0)
    with pytest.raises(Unavailable):
        await echo.same("what the death set off is over")

    assert {(one.ref, one.exit.kind) for one in probe.events} == {(echo, "killed"), (hand, "killed")}
    assert len(probe.events) == 2


async def test_a_watch_tells_how_the_actor_ended(near: ActorSystem, hand: Ref[Any], lasting: Far) -> None:
    probe = Probe()
    stopped, crashed, unlucky = [await hand.start(Brittle) for _ in range(3)]
    nobody = lasting.actor(near, "nobody")
    await near.spawn(Watcher, probe, stopped, crashed, unlucky, nobody).wait_started()

    await stopped.stop()
    with pytest.raises(ValueError, match="cracked"):
        await crashed.crash(ValueError("cracked"))
    with pytest.raises(ActorError, match="salt"):
        await unlucky.crash_with_two()
    await probe.wait_for(4)

    ended = {one.ref._name: one.exit for one in probe.events}
    assert ended["nobody"].kind == "not_found"
    assert ended[stopped._name].kind == "shutdown"
    assert (ended[crashed._name].kind, str(ended[crashed._name].detail)) == ("error", "cracked")
    assert ended[unlucky._name].kind == "error"
    assert "salt and pepper" in str(ended[unlucky._name].detail)


class Leaver(Actor):
    """Watches, and thinks better of it."""

    def __init__(self, probe: Probe, ref: Ref[Any]) -> None:
        self.probe = probe
        self.ref = ref

    async def change_mind(self) -> None:
        self.context.watch(self.ref)
        self.context.unwatch(self.ref)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.probe.record(terminated)


async def test_a_watch_that_was_undone_is_silent(near: ActorSystem, hand: Ref[Any]) -> None:
    probe = Probe()
    watched = await hand.start(Brittle)
    await near.spawn(Leaver, probe, watched).change_mind()
    await near.spawn(Watcher, probe, watched).wait_started()

    await watched.stop()
    await probe.wait_for(1)
    await hand.statistics()

    assert len(probe.events) == 1


async def test_sigkill_of_the_caller_cuts_what_ran_for_it(near: ActorSystem, far: Far) -> None:
    """Nobody waits for the answer any more."""
    at_home = near.spawn(Echo)
    far.actor(near, "echo").tell("pass_on", at_home, "nap", 60)
    await wait_until(lambda: near.statistics().in_progress)

    far.process.send_signal(signal.SIGKILL)

    await wait_until(lambda: near.statistics().in_progress == 0, timeout=1.0)
    assert await at_home.noted() == ["cut"]


async def _has_noted(ref: Ref[Any], what: Any) -> bool:
    return what in await ref.noted()


async def _has_noted_n(ref: Ref[Any], n: int) -> bool:
    return len(await ref.noted()) == n


async def _has_room(hand: Ref[Any]) -> bool:
    """True when no message waits in any mailbox there."""
    return bool((await hand.statistics()).in_mailbox == 0)


async def _in_progress(hand: Ref[Any], n: int) -> bool:
    """True when *n* handlers run there, the one that answers this among them."""
    return bool((await hand.statistics()).in_progress >= n)

"""Doors: JSON in and out of a running process, nothing unpickled, and the dead told of at once."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, ActorSystem, DeadlineExceeded, SerializationError, Unavailable, pickling
from actors.address import host_id_of, new_host_id
from actors.door import Door
from actors.foreign import ForeignError
from actors.rundir import KEY_NAME, read_key
from actors.testing import wait_until_sync
from actors.transport import open_nng
from actors.wire import MAX_FRAME, Codec, Kind, Sealer, envelope

from distant import Echo, Far, Unlucky  # isort: skip


class Larder(Actor):
    """Has things that JSON cannot say."""

    expected = (Unlucky,)

    async def take(self, what: str) -> Any:
        things = {
            "a set": {1},
            "bytes": b"\0",
            "an object": Unlucky("x"),
            "deep inside": {"shelf": [1, {2}]},
            "a key that is no text": {(1, 2): 3},
            "no number": float("nan"),
        }
        return things[what]

    async def circle(self) -> Any:
        circle: list[Any] = []
        circle.append(circle)
        return circle

    async def spoil(self) -> None:
        raise Unlucky("it is spoilt")

    async def shelves(self) -> Any:
        yield 1
        yield {2}

    async def whale(self) -> str:
        return "x" * MAX_FRAME


@pytest.fixture
def system(run_root: Path) -> Iterator[ActorSystem]:
    """A process with an `Echo` and a `Larder`, on a thread of its own."""
    with ActorSystem(listen=True, sinks=()) as system:
        system.options(name="echo", concurrency=5).spawn(Echo)
        system.options(name="larder").spawn(Larder)
        yield system


@pytest.fixture
def door(system: ActorSystem, run_root: Path) -> Iterator[Door]:
    with Door(system.address, str(run_root), read_key(run_root / KEY_NAME)) as door:
        yield door


def noted(door: Door) -> Any:
    return door.ask("echo", "noted")


def test_plain_values_come_back_as_they_went(door: Door) -> None:
    value = {"soup": [1, 2.5, None, True, "ü"], "empty": {}}

    assert door.ask("echo", "same", value) == value


def test_a_stream_comes_item_by_item(door: Door) -> None:
    assert list(door.stream("echo", "count", 100)) == list(range(100))
    assert list(door.stream("echo", "count", 0)) == []


def test_leaving_a_stream_early_ends_it_at_the_far_side(door: Door) -> None:
    stream = door.stream("echo", "endless")
    assert [next(stream), next(stream)] == [0, 1]

    stream.close()

    wait_until_sync(lambda: "stream closed" in noted(door))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a set", {"repr": "{1}"}),
        ("bytes", {"repr": "b'\\x00'"}),
        ("an object", {"repr": "Unlucky('x')"}),
        ("deep inside", {"shelf": [1, {"repr": "{2}"}]}),
        ("a key that is no text", {"repr": "{(1, 2): 3}"}),
        ("no number", {"repr": "nan"}),
    ],
)
def test_what_json_cannot_say_is_shown_and_as_little_of_it_as_possible(
    door: Door, what: str, said: Any
) -> None:
    assert door.ask("larder", "take", what) == said


def test_a_circle_is_shown_too(door: Door) -> None:
    assert door.ask("larder", "circle") == {"repr": "[[...]]"}


def test_items_that_json_cannot_say_are_shown(door: Door) -> None:
    assert list(door.stream("larder", "shelves")) == [1, {"repr": "{2}"}]


def test_an_error_of_the_users_comes_with_type_and_text(door: Door) -> None:
    with pytest.raises(ForeignError, match="it is spoilt") as caught:
        door.ask("larder", "spoil")

    error = caught.value
    assert (error.type_name, error.status, error.is_ours) == ("Unlucky", "UNKNOWN", False)


@pytest.mark.parametrize(
    ("actor", "method", "args", "type_name", "status"),
    [
        ("nobody", "same", (1,), "NotFound", "NOT_FOUND"),
        ("echo", "sane", (1,), "UnknownMethod", "UNIMPLEMENTED"),
        ("echo", "same", (1, 2, 3), "InvalidArgument", "INVALID_ARGUMENT"),
    ],
)
def test_errors_of_ours_say_so(
    door: Door, actor: str, method: str, args: tuple[Any, ...], type_name: str, status: str
) -> None:
    with pytest.raises(ForeignError) as caught:
        door.ask(actor, method, *args)

    error = caught.value
    assert (error.type_name, error.status, error.is_ours) == (type_name, status, True)


def test_an_error_ends_a_stream(door: Door) -> None:
    stream = door.stream("echo", "one_then_failure")

    assert next(stream) == 1
    with pytest.raises(ForeignError, match="burnt"):
        next(stream)
    assert door.ask("echo", "same", "still open") == "still open"


def test_a_call_that_takes_too_long_is_given_up_and_cut_at_the_far_side(door: Door) -> None:
    with pytest.raises(DeadlineExceeded, match=r"nap\(\) within 0\.05 s"):
        door.ask("echo", "nap", 30, timeout=0.05)

    wait_until_sync(lambda: "cut" in noted(door))
    assert door.ask("echo", "same", "its own") == "its own"


def test_nothing_is_unpickled_on_either_side(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickling, "loads", explode)
    monkeypatch.setattr(pickle, "loads", explode)

    assert door.ask("echo", "same", [1]) == [1]
    assert list(door.stream("larder", "shelves")) == [1, {"repr": "{2}"}]
    with pytest.raises(ForeignError, match="spoilt"):
        door.ask("larder", "spoil")
    with pytest.raises(ForeignError, match="nobody"):
        door.ask("nobody", "same", 1)


def test_a_pickled_answer_and_a_forged_one_are_ignored(system: ActorSystem, run_root: Path) -> None:
    """Whoever has the key may still send what a door does not read."""
    key = read_key(run_root / KEY_NAME)
    before = set(run_root.glob("*.ipc"))
    stranger, answered = open_nng(str(run_root)), threading.Event()

    def interfere() -> None:
        (path,) = set(run_root.glob("*.ipc")) - before
        wait_until_sync(lambda: system.statistics().in_progress)
        own = f"ipc://{path}"
        link = stranger.link(own, lambda: None)
        link.open(1.0)
        for key_used, codec, body in [(key, Codec.PICKLE, pickle.dumps(1)), (bytes(32), Codec.JSON, b"1")]:
            value = envelope(Kind.VALUE, codec, 1, body)
            link.send(Sealer(key_used).seal(host_id_of(own), 1, 1, system.address.encode(), [value]))
        link.send(b"garbage")
        answered.wait(5)
        link.close()

    with Door(system.address, str(run_root), key) as door:
        thread = threading.Thread(target=interfere)
        thread.start()
        assert door.ask("echo", "nap", 0.3) is None
        answered.set()
        thread.join()
    stranger.close()


def test_an_ask_of_a_stream_says_so(door: Door) -> None:
    with pytest.raises(SerializationError, match="is a stream"):
        door.ask("echo", "count", 1)


def test_an_ask_of_a_stream_ends_it_at_the_far_side(door: Door) -> None:
    with pytest.raises(SerializationError, match="is a stream"):
        door.ask("echo", "endless")

    wait_until_sync(lambda: "stream closed" in noted(door), timeout=0.5)


def test_a_stream_of_a_value_says_so(door: Door) -> None:
    with pytest.raises(SerializationError, match="no stream"):
        list(door.stream("echo", "same", 1, timeout=0.3))


def test_an_answer_that_is_too_large_is_an_error_that_says_so(door: Door) -> None:
    with pytest.raises(ForeignError, match="at most"):
        door.ask("larder", "whale", timeout=10)


def test_an_argument_that_json_cannot_say_is_refused(door: Door) -> None:
    with pytest.raises(SerializationError, match="same"):
        door.ask("echo", "same", {1})


def test_a_wrong_key_gets_no_answer(system: ActorSystem, run_root: Path) -> None:
    with (
        Door(system.address, str(run_root), os.urandom(32)) as door,
        pytest.raises(DeadlineExceeded),
    ):
        door.ask("echo", "same", 1, timeout=0.1)

    assert system.statistics().rejected_frames >= 1
    assert system.statistics().accepted == 0


def test_two_doors_do_not_hear_each_other(system: ActorSystem, run_root: Path) -> None:
    key = read_key(run_root / KEY_NAME)
    with Door(system.address, str(run_root), key) as one, Door(system.address, str(run_root), key) as other:
        stream = one.stream("echo", "count", 3)

        assert next(stream) == 0
        assert other.ask("echo", "same", "mine") == "mine"
        assert list(stream) == [1, 2]


def test_a_closed_door_leaves_nothing(system: ActorSystem, run_root: Path) -> None:
    before = set(run_root.glob("*.ipc"))
    with Door(system.address, str(run_root), read_key(run_root / KEY_NAME)) as door:
        assert door.ask("echo", "same", 1) == 1
        assert len(set(run_root.glob("*.ipc")) - before) == 1

    assert set(run_root.glob("*.ipc")) == before


@pytest.fixture
def far(run_root: Path) -> Iterator[Far]:
    far = Far()
    yield far
    far.end()


@pytest.fixture
def far_door(far: Far, run_root: Path) -> Iterator[Door]:
    with Door(far.address, str(run_root), read_key(run_root / KEY_NAME)) as door:
        yield door


def test_a_killed_process_is_unavailable_at_once(far: Far, far_door: Door) -> None:
    stream = far_door.stream("echo", "one_then_nothing")
    assert next(stream) == 1

    far.kill()
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        next(stream)

    assert caught.value.may_have_run is True
    assert time.monotonic() - began < 1.0


def test_every_later_call_to_a_killed_process_is_unavailable_at_once_and_never_ran(
    far: Far, far_door: Door
) -> None:
    assert far_door.ask("echo", "same", 1) == 1
    far.kill()

    began = time.monotonic()
    errors = []
    for _ in range(4):
        with pytest.raises(Unavailable) as caught:
            far_door.ask("echo", "same", 2, timeout=0.5)
        errors.append(caught.value)

    assert time.monotonic() - began < 1.0
    assert [error.may_have_run for error in errors[1:]] == [False] * 3


def test_an_address_where_nobody_is_is_unavailable_at_once_and_nothing_ran(
    system: ActorSystem, run_root: Path
) -> None:
    address = f"ipc://{run_root}/{new_host_id():016x}.ipc"
    began = time.monotonic()

    with (
        Door(address, str(run_root), read_key(run_root / KEY_NAME)) as door,
        pytest.raises(Unavailable) as caught,
    ):
        door.ask("echo", "same", 1)

    assert time.monotonic() - began < 1.0
    assert caught.value.may_have_run is False


def test_a_foreign_system_unpickles_nothing_that_others_send(run_root: Path) -> None:
    """A process that must not run what others pickled (the stage) says so to whoever tries."""
    with (
        ActorSystem(listen=True, sinks=()) as other,
        ActorSystem(listen=True, foreign=True, sinks=()) as stage,
    ):
        stage.options(name="echo").spawn(Echo)

        with pytest.raises(SerializationError, match="unpickles nothing"):
            other.ref(f"{stage.address}#echo").same(1).result(5)
        assert stage.find("echo").same(1).result(5) == 1


def test_frames_that_come_twice_count_once(system: ActorSystem, run_root: Path) -> None:
    class Echoing(Door):
        def _receive(self, frames: list[bytes]) -> None:
            super()._receive([frame for frame in frames for _ in range(2)])

    with Echoing(system.address, str(run_root), read_key(run_root / KEY_NAME)) as door:
        numbers = door.stream("echo", "endless")  # an item is a frame, more or less
        assert [next(numbers) for _ in range(20)] == list(range(20))
        numbers.close()
        assert [door.ask("echo", "same", n) for n in range(3)] == [0, 1, 2]

"""The outbox: whatever is blocked, granted and taken in meanwhile, all leaves once and in order."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import _outbox
from actors._outbox import MESSAGE_OVERHEAD, Outbox, OutboxFull, Outgoing
from actors.wire import ENVELOPE_OVERHEAD, Kind, envelopes

NAMES = "abc"


class Owner:
    """Stands for a call or a tell."""

    def __init__(self, receiver: str, serial: int = 0) -> None:
        self.receiver = receiver
        self.serial = serial
        self.number = 0
        self.done = False
        self.refusals: list[str] = []

    def never_sent(self, reason: str) -> None:
        self.refusals.append(reason)


class World:
    """An outbox, and what has left it."""

    def __init__(self) -> None:
        self.outbox = Outbox("mem://1")
        self.put_so_far: dict[str, int] = defaultdict(int)
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.tell_numbers: list[int] = []
        self.wants: list[str] = []

    def put(self, name: str, kind: int) -> None:
        self.put_so_far[name] += 1
        self.outbox.put(message(Owner(name, self.put_so_far[name]), kind))

    def pack(self) -> None:
        packed_now, owners, _ = self.outbox.pack()
        for packed, owner in zip(packed_now, owners, strict=True):
            [(kind, _, number, _, _, body)] = envelopes(packed)
            if owner is None:
                self.wants.append(bytes(body).decode())
                continue
            assert isinstance(owner, Owner)
            self.sent[owner.receiver].append(owner.serial)
            if kind == Kind.TELL:
                assert number == owner.number
                self.tell_numbers.append(number)


def message(owner: Owner | None, kind: int = Kind.ASK, body: bytes = b"?") -> Outgoing:
    return (kind, 0, 0, body, b"head", math.inf, owner)


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from([Kind.ASK, Kind.TELL])),
    st.tuples(st.just("block"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("grant"), st.sampled_from(NAMES), st.integers(1, 4)),
    st.tuples(st.just("pack"), st.just(""), st.just(0)),
)


@given(st.lists(steps, max_size=60))
def test_all_leaves_once_and_in_order_for_each_receiver(script: list[tuple[str, str, int]]) -> None:
    world = World()
    outbox = world.outbox
    for what, name, value in script:
        if what == "put":
            world.put(name, value)
        elif what == "block":
            outbox.parked(name, 0)
        elif what == "grant":
            outbox.grant(name, value)
        else:
            blocked = [name for name in NAMES if name in outbox.held and not outbox._granted]
            before = {name: list(world.sent[name]) for name in blocked}
            world.pack()
            assert {name: world.sent[name] for name in blocked} == before, "a receiver without room got more"
    for name in NAMES:
        while name in outbox.held:
            outbox.grant(name, 100)
    world.pack()

    for name in NAMES:
        assert world.sent[name] == list(range(1, world.put_so_far[name] + 1))
    assert world.tell_numbers == list(range(1, len(world.tell_numbers) + 1))
    assert (outbox.waits, len(outbox.held), outbox._bytes) == (0, 0, 0)


@given(st.lists(steps, max_size=40))
def test_what_has_not_left_at_the_end_is_given_back_once(script: list[tuple[str, str, int]]) -> None:
    world = World()
    for what, name, value in script:
        if what == "put":
            world.put(name, value)
        elif what == "block":
            world.outbox.parked(name, 0)
        elif what == "grant":
            world.outbox.grant(name, value)
        else:
            world.pack()

    unsent, unconfirmed = world.outbox.close()

    kept = defaultdict[str, list[int]](list)
    for owner in unsent:
        assert isinstance(owner, Owner)
        kept[owner.receiver].append(owner.serial)
    for name in NAMES:
        assert sorted(world.sent[name] + kept[name]) == list(range(1, world.put_so_far[name] + 1))
    assert [tell.number for tell in unconfirmed] == world.tell_numbers


def test_a_receiver_without_room_holds_up_nobody_else() -> None:
    world = World()
    world.outbox.parked("a", 0)
    for name in "aab":
        world.put(name, Kind.ASK)

    world.pack()

    assert (world.sent, len(world.outbox.held)) == ({"b": [1]}, 2)
    world.outbox.grant("a", 1)
    world.pack()
    assert (world.sent["a"], world.wants) == ([1], ["a"])


def test_who_no_longer_wants_what_was_held_is_passed_over() -> None:
    world = World()
    world.outbox.parked("a", 0)
    given_up, wanted = Owner("a", 1), Owner("a", 2)
    for owner in (given_up, wanted):
        world.outbox.put(message(owner))
    world.pack()
    given_up.done = True

    world.outbox.grant("a", 5)
    world.pack()

    assert world.sent["a"] == [2]
    assert world.outbox._bytes == 0


def test_one_confirmation_covers_all_tells_before_it() -> None:
    world = World()
    for _ in range(4):
        world.put("a", Kind.TELL)
    assert world.outbox.told(4) == [], "none has left"
    world.pack()

    assert [tell.number for tell in world.outbox.told(3)] == [1, 2, 3]
    assert [tell.number for tell in world.outbox.told(3)] == []
    assert [tell.number for tell in world.outbox.parked("a", 4)] == []
    parked = world.outbox.admitted(4)
    assert parked is not None
    assert parked.number == 4
    assert world.outbox.admitted(4) is None


@given(st.lists(st.sampled_from([b"", b"a", b"b" * 65_534]), max_size=12), st.integers(1, 5))
def test_a_head_leaves_once_a_frame_and_arrives_with_each(heads: list[bytes], most: int) -> None:
    outbox, arrived = Outbox("mem://1"), []
    for head in heads:
        outbox.put((Kind.ASK if head else Kind.VALUE, 0, 0, b"?", head, math.inf, None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_outbox, "_MOST", most)
        while outbox.waits:
            packed, _, charge = outbox.pack()
            frame = b"".join(packed)
            assert charge == len(frame) + MESSAGE_OVERHEAD * len(packed)
            arrived += [head for _, _, _, _, head, _ in envelopes(frame)]

    assert arrived == heads


def test_it_is_bounded_and_counts_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    one = message(Owner("a"), body=bytes(100))
    each = 100 + len(b"head") + ENVELOPE_OVERHEAD + MESSAGE_OVERHEAD
    monkeypatch.setattr(_outbox, "MAX_OUTBOX_BYTES", 10 * each)
    outbox = Outbox("mem://1")

    assert [outbox.put(one) for _ in range(10)] == list(range(1, 11))
    with pytest.raises(OutboxFull, match=f"{10 * each} bytes wait for mem://1"):
        outbox.put(one)

    assert outbox.pack()[2] == 10 * each - 9 * len(b"head")  # which leaves once a frame
    assert [outbox.put(one) for _ in range(10)] == list(range(1, 11))


def test_frames_end_at_their_size_and_wait_for_what_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "_FRAME_TARGET", 1000)
    monkeypatch.setattr(_outbox, "MAX_IN_FLIGHT", 2000)
    monkeypatch.setattr(_outbox, "_CHECKPOINT", 1)
    outbox = Outbox("mem://1")
    for _ in range(5):
        outbox.put(message(None, body=bytes(400)))
    outbox.put(message(None, body=bytes(5000)))

    sizes = []
    for sequence in (1, 2):
        packed, _, charge = outbox.pack()
        sizes.append(len(packed))
        outbox.left(sequence, charge)
    assert sizes == [2, 2]
    assert outbox.pack()[0] == [], "more is on its way than may be"
    outbox.taken_in(2)
    assert [len(outbox.pack()[0]) for _ in range(3)] == [1, 1, 0], "a large one goes alone"


def test_after_the_end_everybody_is_turned_away() -> None:
    outbox = Outbox("mem://1")
    outbox.close()
    owner = Owner("a")

    assert outbox.put(message(owner)) == 0
    assert outbox.put(message(None)) == 0

    assert owner.refusals == ["its process is gone"]
    assert outbox.waits == 0


def test_what_others_put_while_it_ends_is_told_by_them() -> None:
    """The last message is gone when `close` reaches for it."""
    outbox = Outbox("mem://1")

    class Raced(deque[Outgoing]):
        def popleft(self) -> Outgoing:
            if len(self) == 1:
                super().popleft()[-1].never_sent("its process is gone")  # type: ignore[union-attr]
            return super().popleft()

    first, last = Owner("a", 1), Owner("a", 2)
    outbox._waiting = Raced([message(first), message(last)])

    assert outbox.close()[0] == [first]
    assert last.refusals == ["its process is gone"]


def test_what_was_granted_counts_until_it_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "_MOST", 2)
    world = World()
    world.outbox.parked("a", 0)
    for _ in range(5):
        world.put("a", Kind.ASK)
    world.pack()
    each = world.outbox._bytes // 5
    world.outbox.grant("a", 5)

    counted = []
    while world.outbox.waits:
        world.pack()
        counted.append(world.outbox._bytes)

    assert counted == [3 * each, each, 0]


def test_many_threads_lose_nothing_and_no_count() -> None:
    outbox, each, threads = Outbox("mem://1"), 3_000, 4
    left: list[int] = []
    done = threading.Event()

    def put() -> None:
        for _ in range(each):
            outbox.put(message(Owner("a"), Kind.TELL))

    def pack() -> None:
        while not done.is_set() or outbox.waits:
            left.append(len(outbox.pack()[0]))

    putting = [threading.Thread(target=put) for _ in range(threads)]
    packing = threading.Thread(target=pack)
    for thread in (*putting, packing):
        thread.start()
    for thread in putting:
        thread.join()
    done.set()
    packing.join()

    assert sum(left) == each * threads
    assert [tell.number for tell in outbox.told(each * threads)] == list(range(1, each * threads + 1))

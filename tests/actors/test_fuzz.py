"""
Fuzz: thousands of random, mutated and truncated frames at a real socket with an actor behind it.

5,000 frames of each kind by default; `UNDERSTUDY_FUZZ_FRAMES=100000` for the long form. The seed is
printed, `UNDERSTUDY_FUZZ_SEED` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import pickle
import random
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, ActorSystem, AlreadyStarted, _arrivals, _delivery, pickling, wire
from actors.address import host_id_of
from actors.events import Event
from actors.rundir import KEY_NAME, read_key
from actors.statistics import SystemStatistics
from actors.testing import wait_until_sync
from actors.transport import open_nng
from actors.wire import FRAME_OVERHEAD, MAX_ENVELOPES, Codec, Kind, Sealer, envelope, head_of

FRAMES = int(os.environ.get("UNDERSTUDY_FUZZ_FRAMES", "5000"))
SEED = int(os.environ.get("UNDERSTUDY_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
TIME = 30 + FRAMES / 200

pytestmark = pytest.mark.timeout(TIME)


class Canary:
    """Whoever unpickles it leaves a mark."""

    def __init__(self, cage: Path) -> None:
        self.cage = cage

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.cage),)


class Sink(Actor):
    """Stands behind the socket. Any error is an answer, for the frames call it with anything."""

    expected = (Exception,)
    mailbox = 100_000

    def __init__(self, right: list[str]) -> None:
        self.right = right

    async def take(self, value: Any = None) -> None:
        if isinstance(value, str) and value.startswith("right"):
            self.right.append(value)

    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(min(n, 10)):
            yield number


class Keeper(Actor):
    concurrency = 2

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def keep(self) -> str:
        await self.may_end.wait()
        return "the actor's own"

    async def let_go(self) -> None:
        self.may_end.set()


class Stranger:
    """Can send any bytes to *system*, and seal frames should it have the key."""

    def __init__(self, system: ActorSystem, run_root: Path, chance: random.Random) -> None:
        self.key = read_key(run_root / KEY_NAME)
        self.receiver = host_id_of(system.address)
        self.chance = chance
        self._transport = open_nng(str(run_root))
        self._transport.listen(lambda frames: None)
        self._own = self._transport.address
        self._link = self._transport.link(system.address, lambda: None)
        self._link.open(1.0)
        self._number = 0
        self.send = self._link.send

    def frame(self, *chunks: bytes, key: bytes | None = None, receiver: int | None = None) -> bytes:
        self._number += 1
        to = self.receiver if receiver is None else receiver
        own = host_id_of(self._own)
        return Sealer(key or self.key).seal(to, own, self._number, self._own.encode(), chunks)

    def close(self) -> None:
        self._link.close()
        self._transport.close()


@pytest.fixture
def chance() -> random.Random:
    print(f"UNDERSTUDY_FUZZ_SEED={SEED} UNDERSTUDY_FUZZ_FRAMES={FRAMES}")
    return random.Random(SEED)


@pytest.fixture
def right() -> list[str]:
    """What has reached the sink as it should."""
    return []


@pytest.fixture
def system(run_root: Path, right: list[str]) -> Iterator[ActorSystem]:
    """On a thread of its own: who sends more than a socket holds waits until it has read."""
    with ActorSystem(listen=True, sinks=()) as system:
        system.options(name="sink").spawn(Sink, right)
        yield system


@pytest.fixture
def stranger(system: ActorSystem, run_root: Path, chance: random.Random) -> Iterator[Stranger]:
    stranger = Stranger(system, run_root, chance)
    yield stranger
    stranger.close()


@pytest.fixture
def unpickled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that the system unpickles."""
    seen: list[bytes] = []

    def loads(data: Any, **options: Any) -> Any:
        seen.append(bytes(data))
        return pickle.loads(data, **options)

    monkeypatch.setattr(_arrivals, "loads", loads)
    monkeypatch.setattr(pickling, "loads", loads)
    return seen


def call_of(value: Any, kind: Kind = Kind.TELL, call_id: int = 1) -> bytes:
    return envelope(kind, Codec.PICKLE, call_id, pickle.dumps((value,)), head_of("sink", 0, 0, "take"))


# -- without the key ---------------------------------------------------------------------------------


def garbage(stranger: Stranger, good: bytes) -> bytes:
    return stranger.chance.randbytes(stranger.chance.randrange(400))


def garbage_behind_a_good_header(stranger: Stranger, good: bytes) -> bytes:
    """All but the MAC is as it should be."""
    size = stranger.chance.randrange(300)
    header = struct.pack("!2sBBQQQHI", b"US", 1, 0, stranger.receiver, 5, 2**62, 0, size)
    return header + stranger.chance.randbytes(16 + size)


def flipped(stranger: Stranger, good: bytes) -> bytes:
    changed = bytearray(good)
    for at in stranger.chance.sample(range(len(good)), stranger.chance.choice((1, 1, 1, 2, 5))):
        changed[at] ^= 1 << stranger.chance.randrange(8)
    return bytes(changed)


def overwritten(stranger: Stranger, good: bytes) -> bytes:
    """A stretch of other bytes, in the header more often than not."""
    size = stranger.chance.randrange(1, 9)
    at = stranger.chance.choice(
        (stranger.chance.randrange(FRAME_OVERHEAD), stranger.chance.randrange(len(good)))
    )
    changed = bytearray(good)
    changed[at : at + size] = stranger.chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
    return bytes(changed)


def cut(stranger: Stranger, good: bytes) -> bytes:
    return good[: stranger.chance.randrange(len(good))]


def lengthened(stranger: Stranger, good: bytes) -> bytes:
    return good + stranger.chance.randbytes(stranger.chance.randrange(1, 40))


def spliced(stranger: Stranger, good: bytes) -> bytes:
    other = stranger.frame(call_of("another"), call_of("frame", call_id=2))
    at = stranger.chance.randrange(FRAME_OVERHEAD - 16, min(len(good), len(other)))  # behind the header
    return good[:at] + other[at:]


def with_another_key(stranger: Stranger, good: bytes) -> bytes:
    return stranger.frame(good[FRAME_OVERHEAD:], key=stranger.chance.randbytes(32))


def for_another_process(stranger: Stranger, good: bytes) -> bytes:
    return stranger.frame(
        good[FRAME_OVERHEAD:], receiver=stranger.receiver ^ stranger.chance.randrange(1, 2**64)
    )


MUTATIONS: list[Callable[[Stranger, bytes], bytes]] = [
    garbage,
    garbage_behind_a_good_header,
    flipped,
    overwritten,
    cut,
    lengthened,
    spliced,
    with_another_key,
    for_another_process,
]


def test_nothing_in_thousands_of_bad_frames_is_ever_unpickled(
    system: ActorSystem, stranger: Stranger, right: list[str], unpickled: list[bytes], tmp_path: Path
) -> None:
    """Each holds a canary. The frame at the end, with key and all, shows that it would have sung."""
    cage = tmp_path / "cage"
    sent = 0
    while sent < FRAMES:
        good = stranger.frame(call_of(Canary(cage)))
        bad = stranger.chance.choice(MUTATIONS)(stranger, good)
        if bad != good:
            stranger.send(bad)
            sent += 1
        if sent % 64 == 0:
            _have_come(system, sent)

    _have_come(system, sent)
    assert unpickled == []
    assert not cage.exists()
    assert system.statistics().accepted == 0
    system.find("sink").take("right, from here").result()
    assert right == ["right, from here"]

    stranger.send(stranger.frame(call_of(Canary(cage))))

    wait_until_sync(cage.exists)
    assert len(unpickled) == 1


def _have_come(system: ActorSystem, bad: int) -> None:
    wait_until_sync(lambda: system.statistics().rejected_frames == bad, TIME)


# -- one by one --------------------------------------------------------------------------------------


def sealed_as(stranger: Stranger, version: int, *chunks: bytes) -> bytes:
    """A frame of another version of ours, sealed with the right key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "VERSION", version)
        return stranger.frame(*chunks)


def changed(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def for_another_actor(frame: bytes) -> bytes:
    return frame.replace(b'"sink"', b'"sunk"')


REFUSED: dict[str, Callable[[Stranger, bytes], bytes]] = {
    "without a seal": lambda stranger, song: song,
    "under another key": lambda stranger, song: stranger.frame(song, key=bytes(32)),
    "under no key": lambda stranger, song: stranger.frame(song, key=b"\0"),
    "with half a seal": lambda stranger, song: (frame := stranger.frame(song))[:36] + frame[44:],
    "with a bit of the header changed": lambda stranger, song: changed(stranger.frame(song), 27),
    "with a bit of the seal changed": lambda stranger, song: changed(stranger.frame(song), 40),
    "with a bit of the address changed": lambda stranger, song: changed(stranger.frame(song), 60),
    "with a bit of the body changed": lambda stranger, song: changed(stranger.frame(song), -1),
    "for another actor": lambda stranger, song: for_another_actor(stranger.frame(song)),
    "for another process": lambda stranger, song: stranger.frame(song, receiver=1),
    "of an older version": lambda stranger, song: sealed_as(stranger, wire.VERSION - 1, song),
    "of a later version": lambda stranger, song: sealed_as(stranger, wire.VERSION + 1, song),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_canary_never_sings(
    system: ActorSystem,
    stranger: Stranger,
    unpickled: list[bytes],
    tmp_path: Path,
    refused: Callable[[Stranger, bytes], bytes],
) -> None:
    cage = tmp_path / "cage"
    stranger.send(refused(stranger, call_of(Canary(cage))))

    _have_come(system, 1)
    assert (unpickled, cage.exists()) == ([], False)


def test_a_canary_with_all_seals_sings_once(
    system: ActorSystem, stranger: Stranger, unpickled: list[bytes], tmp_path: Path
) -> None:
    """The control of the others; and what comes again is not unpickled again."""
    cage = tmp_path / "cage"
    frame = stranger.frame(call_of(Canary(cage)))
    stranger.send(frame)
    stranger.send(frame)

    _have_come(system, 1)
    wait_until_sync(cage.exists)
    assert len(unpickled) == 1


@pytest.mark.parametrize("kind", Kind)
def test_a_foreign_door_unpickles_nothing_whatever_its_seal(
    run_root: Path, chance: random.Random, unpickled: list[bytes], tmp_path: Path, kind: Kind
) -> None:
    cage = tmp_path / "cage"
    with ActorSystem(listen=True, foreign=True, sinks=()) as door:
        sink = door.options(name="sink").spawn(Sink, [])
        lasting = sink.wait_stopped()
        stranger = Stranger(door, run_root, chance)
        for call_id in range(5):
            stranger.send(stranger.frame(call_of(Canary(cage), kind, call_id)))
        stranger.send(b"the last one")
        wait_until_sync(lambda: door.statistics().rejected_frames >= 1)
        sink.take("right").result()
        assert not lasting.done
        stranger.close()

    # An error of its own is unpickled before it leaves: can its receiver?
    assert [data for data in unpickled if b"mkdir" in data] == []
    assert not cage.exists()


# -- with the key, and nonsense inside ---------------------------------------------------------------


def any_plain(chance: random.Random, depth: int = 0) -> Any:
    """Any value that JSON can say."""
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return chance.choice((None, True, False))
    if kind == 1:
        return chance.choice((0, 1, -1, 2**63, 2**70, chance.getrandbits(31)))
    if kind == 2:
        return chance.choice((0.5, -1e300, 1e-9))
    if kind <= 4:
        return chance.choice(("", "sink", "take", "x" * chance.randrange(300), "\0", "é", "__init__"))
    if kind == 5:
        return {str(any_plain(chance, 3)): any_plain(chance, depth + 1) for _ in range(chance.randrange(3))}
    return [any_plain(chance, depth + 1) for _ in range(chance.randrange(5))]


def any_head(chance: random.Random) -> bytes:
    drawn = chance.randrange(6)
    if drawn < 2:
        method = chance.choice(
            ("take", "count", "nothing", "_private", "__init__", "%take", "%", "on_start", "$x")
        )
        return head_of(
            chance.choice(("sink", "sink", "decoy", "nobody")), chance.choice((0, 0, 7)), 0, method
        )
    if drawn == 2:
        verb = chance.choice(("$stop", "$kill", "$is_alive", "$wait_stopped", "$nothing", "$"))
        return head_of("decoy", 0, chance.choice((0, 1, 9)), verb)
    if drawn == 3:
        return chance.randbytes(chance.randrange(60))
    if drawn == 4:
        return b"[" * chance.choice((1, 60_000))
    return json.dumps([any_plain(chance) for _ in range(chance.choice((3, 4, 4, 5)))]).encode()[:65_000]


def any_body(chance: random.Random, codec: int) -> bytes:
    drawn = chance.randrange(6)
    if drawn == 0:
        return chance.randbytes(chance.randrange(40)) if codec != Codec.PICKLE else b""
    content: Any = any_plain(chance)
    if drawn in (1, 2):
        parts = (
            any_plain(chance),
            any_plain(chance),
            any_plain(chance),
            any_plain(chance),
            any_plain(chance),
        )
        content = list(parts[: chance.randrange(6)])
    if drawn == 3:
        content = [[any_plain(chance)], {}, None]
    if drawn == 4:
        content = (any_plain(chance),)
    body = json.dumps(content).encode() if codec == Codec.JSON else pickle.dumps(content)
    if codec == Codec.JSON and chance.randrange(20) == 0:
        body = b"[" * 100_000
    # Of a pickle only the end is lost: other bytes in it could ask for any memory, and who has the
    # key may ask for that.
    return body if chance.randrange(4) else body[: chance.randrange(len(body) + 1)]


def any_envelope(chance: random.Random) -> bytes:
    kind = chance.choice([*Kind, *Kind, 0, 99, 255])
    codec = chance.choice((Codec.PICKLE, Codec.PICKLE, Codec.JSON, Codec.JSON, Codec.SHARED, 77))
    call_id = chance.choice((0, 1, chance.randrange(50), 2**64 - 1))
    remaining = chance.choice((math.inf, 5.0, 0.0, -1.0, -math.inf, math.nan, 1e300))
    chunk = envelope(kind, codec, call_id, any_body(chance, codec), any_head(chance), remaining)
    if chance.randrange(12) == 0:
        lying = bytearray(chunk)
        lying[chance.randrange(2, 8)] ^= 1 << chance.randrange(8)
        return bytes(lying)
    return chunk if chance.randrange(12) else chunk[: chance.randrange(len(chunk))]


def test_an_answer_from_a_process_that_was_not_asked_settles_nothing(
    system: ActorSystem, stranger: Stranger, right: list[str]
) -> None:
    keeper = system.spawn(Keeper)
    call = keeper.keep()
    for kind in (Kind.VALUE, Kind.ERROR, Kind.REFUSED_ASK, Kind.ITEM, Kind.END):
        for call_id in range(20):
            stranger.send(stranger.frame(envelope(kind, Codec.PICKLE, call_id, pickle.dumps("a stranger's"))))
    stranger.send(stranger.frame(call_of("right")))
    _have_arrived(right, ["right"])
    assert not call.done
    keeper.let_go().result()
    assert call.result() == "the actor's own"


def test_no_nonsense_under_the_right_key_harms_anybody(
    system: ActorSystem, stranger: Stranger, right: list[str]
) -> None:
    """Wrong kinds, codecs, heads, bodies, lengths, limits: answered or counted, and the actor goes on."""
    sent = []
    for number in range(FRAMES):
        if number % 64 == 0:
            # One that is right, between all the others: it arrives, and so has all before it.
            sent.append(f"right {number}")
            stranger.send(stranger.frame(call_of(sent[-1])))
            _have_arrived(right, sent)
            _spawn_decoy(system)
        chunks = [any_envelope(stranger.chance) for _ in range(stranger.chance.randrange(1, 4))]
        stranger.send(stranger.frame(*chunks))

    wait_until_sync(lambda: _balances(system.statistics()), TIME)
    assert system.statistics().rejected_frames > FRAMES / 10
    assert system._remote is not None
    (peer,) = system._remote._peers.values()
    assert peer.serving == {}, "asked, and neither answered nor refused"
    system.find("sink").take("right, from here").result()
    assert right == [*sent, "right, from here"]


def _have_arrived(right: list[str], sent: list[str]) -> None:
    wait_until_sync(lambda: right == sent, TIME)


def _balances(now: SystemStatistics) -> bool:
    return now.in_mailbox == now.in_progress == 0 and now.accepted == now.handled + now.dead_lettered


def _spawn_decoy(system: ActorSystem) -> None:
    with contextlib.suppress(AlreadyStarted):  # somebody may have stopped it
        system.options(name="decoy").spawn(Sink, [])


def test_a_frame_of_more_envelopes_than_any_sender_makes_is_dropped(
    system: ActorSystem, stranger: Stranger, right: list[str]
) -> None:
    tiny = envelope(Kind.CANCEL, Codec.PICKLE, 1, b"")
    stranger.send(stranger.frame(*[tiny] * (MAX_ENVELOPES + 1)))
    wait_until_sync(lambda: system.statistics().rejected_frames == 1)

    stranger.send(stranger.frame(call_of("right"), *[tiny] * (MAX_ENVELOPES - 1)))

    wait_until_sync(lambda: right == ["right"])


def test_asks_beyond_the_limit_of_one_process_are_refused_and_others_served(
    system: ActorSystem, stranger: Stranger, right: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_delivery, "MAX_SERVING", 10)
    lasting = head_of("sleeper", 0, 0, "sleep")
    system.options(name="sleeper").spawn(Sleeper)
    asks = [envelope(Kind.ASK, Codec.PICKLE, n, pickle.dumps(()), lasting) for n in range(1, 12)]
    stranger.send(stranger.frame(*asks))
    wait_until_sync(lambda: system.statistics().accepted == 11)

    stranger.send(stranger.frame(call_of(1, Kind.ASK, 20), call_of("right", Kind.TELL, 21)))

    wait_until_sync(lambda: right == ["right"])
    assert system.statistics().refused == 1
    system.find("sink").take("right, from another").result()
    assert right == ["right", "right, from another"]


class Sleeper(Actor):
    async def sleep(self) -> None:

        await asyncio.sleep(3600)


# -- whom a call may mean ----------------------------------------------------------------------------


class Guarded(Actor):
    """Has much that is no message."""

    stored = print
    shared: list[str] = []

    def __init__(self) -> None:
        self.own = lambda: self.shared.append("own")

    async def open_to_all(self) -> str:
        return "open"

    async def _private(self) -> None:
        self.shared.append("_private")

    async def on_start(self) -> None:
        self.shared.append("on_start")

    async def on_stop(self, exit: Any) -> None:
        self.shared.append("on_stop")

    @property
    def prop(self) -> Callable[[], None]:
        return lambda: self.shared.append("prop")

    @staticmethod
    def static() -> None:
        Guarded.shared.append("static")

    @classmethod
    def of_class(cls) -> None:
        cls.shared.append("of_class")


@pytest.mark.parametrize("codec", [Codec.PICKLE, Codec.JSON])
def test_only_public_methods_can_be_called_from_a_socket(
    system: ActorSystem, stranger: Stranger, events: list[Event], codec: Codec
) -> None:
    """Whatever the frame says: by either codec, with a mark of ours before it or not."""
    Guarded.shared.clear()
    system.subscribe(events.append)
    system.options(name="guarded").spawn(Guarded).wait_started().result()
    names = [
        "_private",
        "on_start",
        "on_stop",
        "on_terminated",
        "prop",
        "static",
        "of_class",
        "stored",
        "own",
    ]
    names += ["shared", "context", "__init__", "__class__", "__reduce__", "open_to_all.__call__", "expected"]
    body = pickle.dumps(()) if codec == Codec.PICKLE else b"[[], {}, null]"
    for_json = b'[["[]"], {}, null]'
    sent = 0
    for name in names:
        for marked in (name, f"%{name}", f"$_{name}", f"%${name}"):
            wanted = for_json if codec == Codec.JSON and marked.startswith("%") else body
            sent += 1
            stranger.send(
                stranger.frame(envelope(Kind.ASK, codec, sent, wanted, head_of("guarded", 0, 0, marked)))
            )

    stranger.send(
        stranger.frame(envelope(Kind.ASK, codec, sent + 1, body, head_of("guarded", 0, 0, "open_to_all")))
    )

    wait_until_sync(lambda: system.statistics().handled == 1)
    assert Guarded.shared == ["on_start"]
    assert system.find("guarded").open_to_all().result() == "open"

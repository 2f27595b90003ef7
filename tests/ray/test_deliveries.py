"""Reliable tells, back-pressure and streams where the member's process stops or dies in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from players import Notary

from actors import _outbox as outbox
from actors.errors import MailboxFull, Unavailable
from actors.events import DeadLettered
from actors.reply import Reply
from supervisors import Cluster, Service

pytestmark = pytest.mark.ray

PATIENCE = 40.0
"""Seconds in which every reply here has its outcome, whatever else the machine does."""


class Note(NamedTuple):
    """One line of the diary."""

    what: str
    incarnation: int
    pid: int
    word: str


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notary") / "diary"


@pytest.fixture(scope="module")
def cluster(venue: Any, diary: Path) -> Iterator[Cluster]:
    options: dict[str, Any] = {"args": (str(diary),), "per_host": 1, "intensity": 50, "period": 3600.0}
    with venue.play(
        Service("desk", Notary, **options),
        Service("counter", Notary, mailbox=8, overflow="block", **options),
    ) as cluster:
        yield cluster


@pytest.fixture
def seen(cluster: Cluster, watch: Any) -> Any:
    audience = watch(cluster)
    audience.wait_understudy()
    for name in ("desk/0", "counter/0"):
        audience.wait_row(name, state="running")
    return audience


@pytest.fixture
def notes(diary: Path) -> Callable[[str], list[Note]]:
    """What was written of a case so far, oldest first."""

    def read(case: str) -> list[Note]:
        lines = diary.read_text().splitlines() if diary.exists() else []
        found = [line.split() for line in lines if line.split()[0] == case]
        return [Note(what, int(life), int(pid), word) for _, what, life, pid, word in found]

    return read


def process_of(seen: Any, member: str) -> int:
    return int(seen.row(member)["pid"])


def wait_for_another_life(seen: Any, member: str, pid: int) -> None:
    """Until *member* runs in another process than *pid*; the stage may not know yet that this one is dead."""
    until = time.monotonic() + PATIENCE
    while seen.wait_row(member, state="running")["pid"] == pid:
        assert time.monotonic() < until, f"{member} still runs in {pid}"
        time.sleep(0.01)


def outcomes(replies: list[Reply[Any]]) -> list[BaseException | None]:
    """Of each the error, or None; fails the test when one has no outcome."""
    until = time.monotonic() + PATIENCE
    return [reply.outcome(max(0.0, until - time.monotonic())).error for reply in replies]


def are_in_order(numbers: list[int]) -> bool:
    """Each once, and each after those that were sent before it."""
    return all(one < other for one, other in pairwise(numbers))


def check_lives(written: list[Note], acknowledged: set[int]) -> list[list[int]]:
    """The numbers that each life has handled: in order and once; what came before says so."""
    before: set[int] = set()
    lives = []
    for _, life in groupby(written, key=lambda note: note.incarnation):
        notes = list(life)
        numbers = [int(note.what) for note in notes]
        assert are_in_order(numbers)
        assert {int(note.what) for note in notes if note.word == "again"} >= before & set(numbers)
        if lives:
            assert not acknowledged & set(numbers)
        before.update(numbers)
        lives.append(numbers)
    return lives


class TestReliableTells:
    @pytest.mark.parametrize("through", ["member", "service"])
    def test_all_are_handled_although_the_process_is_killed_in_the_middle(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any, through: str
    ) -> None:
        desk: Any = cluster.service("desk", Notary)
        desk = (desk.member(0) if through == "member" else desk).options(reliable=True)
        case, tells = f"killed-{through}", list[Reply[Any]]()
        pid = process_of(seen, "desk/0")
        killed = threading.Event()

        def send() -> None:
            for number in range(200):
                if number == 120:
                    killed.wait(PATIENCE)
                tells.append(desk.tell(Notary.note, case, number, 0.002))
                time.sleep(0.003)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: len(notes(case)) >= 60)
        acknowledged = {number for number, tell in enumerate(tells) if tell.done}
        os.kill(pid, signal.SIGKILL)
        killed.set()
        sender.join()

        assert outcomes(tells) == [None] * 200
        first, second = check_lives(notes(case), acknowledged)
        assert sorted({*first, *second}) == list(range(200))
        assert acknowledged
        assert second[0] <= first[-1] + 1

    def test_what_waited_in_the_mailbox_of_the_dead_goes_to_the_next_life(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any, tmp_path: Path
    ) -> None:
        desk = cluster.service("desk", Notary).member(0).options(reliable=True)
        pid = process_of(seen, "desk/0")
        held = desk.tell(Notary.hold, "mailbox-held", str(tmp_path / "gate"))
        tells = [desk.tell(Notary.note, "mailbox", number) for number in range(200)]
        until(lambda: notes("mailbox-held"))

        os.kill(pid, signal.SIGKILL)
        (tmp_path / "gate").touch()

        assert outcomes([held, *tells]) == [None] * 201
        [life] = check_lives(notes("mailbox"), set())
        assert life == list(range(200))
        assert [note.word for note in notes("mailbox-held")] == ["first", "again"]

    def test_a_process_that_stands_still_for_a_second_gets_each_once_and_in_order(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any
    ) -> None:
        desk = cluster.service("desk", Notary).member(0).options(reliable=True)
        pid = process_of(seen, "desk/0")
        tells = [desk.tell(Notary.note, "stopped", number) for number in range(100)]

        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: "T (stopped)" in Path(f"/proc/{pid}/status").read_text())
            tells += [desk.tell(Notary.note, "stopped", number) for number in range(100, 200)]
            time.sleep(1.0)
            assert not tells[-1].done
        finally:
            os.kill(pid, signal.SIGCONT)

        assert outcomes(tells) == [None] * 200
        assert [int(note.what) for note in notes("stopped")] == list(range(200))
        assert {note.pid for note in notes("stopped")} == {pid}

    def test_f33_what_kills_its_process_twice_is_a_dead_letter_and_the_rest_goes_on(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any
    ) -> None:
        desk = cluster.service("desk", Notary).member(0).options(reliable=True)
        letters: list[DeadLettered] = []
        assert cluster._system is not None
        cluster._system.subscribe(
            lambda event: letters.append(event) if isinstance(event, DeadLettered) else None
        )
        restarts = seen.row("desk/0")["restarts"]
        before = [desk.tell(Notary.note, "poison", number) for number in range(20)]
        choked = desk.tell(Notary.choke, "poison-choke")
        after = [desk.tell(Notary.note, "poison", number) for number in range(20, 40)]

        assert outcomes([*before, *after]) == [None] * 40
        with pytest.raises(Unavailable, match=r"choke\(\) was being handled when its process died, 2 times"):
            choked.result(PATIENCE)

        assert [note.word for note in notes("poison-choke")] == ["first", "again"]
        lives = check_lives(notes("poison"), set())
        assert {number for life in lives for number in life} == set(range(40))
        [letter] = [letter for letter in letters if letter.reason == "poison"]
        assert (letter.target, letter.method) == ("desk/0", "choke")
        assert "Segmentation fault" in letter.detail
        row = seen.wait_row("desk/0", state="running", last_exit="killed (SIGSEGV, poison)")
        assert row["restarts"] == restarts + 2


class TestBackPressure:
    async def test_a_slow_member_handles_all_from_a_loop_and_a_thread_in_order(
        self, cluster: Cluster, seen: Any, notes: Any
    ) -> None:
        counter = cluster.service("counter", Notary)
        told: list[Reply[Any]] = []

        def send() -> None:
            told.extend(counter.tell(Notary.note, "slow-thread", number, 0.001) for number in range(150))

        thread = threading.Thread(target=send)
        thread.start()
        tells = []
        for number in range(150):
            tells.append(counter.tell(Notary.note, "slow-loop", number, 0.001))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await asyncio.to_thread(thread.join)
        last = await counter.options(timeout=PATIENCE).note("slow-last", 0)

        assert last == 0
        assert await asyncio.gather(*tells, *told) == [None] * 300
        for case in ("slow-thread", "slow-loop"):
            assert [int(note.what) for note in notes(case)] == list(range(150))

    def test_what_a_sender_keeps_for_a_slow_member_is_bounded(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any, tmp_path: Path, monkeypatch: Any
    ) -> None:
        """Beyond that a tell is refused at once; nobody waits, and all that was kept is handled."""
        counter = cluster.service("counter", Notary)
        counter.tell(Notary.hold, "bounded-held", str(tmp_path / "gate"))
        until(lambda: notes("bounded-held"))
        pressed = [counter.tell(Notary.note, "bounded", number) for number in range(20)]
        until(lambda: pressed[7].done and self.holds_back(cluster))
        monkeypatch.setattr(outbox, "MAX_OUTBOX_BYTES", 100_000)

        tells = [counter.tell(Notary.note, "bounded", number, 0.0, bytes(500)) for number in range(20, 320)]
        refused = [number for number, tell in enumerate(tells, 20) if tell.done]
        (tmp_path / "gate").touch()

        errors = outcomes([*pressed, *tells])
        assert refused
        assert [number for number, error in enumerate(errors) if error is not None] == refused
        assert all(isinstance(errors[number], MailboxFull) for number in refused)
        until(lambda: len(notes("bounded")) == 320 - len(refused))
        assert [int(note.what) for note in notes("bounded")] == sorted({*range(320)} - {*refused})

    @pytest.mark.parametrize("through", ["member", "service"])
    def test_whoever_is_held_back_has_an_outcome_when_the_process_is_killed(
        self, cluster: Cluster, seen: Any, until: Any, notes: Any, tmp_path: Path, through: str
    ) -> None:
        counter: Any = cluster.service("counter", Notary)
        counter = counter.member(0) if through == "member" else counter
        pid = process_of(seen, "counter/0")
        case = f"held-{through}"
        gate = tmp_path / "gate"
        counter.tell(Notary.hold, f"{case}-gate", str(gate))
        until(lambda: notes(f"{case}-gate"))
        parked = [counter.tell(Notary.note, case, number) for number in range(20)]
        until(lambda: parked[7].done and self.holds_back(cluster))
        held = [counter.tell(Notary.note, case, number) for number in range(20, 320)]
        asked = counter.options(timeout=PATIENCE).note(case, 1000)
        assert not asked.done

        os.kill(pid, signal.SIGKILL)
        gate.touch()

        errors = outcomes([*parked, *held])
        assert errors[:8] == [None] * 8
        may_have_run = [error.may_have_run for error in errors if isinstance(error, Unavailable)]
        assert len(may_have_run) == len(errors) - 8
        # The first one waited at its receiver, and so may some that were under way when it said so.
        assert may_have_run[0]
        assert may_have_run == sorted(may_have_run, reverse=True)
        assert not any(may_have_run[-len(held) :])
        if through == "member":
            [error] = outcomes([asked])
            assert isinstance(error, Unavailable)
            assert not error.may_have_run
        else:
            assert asked.result(PATIENCE) == 1000
        wait_for_another_life(seen, "counter/0", pid)
        # The stage knows; this process is told, and a call to the service waits for that.
        cluster.service("counter", Notary).options(timeout=PATIENCE).note(f"{case}-back", 0).result(PATIENCE)
        again = [counter.tell(Notary.note, f"{case}-after", number) for number in range(50)]
        assert outcomes(again) == [None] * 50
        until(lambda: len(notes(f"{case}-after")) == 50)
        assert [int(note.what) for note in notes(f"{case}-after")] == list(range(50))
        assert [note.what for note in notes(case)] == ([] if through == "member" else ["1000"])

    @staticmethod
    def holds_back(cluster: Cluster) -> bool:
        assert cluster._system is not None
        assert cluster._system._remote is not None
        return any("counter/0" in peer.held for peer in cluster._system._remote._peers.values())


class TestStreams:
    SEEDS = range(3)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_reader_has_the_items_so_far_and_then_the_death(
        self, cluster: Cluster, seen: Any, seed: int
    ) -> None:
        desk = cluster.service("desk", Notary)
        pid = process_of(seen, "desk/0")
        limit = random.Random(seed).choice([1, 50, 700])
        read: list[int] = []

        def read_on() -> None:
            for number in desk.options(timeout=PATIENCE).count(0.0 if seed % 2 else 0.0005):
                read.append(number)
                if number == limit:
                    os.kill(pid, signal.SIGKILL)

        with pytest.raises(Unavailable) as told:
            read_on()

        assert told.value.may_have_run
        assert len(read) > limit
        assert read == list(range(len(read)))
        wait_for_another_life(seen, "desk/0", pid)
        assert next(iter(desk.count(0.0))) == 0

    @pytest.mark.parametrize("seed", SEEDS)
    async def test_a_callers_generator_ends_with_the_process_that_reads_it(
        self, cluster: Cluster, seen: Any, notes: Any, seed: int
    ) -> None:
        desk = cluster.service("desk", Notary)
        case = f"fed-{seed}"
        pid = process_of(seen, "desk/0")
        limit = random.Random(seed).choice([1, 50, 700])
        ended = asyncio.Event()

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in range(1_000_000):
                    if number == limit:
                        os.kill(pid, signal.SIGKILL)
                    yield number
            finally:
                ended.set()

        with pytest.raises(Unavailable) as told:
            await desk.options(timeout=PATIENCE).gather(case, numbers())

        assert told.value.may_have_run
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert [int(note.what) for note in notes(case)] == list(range(len(notes(case))))
        wait_for_another_life(seen, "desk/0", pid)
        assert await desk.gather(f"{case}-after", few(5)) == 5

    @pytest.mark.parametrize("seed", SEEDS)
    async def test_both_ways_end_on_both_sides(self, cluster: Cluster, seen: Any, seed: int) -> None:
        desk = cluster.service("desk", Notary)
        pid = process_of(seen, "desk/0")
        limit = random.Random(seed).choice([1, 50, 700])
        ended = asyncio.Event()
        read: list[int] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in range(1_000_000):
                    yield number
            finally:
                ended.set()

        async def read_on() -> None:
            async for number in desk.options(timeout=PATIENCE).pass_on(numbers()):
                read.append(number)
                if number == limit:
                    os.kill(pid, signal.SIGKILL)

        with pytest.raises(Unavailable):
            await read_on()

        assert len(read) > limit
        assert read == list(range(len(read)))
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        wait_for_another_life(seen, "desk/0", pid)
        assert [number async for number in desk.pass_on(few(5))] == list(range(5))


async def few(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number

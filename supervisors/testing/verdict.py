"""
The verdict: what a ledger proves. Pure functions of records and faults.

    LOST     taken or answered, and never handled, though nobody died in between
    DUP      handled twice
    ORDER    handled before what the same sender had sent to the same member earlier
    GHOST    handled, but never sent, or its sender was told that it never ran
    HUNG     without an outcome half a second after it was due
    ORPHANS  processes, sockets, files, slots that are left
    RTO      seconds from a fault to the next answer of the member it ended
    BLAST    lives that ended without a fault that explains it, went on although a fault had to end them,
             or have the number of an earlier one

A tell that a mailbox had taken when its process died is not LOST but unreported: nobody who
lives could know of it. There may be as many as were in flight at the kills.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from supervisors.testing.ledger import NEVER_RAN, OK, Record

LATENESS = 0.5
_DYING = 5.0
"""Seconds in which who has to end may still work: a stage may have to come back first."""
_SHOWN = 8


class FaultLike(Protocol):
    """What is known of a fault (`nemesis.Fault`)."""

    @property
    def name(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def pid(self) -> int:
        """The process it hit; 0 for none."""

    @property
    def healed_at(self) -> float | None: ...
    @property
    def ends(self) -> Sequence[str]:
        """The members whose lives it ends."""

    @property
    def is_certain(self) -> bool:
        """Whether they have to end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; each finding is a line."""

    lost: tuple[str, ...] = ()
    dup: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    ghost: tuple[str, ...] = ()
    hung: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    blast: tuple[str, ...] = ()
    rto: tuple[float, ...] = ()
    sent: int = 0
    handled: int = 0
    outcomes: tuple[tuple[str, int], ...] = ()
    unreported: int = 0
    """Tells that died in the mailbox of a killed process."""

    @property
    def is_clean(self) -> bool:
        """True when every number that must be 0 is 0."""
        return not any(found for _, found in self._findings())

    def _findings(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("LOST", self.lost),
            ("DUP", self.dup),
            ("ORDER", self.order),
            ("GHOST", self.ghost),
            ("HUNG", self.hung),
            ("ORPHANS", self.orphans),
            ("BLAST", self.blast),
        )

    def line(self) -> str:
        """All numbers in one line."""
        words = [f"{name} {len(found)}" for name, found in self._findings()]
        words.insert(-1, f"RTO {_spread(self.rto)}")
        return " · ".join(words)

    def text(self) -> str:
        """The line, what it is based on, and the first findings of each kind."""
        outcomes = ", ".join(f"{number} {word}" for word, number in self.outcomes)
        lines = [
            self.line(),
            f"{self.sent} sent, {self.handled} handled, {self.unreported} unreported; {outcomes}",
        ]
        for name, found in self._findings():
            lines += [f"  {name}: {each}" for each in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  {name}: and {len(found) - _SHOWN} more")
        return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return (
        f"median {middle * 1000:.0f} p95 {high * 1000:.0f} max {ordered[-1] * 1000:.0f} ms ({len(ordered)})"
    )


def check(
    records: Sequence[Record],
    faults: Sequence[FaultLike] = (),
    *,
    orphans: Iterable[str] = (),
    now: float | None = None,
    lateness: float = LATENESS,
) -> Verdict:
    """The verdict on *records*, as of *now* (monotonic)."""
    now = time.monotonic() if now is None else now
    records = sorted(records, key=lambda record: record.at)
    sent = {(r.sender, r.seq): r for r in records if r.what == "sent"}
    handled = [r for r in records if r.what == "handled"]
    outcomes = {(r.sender, r.seq): r for r in records if r.what == "outcome"}
    accepted = {(r.sender, r.seq): r for r in records if r.what == "accepted"}
    lost, unreported = _lost(records, sent, handled, accepted, outcomes)
    return Verdict(
        lost=tuple(lost),
        dup=tuple(_doubles(handled)),
        order=tuple(_inversions(sent, handled)),
        ghost=tuple(_ghosts(sent, handled, outcomes)),
        hung=tuple(_hung(sent, {**accepted, **outcomes}, now, lateness)),
        orphans=tuple(orphans),
        blast=(*_unexplained(records, faults), *_spared(records, faults)),
        rto=tuple(_recovery_times(records, faults)),
        sent=len(sent),
        handled=len(handled),
        outcomes=tuple(Counter(_word(r) for r in outcomes.values()).most_common()),
        unreported=unreported,
    )


def _word(outcome: Record) -> str:
    return outcome.detail.partition(" (")[0]


def _name(record: Record) -> str:
    return f"{record.sender} #{record.seq} to {record.target}"


_Key = tuple[str, int]


def _doubles(handled: Sequence[Record]) -> Iterable[str]:
    by_key: dict[_Key, list[Record]] = defaultdict(list)
    for record in handled:
        by_key[record.sender, record.seq].append(record)
    for lives in by_key.values():
        if len(lives) > 1:
            where = ", ".join(f"{r.target} life {r.incarnation} pid {r.pid} at {r.at:.3f}" for r in lives)
            yield f"{lives[0].sender} #{lives[0].seq} handled {len(lives)} times: {where}"


def _inversions(sent: dict[_Key, Record], handled: Sequence[Record]) -> Iterable[str]:
    latest: dict[tuple[str, str], int] = {}
    for record in handled:
        message = sent.get((record.sender, record.seq))
        if message is None or message.target != record.target:
            continue  # sent to a service: the way to its members is no one way
        pair = record.sender, record.target
        if record.seq < latest.get(pair, 0):
            yield f"{_name(record)} handled at {record.at:.3f} after #{latest[pair]}"
        latest[pair] = max(latest.get(pair, 0), record.seq)


def _ghosts(
    sent: dict[_Key, Record], handled: Sequence[Record], outcomes: dict[_Key, Record]
) -> Iterable[str]:
    for record in handled:
        key = record.sender, record.seq
        outcome = outcomes.get(key)
        if key not in sent:
            yield f"{_name(record)} was never sent"
        elif outcome is not None and outcome.detail.startswith(NEVER_RAN):
            yield (
                f"{_name(record)} handled in life {record.incarnation} at {record.at:.3f},"
                f" its sender was told {outcome.detail}"
            )


def _hung(
    sent: dict[_Key, Record], settled: dict[_Key, Record], now: float, lateness: float
) -> Iterable[str]:
    for key, message in sent.items():
        if message.due_at is None:
            continue
        outcome = settled.get(key)
        late = (outcome.at if outcome is not None else now) - message.due_at
        if late > lateness:
            told = "no outcome" if outcome is None else f"{outcome.detail or outcome.what}"
            yield f"{message.detail} {_name(message)} sent at {message.at:.3f}: {told}, {late:.2f} s late"


def _lost(
    records: Sequence[Record],
    sent: dict[_Key, Record],
    handled: Sequence[Record],
    accepted: dict[_Key, Record],
    outcomes: dict[_Key, Record],
) -> tuple[list[str], int]:
    done = {(r.sender, r.seq): r for r in handled}
    lost = [
        f"{_name(sent[key])} was answered, and stands in no ledger"
        for key, outcome in outcomes.items()
        if outcome.detail.startswith(OK) and key not in done and key in sent
    ]
    dropped = _Dropped(records)
    for key, refused in outcomes.items():
        if key in sent:
            dropped.took(sent[key], refused.at)
    unreported = 0
    missing = sorted(key for key in accepted if key not in done and key not in outcomes and key in sent)
    for key in missing:
        message = sent[key]
        before, after = _neighbours(key, done, sent)
        if dropped.took(message, after.at if after is not None else math.inf):
            continue
        if before is not None and after is not None and before.pid == after.pid:
            lost.append(
                f"{_name(message)} was taken at {accepted[key].at:.3f} by pid {after.pid}, which lives"
            )
        else:
            unreported += 1
    return lost, unreported


class _Dropped:
    """The dead letters of receivers. They do not tell whose they were: each explains one message."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for record in records:
            if record.what == "dead_letter":
                self._times[record.target, record.detail.partition(":")[0]].append(record.at)

    def took(self, message: Record, until: float) -> bool:
        """Whether there is one for *message* before *until*; it is used up."""
        times = self._times.get((message.target, message.detail.rpartition(" ")[2]), [])
        found = next((at for at in times if message.at <= at <= until), None)
        if found is not None:
            times.remove(found)
        return found is not None


def _neighbours(
    key: _Key, done: dict[_Key, Record], sent: dict[_Key, Record]
) -> tuple[Record | None, Record | None]:
    """How the messages sent just before and just after *key* were handled, of those that were."""
    return _nearest(key, -1, done, sent), _nearest(key, +1, done, sent)


def _nearest(key: _Key, step: int, done: dict[_Key, Record], sent: dict[_Key, Record]) -> Record | None:
    sender, seq = key
    seq += step
    while (sender, seq) in sent:
        found = done.get((sender, seq))
        if found is not None:
            return found
        seq += step
    return None


def _lives(records: Sequence[Record]) -> dict[str, list[Record]]:
    lives: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.what == "life":
            lives[record.target].append(record)
    return lives


def _unexplained(records: Sequence[Record], faults: Sequence[FaultLike]) -> Iterable[str]:
    """Lives that no fault asked for: each needs one since the life before it began, and its own number."""
    for member, lives in _lives(records).items():
        for before, life in pairwise(lives):
            if life.incarnation <= before.incarnation:
                yield (
                    f"{member} began life {life.incarnation} (pid {life.pid}) at {life.at:.3f},"
                    f" after life {before.incarnation} (pid {before.pid})"
                )
            explained = any(
                (
                    member in fault.ends
                    and fault.at <= life.at
                    and (max(fault.at, fault.healed_at or 0.0) >= before.at or _fell_together(fault, before))
                )
                or _fell_as_understudy(fault, before)
                for fault in faults
            )
            if not explained:
                yield (
                    f"{member} began life {life.incarnation} (pid {life.pid}) at {life.at:.3f},"
                    f" and nothing had happened to life {before.incarnation} (pid {before.pid})"
                    f" since {before.at:.3f}"
                )


def _fell_together(fault: FaultLike, life: Record) -> bool:
    """Whether *life* began in a process that was being ended already."""
    return fault.pid == life.pid and life.at - fault.at < LATENESS


def _fell_as_understudy(fault: FaultLike, life: Record) -> bool:
    """Whether *life* took over in a process that was meant to be killed while it was empty."""
    return fault.name == "kill_understudy" and fault.pid == life.pid


def _spared(records: Sequence[Record], faults: Sequence[FaultLike]) -> Iterable[str]:
    """Lives that a fault had to end, by the strategy of their service, and that worked on after it."""
    lives = _lives(records)
    latest: dict[tuple[str, int, int], float] = {}
    for record in records:
        if record.what == "handled":
            latest[record.target, record.incarnation, record.pid] = record.at
    for fault in faults:
        for member in fault.ends if fault.is_certain else ():
            old = [life for life in lives[member] if life.at < fault.at]
            if not old:
                continue
            worked_at = latest.get((member, old[-1].incarnation, old[-1].pid), 0.0)
            if worked_at > max(fault.at, fault.healed_at or 0.0) + _DYING:
                yield (
                    f"{member} life {old[-1].incarnation} (pid {old[-1].pid}) worked at {worked_at:.3f},"
                    f" though {fault.name} at {fault.at:.3f} had to end it"
                )


def _recovery_times(records: Sequence[Record], faults: Sequence[FaultLike]) -> Iterable[float]:
    """Of each fault that surely ended lives, the time to the first answer of a later life of each member."""
    lives = _lives(records)
    answers: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.what == "outcome" and record.detail.startswith(OK):
            answers[record.target].append(record)
    for fault in faults:
        for member in fault.ends if fault.is_certain else ():
            born = next((life for life in lives[member] if life.at >= fault.at), None)
            if born is None:
                continue
            later = (a for a in answers[member] if a.at >= born.at and a.incarnation >= born.incarnation)
            answer = next(later, None)
            if answer is not None:
                yield answer.at - fault.at

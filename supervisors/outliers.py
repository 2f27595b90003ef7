"""
Outliers: members that keep failing, as one caller sees them. Pure; time comes in as an argument.

A member that has failed 5 times in a row is avoided for a second, and twice as long each time it
fails again, up to 30 s. After that it is probed: one call goes there, and its outcome decides.
At most half of the members are avoided, never all: where more fail, it is the service or what is
asked of it, and nobody gains by crowding the rest. (5 in a row: Envoy, gRPC A50, Finagle; the
half: Envoy's panic threshold.)

Failures of calls that were under way together are one: a process that dies takes a thousand
calls with it and has failed once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

FAILURES = 5
"""In a row, after which a member is avoided."""
SHORTEST = 1.0
LONGEST = 30.0
"""Seconds that it is avoided, the first time and at most."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


M = TypeVar("M", bound=Named)


@dataclass(slots=True)
class _Record:
    """What is held against one member."""

    incidents: int = 0
    """Failures that counted, ever: which of them a call can have known when it was sent."""
    row: int = 0
    """Failures since the last success."""
    avoided_for: float = 0.0
    """Seconds, of the last time; 0 before the first."""
    until: float = 0.0
    """When the next probe is due."""
    is_avoided: bool = False
    is_probed: bool = False
    """True while the call is under way that decides."""


class Outliers:
    """The records of those members of one service that have failed lately. Not thread-safe."""

    def __init__(self) -> None:
        self.records: dict[str, _Record] = {}
        """By name; whoever is not in it has not failed lately."""
        self.avoided: frozenset[str] = frozenset()
        """Names; probes aside, no call goes there."""

    def incidents(self, member: str) -> int:
        """What a call that is sent to *member* now knows of it; to be told with its outcome."""
        record = self.records.get(member)
        return 0 if record is None else record.incidents

    def failed(self, member: str, known: int, now: float, crowd: int) -> None:
        """A call to *member* failed. *known* is its `incidents` when that was sent, *crowd* how many run."""
        record = self.records.setdefault(member, _Record())
        if known != record.incidents:
            return  # of the same incident as one that was counted since
        record.incidents += 1
        record.row += 1
        if record.is_avoided:
            if record.is_probed or now >= record.until:
                self._avoid(member, record, now)
        elif record.row >= FAILURES and len(self.avoided) < max(crowd // 2, min(crowd - 1, 1)):
            if now > record.until + record.avoided_for:
                record.avoided_for = 0.0  # it was well for as long as it was avoided
            self._avoid(member, record, now)

    def _avoid(self, member: str, record: _Record, now: float) -> None:
        record.avoided_for = min(LONGEST, record.avoided_for * 2 or SHORTEST)
        record.until = now + record.avoided_for
        record.is_avoided, record.is_probed = True, False
        self.avoided |= {member}

    def succeeded(self, member: str, known: int) -> None:
        """A call to *member* was answered; one sent before the last failure proves nothing."""
        record = self.records.get(member)
        if record is None or known != record.incidents:
            return
        record.row = 0
        if record.is_avoided:
            record.is_avoided = record.is_probed = False
            self.avoided -= {member}
        elif not record.avoided_for:
            del self.records[member]

    def probe(self, members: Collection[str], now: float) -> str | None:
        """One of *members* whose probe is due: the next call is it. Another follows if it does not return."""
        for name in self.avoided:
            record = self.records[name]
            if name in members and record.until <= now:
                record.until, record.is_probed = now + record.avoided_for, True
                return name
        return None

    def renewed(self, member: str, now: float) -> None:
        """*member* lives anew: whether it does better this time is looked at without delay."""
        record = self.records.get(member)
        if record is not None and record.is_avoided:
            record.until = min(record.until, now)

    def forget_others(self, members: Collection[str]) -> None:
        """Only *members* are left of the service."""
        self.records = {name: record for name, record in self.records.items() if name in members}
        self.avoided = frozenset(name for name in self.avoided if name in members)

    def others(self, members: Sequence[M]) -> Sequence[M]:
        """*members* without those to avoid; all of them where nobody would be left."""
        if not self.avoided:
            return members
        return [member for member in members if member.name not in self.avoided] or members

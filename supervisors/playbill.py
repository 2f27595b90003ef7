"""
The playbill: the stage's whole state as one small value, kept by every host.

A new stage takes the newest one any host has, asks each host what it really runs, and lets
reality win: it re-adopts, it does not restart. Plain data; JSON and pickle carry it alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """One member: its registration, the life last begun, and the slot it belongs to."""

    name: str
    uid: int
    incarnation: int
    slot: str | None
    is_running: bool = False
    is_over: bool = False
    """It has ended for good, and keeps its place."""


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """One slot: what it holds and where."""

    name: str
    service: str
    bundle: dict[str, float]
    labels: dict[str, str]
    node_id: str | None
    is_made: bool
    gpu_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One process, so that one which does not answer can be ended for certain."""

    name: str
    pid: int
    start_time: int
    slot: str | None = None
    """Where its members live; None for one that waits."""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service: its wanted size, why it has failed if it has, and the lives of members that have left."""

    name: str
    size: int
    failed: str
    members: tuple[MemberEntry, ...]
    left: dict[str, int]
    """Member name → its last incarnation: names come back, their counters go on."""


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One group that has failed with all that is in it, and why."""

    name: str
    failed: str


@dataclass(frozen=True, slots=True)
class Playbill:
    """All that a stage needs to take over."""

    epoch: int = 0
    """Which life of the stage wrote it."""
    version: int = 0
    """Counts the changes of that life."""
    services: tuple[ServiceEntry, ...] = ()
    groups: tuple[GroupEntry, ...] = ()
    """Those at the top of the app that have failed."""
    slots: tuple[SlotEntry, ...] = ()
    hosts: tuple[HostEntry, ...] = ()
    last_host: int = 0
    """The highest number a host was named by."""
    last_slot: int = 0
    service_by_name: dict[str, ServiceEntry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "service_by_name", {service.name: service for service in self.services})

    @property
    def age(self) -> tuple[int, int]:
        """Orders playbills: the highest is the newest."""
        return self.epoch, self.version

    def to_plain(self) -> dict[str, Any]:
        """For the wire."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        plain["services"] = [dataclasses.asdict(service) for service in self.services]
        plain["groups"] = [dataclasses.asdict(group) for group in self.groups]
        plain["slots"] = [dataclasses.asdict(slot) for slot in self.slots]
        plain["hosts"] = [dataclasses.asdict(host) for host in self.hosts]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Playbill:
        """The other way round."""
        services = tuple(
            ServiceEntry(**{**each, "members": tuple(MemberEntry(**member) for member in each["members"])})
            for each in plain["services"]
        )
        groups = tuple(GroupEntry(**each) for each in plain["groups"])
        slots = tuple(SlotEntry(**{**each, "gpu_ids": tuple(each["gpu_ids"])}) for each in plain["slots"])
        hosts = tuple(HostEntry(**each) for each in plain["hosts"])
        return cls(**{**plain, "services": services, "groups": groups, "slots": slots, "hosts": hosts})


def newest(playbills: Iterable[Playbill]) -> Playbill:
    """The newest of them; an empty one when there is none."""
    return max(playbills, key=lambda playbill: playbill.age, default=Playbill())


@dataclass(frozen=True, slots=True)
class LivingMember:
    """What a host says of a member that it really runs."""

    uid: int
    incarnation: int
    is_running: bool
    """False while it starts."""
    has_worked: bool


@dataclass(frozen=True, slots=True)
class EndedMember:
    """What a host says of a member whose life has ended in it, and that nobody has started again."""

    incarnation: int
    exit: tuple[str, str, str]
    handled: int
    counts: bool = True
    """False where a supervisor had ordered it: if that is gone, the next one goes on at no cost."""


@dataclass(frozen=True, slots=True)
class HostReality:
    """What a host says of itself to a new stage."""

    name: str
    pid: int
    start_time: int
    address: str
    node_id: str
    gpu_ids: tuple[str, ...]
    service: str | None
    slot: str | None
    members: dict[str, LivingMember]
    ended: dict[str, EndedMember]
    playbill: Playbill
    epoch: int
    """The highest epoch it has heard of."""
    reserved_for: str | None = None
    """The service whose understudy it is."""

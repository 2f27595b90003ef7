"""
Groups: services of an app that stand and fall together, under a supervisor of their own.

A `Group` is checked where it is written; what travels is a `GroupPlan`, which names its
parts. The parts of a group are services and groups, in the order in which they start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidArgument
from supervisors import checks
from supervisors.budget import Intensity, check_intensity
from supervisors.service import Service
from supervisors.strategy import Strategy
from supervisors.supervision import check_flags


class Group:
    """
    Services, and groups of them, that one supervisor restarts together by *strategy*.

    A service that gives up in it is one incident of the group, by OTP's rules: the group starts
    that service anew, with fresh limits, and with it those that the strategy says. More than
    *intensity* incidents in *period* seconds, and the group gives up: in another group that is an
    incident of it, at the top of the app all services of the group have failed until a `reset`.
    """

    def __init__(
        self,
        name: str,
        *services: Service[Any] | Group,
        strategy: Strategy = "one_for_one",
        intensity: Intensity = 3,
        period: float = 5.0,
    ) -> None:
        checks.plain_name("Group", "name", name)
        owner = f"Group {name!r}:"
        check_parts(owner, services)
        if not services:
            raise checks.misfit(owner, "services", services, "names no service")
        check_intensity(owner, intensity)  # None is for services alone
        check_flags(strategy, intensity, period, owner=owner)
        self.name = name
        self.services = services
        self.strategy: Strategy = strategy
        self.intensity = intensity
        self.period = period
        check_names(owner, (self,))

    def plan(self) -> GroupPlan:
        """What travels."""
        intensity = dict(self.intensity) if isinstance(self.intensity, Mapping) else self.intensity
        names = tuple(part.name for part in self.services)
        return GroupPlan(self.name, names, self.strategy, intensity, self.period)

    def __repr__(self) -> str:
        return f"<Group {self.name}: {', '.join(part.name for part in self.services)}>"


Part = Service[Any] | Group


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A group as plain data: what the stage works from."""

    name: str
    parts: tuple[str, ...]
    """Its services and groups, in start order."""
    strategy: Strategy
    intensity: Intensity
    period: float

    def to_plain(self) -> dict[str, Any]:
        """For JSON and for the wire."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> GroupPlan:
        """The other way round."""
        return cls(**{**plain, "parts": tuple(plain["parts"])})


def walk(parts: Sequence[Part]) -> Iterator[Part]:
    """All of *parts*, each group before what is in it: services come in start order."""
    for part in parts:
        yield part
        if isinstance(part, Group):
            yield from walk(part.services)


def check_parts(owner: str, parts: Sequence[object]) -> None:
    """`InvalidArgument` for anything but services and groups."""
    for part in parts:
        if not isinstance(part, (Service, Group)):
            raise checks.misfit(owner, "services", part, "is neither a Service nor a Group")


def check_names(owner: str, parts: Sequence[Part]) -> None:
    """`InvalidArgument` for a name that stands twice, however deep: a call says no more than the name."""
    seen: set[str] = set()
    for part in walk(parts):
        if part.name in seen:
            raise InvalidArgument(f"{owner} services: the name {part.name!r} stands twice")
        seen.add(part.name)

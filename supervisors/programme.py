"""
The programme: what an app says of its services and groups, as the stage knows it. Plain data, never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actors.errors import NotFound, nearest
from supervisors.group import GroupPlan
from supervisors.service import ServicePlan


class Programme:
    """The services and groups of one app, by name."""

    def __init__(self, app_name: str, app: Mapping[str, Any]) -> None:
        self._app_name = app_name
        plans = [ServicePlan.from_plain(plain) for plain in app.get("services", ())]
        groups = [GroupPlan.from_plain(plain) for plain in app.get("groups", ())]
        self.services = {plan.name: plan for plan in plans}
        """In start order."""
        self.groups = {plan.name: plan for plan in groups}
        self.top: tuple[str, ...] = tuple(app.get("parts", self.services))
        """Services and groups that are in no group, in start order."""
        self.escalates: bool = app.get("escalate", False)
        """Whether the app goes down with what gives up at its top."""
        self.understudies: int = app.get("understudies", 1)
        self._group_of = {part: group.name for group in groups for part in group.parts}

    def service(self, name: str) -> ServicePlan:
        """The plan of a service. `NotFound` for anything else, with the nearest name."""
        plan = self.services.get(name)
        if plan is not None:
            return plan
        if name in self.groups:
            parts = ", ".join(self.groups[name].parts)
            raise NotFound(f"{name!r} is a group of {parts}: name one of them")
        raise NotFound(f"app {self._app_name!r} has no service {name!r}{nearest(name, self.services)}")

    def group_of(self, name: str) -> str | None:
        """The group that a service or group is in."""
        return self._group_of.get(name)

    def top_of(self, name: str) -> str:
        """The service or group at the top of the app that *name* is or is in. `NotFound`."""
        if name not in self.services and name not in self.groups:
            known = [*self.services, *self.groups]
            raise NotFound(f"app {self._app_name!r} has no service or group {name!r}{nearest(name, known)}")
        while (group := self._group_of.get(name)) is not None:
            name = group
        return name

    def backwards(self, name: str) -> Iterator[str]:
        """What *name* is or holds, the last first: how it stops."""
        for part in reversed(self.groups[name].parts if name in self.groups else ()):
            yield from self.backwards(part)
        yield name

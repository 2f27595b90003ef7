"""
The standing of a service: how it and its members do, as callers, `ps` and the playbill are told.

Read from what its troupe and its supervision know; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import ActorError
from supervisors.member import Member, number_of
from supervisors.playbill import MemberEntry, ServiceEntry
from supervisors.registry import MemberView, ServiceView
from supervisors.service import ServicePlan
from supervisors.slot import Slot
from supervisors.supervision import Supervision


@dataclass(frozen=True, slots=True)
class Standing:
    """Of this moment: its members go on changing."""

    plan: ServicePlan
    size: int
    failed: str
    members: Mapping[str, Member]
    supervision: Supervision
    living: Container[str]
    """Members that an earlier stage has left running: the supervision has not heard of them yet."""
    is_between_lives: bool
    """The next life of the service is somebody else's to begin."""

    def row(self, earlier_restarts: int) -> dict[str, Any]:
        """The service as `ps` shows it."""
        states = [self.state_of(name) for name in self.members]
        return {
            "name": self.plan.name,
            "state": self._service_state(states),
            "size": self.size,
            "ready": states.count("running"),
            "restarts": earlier_restarts + sum(row.restarts for row in self.supervision.children()),
            "reason": self._reason(),
            "strategy": self.plan.strategy,
            "class": self.plan.class_name,
        }

    def _service_state(self, states: list[str]) -> str:
        if self.failed:
            return "failed"
        if any(not member.has_settled for member in self.members.values()) and "running" not in states:
            return "starting"
        wanted = {self.state_of(name) for name, member in self.members.items() if not member.leaving}
        if wanted <= {"running", "stopped"}:
            return "running"
        return "degraded" if wanted & {"backing_off", "pending"} or "starting" not in wanted else "starting"

    def _reason(self) -> str:
        if self.failed:
            return self.failed
        reasons = [member.pending for member in self.members.values() if member.pending]
        reasons += [
            str(m.last_exit)
            for m in self.members.values()
            if m.last_exit is not None and self.state_of(m.name) not in ("running", "draining")
        ]
        return reasons[0] if reasons else ""

    def member_rows(self) -> list[dict[str, Any]]:
        """The members as `ps` shows them, by number."""
        return [self._member_row(name) for name in sorted(self.members, key=number_of)]

    def _member_row(self, name: str) -> dict[str, Any]:
        member = self.members[name]
        row = next((row for row in self.supervision.children() if row.id == name), None)
        return {
            "name": name,
            "service": self.plan.name,
            "state": self.state_of(name),
            "incarnation": member.incarnation,
            "pid": member.host.pid if member.host is not None else None,
            "node": member.host.node_id if member.host is not None else None,
            "restarts": row.restarts if row is not None else 0,
            "last_exit": str(member.last_exit) if member.last_exit is not None else None,
            "reason": member.pending,
            "host": member.host.name if member.host is not None else None,
            "traceback": member.traceback,
            "devices": list(member.slot.gpu_ids) if member.slot is not None else [],
        }

    def state_of(self, name: str) -> str:
        """Of a member, as callers need to know it."""
        member = self.members[name]
        if name in self.living:
            return "running" if member.is_registered else "starting"
        try:
            state = self.supervision.state_of(name)
        except ActorError:
            return "stopped"
        if self.is_between_lives and state in ("stopped", "stopping"):
            return "restarting"  # by the group, soon: whoever asks for it waits
        if member.pending:
            return "pending"
        if state == "stopped" and not (member.has_settled or member.leaving or self.failed):
            return "starting"  # its turn has not come: whoever asks for it waits
        if member.renewing and state == "running":
            return "restarting"
        if member.leaving and state in ("running", "stopping"):
            return "draining"
        if state == "starting":
            return "starting" if member.last_exit is None else "restarting"
        return "restarting" if state == "stopping" else state

    def view(self, version: int) -> ServiceView:
        """The service as callers need it."""
        members = tuple(
            MemberView(
                member.name,
                member.uid,
                self.state_of(name),
                member.incarnation,
                member.host.address if member.host is not None and member.is_registered else "",
                str(member.last_exit) if member.last_exit is not None else "",
            )
            for name, member in self.members.items()
            if self.state_of(name) != "stopped"
        )
        plan = self.plan
        return ServiceView(
            plan.name,
            version,
            "failed" if self.failed else "running",
            self.failed,
            plan.ask_timeout,
            plan.routing,
            members,
            sum(not member.leaving for member in self.members.values()),
            plan.idempotent,
        )

    def entry(self, kept: Mapping[str, Slot], left: Mapping[str, int]) -> ServiceEntry:
        """For the playbill, with the places *kept* between two lives and the last lives of who has *left*."""
        members = tuple(
            MemberEntry(
                member.name,
                member.uid,
                member.incarnation,
                slot.name if slot is not None else None,
                self.state_of(member.name) == "running",
                member.is_over,
            )
            for member in self.members.values()
            for slot in (member.slot or kept.get(member.name),)
        )
        return ServiceEntry(self.plan.name, self.size, self.failed, members, dict(left))

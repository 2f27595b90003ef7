"""
The cast: who plays the services and groups of an app, the troupes and ensembles in the stage.

Each is made when its turn to start comes; a stage that takes over makes them all at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from actors.context import Context
from actors.errors import ActorError, Unavailable
from actors.ref import Ref
from actors.reply import Reply
from supervisors.company import Company
from supervisors.ensemble import Ensemble
from supervisors.playbill import HostReality, LivingMember
from supervisors.programme import Programme
from supervisors.prompter import Prompter
from supervisors.registry import ServiceView
from supervisors.slot import Host
from supervisors.troupe import Superior, Troupe


class Cast:
    """
    The actors of all services and groups. Loop thread only.

    *on_give_up* hears why something at the top of an app that escalates has given up.
    """

    def __init__(
        self,
        programme: Programme,
        context: Context,
        company: Company,
        prompter: Prompter,
        epoch: int,
        *,
        on_view: Callable[[ServiceView], None],
        on_event: Callable[..., None],
        on_give_up: Callable[[str], None],
    ) -> None:
        self.programme = programme
        self.troupes: dict[str, Ref[Troupe]] = {}
        """Of the services whose turn has come."""
        self.ensembles: dict[str, Ref[Ensemble]] = {}
        self._context = context
        self._company = company
        self._prompter = prompter
        self._epoch = epoch
        self._on_view = on_view
        self._on_event = on_event
        self._on_give_up = on_give_up
        self._realities: Sequence[HostReality] = ()
        """What the hosts said that an earlier stage has left."""
        self._adopted: dict[str, Reply[None]] = {}
        """The beginnings of what an earlier stage has left."""

    def troupe(self, service: str) -> Ref[Troupe]:
        """The actor of a service. `NotFound`; `Unavailable` when its turn has not come."""
        self.programme.service(service)
        troupe = self.troupes.get(service)
        if troupe is None:
            raise Unavailable(
                f"service {service} has not begun to start yet", may_have_run=False, reason="starting"
            )
        return troupe

    def part(self, name: str) -> Ref[Any]:
        """The actor of a service or group, made the first time."""
        known: Ref[Any] | None = self.ensembles.get(name) or self.troupes.get(name)
        if known is not None:
            return known
        return self._new_ensemble(name) if name in self.programme.groups else self._new_troupe(name)

    async def begin(self) -> None:
        """Start what is at the top of the app, in order; returns when each has started or failed."""
        for name in self.programme.top:
            try:
                if name in self._adopted:
                    await self._adopted[name]
                elif not self._has_failed(name):
                    await self.part(name).begin()
            except ActorError as error:
                if self.programme.escalates:
                    self._on_give_up(str(error))

    def take_over(self, realities: Sequence[HostReality]) -> None:
        """Go on with what an earlier stage has left, all at once: none may wait for another's bad start."""
        self._realities = realities
        names = [*self.programme.services, *self.programme.groups]
        for name in names:
            self.part(name)
        for name in names:
            if not self._has_failed(self.programme.top_of(name)):
                self._adopted[name] = self.part(name).begin()

    async def stop(self, on_stopped: Callable[[str], None]) -> None:
        """Stop everything in reverse order; *on_stopped* hears of each service."""
        for top in reversed(self.programme.top):
            if top not in self.troupes and top not in self.ensembles:
                continue
            with contextlib.suppress(ActorError):
                await self.part(top).halt(True)
            for name in self.programme.backwards(top):
                part: Ref[Any] | None = self.ensembles.get(name) or self.troupes.get(name)
                if part is not None:
                    with contextlib.suppress(ActorError):
                        await part.stop()
                if name in self.troupes:
                    on_stopped(name)

    def _has_failed(self, top: str) -> bool:
        """Whether an earlier stage has left a service or group at the top of the app as failed."""
        entry = self._prompter.service(top)
        return bool(self._prompter.group_failure(top) or (entry is not None and entry.failed))

    def _new_troupe(self, name: str) -> Ref[Troupe]:
        top = self.programme.top_of(name)
        entry = self._prompter.service(name)
        troupe = self.troupes[name] = self._context.options(name=name).spawn(
            Troupe,
            self.programme.services[name],
            self._company,
            self._on_view,
            self._on_event,
            self._prompter.commit,
            self._epoch,
            entry if top == name else self._prompter.service_in_group(name, top),
            self._living(name),
            {member: ended for each in self._realities for member, ended in each.ended.items()},
            self._superior_of(name),
        )
        return troupe

    def _new_ensemble(self, name: str) -> Ref[Ensemble]:
        ensemble = self.ensembles[name] = self._context.options(name=name).spawn(
            Ensemble,
            self.programme.groups[name],
            self.part,
            self._on_event,
            self._prompter.commit,
            self._prompter.group_failure(name),
            self._adopted,
            self._superior_of(name),
        )
        return ensemble

    def _superior_of(self, name: str) -> Superior | None:
        """Who decides what follows when a service or group gives up; None when it has then failed."""
        group = self.programme.group_of(name)
        if group is not None:
            return lambda exit, reason: self.ensembles[group].tell("ended", name, exit, reason)
        if self.programme.escalates:
            return lambda exit, reason: self._on_give_up(f"{name} {reason}")
        return None

    def _living(self, service: str) -> dict[str, tuple[Host, LivingMember]]:
        """The members of *service* that run in hosts which were taken over."""
        return {
            name: (host, member)
            for reality in self._realities
            if reality.service == service and (host := self._company.host_named(reality.name)) is not None
            for name, member in reality.members.items()
        }

"""
The prompter: keeps the playbill of a running app, and has the hosts keep it too.

A change is acted on when one host has it, or after 50 ms: a stopped host must not hold the stage.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from supervisors.company import Company
from supervisors.playbill import GroupEntry, Playbill, ServiceEntry
from supervisors.slot import Host

_COMMIT_LIMIT = 0.05
"""Seconds that a change waits for a host to keep it."""


class Prompter:
    """The playbill of one life of the stage. Loop thread only."""

    def __init__(self, epoch: int, company: Company) -> None:
        self._epoch = epoch
        self._company = company
        self._service_by_name: dict[str, ServiceEntry] = {}
        self._group_by_name: dict[str, GroupEntry] = {}
        self._playbill = Playbill()
        self._version = 0
        self._round: asyncio.Task[None] | None = None
        """The next time the playbill goes out; all who ask until then share it."""

    def take_over(self, playbill: Playbill) -> None:
        """Go on with what an earlier stage has left."""
        self._service_by_name = {service.name: service for service in playbill.services}
        self._group_by_name = {group.name: group for group in playbill.groups}
        self._playbill = playbill

    def service(self, name: str) -> ServiceEntry | None:
        """What is known of a service; None when nothing is."""
        return self._service_by_name.get(name)

    def service_in_group(self, name: str, top: str) -> ServiceEntry | None:
        """The same for one in the group *top* at the top of the app: it has failed when the group has."""
        entry = self._service_by_name.get(name)
        failed = self.group_failure(top)
        return replace(entry, failed=failed and f"group {top} {failed}") if entry is not None else None

    def group_failure(self, name: str) -> str:
        """Why a group at the top of the app has failed; empty when it has not."""
        entry = self._group_by_name.get(name)
        return entry.failed if entry is not None else ""

    def show(self, host: Host) -> None:
        """Have a host that has just come up keep what there is."""
        if host.ref is not None and self._playbill.epoch:
            host.ref.tell("keep", self._epoch, self._playbill)

    async def commit(self, entry: ServiceEntry | GroupEntry) -> None:
        """Make a change outlive this process before it is acted on."""
        if isinstance(entry, GroupEntry):
            self._group_by_name[entry.name] = entry
        else:
            self._service_by_name[entry.name] = entry
        if self._round is None:
            self._round = asyncio.get_running_loop().create_task(self._replicate())
        await asyncio.shield(self._round)

    async def _replicate(self) -> None:
        await asyncio.sleep(0)  # what else changes in this turn goes out with it
        self._round = None
        self._version += 1
        last_host, last_slot = self._company.last_numbers
        playbill = self._playbill = Playbill(
            self._epoch,
            self._version,
            services=tuple(self._service_by_name.values()),
            groups=tuple(self._group_by_name.values()),
            slots=self._company.slot_entries(),
            hosts=self._company.host_entries(),
            last_host=last_host,
            last_slot=last_slot,
        )
        kept = [
            host.ref.keep(self._epoch, playbill) for host in self._company.hosts() if host.ref is not None
        ]
        if kept:
            first = [asyncio.ensure_future(reply) for reply in kept]
            await asyncio.wait(first, timeout=_COMMIT_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            for reply in first:
                reply.add_done_callback(lambda done: done.cancelled() or done.exception())

"""
The stage: the control process of a running app. Root of supervision, registry, and the
control actor that everybody else is a client of.

It never imports or unpickles what is the user's. It says everything in plain data that
JSON can carry, so the command line needs no pickle.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import traceback
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from actors import foreign
from actors.errors import ActorError, NotFound, Refusal, ServiceFailed, Unavailable
from actors.events import DeadLettered, Event, FrameRejected, PeerLost
from actors.exit import Exit
from actors.ref import Ref
from supervisors import health, placement, survey, vigil
from supervisors.cast import Cast
from supervisors.company import Company
from supervisors.control import ControlActor
from supervisors.exits import Verdict, exit_from_plain
from supervisors.journal import Journal
from supervisors.playbill import newest
from supervisors.programme import Programme
from supervisors.prompter import Prompter
from supervisors.registry import REGISTRY_NAME, ServiceView
from supervisors.service import ServicePlan
from supervisors.slot import Host
from supervisors.troupe import Troupe

if TYPE_CHECKING:
    from supervisors.stage_process import StageProcess

_FAMILY_LIMIT = 0.5
"""Seconds that a host may take to say what lives in it."""

_NEXT_TRY = 1.0
"""Seconds before a stage that cannot take over makes way for the next one."""

GAVE_UP_WORDS = "has given up"


class Stage(ControlActor):
    """The app's control actor. Questions are answered while orders are carried out."""

    def __init__(self, process: StageProcess) -> None:
        self._process = process
        config = process.config
        self._app: dict[str, Any] = config["app"] or {}
        self._name: str = config["app_name"]
        self._programme = Programme(self._name, self._app)
        self._subscribers: dict[str, Ref[Any]] = {}
        self._journal = Journal(self.context.system.clock)
        self._note = self._journal.note
        self._ready = asyncio.Event()
        self._in_charge = asyncio.Event()
        """Set once there is somebody for each service: what comes earlier has to wait."""
        self._beat: vigil.Beat | None = None
        self._is_stopping = False
        self._stopped: asyncio.Future[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._gave_up = ""
        """Why the whole app goes down by itself."""
        self._company = Company(
            self.context.system,
            self._host_config(config),
            self._programme.understudies,
            self._programme.services,
            heartbeat_limit=config.get("heartbeat_limit", 10.0),
            on_died=self._host_died,
            on_explained=self._host_explained,
            on_refused=process.close,
            everybody_told=self._told,
            on_event=self._note,
        )
        self._prompter = Prompter(process.epoch, self._company)
        self._cast = Cast(
            self._programme,
            self.context,
            self._company,
            self._prompter,
            process.epoch,
            on_view=self._publish,
            on_event=self._note,
            on_give_up=self._give_up,
        )

    def _host_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        modules = [
            plan.class_reference["module"]
            for plan in self._programme.services.values()
            if "module" in plan.class_reference
        ]
        return {
            "app_name": self._name,
            "run_dir": config["run_dir"],
            "key_path": config["key_path"],
            "stage_address": self.context.system.address,
            "epoch": self._process.epoch,
            "sys_path": list(config.get("sys_path", ())),
            "files": self._app.get("files", {}),
            "modules": list(dict.fromkeys(modules)),
            "uses_gpus": any(plan.resources.get("gpu") for plan in self._programme.services.values()),
            "embedded": config.get("embedded", True),
            "orphan_timeout": self._app.get("orphan_timeout"),
        }

    async def on_start(self) -> None:
        self.context.system.subscribe(self._saw)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    # -- opening ---------------------------------------------------------------------------

    async def _open(self) -> None:
        """As long as this has not worked nobody is in charge: then the app ends, or the next stage tries."""
        try:
            await self._open_app()
        except Exception as error:
            traceback.print_exc()
            if self._process.is_return:
                # What runs goes on running meanwhile; a pause, so that trying for ever costs little.
                await asyncio.sleep(_NEXT_TRY)
                self._process.fail()
            self._give_up(f"it could not be opened: {type(error).__name__}: {error}")

    async def _open_app(self) -> None:
        if self._process.is_return:
            await self._take_over()
        else:
            self._in_charge.set()
            await self._company.look_at_nodes()
            await self._company.open(self._hosts_expected() + self._programme.understudies)
        await self._cast.begin()
        self._note("app.ready", app=self._name)
        self._ready.set()

    def _give_up(self, reason: str) -> None:
        """The app goes down by itself."""
        if not self._is_stopping and not self._gave_up:
            self._gave_up = reason
            self._note("app.gave_up", app=self._name, reason=reason)
            self._process.leave_word(f"{self._name} {GAVE_UP_WORDS}: {reason}")
            self._ready.set()
            self.context.ref.tell("stop_app")

    # -- taking over -----------------------------------------------------------------------------

    async def _take_over(self) -> None:
        """Learn from the hosts what an earlier stage has left, and go on with that."""
        realities = await self._company.find_hosts()
        playbill = newest(reality.playbill for reality in realities)
        self._prompter.take_over(playbill)
        await self._company.take_over(playbill, realities)
        for reality in realities:
            self._subscribe(reality.address)
        self._note(
            "stage.returned",
            epoch=self._process.epoch,
            hosts=len(realities),
            members=sum(len(reality.members) for reality in realities),
        )
        self._cast.take_over(realities)
        self._in_charge.set()

    def _hosts_expected(self) -> int:
        """Processes that the services will need and that need no slot of their own first."""
        total = 0
        cpus = placement.cpus(self._company.nodes())
        for plan in self._programme.services.values():
            if plan.resources.get("gpu") or plan.resources.get("labels"):
                continue
            hosts = math.ceil(plan.size / plan.per_host) if plan.per_host else min(plan.size, cpus)
            total += self._that_fit(plan, hosts)
        return total

    def _that_fit(self, plan: ServicePlan, hosts: int) -> int:
        free: dict[str, float] = {}
        for node in self._company.nodes():
            for name, amount in node.available.items():
                free[name] = free.get(name, 0.0) + amount
        amounts = {
            "CPU": plan.resources["cpu"],
            "memory": plan.resources["memory"] or 0,
            **plan.resources["custom"],
        }
        return min(
            [hosts, *(int(free.get(name, 0.0) // amount) for name, amount in amounts.items() if amount)]
        )

    async def beat(self, record_path: str) -> None:
        """Show the house from now on that this loop turns."""
        self._beat = vigil.Beat(record_path)
        self._beat.touch()
        # A timer, not a loop: a handler that never returns would hold up the end of this process.
        self.context.every(health.beat(self._process.config.get("heartbeat_limit", 10.0)), self._touch)

    async def _touch(self) -> None:
        if self._beat is not None:
            self._beat.touch()

    async def wait_ready(self) -> dict[str, Any]:
        """
        Resolves when every service has started what can be placed; says what `ps` says.

        `ServiceFailed` when the app goes down instead, because something in it gave up.
        """
        await self._ready.wait()
        if self._gave_up:
            raise ServiceFailed(f"{self._name} {GAVE_UP_WORDS}: {self._gave_up}", reason=self._gave_up)
        await self._told()
        return await self.ps()

    # -- what hosts say ------------------------------------------------------------------------

    async def host_up(
        self, name: str, pid: int, start_time: int, address: str, gpu_ids: list[str]
    ) -> list[tuple[Any, ...]]:
        """A host's hello; answered with the views of all services."""
        self._company.host_up(name, pid, start_time, address, tuple(gpu_ids))
        host = self._company.host_named(name)
        if host is not None:
            self._prompter.show(host)
        return self._subscribe(address)

    async def host_leaving(self, name: str, exit: tuple[str, str, str]) -> None:
        """A host's farewell; answered when no caller turns to it any more."""
        self._company.farewell(name, exit_from_plain(exit)[0])
        host = self._company.host_named(name)
        troupe = self._cast.troupes.get(host.service or "") if host is not None else None
        if host is not None and troupe is not None:
            await troupe.host_leaves(host)
            await self._told()  # what a caller still sends to a process that has ended is lost

    async def log_failed(self, name: str, reason: str) -> None:
        """A host cannot write down what its members say; told once until it can again."""
        host = self._company.host_named(name)
        if host is not None:
            self._note(
                "log.failed",
                supervisor=host.service or "company",
                context="log",
                reason=reason,
                child=name,
                host=name,
                members=list(host.members),
            )

    async def member_exited(
        self,
        host: str,
        name: str,
        incarnation: int,
        exit: tuple[str, str, str],
        handled: int,
        counts: bool = True,
    ) -> None:
        """A member's life ended by itself, or by an order of an earlier stage, which *counts* for nothing."""
        await self._in_charge.wait()
        troupe = self._cast.troupes.get(name.partition("/")[0])
        if troupe is not None:
            reason, traceback = exit_from_plain(exit)
            if traceback:
                self._note(
                    "member.crashed",
                    supervisor=name.partition("/")[0],
                    context="crashed",
                    reason=str(reason),
                    child=name,
                    member=name,
                    incarnation=incarnation,
                    traceback=traceback,
                )
            await troupe.exited(name, incarnation, reason, traceback, handled, counts)

    async def member_worked(self, name: str, incarnation: int) -> None:
        """A member's life has finished its first message."""
        troupe = self._cast.troupes.get(name.partition("/")[0])
        if troupe is not None:
            await troupe.worked(name, incarnation)

    async def member_hung(self, host: str, name: str, incarnation: int, exit: tuple[str, str, str]) -> None:
        """A handler of a member holds on beyond its limit: its host's process has to end."""
        await self._in_charge.wait()
        found = self._company.host_named(host)
        if found is not None and not found.dead:
            await self._company.end_hung(found, exit_from_plain(exit)[0])

    def _host_died(self, host: Host, members: tuple[str, ...], verdict: Verdict) -> None:
        event = "host.died" if host.service is not None else "understudy.died"
        self._note_end(event, host, members, verdict)
        troupe = self._cast.troupes.get(host.service or "")
        if troupe is not None and members:
            troupe.tell(Troupe.host_died, host, members, verdict)

    def _host_explained(self, host: Host, members: tuple[str, ...], told: Verdict, verdict: Verdict) -> None:
        if verdict.exit != told.exit:
            self._note_end("host.explained", host, members, verdict)
        troupe = self._cast.troupes.get(host.service or "")
        if troupe is not None and members:
            troupe.tell(Troupe.host_explained, host, verdict)

    def _note_end(self, event: str, host: Host, members: tuple[str, ...], verdict: Verdict) -> None:
        self._note(
            event,
            supervisor=host.service or "company",
            context="died",
            reason=str(verdict.exit),
            child=host.name,
            host=host.name,
            pid=host.pid,
            service=host.service,
            members=list(members),
            traceback=verdict.stack,
        )

    # -- views --------------------------------------------------------------------------------

    async def subscribe(self, address: str) -> list[tuple[Any, ...]]:
        """Have the registry actor at *address* told of every change; answered with the views now."""
        return self._subscribe(address)

    def _subscribe(self, address: str) -> list[tuple[Any, ...]]:
        self._subscribers[address] = self.context.system.ref(f"{address}#{REGISTRY_NAME}")
        return [
            self._process.registry.view(name).to_plain() for name in self._cast.troupes if self._knows(name)
        ]

    def _knows(self, name: str) -> bool:
        try:
            self._process.registry.view(name)
        except NotFound:
            return False
        return True

    def _publish(self, view: ServiceView) -> None:
        self._process.registry.take([view])
        plain = [view.to_plain()]
        for ref in self._subscribers.values():
            ref.tell("update", plain)

    async def _told(self) -> None:
        """Every process has taken what was published so far, or has not answered within a second."""
        barriers = [ref.options(timeout=1.0).ask("update", []) for ref in self._subscribers.values()]
        for barrier in barriers:
            with contextlib.suppress(ActorError):
                await barrier

    def _saw(self, event: Event) -> None:
        if isinstance(event, PeerLost):
            self._subscribers.pop(event.address, None)
        elif isinstance(event, DeadLettered) and event.target == REGISTRY_NAME:
            pass  # a view for a process that has just ended
        elif isinstance(event, (DeadLettered, FrameRejected)) and not self._is_stopping:
            self._note(event.kind, **event.fields())

    # -- questions ----------------------------------------------------------------------------

    async def ps(self) -> dict[str, Any]:
        """The app, its services and members."""
        await self._in_charge.wait()
        services, members = [], []
        for name, plan in self._programme.services.items():
            troupe = self._cast.troupes.get(name)
            row, rows = (_waiting_row(plan), []) if troupe is None else await troupe.describe()
            services.append(row)
            members.extend(rows)
        known = [await ensemble.describe() for ensemble in self._cast.ensembles.values()]
        return {
            "app": self._name,
            "stage": {"pid": os.getpid(), "epoch": self._process.epoch},
            "services": survey.service_rows(self._programme.groups, known, services),
            "members": members,
            "groups": survey.group_rows(self._programme.groups, known, services),
            "understudies": self._company.understudies.rows(),
        }

    async def tree(self) -> dict[str, Any]:
        """The supervision tree: app, groups, services, members, and what lives inside each member."""
        families = await self._families()
        return survey.tree(self._programme.top, await self.ps(), families)

    async def _families(self) -> dict[str, dict[str, Any] | None]:
        """What lives in each member, by its name; None for those whose host does not answer in time."""
        hosts = [host for host in self._company.hosts() if host.ref is not None and host.members]
        asked = [host.ref.options(timeout=_FAMILY_LIMIT).families() for host in hosts if host.ref is not None]
        found: dict[str, dict[str, Any] | None] = {}
        for host, reply in zip(hosts, asked, strict=True):
            try:
                found |= await reply
            except ActorError:
                found |= dict.fromkeys(host.members)
        return found

    async def nodes(self) -> list[dict[str, Any]]:
        """The cluster's nodes."""
        return [
            {
                "node": node.node_id,
                "alive": node.alive,
                "address": node.address,
                "resources": dict(node.resources),
                "available": dict(node.available),
                "labels": dict(node.labels),
            }
            for node in await self._company.look_at_nodes()
        ]

    async def describe(self, service: str) -> dict[str, Any]:
        """One service: class, methods with signatures and docstrings, resources, strategy."""
        plan = self._programme.service(service)
        return {
            "name": plan.name,
            "class": plan.class_name,
            "doc": plan.doc,
            "methods": plan.methods,
            "size": plan.size,
            "resources": plan.resources,
            "per_host": plan.per_host,
            "strategy": plan.strategy,
            "restart": plan.restart,
            "intensity": plan.intensity,
            "period": plan.period,
            "backoff": plan.backoff,
            "shutdown": _limit(plan.shutdown),
            "start_timeout": _limit(plan.start_timeout),
            "handler_timeout": _limit(plan.handler_timeout),
            "routing": plan.routing,
            "mailbox": plan.mailbox,
            "overflow": plan.overflow,
            "concurrency": plan.concurrency,
        }

    async def events(self, follow: bool = False, last: int = 100) -> AsyncGenerator[dict[str, Any], None]:
        """The last events, oldest first; with *follow* all that come, until the stream is cancelled."""
        async for event in self._journal.read(follow, last):
            yield event

    # -- orders --------------------------------------------------------------------------------

    async def scale(self, service: str, size: int | str, wait: bool = True) -> dict[str, Any]:
        """
        Have *size* members (`8`, or `"+1"`, `"-2"` relative to now).

        Resolves when each runs, has left or waits for room; at once without *wait*.
        """
        await self._in_charge.wait()
        troupe = self._cast.troupe(service)
        before, wanted = await troupe.resize(size)
        self._note("service.scaled", service=service, before=before, size=wanted)
        moved = troupe.move(before, wanted)
        if not wait:
            return {"service": service, "before": before, "size": wanted}
        report: dict[str, Any] = await moved
        await self._told()
        return report

    async def restart(self, name: str, rolling: bool = False) -> dict[str, Any]:
        """
        New lives for a service or group, one by one with *rolling*, or for one member (`kitchen/2`).

        Of a group all are restarted in order, by its strategy.
        """
        await self._in_charge.wait()
        is_group = name in self._programme.groups
        part = self._cast.part(name) if is_group else self._cast.troupe(name.partition("/")[0])
        what = "group" if is_group else "service"
        self._note(f"{what}.restarted", **{what: name}, rolling=rolling)
        restarted = await part.restart([name] if "/" in name else [], rolling)
        return {"restarted": restarted}

    async def reset(self, name: str) -> dict[str, Any]:
        """Revive a service or group that has failed; for what is in a group, all of the group at the top."""
        await self._in_charge.wait()
        top = self._programme.top_of(name)
        if name in self._programme.services:
            self._cast.troupe(name)
        revived = await self._cast.part(top).reset()
        if revived:
            what = "group" if top in self._programme.groups else "service"
            self._note(f"{what}.reset", **{what: top})
            await self._told()  # else who asked is told that it has failed
        rows = (await self.ps())["groups" if name in self._programme.groups else "services"]
        state = next(row["state"] for row in rows if row["name"] == name)
        return {"service": name, "revived": revived, "state": state}

    async def kill_member(self, member: str, yes: bool = False) -> dict[str, Any]:
        """SIGKILL the process of *member*; resolves at its end. `Refusal` with neighbours unless *yes*."""
        await self._in_charge.wait()
        host = await self._cast.troupe(member.partition("/")[0]).host_of(member)
        if host is None or host.dead:
            raise Unavailable(f"{member} has no process now", may_have_run=False, reason="not running")
        neighbours = [name for name in (host.slot.members if host.slot is not None else ()) if name != member]
        if neighbours and not yes:
            raise Refusal(
                f"the process of {member} (pid {host.pid}) is also that of {', '.join(neighbours)};"
                " say yes to kill them all"
            )
        self._note(
            "member.killed",
            supervisor=host.service,
            context="killed",
            reason="order",
            child=member,
            member=member,
            pid=host.pid,
            with_it=neighbours,
        )
        self._company.kill(host, Exit("killed", "order"))
        while not host.dead:
            await asyncio.sleep(0.001)
        return {"member": member, "pid": host.pid, "with_it": neighbours}

    async def call(
        self, service: str, method: str, arguments: str, timeout: float | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """
        Call a method of a service, or of one member (`kitchen/2`), with JSON arguments, passed on undecoded.

        A stream of `{"value": …}` or `{"item": …}`, each JSON text from the member's host.
        """
        target = self._target(service)
        if timeout is not None:
            target = target.options(timeout=timeout)
        reply = target.ask(f"{foreign.MARK}{method}", arguments)
        if self._streams(service, method):
            async for item in reply:
                yield {"item": item}
        else:
            yield {"value": await reply}

    def _streams(self, service: str, method: str) -> bool:
        plan = self._programme.service(service.partition("/")[0])
        return any(known["name"] == method and known["kind"] == "stream" for known in plan.methods)

    def _target(self, name: str) -> Any:
        self._programme.service(name.partition("/")[0])
        if "/" not in name:
            return self._process.registry.service(name)
        service, _, number = name.partition("/")
        if not number.isdecimal():
            raise NotFound(f"{name} is not a member's name; they are {service}/0, {service}/1, …")
        return self._process.registry.service(service).member(int(number))

    async def stop_app(self) -> None:
        """Stop the app in order: services in reverse, members within their shutdown times. Then it ends."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().create_task(self._stop(self._stopped))
        await asyncio.shield(self._stopped)

    async def _stop(self, done: asyncio.Future[None]) -> None:
        self._is_stopping = True
        self._note("app.stopping", app=self._name)
        if self._opening is not None:
            self._opening.cancel()
        await self._cast.stop(lambda service: self._note("service.stopped", service=service))
        await self._company.close()
        self._note("app.stopped", app=self._name)
        done.set_result(None)
        # The last message is the answer to whoever asked for the stop; then the process may go.
        self.context.system.clock.call_later(0.05, self._process.end)


def _limit(seconds: float) -> float | str:
    """Seconds, or `infinity`, which JSON has no number for."""
    return "infinity" if seconds == math.inf else seconds


def _waiting_row(plan: ServicePlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "state": "starting",
        "size": plan.size,
        "ready": 0,
        "restarts": 0,
        "reason": "",
        "strategy": plan.strategy,
        "class": plan.class_name,
    }

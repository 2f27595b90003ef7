"""
The company: an app's host processes and the slots they hold.

It fills slots with processes, an understudy where there is one, and reports when a process has
died: the end of the process, proven by its pidfd, nothing less. Which members live again is decided
elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from actors.errors import ActorError, StartFailed, Unavailable
from actors.exit import Exit
from actors.ref import as_order
from actors.remains import remains_of
from actors.system import ActorSystem
from supervisors import evidence, logbook, placement, settings
from supervisors.exits import Cause, Verdict, crash_signal, exit_from_plain, judge, readable
from supervisors.heartbeat import Heartbeat
from supervisors.playbill import HostEntry, HostReality, Playbill, SlotEntry
from supervisors.service import ServicePlan
from supervisors.slot import HOST_ACTOR, Host, Slot
from supervisors.understudies import Post, Understudies

_POLL = 0.25
"""Seconds between two looks at what only Ray knows: slots that wait, lifelines that ended."""
_TRIES = 5
"""Hosts that may die while they take a slot before the start counts as failed."""
_WHEREABOUTS_LIMIT = 3.0
"""Seconds that a new stage waits for hosts to say where they are; a stopped one would never."""
_CAUSE_LIMIT = 1.0
"""Seconds in which Ray may say why a process ended; 11 to 166 ms measured."""
_CAUSE_PAUSE = 0.03
"""Seconds before Ray is asked at all: it knows no sooner, and the restart needs the interpreter."""
_FIND_LIMIT = 12.0
"""Seconds in which somebody has to hand over the playbill, as long as there are processes that might."""
_START_PAUSE = 1.0
"""Seconds before another blank host is tried when one did not come up."""

_AWAY = "while the stage was away"


class Company:
    """All hosts of one app. Loop thread only; Ray is called on threads of its own."""

    def __init__(
        self,
        system: ActorSystem,
        host_config: Mapping[str, Any],
        understudies: int,
        plans: Mapping[str, ServicePlan] | None = None,
        *,
        heartbeat_limit: float,
        on_died: Callable[[Host, tuple[str, ...], Verdict], None],
        on_explained: Callable[[Host, tuple[str, ...], Verdict, Verdict], None],
        on_refused: Callable[[], None],
        everybody_told: Callable[[], Awaitable[None]],
        on_event: Callable[..., None],
    ) -> None:
        from supervisors import _ray

        self._ray = _ray
        self._system = system
        self._config = host_config
        self._epoch = host_config["epoch"]
        self._on_died = on_died
        self._on_explained = on_explained
        self._everybody_told = everybody_told
        self._on_event = on_event
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="ray-calls")
        self._causes = ThreadPoolExecutor(4, thread_name_prefix="ray-causes")
        self._hosts: dict[str, Host] = {}
        self._slots: dict[str, Slot] = {}
        self._last_host = 0
        self._last_slot = 0
        self._nodes: list[Any] = []
        self._lost: set[str] = set()
        """Nodes that we know to be gone; Ray needs some seconds more."""
        self._left_in: dict[str, tuple[Exit | None, str]] = {}
        """Farewell and crash file of processes that ended while no stage was there, by their slot."""
        self._closing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._run_dir: str = host_config["run_dir"]
        self._heartbeat = Heartbeat(
            heartbeat_limit, self._epoch, self._run_dir, self.hosts, on_hung=self._hung, on_refused=on_refused
        )
        self.understudies = Understudies(
            understudies,
            plans if plans is not None else {},
            self._epoch,
            system.clock,
            hosts=self.hosts,
            slots=self._slots.values,
            nodes=self.nodes,
            spawn=self._reserve,
            end=self._dispose,
            on_event=on_event,
        )

    async def open(self, hosts_expected: int) -> None:
        """Learn the nodes; start what will surely be needed, all at once."""
        await self.look_at_nodes()
        self._task(self._watch_lifelines())
        self._task(self._heartbeat.run())
        self._task(self.understudies.watch_memory())
        alive = [node.node_id for node in self._nodes if node.alive]
        if len(alive) == 1:
            for _ in range(hosts_expected):
                self._spawn(alive[0])
        else:
            self.understudies.refill()

    # -- taking over -----------------------------------------------------------------------

    async def find_hosts(self) -> list[HostReality]:
        """
        Take charge of the processes that an earlier stage has left, and hear what they really run.

        Not to be content with nobody: a stage that begins anew beside members that run would have them twice.
        """
        give_up_at = self._system.clock.now() + _FIND_LIMIT
        while True:
            realities = await self._ask_hosts()
            if any(reality.playbill.epoch for reality in realities):
                return realities
            if self._system.clock.now() > give_up_at or not await self._call(self._ray.list_hosts):
                return realities
            await asyncio.sleep(_POLL)

    async def _ask_hosts(self) -> list[HostReality]:
        found = await self._call(self._ray.whereabouts, _WHEREABOUTS_LIMIT)
        asked = [
            as_order(self._system.ref(f"{address}#{HOST_ACTOR}"))
            .options(timeout=2.0)
            .adopt(self._epoch, self._config["stage_address"])
            for address in found.values()
        ]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        return [outcome for outcome in outcomes if isinstance(outcome, HostReality)]

    async def take_over(self, playbill: Playbill, realities: list[HostReality]) -> None:
        """Go on with the slots of *playbill* and the processes that are really there."""
        self.understudies.is_counted = False
        await self.look_at_nodes()
        self._task(self._watch_lifelines())
        self._task(self._heartbeat.run())
        self._task(self.understudies.watch_memory())
        await self._fence(playbill, {reality.name for reality in realities})
        await self._remove_unknown_slots(playbill)
        self._last_host = max(self._last_host, playbill.last_host)
        self._last_slot = max(self._last_slot, playbill.last_slot)
        for entry in playbill.slots:
            slot = Slot(entry.name, entry.service, dict(entry.bundle), dict(entry.labels))
            slot.node_id, slot.is_made, slot.gpu_ids = entry.node_id, entry.is_made, entry.gpu_ids
            self._slots[slot.name] = slot
        for service in playbill.services:
            for member in service.members:
                if member.slot in self._slots:
                    self._slots[member.slot].members[member.name] = None
        for reality in realities:
            await self._adopt(reality)
        for slot in list(self._slots.values()):
            if not slot.members:
                self._slots.pop(slot.name)
                self._task(self._give_back(slot))
        self.understudies.is_counted = True
        self.understudies.refill()

    async def _fence(self, playbill: Playbill, answered: set[str]) -> None:
        """End who has not answered: members that wake up later must not be there twice."""
        names = set(await self._call(self._ray.list_hosts))
        self._last_host = max([0, *(_number(name) for name in names)])
        for name in names - answered:
            self._task(self._call(self._ray.kill_host, name))
        silent = [host for host in playbill.hosts if host.name not in answered]
        for host in silent:
            settings.send_signal(host.pid, host.start_time, signal.SIGKILL)
        for _ in range(200):
            if not any(settings.is_alive(host.pid, host.start_time) for host in silent):
                break
            await asyncio.sleep(0.01)
        for host in silent:
            if host.slot is not None:
                crash = evidence.crash_of(self._run_dir, host.name)
                self._left_in[host.slot] = self._farewell_of(host.name), crash
            evidence.remove_traces(self._run_dir, host.name)

    def _farewell_of(self, name: str) -> Exit | None:
        """What a process has left in writing, when no stage was there to be told."""
        plain = evidence.farewell_of(self._run_dir, name)
        return exit_from_plain(plain)[0] if plain is not None else None

    def verdict_on_absence(self, slot_name: str | None) -> Verdict:
        """Why a process ended that lived in a slot while no stage was there, by what it has left behind."""
        slot = self.slot_named(slot_name)
        farewell, crash = self._left_in.get(slot_name or "", (None, ""))
        is_lost = slot is not None and self.is_lost(slot.node_id)
        cause: Cause | None = ("node_lost", _AWAY) if is_lost else None
        return judge(farewell, crash, cause, default=Exit("killed", _AWAY))

    async def _remove_unknown_slots(self, playbill: Playbill) -> None:
        """Slots that were made in an earlier stage's last moments, before anybody was told."""
        names = [slot.name for slot in await self._call(self._ray.list_slots)]
        self._last_slot = max([0, *(_number(name) for name in names)])
        for name in set(names) - {slot.name for slot in playbill.slots}:
            await self._call(self._ray.remove_slot, name)

    async def _adopt(self, reality: HostReality) -> None:
        host = Host(reality.name, reality.node_id, await self._call(self._ray.find_actor, reality.name))
        host.up = asyncio.get_running_loop().create_future()
        host.service, host.reserved_for = reality.service, reality.reserved_for
        self._hosts[host.name] = host
        self.host_up(host.name, reality.pid, reality.start_time, reality.address, reality.gpu_ids)
        if host.dead or host.ref is None:
            return
        slot = self._slots.get(reality.slot or "")
        if reality.service is not None and (slot is None or slot.host is not None):
            self.kill(host, Exit("killed", "it belongs to no slot"))
            return
        if slot is not None:
            host.slot = slot
            slot.host = host
        if host.actor is not None:
            host.lifeline = await self._call(self._ray.arm_lifeline, host.actor, self._epoch)

    def host_named(self, name: str) -> Host | None:
        """A process by name, while it lives or starts."""
        return self._hosts.get(name)

    def slot_named(self, name: str | None) -> Slot | None:
        """A slot by name."""
        return self._slots.get(name or "")

    def slot_entries(self) -> tuple[SlotEntry, ...]:
        """All slots, for the playbill."""
        return tuple(
            SlotEntry(
                slot.name, slot.service, slot.bundle, slot.labels, slot.node_id, slot.is_made, slot.gpu_ids
            )
            for slot in self._slots.values()
        )

    def host_entries(self) -> tuple[HostEntry, ...]:
        """All processes that are up, for the playbill."""
        return tuple(
            HostEntry(host.name, host.pid, host.start_time, host.slot.name if host.slot is not None else None)
            for host in self._hosts.values()
            if host.pid
        )

    @property
    def last_numbers(self) -> tuple[int, int]:
        """The highest numbers that hosts and slots were named by."""
        return self._last_host, self._last_slot

    async def look_at_nodes(self) -> list[Any]:
        """The cluster's nodes now."""
        self._nodes = self._as_known(await self._call(self._ray.nodes))
        return self._nodes

    def _as_known(self, nodes: list[Any]) -> list[Any]:
        return [replace(node, alive=node.alive and node.node_id not in self._lost) for node in nodes]

    def _loss_of(self, node_id: str | None) -> Cause | None:
        """Whether a node is gone, asked of the node itself: Ray says so only seconds later."""
        for node in self._nodes:
            if node.node_id == node_id and node.alive and evidence.refuses(node.raylet_socket):
                self._lost.add(node.node_id)
                self._nodes = self._as_known(self._nodes)
                reason = "its Ray process has ended"
                self._on_event(
                    "node.lost",
                    supervisor="company",
                    context="node_lost",
                    reason=reason,
                    child=node_id,
                    node=node_id,
                )
        return ("node_lost", "its Ray process has ended") if node_id in self._lost else None

    def is_lost(self, node_id: str | None) -> bool:
        """True when that node is known to be gone."""
        return node_id is not None and not self._is_node_alive(node_id)

    # -- slots -------------------------------------------------------------------------

    def slot_for(self, plan: ServicePlan, member: str) -> Slot:
        """The slot of *member*: the one it had, or one that has room, or a new one."""
        mine = {name: slot for name, slot in self._slots.items() if slot.service == plan.name}
        for slot in mine.values():
            if member in slot.members:
                return slot
        load = {name: len(slot.members) for name, slot in mine.items()}
        chosen = placement.choose_slot(load, plan.per_host, placement.cpus(self._nodes))
        slot = self._slots[chosen] if chosen is not None else self._new_slot(plan)
        slot.members[member] = None
        return slot

    def _new_slot(self, plan: ServicePlan) -> Slot:
        from supervisors.resources import Resources

        resources = Resources.from_dict(plan.resources)
        self._last_slot += 1
        slot = Slot(f"{plan.name}-{self._last_slot}", plan.name, resources.bundle(), dict(resources.labels))
        self._slots[slot.name] = slot
        return slot

    async def man(self, slot: Slot, plan: ServicePlan, on_pending: Callable[[str], None]) -> Host:
        """
        A host in *slot* that is open for *plan*; shared by all who ask meanwhile.

        Waits as long as the cluster has no room and says why through *on_pending*.
        `StartFailed` when no process comes up.
        """
        await self._place(slot, on_pending)
        if slot.host is not None and not slot.host.dead:
            return slot.host
        if slot.manning is None:
            slot.manning = self._task(self._fill(slot, plan))
            slot.manning.add_done_callback(partial(_manned, slot))
        return await asyncio.shield(slot.manning)

    async def _place(self, slot: Slot, on_pending: Callable[[str], None]) -> None:
        if slot.node_id is not None:
            if len(self._nodes) > 1:
                await self.look_at_nodes()  # 1 ms; where there is only one node, we live on it
            if self._loss_of(slot.node_id) is None and self._is_node_alive(slot.node_id):
                return
        if not slot.bundle:
            await self._place_freely(slot, on_pending)
            return
        begun = time.monotonic()
        while True:
            if slot.is_made and self._loss_of(slot.node_id) is not None:
                self._rename(slot)
            if not slot.is_made:
                slot.is_made = True
                make = partial(self._ray.make_slot, avoided=sorted(self._lost))
                await self._call(make, slot.name, slot.bundle, slot.labels)
            view = await self._call(self._ray.slot_state, slot.name)
            nodes = await self.look_at_nodes()
            if view.state == "ready" and view.node_id != slot.node_id:
                slot.node_id, slot.gpu_ids = view.node_id, ()
            if view.state == "ready" and self._loss_of(view.node_id) is None:
                if self._is_node_alive(view.node_id):
                    return
            elif view.state == "ready":
                continue
            if time.monotonic() - begun >= placement.patience(slot.bundle, slot.labels, nodes):
                on_pending(placement.why_pending(slot.bundle, slot.labels, nodes))
            await asyncio.sleep(_POLL)

    def _rename(self, slot: Slot) -> None:
        """
        Have *slot* placed anew, elsewhere than on the node it has lost.

        Ray gives a slot another node only when it takes the old one for dead, by default after 14 s;
        one that it has not seen before is placed at once.
        """
        self._slots.pop(slot.name)
        self._task(self._call(self._ray.remove_slot, slot.name))
        self._last_slot += 1
        slot.name, slot.is_made = f"{slot.service}-{self._last_slot}", False
        slot.node_id, slot.gpu_ids = None, ()
        self._slots[slot.name] = slot

    async def _place_freely(self, slot: Slot, on_pending: Callable[[str], None]) -> None:
        while (node_id := placement.choose_node(self._nodes, slot.labels, self._hosts_by_node())) is None:
            on_pending(placement.why_pending({}, slot.labels, self._nodes))
            await asyncio.sleep(_POLL)
            await self.look_at_nodes()
        slot.node_id = node_id

    async def _fill(self, slot: Slot, plan: ServicePlan) -> Host:
        problem: BaseException | None = None
        for _ in range(_TRIES):
            host = self.understudies.take(slot) or self._spawn(slot.node_id, slot)
            host.slot, host.service, host.handler_timeout = slot, plan.name, plan.handler_timeout
            try:
                assert host.up is not None
                await asyncio.shield(host.up)
                if slot.gpus and not slot.gpu_ids:
                    slot.gpu_ids = host.gpu_ids
                assert host.ref is not None
                await host.ref.open(self._epoch, plan.to_plain(), ",".join(slot.gpu_ids), slot.name)
            except (Unavailable, StartFailed) as error:
                problem = error
                await self._proven_dead(host)
                continue
            except asyncio.CancelledError:
                # The slot is given up: so is its host, as soon as there is a process to end.
                self._dispose(host, Exit("shutdown"))
                raise
            slot.host = host
            self.understudies.refill_later()
            return host
        raise StartFailed(f"no process came up for {plan.name}: {problem}") from problem

    def _dispose(self, host: Host, why: Exit) -> None:
        """End *host*, now or as soon as there is a process to end."""
        host.ordered = host.ordered or why
        if host.pid:
            self.kill(host, host.ordered)

    async def _proven_dead(self, host: Host) -> None:
        """A failed call proves nothing: wait for the end, and see to it."""
        if host.dead:
            return
        self.kill(host, Exit("killed", "it did not come up"))
        for _ in range(200):
            if host.dead:
                return
            await asyncio.sleep(0.01)

    def leave_slot(self, slot: Slot, member: str) -> None:
        """*member* no longer needs its place; an empty slot is given back once its host has ended."""
        slot.members.pop(member, None)
        if slot.members or self._closing:
            return
        self._slots.pop(slot.name, None)
        if slot.manning is not None:
            slot.manning.cancel()
        self._task(self._give_back(slot))

    async def _give_back(self, slot: Slot) -> None:
        host = slot.host
        if host is not None and not host.dead:
            # Who has not heard yet that its members have left still sends to them, and is to be refused.
            await self._everybody_told()
            await self.dismiss(host)
        if slot.is_made:
            await self._call(self._ray.remove_slot, slot.name)
        self.understudies.refill_later()  # or let go: those of a service that has left this node

    # -- hosts -------------------------------------------------------------------------

    def _reserve(self, post: Post) -> None:
        self._spawn(post.node_id).reserved_for = post.service

    def _spawn(self, node_id: str | None, slot: Slot | None = None) -> Host:
        """Order a new process; inside *slot* where Ray has to tell its GPUs."""
        logbook.prune(self._run_dir, self._hosts)
        self._last_host += 1
        name = f"host-{self._last_host}"
        in_slot = slot is not None and slot.gpus > 0 and not slot.gpu_ids
        host = Host(name, node_id, None, up=asyncio.get_running_loop().create_future())
        assert host.up is not None
        host.up.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._hosts[name] = host
        options: dict[str, Any] = {"node_id": node_id}
        if in_slot and slot is not None:
            options = {"slot": slot.name, "num_gpus": slot.gpus}
        self._task(self._order(host, options))
        return host

    async def _order(self, host: Host, options: dict[str, Any]) -> None:
        config = {
            **self._config,
            "host_name": host.name,
            "node_id": host.node_id or (host.slot.node_id if host.slot else None),
        }
        try:
            host.actor = await self._call(partial(self._ray.spawn_host, config, name=host.name, **options))
            host.lifeline = await self._call(self._ray.arm_lifeline, host.actor, self._epoch)
        except Exception as error:
            self._never_up(host, str(error))

    def host_up(self, name: str, pid: int, start_time: int, address: str, gpu_ids: tuple[str, ...]) -> None:
        """A process has said hello: watch it from now on."""
        host = self._hosts.get(name)
        if host is None or host.dead:
            return
        host.pid, host.start_time, host.address, host.gpu_ids = pid, start_time, address, gpu_ids
        host.ref = as_order(self._system.ref(f"{address}#{HOST_ACTOR}"))
        try:
            host.pidfd = os.pidfd_open(pid)
        except OSError:
            self._died(host)
            return
        asyncio.get_running_loop().add_reader(host.pidfd, self._died, host)
        if not settings.is_alive(pid, start_time):
            self._died(host)  # the pid was somebody else's already
        elif host.ordered is not None:
            self.kill(host, host.ordered)  # nobody wants it any more
        elif host.up is not None and not host.up.done():
            host.up.set_result(None)
            self.understudies.up(host)
            self.understudies.refill()

    def farewell(self, name: str, exit: Exit) -> None:
        """A host says why it will end."""
        if (host := self._hosts.get(name)) is not None:
            host.farewell = exit

    def kill(self, host: Host, why: Exit) -> None:
        """SIGKILL a process; its end is reported like any other, with *why* as the reason."""
        host.ordered = host.ordered or why
        if host.pid:
            settings.send_signal(host.pid, host.start_time, signal.SIGKILL)
        elif host.actor is not None:
            self._task(self._call(self._ray.kill_host, host.name))

    async def dismiss(self, host: Host) -> None:
        """Let an empty host end in order; ends it when it does not within 2 s."""
        host.ordered = Exit("shutdown")
        try:
            if host.ref is not None:
                await host.ref.options(timeout=2.0).leave(self._epoch)
        except ActorError:
            pass  # it ended before its answer left, or it never will: the end is what counts
        for _ in range(100):
            if host.dead:
                return
            await asyncio.sleep(0.02)
        self.kill(host, Exit("killed", "it did not leave"))
        await self._proven_dead(host)

    def _died(self, host: Host) -> None:
        if host.dead:
            return
        host.dead = True
        if host.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(host.pidfd)
            os.close(host.pidfd)
            host.pidfd = -1
        self._hosts.pop(host.name, None)
        self._never_up(host, "its process ended")
        members = host.members
        if host.slot is not None and host.slot.host is host:
            host.slot.host = None
        crash = evidence.crash_of(self._run_dir, host.name)
        farewell = host.farewell or self._farewell_of(host.name)
        remains = remains_of(host.address) if host.address else None
        host.has_poison = remains is not None and remains.has_poison
        if not host.has_poison:  # whoever sent it shows the crash with its dead letter
            evidence.remove_traces(self._run_dir, host.name)
        if not self._closing:
            lost = self._loss_of(host.node_id)
            verdict = judge(farewell, crash, lost, host.ordered, has_poison=host.has_poison)
            if host.lifeline is None:
                verdict = replace(verdict, is_final=True)  # there is nobody to ask
            self._on_died(host, members, verdict)
            self.understudies.died(host)
            self.understudies.refill_later()
            if not verdict.is_final:
                self._task(self._explain(host, members, verdict))

    async def _explain(self, host: Host, members: tuple[str, ...], told: Verdict) -> None:
        """Ray's word on an end reported as *told*, also when it is nothing new: giving up waits for it."""
        await asyncio.sleep(_CAUSE_PAUSE)
        cause = await asyncio.get_running_loop().run_in_executor(self._causes, self._cause_of, host.lifeline)
        known = self._loss_of(host.node_id) or cause
        verdict = judge(host.farewell, "", known, host.ordered, has_poison=host.has_poison)
        self._on_explained(host, members, told, replace(verdict, is_final=True))

    def _cause_of(self, lifeline: Any) -> Any:
        # Ray may be going down itself, in words of its own: then there is no cause to be had.
        with contextlib.suppress(Exception):
            if self._ray.wait_lifelines([lifeline], _CAUSE_LIMIT):
                return self._ray.cause_of_death(lifeline)
        return None

    # -- hangs -----------------------------------------------------------------------------

    def _hung(self, host: Host, how: str, stack: str) -> None:
        self._end_hung(host, Exit("hung", how), stack)

    async def end_hung(self, host: Host, exit: Exit) -> None:
        """A handler holds on in *host* beyond its limit: first the stack, then SIGKILL."""
        stack = await self._heartbeat.take_stack(host)
        self._end_hung(host, exit, stack)

    def _end_hung(self, host: Host, exit: Exit, stack: str) -> None:
        if host.dead or host.ordered is not None:
            return  # found twice, or on its way out already
        self._on_event(
            "member.hung" if host.members else "understudy.hung",
            supervisor=host.service or "company",
            context="hung",
            reason=str(exit),
            child=", ".join(host.members) or host.name,
            members=list(host.members),
            host=host.name,
            pid=host.pid,
            traceback=readable(stack),
        )
        host.stack = readable(stack)
        self.kill(host, exit)

    def _never_up(self, host: Host, reason: str) -> None:
        if host.up is not None and not host.up.done():
            host.up.set_exception(StartFailed(f"{host.name} did not come up: {reason}"))
            if not host.pid:
                host.dead = True
                self._hosts.pop(host.name, None)
                crash = evidence.crash_of(self._run_dir, host.name)
                evidence.remove_traces(self._run_dir, host.name)
                reason = f"{crash_signal(crash)}, {reason}" if crash else reason
                if not self._closing:
                    self._on_event(
                        "host.failed",
                        supervisor=host.service or "company",
                        context="start_failed",
                        reason=reason,
                        child=host.name,
                        host=host.name,
                    )
                    self._system.clock.call_later(_START_PAUSE, self.understudies.refill)

    async def _watch_lifelines(self) -> None:
        """Ray's word on processes that never said hello, and on causes of death."""
        calls = ThreadPoolExecutor(1, thread_name_prefix="ray-lifelines")
        loop = asyncio.get_running_loop()
        try:
            while not self._closing:
                waiting = {
                    id(host.lifeline): host
                    for host in self._hosts.values()
                    if host.lifeline is not None and not host.pid
                }
                if not waiting:
                    await asyncio.sleep(_POLL)
                    continue
                lifelines = [host.lifeline for host in waiting.values()]
                ended = await loop.run_in_executor(calls, self._ray.wait_lifelines, lifelines, _POLL)
                for lifeline in ended:
                    cause = await loop.run_in_executor(calls, self._ray.cause_of_death, lifeline)
                    host = waiting[id(lifeline)]
                    if not host.pid:
                        self._never_up(host, cause[1] if cause is not None else "it ended")
        finally:
            calls.shutdown(wait=False)

    # -- the whole -------------------------------------------------------------------------

    def hosts(self) -> list[Host]:
        """All processes that live or start."""
        return list(self._hosts.values())

    def nodes(self) -> list[Any]:
        """The nodes as last seen."""
        return self._nodes

    async def close(self) -> None:
        """End all hosts, wait for their end, give all slots back."""
        self._closing = True
        self.understudies.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(self._end(host) for host in self.hosts()))
        for slot in self._slots.values():
            if slot.is_made:
                await self._call(self._ray.remove_slot, slot.name)
        self._calls.shutdown(wait=False)
        self._causes.shutdown(wait=False)

    async def _end(self, host: Host) -> None:
        if host.pid:
            self.kill(host, Exit("shutdown"))
            for _ in range(100):
                if host.dead:
                    return
                await asyncio.sleep(0.01)
        else:
            await self._call(self._ray.kill_host, host.name)

    def _hosts_by_node(self) -> dict[str, int]:
        count: dict[str, int] = {}
        for slot in self._slots.values():
            if slot.node_id is not None:
                count[slot.node_id] = count.get(slot.node_id, 0) + 1
        return count

    def _is_node_alive(self, node_id: str) -> bool:
        return any(node.node_id == node_id and node.alive for node in self._nodes)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._calls, function, *args)

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _number(name: str) -> int:
    """Of a host or a slot, as it was named by this module."""
    return int(name.rpartition("-")[2])


def _manned(slot: Slot, task: asyncio.Task[Host]) -> None:
    if slot.manning is task:
        slot.manning = None
    if not task.cancelled():
        task.exception()  # whoever waited has been told

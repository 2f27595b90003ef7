"""
The troupe: the members of one service under their supervisor, an actor in the stage.

The supervision decides; this carries it out on hosts of the company and keeps the view of
the service that everybody else routes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from actors.errors import (
    ActorError,
    InvalidArgument,
    NotFound,
    ServiceFailed,
    StartFailed,
    Unavailable,
    nearest,
)
from actors.exit import Exit
from supervisors import facts
from supervisors.actions import Report
from supervisors.backoff import Backoff
from supervisors.company import Company
from supervisors.control import ControlActor
from supervisors.driver import Driver
from supervisors.exits import Verdict, exit_from_plain
from supervisors.member import Member, MemberSpec, Unexplained
from supervisors.orders import Begin, DeleteChild, StartChild, Stop, TerminateChild
from supervisors.playbill import EndedMember, LivingMember, MemberEntry, ServiceEntry
from supervisors.registry import MemberView, ServiceView
from supervisors.service import ServicePlan
from supervisors.slot import Host, Slot
from supervisors.spec import Shutdown
from supervisors.supervision import Supervision

Superior = Callable[[Exit, str], object]
"""Is told that a service or group has given up, and why; what follows is its decision."""
_NEWS_PAUSE = 0.005
"""Seconds that news may wait which nobody waits for; a restart in its process takes one or two."""
_START_KEPT = 0.02
"""Seconds after a start in which the playbill learns of it; hosts know by themselves who runs in them."""


GAVE_UP = Exit("shutdown", "intensity")


class Troupe(ControlActor):
    """
    Supervises one service. Its messages are orders of the stage, and of the group it is in.

    A service that gives up has failed, and stays so until it is reset, unless it has a *superior*:
    then that decides, and a next life may begin.
    """

    def __init__(
        self,
        plan: ServicePlan,
        company: Company,
        on_view: Callable[[ServiceView], None],
        on_event: Callable[..., None],
        commit: Callable[[ServiceEntry], Awaitable[None]],
        epoch: int,
        entry: ServiceEntry | None,
        living: dict[str, tuple[Host, LivingMember]],
        ended: dict[str, EndedMember],
        superior: Superior | None = None,
    ) -> None:
        self.plan = plan
        self._company = company
        self._on_view = on_view
        self._on_event = on_event
        self._superior = superior
        self._members: dict[str, Member] = {}
        self._commit = commit
        self._epoch = epoch
        self._entry = entry
        """What an earlier stage has left behind of this service."""
        self._entries = {member.name: member for member in entry.members} if entry is not None else {}
        self._living = living
        """Members that run already: they are taken over, not started."""
        self._ended = {
            name: (each.incarnation, exit_from_plain(each.exit)[0], each.handled, each.counts)
            for name, each in ended.items()
        }
        """How lives ended while nobody was in charge, where their hosts could say."""
        self._resumed: dict[str, MemberEntry] = {}
        """Members of an earlier stage whose turn has not come yet."""
        self._fallen: list[tuple[str, str | None]] = []
        self._size = entry.size if entry is not None else plan.size
        # Views of a later stage are newer than all of an earlier one.
        self._version = epoch << 32
        self._is_dirty = False
        self._shown: ServiceView | None = None
        """The newest view that others have been told."""
        self._news: asyncio.TimerHandle | None = None
        self._failed = entry.failed if entry is not None else ""
        self._is_stopping = False
        self._is_leaving = False
        """It stops for good: no life follows."""
        self._kept: dict[str, Slot] = {}
        """Places of members between two lives of this service: what they hold is not given to others."""
        self._has_started = False
        """`begin` has succeeded, so that giving up is the superior's business."""
        self._straw: Exit | None = None
        """The end of a member that was one too many."""
        self._last_exits: dict[str, Exit] = {}
        """Of members, in the life of this service that is over."""
        self._restarts = 0
        """Of members, in lives of this service that are over."""
        self._end: asyncio.Future[Exit] | None = None
        """Of the life under way; None before the first."""
        self._settled: list[tuple[set[str], asyncio.Future[None]]] = []
        self._incarnations: dict[str, int] = {}
        if entry is not None:
            self._incarnations = entry.left | {each.name: each.incarnation for each in entry.members}
        """Of members that have left: their names come back, their counters go on."""
        self._moves: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One coming or going at a time for each name: orders to scale may cross."""
        self._unexplained: list[Unexplained] = []
        """Oldest first."""
        self._keeping: asyncio.Task[None] | None = None
        self._starts_kept: asyncio.TimerHandle | None = None
        self._sending_off: asyncio.Task[None] | None = None
        self._driver = self._new_driver()

    async def on_start(self) -> None:
        if self._failed:
            self._end = asyncio.get_running_loop().create_future()
            slots = {name: self._company.slot_named(entry.slot) for name, entry in self._entries.items()}
            for number in range(max([self._size, *(_number(name) + 1 for name in self._living)])):
                self._spec(self._name(number))
            self._changed()
            self._sending_off = asyncio.get_running_loop().create_task(self._send_off(slots, self._end))

    async def _send_off(self, slots: dict[str, Slot | None], end: asyncio.Future[Exit]) -> None:
        """Of a service that has failed with its group some may still run: they were being stopped."""
        self._meet()
        await asyncio.gather(*(self._halt(self._members[name], self.plan.shutdown) for name in self._living))
        self._living.clear()
        for name, slot in slots.items():
            if slot is not None:
                self._company.leave_slot(slot, name)
            if name in self._members:
                self._members[name].host, self._members[name].is_registered = None, False
        end.set_result(GAVE_UP)
        self._keep_later()
        self._changed()

    async def on_stop(self, exit: Exit) -> None:
        self._is_stopping = True
        self._driver.feed(Stop(exit))
        if self._end is not None:
            await asyncio.shield(self._end)

    def _new_driver(self) -> Driver:
        return Driver(
            Supervision(
                strategy=self.plan.strategy,
                intensity=self.plan.intensity,
                period=self.plan.period,
                backoff=Backoff(**self.plan.backoff) if self.plan.intensity is None else None,
                side_by_side=self.plan.strategy == "one_for_one",
            ),
            _MemberLauncher(self),
            self.context.system.clock,
            on_report=self._reported,
            on_finished=self._finished,
        )

    # -- lives of the service --------------------------------------------------------

    async def begin(self) -> None:
        """
        Start all members, with fresh limits. Returns when each has started, failed once or waits for room.

        `StartFailed` when that is beyond the limits.
        """
        if self._end is not None:
            await asyncio.shield(self._end)
            self._leave_life_behind()
        self._failed, self._is_stopping, self._has_started = "", False, False
        end = self._end = asyncio.get_running_loop().create_future()
        wanted = self._size
        # Who runs beyond the size was leaving when the stage went away.
        self._size = max([wanted, *(_number(name) + 1 for name in self._living)])
        self._resumed = dict(self._entries)
        specs = self._name_members()
        self._leave_kept(set(self._kept) - set(self._members))
        self._kept.clear()
        self._entries.clear()
        self._meet()
        begun = self._driver.order(Begin, specs)
        settled = self._when_settled({spec.id for spec in specs})
        # Whichever is first: a member that waits for room must not hold up the rest of the app.
        first: list[asyncio.Future[Any]] = [begun, settled]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if begun.done() and begun.exception() is not None:
            await asyncio.shield(end)
        if end.done():
            raise StartFailed(f"{self.plan.name} did not start: {self._worst_exit(end.result())}")
        self._has_started = True
        if wanted < self._size:
            before, self._size = self._size, wanted
            await self.move(before, wanted)

    def _leave_life_behind(self) -> None:
        self._restarts += sum(row.restarts for row in self._driver.supervision.children())
        self._incarnations |= {name: member.incarnation for name, member in self._members.items()}
        self._last_exits = {
            name: member.last_exit for name, member in self._members.items() if member.last_exit is not None
        }
        self._straw = None
        self._members.clear()
        self._unexplained.clear()
        self._driver = self._new_driver()

    async def halt(self, for_good: bool = False) -> None:
        """Stop all members; the orders under way end with it. `begin` may follow, unless *for_good*."""
        self._is_stopping, self._is_leaving = True, for_good
        if for_good:
            self._leave_kept(set(self._kept))
        if self._end is not None:
            self._driver.feed(Stop(Exit("shutdown")))
            await asyncio.shield(self._end)
        self._look_for_settled()

    async def fail(self, reason: str) -> None:
        """Have failed with all of the group: callers are told at once. `halt` may come later."""
        if not self._members:
            self._name_members()
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if self._failed == reason:
            return
        self._failed = reason
        self._on_event(
            "service.failed",
            supervisor="stage",
            context="gave_up",
            reason=reason,
            child=self.plan.name,
            service=self.plan.name,
        )
        self._leave_kept(set(self._kept))
        self._keep_later()
        self._changed()

    def _leave_kept(self, names: set[str]) -> None:
        for name in names:
            self._company.leave_slot(self._kept.pop(name), name)

    @property
    def _is_between_lives(self) -> bool:
        """True when the next life of the service is the superior's to begin."""
        if self._superior is None or self._failed or self._is_leaving:
            return False
        return self._is_stopping or self._driver.supervision.has_failed

    # -- messages ------------------------------------------------------------------

    async def resize(self, size: int | str) -> tuple[int, int]:
        """Want *size* members, also relative; says how many were wanted and how many are. `move` follows."""
        if self._failed:
            raise ServiceFailed(f"service {self.plan.name} has failed ({self._failed})", reason=self._failed)
        before, self._size = self._size, _wanted_size(self.plan.name, size, self._size)
        return before, self._size

    async def move(self, before: int, size: int) -> dict[str, Any]:
        """Members come and go. Resolves when each runs, has left or waits for room; says what came of it."""
        await self._commit(self._playbill_entry())
        coming = [self._name(number) for number in range(before, size)]
        leaving = [self._name(number) for number in reversed(range(size, before))]
        await asyncio.gather(*map(self._enter, coming), *map(self._leave, leaving))
        await self._when_settled(set(coming))
        self._keep_later()
        pending = {name: member.pending for name, member in self._members.items() if member.pending}
        return {
            "service": self.plan.name,
            "size": size,
            "started": [name for name in coming if name in self._members and self._state(name) == "running"],
            "left": [name for name in leaving if name not in self._members],
            "pending": pending,
        }

    async def _enter(self, name: str) -> None:
        """Begin to start a member; one of this name that is still leaving has left by then."""
        async with self._moves[name]:
            if self._is_wanted(name) and name not in self._members:
                self._driver.order(StartChild, self._spec(name))

    async def _leave(self, name: str) -> None:
        """Let a member go, unless a later order wants it to stay."""
        async with self._moves[name]:
            member = self._members.get(name)
            if member is None or self._is_wanted(name):
                return
            member.leaving = True
            self._publish()  # callers stop sending before the member stops taking
            if member.host is None and member.task is not None and not member.task.done():
                # It waits for room, perhaps for ever, and what has begun to start is not stopped
                # before it has: so it does not want to start any more.
                member.task.cancel()
                self._pend(member, "")
                self._driver.feed(facts.Ignored(name))
            with contextlib.suppress(ActorError):
                await self._driver.order(TerminateChild, name)
                await self._driver.order(DeleteChild, name)
            self._incarnations[name] = member.incarnation
            self._members.pop(name, None)
            self._changed()

    def _is_wanted(self, name: str) -> bool:
        return _number(name) < self._size and not self._is_stopping

    async def restart(self, names: list[str], rolling: bool = False) -> list[str]:
        """
        Give each of *names* (all members when empty) a new life; an order, so nothing is counted.

        A running handler may finish, the mailbox stays. *rolling* waits until one runs before the
        next is stopped.
        """
        chosen = names or [name for name in self._members if self._state(name) == "running"]
        for name in chosen:
            self._member(name)
        if rolling:
            for name in chosen:
                await self._renew(name)
        else:
            await asyncio.gather(*(self._renew(name) for name in chosen))
        return chosen

    async def _renew(self, name: str) -> None:
        member = self._member(name)
        host, life = member.host, member.incarnation
        if host is None or host.ref is None or self._state(name) != "running":
            raise Unavailable(f"{name} is {self._state(name)}", may_have_run=False, reason=self._state(name))
        member.renewing = True
        self._publish()  # callers go elsewhere before it stops
        try:
            await host.ref.stop_member(self._epoch, name, self.plan.shutdown, False)
        except ActorError:
            pass  # its process ended meanwhile: that is told by its proof
        finally:
            member.renewing = False
        if member.incarnation == life and member.host is host:
            member.last_exit, member.has_settled = Exit("killed", "order"), False
            self._driver.feed(facts.Exited((name,), member.last_exit, counts=False))
        await self._when_settled({name})

    async def reset(self) -> bool:
        """Revive a service that has failed, with fresh limits; False when it has not."""
        if not self._failed:
            return False
        with contextlib.suppress(StartFailed):
            await self.begin()
        return not self._failed

    def _member(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            raise NotFound(f"{self.plan.name} has no member {name!r}{nearest(name, self._members)}")
        return member

    async def exited(
        self, name: str, incarnation: int, exit: Exit, traceback: str, handled: int, counts: bool = True
    ) -> None:
        """A member's life ended by itself; its host lives."""
        member = self._members.get(name)
        if member is None or member.incarnation != incarnation:
            return
        if self._living.pop(name, None) is not None:
            # It has not been taken over yet, and need not be.
            self._ended[name], member.traceback = (incarnation, exit, handled, counts), traceback
            return
        if member.task is not None and not member.task.done():
            # The two come on different ways: that it had started is told before that it ended.
            await asyncio.wait([member.task])
            if member.incarnation != incarnation:
                return
        member.last_exit, member.traceback = exit, traceback
        self._driver.feed(facts.Exited((name,), exit, handled, counts))
        self._changed()

    async def worked(self, name: str, incarnation: int) -> None:
        """A member's life has finished its first message."""
        member = self._members.get(name)
        if member is not None and member.incarnation == incarnation:
            member.has_worked = True

    async def host_leaves(self, host: Host) -> None:
        """A host is about to end: callers go elsewhere before its members stop."""
        for member in self._members.values():
            if member.host is host:
                member.renewing = True
        self._publish()

    async def host_died(self, host: Host, members: tuple[str, ...], verdict: Verdict) -> None:
        """A host's process ended, and all of *members* with it: one incident."""
        exit = verdict.exit
        ended = []
        has_worked = False
        for name in members:
            member = self._members.get(name)
            if member is not None and member.host is host:
                member.host, member.is_registered = None, False
                member.last_exit, member.traceback = exit, verdict.stack or host.stack
                has_worked = has_worked or member.has_worked
                ended.append(name)
        if ended:
            handled = int(has_worked)
            is_open = not verdict.is_final
            if is_open:
                self._unexplained.append(Unexplained(host, tuple(ended)))
            self._driver.feed(facts.Exited(tuple(ended), exit, handled, verdict.counts, is_open))
            self._changed()

    async def host_explained(self, host: Host, verdict: Verdict) -> None:
        """Why a host's process ended is known now."""
        for each in self._unexplained:
            if each.host is host:
                each.verdict = verdict
        earlier: set[str] = set()
        for each in list(self._unexplained):
            # Of two ends of the same member the supervision takes the cause of the older one first.
            if each.verdict is not None and earlier.isdisjoint(each.members):
                self._unexplained.remove(each)
                self._driver.feed(facts.CauseKnown(each.members, each.verdict.exit, each.verdict.counts))
            else:
                earlier.update(each.members)
        self._changed()

    async def describe(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The service and its members as `ps` shows them."""
        if self._news is not None:
            self._publish()  # whoever reads this may act on it: news first
        return self._row(), [self._member_row(name) for name in sorted(self._members, key=_number)]

    def _playbill_entry(self) -> ServiceEntry:
        """This service for the playbill."""
        members = tuple(
            MemberEntry(
                member.name,
                member.uid,
                member.incarnation,
                slot.name if slot is not None else None,
                self._state(member.name) == "running",
                member.is_over,
            )
            for member in self._members.values()
            for slot in (member.slot or self._kept.get(member.name),)
        )
        return ServiceEntry(self.plan.name, self._size, self._failed, members, dict(self._incarnations))

    def _keep_later(self) -> None:
        """Have the playbill know what has become of this service; nothing waits for it."""

        async def keep() -> None:
            await self._commit(self._playbill_entry())

        self._keeping = asyncio.get_running_loop().create_task(keep())

    def _keep_start(self) -> None:
        """As `_keep_later`, of starts: those of one moment together, and after who waits for an answer."""
        if self._starts_kept is None:
            self._starts_kept = asyncio.get_running_loop().call_later(_START_KEPT, self._keep_starts)

    def _keep_starts(self) -> None:
        self._starts_kept = None
        if not self._is_stopping:
            self._keep_later()

    async def host_of(self, name: str) -> Host | None:
        """The host a member lives in now. `NotFound`."""
        return self._member(name).host

    # -- what everybody sees -------------------------------------------------------------

    def _row(self) -> dict[str, Any]:
        states = [self._state(name) for name in self._members]
        return {
            "name": self.plan.name,
            "state": self._service_state(states),
            "size": self._size,
            "ready": states.count("running"),
            "restarts": self._restarts + sum(row.restarts for row in self._driver.supervision.children()),
            "reason": self._reason(),
            "strategy": self.plan.strategy,
            "class": self.plan.class_name,
        }

    def _service_state(self, states: list[str]) -> str:
        if self._failed:
            return "failed"
        if any(not member.has_settled for member in self._members.values()) and "running" not in states:
            return "starting"
        wanted = [
            state
            for name, state in zip(self._members, states, strict=True)
            if not self._members[name].leaving
        ]
        if all(state in ("running", "stopped") for state in wanted):
            return "running"
        return (
            "starting"
            if any(state == "starting" for state in wanted)
            and not any(s in ("backing_off", "pending") for s in wanted)
            else "degraded"
        )

    def _reason(self) -> str:
        if self._failed:
            return self._failed
        reasons = [member.pending for member in self._members.values() if member.pending]
        reasons += [
            str(m.last_exit)
            for m in self._members.values()
            if m.last_exit is not None and self._state(m.name) not in ("running", "draining")
        ]
        return reasons[0] if reasons else ""

    def _member_row(self, name: str) -> dict[str, Any]:
        member = self._members[name]
        row = next((row for row in self._driver.supervision.children() if row.id == name), None)
        return {
            "name": name,
            "service": self.plan.name,
            "state": self._state(name),
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

    def _state(self, name: str) -> str:
        member = self._members[name]
        if name in self._living:
            return "running" if member.is_registered else "starting"
        try:
            state = self._driver.supervision.state_of(name)
        except ActorError:
            return "stopped"
        if self._is_between_lives and state in ("stopped", "stopping"):
            return "restarting"  # by the group, soon: whoever asks for it waits
        if member.pending:
            return "pending"
        if state == "stopped" and not (member.has_settled or member.leaving or self._failed):
            return "starting"  # its turn has not come: whoever asks for it waits
        if member.renewing and state == "running":
            return "restarting"
        if member.leaving and state in ("running", "stopping"):
            return "draining"
        if state == "starting":
            return "starting" if member.last_exit is None else "restarting"
        return "restarting" if state == "stopping" else state

    def view(self) -> ServiceView:
        """The service as callers need it."""
        members = tuple(
            MemberView(
                member.name,
                member.uid,
                self._state(name),
                member.incarnation,
                member.host.address if member.host is not None and member.is_registered else "",
                str(member.last_exit) if member.last_exit is not None else "",
            )
            for name, member in self._members.items()
            if self._state(name) != "stopped"
        )
        plan = self.plan
        return ServiceView(
            plan.name,
            self._version,
            "failed" if self._failed else "running",
            self._failed,
            plan.ask_timeout,
            plan.routing,
            members,
            sum(not member.leaving for member in self._members.values()),
            plan.idempotent,
        )

    def _changed(self) -> None:
        """Something that others see has changed: tell them soon."""
        if not self._is_dirty:
            self._is_dirty = True
            # One turn later: what is begun in the next one goes before the news, and into them.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._publish_in_time)

    def _publish_in_time(self) -> None:
        if self._is_dirty and is_at_leisure(self._shown, self.view()):
            # By then the next start is part of the news: every process is woken once, not three times.
            self._is_dirty = False
            if self._news is None:
                self._news = asyncio.get_running_loop().call_later(_NEWS_PAUSE, self._publish)
            self._look_for_settled()
        else:
            self._publish()

    def _publish(self) -> None:
        """Tell everybody what has changed, if anything has."""
        self._is_dirty = False
        if self._news is not None:
            self._news.cancel()
            self._news = None
        view = self.view()
        if self._shown is None or dataclasses.replace(view, version=self._shown.version) != self._shown:
            self._version += 1
            self._shown = dataclasses.replace(view, version=self._version)
            self._on_view(self._shown)
        self._look_for_settled()

    # -- settling: how far a start or a scale is ---------------------------------------------

    def _when_settled(self, names: set[str]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled.append((names, future))
        self._changed()
        return future

    def _look_for_settled(self) -> None:
        waiting, self._settled = self._settled, []
        for names, future in waiting:
            unsettled = {
                name for name in names if name in self._members and not self._members[name].has_settled
            }
            if unsettled and not self._failed and not self._is_stopping:
                self._settled.append((unsettled, future))
            elif not future.done():
                future.set_result(None)

    # -- reports -----------------------------------------------------------------------------

    def _reported(self, report: Report) -> None:
        member = self._members.get(report.id)
        if report.what == "gave_up":
            self._straw = report.exit
        if report.what == "start_failed" and member is not None:
            member.last_exit, member.has_settled = report.exit, True
        if report.what == "cause_known":
            # The end of a host is explained once, for all who lived in it.
            if member is not None:
                member.last_exit = report.exit
            self._changed()
            return
        self._on_event(
            f"member.{report.what}",
            supervisor=self.plan.name,
            context=report.what,
            reason=str(report.exit) if report.exit is not None else "",
            child=report.id,
            member=report.id,
            service=self.plan.name,
            restarts=report.restarts,
            delay=round(report.delay, 3),
            traceback=member.traceback if report.what == "start_failed" and member is not None else "",
        )
        self._changed()

    def _finished(self, exit: Exit) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(exit)
        if not self._is_stopping:
            reason = f"gave up: {self._worst_exit(exit)}"
            if self._superior is None:
                self._fail(reason)
            elif self._has_started:
                self._superior(exit, reason)
        if not self._is_leaving:
            self._keep_later()
        self._changed()

    def _worst_exit(self, exit: Exit) -> Exit:
        """The end of a member that says most about the end of them all."""
        if self._straw is not None:
            return self._straw
        ends = (member.last_exit for member in self._members.values())
        return next((end for end in ends if end is not None and not end.is_clean), exit)

    # -- starting and stopping members ---------------------------------------------------------

    def _name(self, number: int) -> str:
        return f"{self.plan.name}/{number}"

    def _spec(self, name: str) -> MemberSpec:
        known = self._entries.pop(name, None)
        if known is not None:
            # A life that was begun in the last moment is known to its host alone.
            last_life = max(known.incarnation, self._ended.get(name, (0,))[0])
            self._members[name] = Member(name, known.uid, last_life)
        else:
            self._members[name] = Member(name, random.getrandbits(63) or 1, self._incarnations.pop(name, 0))
            self._members[name].last_exit = self._last_exits.pop(name, None)
        return MemberSpec(name, self.plan.restart, self.plan.shutdown)

    def _name_members(self) -> tuple[MemberSpec, ...]:
        return tuple(self._spec(self._name(number)) for number in range(self._size))

    def _meet(self) -> None:
        """Members that run already go on, in the same process and life; nobody sees them come and go."""
        for name, (host, living) in self._living.items():
            member = self._members[name]
            member.uid, member.incarnation = living.uid, living.incarnation
            member.has_worked, member.is_registered = living.has_worked, living.is_running
            member.host, member.slot = host, host.slot
            host.handler_timeout = self.plan.handler_timeout

    def _has_past(self, member: Member, known: MemberEntry | None) -> bool:
        """Whether an earlier stage has left more of it than a name: else it was about to start, and does."""
        if member.name in self._living:
            return True
        if known is None:
            return False
        ended_in, *_ = self._ended.get(member.name, (0,))
        return known.is_running or known.is_over or ended_in == member.incarnation > 0

    async def _resume(self, member: Member, known: MemberEntry | None) -> None:
        """Go on with a member of an earlier stage: where it runs or starts, or from its end."""
        host, living = self._living.pop(member.name, (None, None))
        if host is not None and living is not None and not host.dead:
            if living.is_running:
                member.has_settled = True
                self._driver.feed(facts.Started(member.name))
                self._changed()
            else:
                await self._launch(member, host)
        elif known is not None and known.is_over:
            member.is_over = member.has_settled = True
            self._driver.feed(facts.Ignored(member.name))
        else:
            self._mourn(member, known)

    def _mourn(self, member: Member, known: MemberEntry | None) -> None:
        """A life ended while nobody was in charge: what follows is what would have followed then."""
        nothing = (0, Exit("killed"), 0, True)
        incarnation, exit, handled, counts = self._ended.pop(member.name, nothing)
        self._driver.feed(facts.Started(member.name))
        if incarnation == member.incarnation:
            member.last_exit = exit
            self._driver.feed(facts.Exited((member.name,), exit, handled, counts))
        else:
            if not self._fallen:
                asyncio.get_running_loop().call_soon(self._bury)
            self._fallen.append((member.name, known.slot if known is not None else None))
        self._changed()

    def _bury(self) -> None:
        """Whose process ended while nobody was in charge: those of one process are one incident."""
        fallen, self._fallen = self._fallen, []
        for slot in dict.fromkeys(slot for _, slot in fallen):
            verdict = self._company.verdict_on_absence(slot)
            names = tuple(name for name, its_slot in fallen if its_slot == slot)
            for name in names:
                member = self._members[name]
                member.last_exit, member.traceback = verdict.exit, verdict.stack
                member.host, member.is_registered = None, False
            # They are said to have worked: whatever they did, an earlier stage was content with it.
            self._driver.feed(facts.Exited(names, verdict.exit, handled=1, counts=verdict.counts))
        self._changed()

    async def _start(self, member: Member) -> None:
        known = self._resumed.pop(member.name, None)
        if self._has_past(member, known):
            await self._resume(member, known)
            return
        member.incarnation += 1
        member.is_over = member.renewing = False
        member.has_worked = False
        slot = member.slot = self._company.slot_for(self.plan, member.name)
        place_before = slot.name, slot.node_id
        try:
            host = await self._company.man(slot, self.plan, lambda reason: self._pend(member, reason))
        except ActorError as error:
            member.last_exit, member.traceback = Exit("start_failed", str(error)), ""
            self._driver.feed(facts.StartFailed(member.name, member.last_exit))
            return
        self._pend(member, "")
        member.host = host
        self._changed()
        # A stage that comes after us must not give this incarnation again, nor begin a life beside
        # this one. In a slot that is known, the host that is told to begin the life is the one that
        # keeps this, and says so; a new slot it could not explain.
        if slot.node_id is not None and place_before == (slot.name, slot.node_id):
            self._keep_start()
        else:
            await self._commit(self._playbill_entry())
        await self._launch(member, host)

    async def _launch(self, member: Member, host: Host) -> None:
        incarnation = member.incarnation
        try:
            assert host.ref is not None
            host.starting.add(member.name)
            outcome = await host.ref.start_member(self._epoch, member.name, member.uid, incarnation)
        except ActorError:
            return  # its process is gone; the proof is on its way
        finally:
            host.starting.discard(member.name)
        if member.host is not host or member.incarnation != incarnation:
            return  # it died meanwhile, and what it said before is about a life that is over
        member.is_registered = True
        self._take_outcome(member, outcome)

    def _take_outcome(self, member: Member, outcome: tuple[Any, ...]) -> None:
        if outcome[0] == "started":
            member.has_settled = True
            self._on_event(
                "member.started",
                member=member.name,
                service=self.plan.name,
                incarnation=member.incarnation,
                pid=member.host.pid if member.host else None,
            )
            self._driver.feed(facts.Started(member.name))
            self._keep_start()
        elif outcome[0] == "ignored":
            member.has_settled = True
            self._driver.feed(facts.Ignored(member.name))
        else:
            exit, member.traceback = exit_from_plain(outcome[1])
            member.last_exit = exit
            self._driver.feed(facts.StartFailed(member.name, exit))
        self._changed()

    def _pend(self, member: Member, reason: str) -> None:
        if reason != member.pending:
            member.pending = reason
            member.has_settled = member.has_settled or bool(reason)
            if reason:
                self._on_event(
                    "member.pending",
                    supervisor=self.plan.name,
                    context="pending",
                    reason=reason,
                    child=member.name,
                    member=member.name,
                    service=self.plan.name,
                )
            self._changed()

    async def _halt(self, member: Member, shutdown: Shutdown) -> None:
        host = member.host
        exit = Exit("shutdown")
        hand_back = member.leaving or self._is_stopping
        if host is not None and host.ref is not None and not host.dead:
            try:
                plain = await host.ref.stop_member(
                    self._epoch, member.name, 0.0 if isinstance(shutdown, str) else shutdown, hand_back
                )
            except ActorError:
                return  # its process is gone; the proof is on its way
            exit, _ = exit_from_plain(plain)
        if not isinstance(shutdown, str) and exit.kind == "killed" and shutdown == 0:
            exit = Exit("shutdown")
        self._driver.feed(facts.Stopped(member.name, exit))
        self._changed()


class _MemberLauncher:
    """Begins and ends lives of members on hosts (`driver.Launcher`)."""

    def __init__(self, troupe: Troupe) -> None:
        self._troupe = troupe
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, child_id: str) -> None:
        member = self._troupe._members[child_id]
        member.task = self._task(self._troupe._start(member))
        self._troupe._changed()

    def halt(self, child_id: str, shutdown: Shutdown) -> None:
        member = self._troupe._members[child_id]
        if member.task is not None and not member.task.done():
            member.task.cancel()
            member.pending = ""
        self._task(self._troupe._halt(member, shutdown))
        self._troupe._changed()

    def forget(self, child_id: str) -> None:
        troupe = self._troupe
        member = troupe._members[child_id]
        if (
            member.host is not None
            and member.host.ref is not None
            and member.is_registered
            and not member.host.dead
        ):
            member.host.ref.tell("forget_member", troupe._epoch, member.name)
        if member.slot is not None and troupe._is_between_lives and not member.leaving:
            troupe._kept[member.name] = member.slot
        elif member.slot is not None:
            troupe._company.leave_slot(member.slot, member.name)
        member.slot = member.host = None
        member.is_registered = False
        member.uid = random.getrandbits(63) or 1
        if not (member.leaving or troupe._is_stopping or troupe._driver.supervision.has_failed):
            member.is_over = True
            troupe._keep_later()
        troupe._changed()

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def is_at_leisure(shown: ServiceView | None, now: ServiceView) -> bool:
    """
    True when callers are as well off with what they have been *shown* for a few milliseconds more.

    Members that ran and have begun to restart where they are: their mailboxes take what comes.
    """
    if shown is None or (shown.state, shown.member_by_name.keys()) != (now.state, now.member_by_name.keys()):
        return False
    return all(
        member == before
        or (
            before.state == "running"
            and member.state in ("running", "restarting", "starting")
            and (member.address, member.uid) == (before.address, before.uid)
        )
        for member, before in zip(now.members, shown.members, strict=True)
    )


def _wanted_size(service: str, size: int | str, now: int) -> int:
    """An absolute or relative size as a number. `InvalidArgument` for anything else."""
    try:
        wanted = now + int(size) if isinstance(size, str) and size[:1] in ("+", "-") else int(size)
    except (TypeError, ValueError):
        raise InvalidArgument(f"scale {service}={size!r}: use a number, +N or -N") from None
    if isinstance(size, bool) or wanted < 0 or (isinstance(size, float) and size != wanted):
        raise InvalidArgument(
            f"scale {service}={size!r}: {service} has {now} members; a size is a whole number of 0 or more"
        )
    return wanted


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])

"""
The troupe: the members of one service under their supervisor, an actor in the stage.

The supervision decides; this carries it out on hosts of the company, has everybody told how
the service stands, and goes on with what an earlier stage has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from actors.errors import ActorError, NotFound, ServiceFailed, StartFailed, Unavailable, nearest
from actors.exit import Exit
from supervisors import facts
from supervisors.actions import Report
from supervisors.backoff import Backoff
from supervisors.company import Company
from supervisors.control import ControlActor
from supervisors.driver import Driver
from supervisors.exits import Verdict, exit_from_plain
from supervisors.member import Member, MemberSpec, Unexplained, number_of
from supervisors.news import News
from supervisors.orders import Begin, DeleteChild, StartChild, Stop, TerminateChild
from supervisors.playbill import EndedMember, LivingMember, ServiceEntry
from supervisors.registry import ServiceView
from supervisors.service import ServicePlan, wanted_size
from supervisors.slot import Host, Slot
from supervisors.spec import Shutdown
from supervisors.standing import Standing
from supervisors.supervision import Supervision
from supervisors.takeover import Takeover

Superior = Callable[[Exit, str], object]
"""Is told that a service or group has given up, and why; what follows is its decision."""
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
        self._on_event = on_event
        self._superior = superior
        self._members: dict[str, Member] = {}
        self._news = News(self._view, on_view, self._look_for_settled, epoch)
        self._takeover = Takeover(
            plan, company, self._members, entry, living, ended, self._feed, self._news.changed
        )
        self._commit = commit
        self._epoch = epoch
        self._size = entry.size if entry is not None else plan.size
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
            self._name_members(self._takeover.size(self._size))
            self._news.changed()
            self._sending_off = asyncio.get_running_loop().create_task(self._send_off(self._end))

    async def _send_off(self, end: asyncio.Future[Exit]) -> None:
        await self._takeover.send_off(self._halt)
        end.set_result(GAVE_UP)
        self._keep_later()
        self._news.changed()

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

    def _feed(self, fact: facts.Fact) -> None:
        self._driver.feed(fact)  # another one in each life

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
        self._size = self._takeover.size(wanted)
        specs = self._takeover.begin(lambda: self._name_members(self._size))
        self._leave_kept(set(self._kept) - set(self._members))
        self._kept.clear()
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
            self._name_members(self._size)
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
        self._news.changed()

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
        before, self._size = self._size, wanted_size(self.plan.name, size, self._size)
        return before, self._size

    async def move(self, before: int, size: int) -> dict[str, Any]:
        """Members come and go. Resolves when each runs, has left or waits for room; says what came of it."""
        await self._keep()
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
            self._news.tell()  # callers stop sending before the member stops taking
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
            self._news.changed()

    def _is_wanted(self, name: str) -> bool:
        return number_of(name) < self._size and not self._is_stopping

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
        self._news.tell()  # callers go elsewhere before it stops
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
        exited = facts.Exited((name,), exit, handled, counts)
        if self._takeover.take_exit(incarnation, exited):
            member.traceback = traceback
            return
        if member.task is not None and not member.task.done():
            # The two come on different ways: that it had started is told before that it ended.
            await asyncio.wait([member.task])
            if member.incarnation != incarnation:
                return
        member.last_exit, member.traceback = exit, traceback
        self._driver.feed(exited)
        self._news.changed()

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
        self._news.tell()

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
            self._news.changed()

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
        self._news.changed()

    async def describe(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The service and its members as `ps` shows them."""
        self._news.hurry()
        return self._standing.row(self._restarts), self._standing.member_rows()

    async def _keep(self) -> None:
        """Have the playbill know what has become of this service."""
        await self._commit(self._standing.entry(self._kept, self._incarnations))

    def _keep_later(self) -> None:
        """As `_keep`; nothing waits for it."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

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

    @property
    def _standing(self) -> Standing:
        """How the service and its members do now."""
        return Standing(
            self.plan,
            self._size,
            self._failed,
            self._members,
            self._driver.supervision,
            self._takeover.living,
            self._is_between_lives,
        )

    def _state(self, name: str) -> str:
        return self._standing.state_of(name)

    def _view(self, version: int) -> ServiceView:
        return self._standing.view(version)

    # -- settling: how far a start or a scale is ---------------------------------------------

    def _when_settled(self, names: set[str]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled.append((names, future))
        self._news.changed()
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
            self._news.changed()
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
        self._news.changed()

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
        self._news.changed()

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
        member = self._takeover.heir(name)
        if member is None:
            member = Member(name, random.getrandbits(63) or 1, self._incarnations.pop(name, 0))
            member.last_exit = self._last_exits.pop(name, None)
        self._members[name] = member
        return MemberSpec(name, self.plan.restart, self.plan.shutdown)

    def _name_members(self, size: int) -> tuple[MemberSpec, ...]:
        return tuple(self._spec(self._name(number)) for number in range(size))

    async def _start(self, member: Member) -> None:
        if await self._takeover.resume(member, self._launch):
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
        self._news.changed()
        # A stage that comes after us must not give this incarnation again, nor begin a life beside
        # this one. In a slot that is known, the host that is told to begin the life is the one that
        # keeps this, and says so; a new slot it could not explain.
        if slot.node_id is not None and place_before == (slot.name, slot.node_id):
            self._keep_start()
        else:
            await self._keep()
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
        self._news.changed()

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
            self._news.changed()

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
        self._news.changed()


class _MemberLauncher:
    """Begins and ends lives of members on hosts (`driver.Launcher`)."""

    def __init__(self, troupe: Troupe) -> None:
        self._troupe = troupe
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, child_id: str) -> None:
        member = self._troupe._members[child_id]
        member.task = self._task(self._troupe._start(member))
        self._troupe._news.changed()

    def halt(self, child_id: str, shutdown: Shutdown) -> None:
        member = self._troupe._members[child_id]
        if member.task is not None and not member.task.done():
            member.task.cancel()
            member.pending = ""
        self._task(self._troupe._halt(member, shutdown))
        self._troupe._news.changed()

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
        troupe._news.changed()

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

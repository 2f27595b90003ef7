"""
The host: a process that carries members of one service, blank until the stage says which.

Its `host` actor takes the stage's orders and reports ends; it decides nothing. The user's
class and arguments are opened here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from actors.actor import Actor
from actors.children import Children
from actors.errors import ActorError, Refusal
from actors.events import ActorExited, Event, HandlerAbandoned, PeerLost, ThreadAbandoned, log_sink
from actors.exit import Exit
from actors.family import families
from actors.ref import Ref, as_order
from actors.rundir import read_key
from actors.system import ActorSystem
from actors.tracebacks import users_traceback
from actors.transport import open_nng
from supervisors import evidence, loading, logbook, memory, warm
from supervisors.playbill import EndedMember, HostReality, LivingMember, Playbill, newest
from supervisors.registry import Registry, ServiceView, spawn_registry
from supervisors.service import ServicePlan
from supervisors.settings import process_start_time
from supervisors.slot import HOST_ACTOR

_SWITCH_INTERVAL = 0.0005
"""Between thread switches: beside a CPU-bound handler a control message waits 1.5 ms instead of 10.7."""

_LINGER = 0.05
"""Seconds between the end of the last life and the process's: what comes meanwhile is refused, not lost."""
_END_LIMIT = 2.0
_LOG_PAUSE = 0.005
"""Seconds before a crash is logged."""

_EMBEDDED_ORPHAN_TIMEOUT = 30.0
_EXTERNAL_ORPHAN_TIMEOUT = 600.0


def open_host(config: Mapping[str, Any]) -> HostProcess:
    """Start the system of this process and say hello to the stage; called once, on the main thread."""
    return HostProcess(config)


class HostProcess:
    """A host from its first moment to its last."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        with contextlib.suppress(RuntimeError):
            multiprocessing.set_start_method("spawn")
        self.config = config
        crash_file = evidence.leave_traces(config["run_dir"], config["host_name"])
        memory.go_first()
        self.logbook = logbook.open_logbook(config["run_dir"], config["host_name"], self._log_failed)
        self.registry = Registry(config["app_name"])
        self.system = ActorSystem(
            transport=open_nng(config["run_dir"]),
            key=read_key(config["key_path"]),
            directory=self.registry,
            sinks=(self._saw,),
            crash_file=crash_file,
        )
        self.system.__enter__()
        spawn_registry(self.system, self.registry)
        self.abandoned: set[str] = set()
        """Actors with a handler that outlived its life."""
        self.epoch = config["epoch"]
        """The highest epoch of a stage that has given orders here."""
        self.playbill = Playbill()
        self.node_id = config.get("node_id") or ""
        self._follow(config["stage_address"])
        self._actor = self.system.options(name=HOST_ACTOR).spawn(HostActor, self)
        self._say_hello()

    @property
    def address(self) -> str:
        """Where this process listens."""
        return self.system.address

    def _follow(self, stage_address: str) -> None:
        self._stage_address = stage_address
        self._stage = as_order(self.system.ref(f"{stage_address}#stage"))

    def heed(self, epoch: int) -> None:
        """`Refusal` for orders of a stage that another has replaced."""
        if epoch < self.epoch:
            raise Refusal(
                f"this host follows the stage of epoch {self.epoch}; the order is from epoch {epoch}"
            )
        self.epoch = epoch

    def adopt(self, epoch: int, stage_address: str) -> None:
        """Follow a new stage from now on."""
        self.heed(epoch)
        self._follow(stage_address)

    @property
    def stage(self) -> Ref[Any]:
        """The stage's control actor."""
        return self._stage

    def _log_failed(self, reason: str) -> None:
        if hasattr(self, "_stage"):  # else it is too early for anybody to hear
            self._stage.tell("log_failed", self.config["host_name"], reason)

    def _say_hello(self) -> None:
        pid = os.getpid()
        devices = visible_devices()
        views = self._stage.host_up(
            self.config["host_name"], pid, process_start_time(pid) or 0, self.system.address, devices
        ).result(timeout=30)
        self.registry.take([ServiceView.from_plain(view) for view in views])

    def import_ahead(self) -> None:
        """
        Import the modules of the app's classes: an understudy then starts in milliseconds.

        Not where GPUs are at stake: which devices a process may see is settled before any user import.
        """
        _import_log()
        if self.config["uses_gpus"]:
            return
        for module in self.config["modules"]:
            with contextlib.suppress(Exception):  # reported where it matters, at the start of a member
                loading.load_module(module, self.config["files"])

    def _end_if_orphan(self, lost: str) -> None:
        if self._stage_address == lost:
            self.close()

    def terminate(self) -> None:
        """SIGTERM: stop in order, then end."""
        self._actor.tell("terminate")

    def leave(self) -> None:
        """End once everything that was said has left; on a thread, since the loop has to say it."""
        threading.Thread(target=self._leave, name="host-end", daemon=True).start()

    def _leave(self) -> None:
        time.sleep(_LINGER)
        with contextlib.suppress(Exception):
            self.system.stop().result(timeout=_END_LIMIT)
        self.close()

    def close(self) -> None:
        """End without further ado."""
        os._exit(0)

    def _saw(self, event: Event) -> None:
        if isinstance(event, PeerLost) and event.address == self._stage_address:
            embedded = self.config["embedded"]
            limit = self.config.get("orphan_timeout") or (
                _EMBEDDED_ORPHAN_TIMEOUT if embedded else _EXTERNAL_ORPHAN_TIMEOUT
            )
            self.system.clock.call_later(limit, partial(self._end_if_orphan, event.address))
        if isinstance(event, (ThreadAbandoned, HandlerAbandoned)):
            self.abandoned.add(event.actor)
        if isinstance(event, ActorExited) and event.exit.kind == "error":
            # After the stage has been told: the line is written while its order is on the way.
            self.system.clock.call_later(_LOG_PAUSE, partial(log_sink, event))
        else:
            log_sink(event)


def _import_log() -> None:
    """What the first line of a log needs: a first crash must not wait 60 ms for it."""
    import structlog  # noqa: F401


def visible_devices() -> list[str]:
    """The GPUs that this process may see."""
    return [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]


class HostActor(Actor):
    """Takes the stage's orders for this process. Starts and stops go on side by side."""

    expected = (ActorError,)
    concurrency = 10_000
    mailbox = 100_000
    ask_timeout = None

    def __init__(self, process: HostProcess) -> None:
        self._process = process
        self._children = Children(self.context, _Reports(self))
        self._plan: ServicePlan | None = None
        self._class: type[Any] | None = None
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._problem: BaseException | None = None
        self._starting: dict[str, asyncio.Future[Any]] = {}
        self._stopping: dict[str, asyncio.Future[Exit]] = {}
        self._incarnations: dict[str, int] = {}
        self._slot = ""
        self._reserved_for: str | None = None
        self._rehearsal: asyncio.Future[tuple[str, Any]] | None = None
        self._loading = threading.Lock()
        self._loaded: dict[str, type[Any]] = {}
        """The class by its reference: one by value would be another each time it is opened."""
        self._living: dict[str, LivingMember] = {}
        self._last_words: dict[str, EndedMember] = {}
        """Of members that ended by themselves, until an order follows: the stage may be away."""

    # -- taking over ---------------------------------------------------------------------

    async def adopt(self, epoch: int, stage_address: str) -> HostReality:
        """
        A new stage is in charge: it is told all that happens from now on, and here what is so far.

        `Refusal` when a newer one is already.
        """
        self._process.adopt(epoch, stage_address)
        return self._reality()

    def _reality(self) -> HostReality:
        pid = os.getpid()
        process = self._process
        return HostReality(
            process.config["host_name"],
            pid,
            process_start_time(pid) or 0,
            process.address,
            process.node_id,
            tuple(visible_devices()),
            self._plan.name if self._plan is not None else None,
            self._slot or None,
            dict(self._living),
            dict(self._last_words),
            process.playbill,
            process.epoch,
            self._reserved_for,
        )

    async def keep(self, epoch: int, playbill: Playbill) -> None:
        """Keep the newest playbill; the answer says that it is safe."""
        self._process.heed(epoch)
        self._process.playbill = newest((self._process.playbill, playbill))

    async def ping(self, epoch: int) -> None:
        """The answer says that this process is there. `Refusal` for a stage that another has replaced."""
        self._process.heed(epoch)

    # -- waiting -------------------------------------------------------------------------

    async def rehearse(self, epoch: int, plan: dict[str, Any] | None) -> tuple[str, Any]:
        """
        Get ready to take over: for the service of *plan*, which nobody else gets, or for any.

        `("ready", None)`, or `("failed", exit)` with what the class's module or its `warm` has raised.
        """
        self._process.heed(epoch)
        if plan is None:
            # On the thread that will open the class of whoever takes over: it is there by then.
            await asyncio.get_running_loop().run_in_executor(None, self._process.import_ahead)
            return "ready", None
        self._reserved_for = plan["name"]
        if self._rehearsal is None:
            self._rehearsal = _on_thread(
                "understudy-warm", partial(self._rehearse, ServicePlan.from_plain(plan))
            )
        # The stage that has ordered it may die, and the next one asks again.
        outcome: tuple[str, Any] = await asyncio.shield(self._rehearsal)
        if outcome[0] != "ready":
            self._rehearsal = None  # the next order is another try
        return outcome

    def _rehearse(self, plan: ServicePlan) -> tuple[str, Any]:
        if plan.resources.get("gpu") and not plan.warms:
            # Which devices a process may see is settled before any user import, unless the
            # class says by its `warm` that it knows.
            return "ready", None
        try:
            cls = self._load_class(plan)
            warm.call(cls, *loading.unpack_arguments(plan.arguments))
        except BaseException as error:
            return "failed", plain_exit(Exit("start_failed", error))
        return "ready", None

    # -- orders ------------------------------------------------------------------------

    async def open(self, epoch: int, plan: dict[str, Any], devices: str, slot: str) -> None:
        """Become the host of *slot*. What the service's module raises is told when a member is started."""
        self._process.heed(epoch)
        memory.go_with_the_others()
        self._slot = slot
        self._plan = ServicePlan.from_plain(plan)
        self._process.logbook.attribute(self._plan.name, {})
        if devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._load)
        loop.run_in_executor(None, _import_log)

    def _load(self) -> None:
        assert self._plan is not None
        self._problem = None
        try:
            self._class = self._load_class(self._plan)
            self._arguments = loading.unpack_arguments(self._plan.arguments)
        except BaseException as error:
            self._problem = error

    def _load_class(self, plan: ServicePlan) -> type[Any]:
        loading.in_host = True
        key = repr(sorted(plan.class_reference.items()))
        with self._loading:
            if key not in self._loaded:
                self._loaded[key] = loading.load_class(plan.class_reference, self._process.config["files"])
            return self._loaded[key]

    async def start_member(self, epoch: int, name: str, uid: int, incarnation: int) -> tuple[str, Any]:
        """Begin a life: `("started",)`, `("ignored",)`, or `("failed", exit)`."""
        self._process.heed(epoch)
        if self._problem is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._load)
        if self._problem is not None:
            return "failed", plain_exit(Exit("start_failed", self._problem))
        known = self._living.get(name)
        if known is not None and known.incarnation != incarnation:
            # Nobody in charge knows of that life: a name has one at a time.
            await self._end_life(name, Exit("killed", "order"), 0.0, hand_back=False)
        elif known is not None and known.is_running:
            return "started", None
        if name not in self._starting:
            self._begin_life(name, uid, incarnation)
        # Shielded: the stage that has ordered it may die, and the next one asks again.
        outcome: tuple[str, Any] = await asyncio.shield(self._starting[name])
        return outcome

    def _begin_life(self, name: str, uid: int, incarnation: int) -> None:
        assert self._plan is not None
        assert self._class is not None
        self._starting[name] = asyncio.get_running_loop().create_future()
        self._incarnations[name] = incarnation
        self._living[name] = LivingMember(uid, incarnation, False, False)
        lives = {member: living.incarnation for member, living in self._living.items()}
        self._process.logbook.attribute(self._plan.name, lives)
        self._last_words.pop(name, None)
        self._process.abandoned.discard(name)
        args, kwargs = self._arguments
        self._children.start(
            name,
            self._class,
            args,
            kwargs,
            start_timeout=self._plan.start_timeout,
            shutdown=self._plan.shutdown,
            mailbox=self._plan.mailbox,
            overflow=self._plan.overflow,
            concurrency=self._plan.concurrency,
            handler_timeout=self._plan.handler_timeout,
            name=name,
            uid=uid,
            incarnation=incarnation,
        )

    async def stop_member(
        self, epoch: int, name: str, shutdown: float, hand_back: bool
    ) -> tuple[str, str, str]:
        """End a life within *shutdown* seconds; *hand_back* refuses what waits in its mailbox."""
        self._process.heed(epoch)
        return await self._stop(name, shutdown, hand_back)

    async def _stop(self, name: str, shutdown: float, hand_back: bool) -> tuple[str, str, str]:
        exit = Exit("shutdown") if shutdown > 0 else Exit("killed", "brutal_kill")
        return plain_exit(await self._end_life(name, exit, shutdown, hand_back))

    async def _end_life(self, name: str, exit: Exit, shutdown: float, hand_back: bool) -> Exit:
        self._stopping[name] = future = asyncio.get_running_loop().create_future()
        self._children.halt(name, exit, shutdown, keep_mailbox=not hand_back)
        try:
            ended: Exit = await future
        finally:
            self._stopping.pop(name, None)
        # Who has ordered it may be gone by now, and has not told the next stage.
        self._last_words[name] = EndedMember(
            self._incarnations.get(name, 0), plain_exit(ended), 0, counts=False
        )
        return ended

    async def forget_member(self, epoch: int, name: str) -> None:
        """The registration of a member is over."""
        self._process.heed(epoch)
        self._living.pop(name, None)
        self._last_words.pop(name, None)
        self._children.forget(name)

    async def leave(self, epoch: int) -> None:
        """End this process once the answer is out."""
        self._process.heed(epoch)
        self._process.leave()

    async def terminate(self) -> None:
        """SIGTERM: every member stops in order, the stage is told, the process ends."""
        exit = Exit("shutdown", "SIGTERM")
        name = self._process.config["host_name"]
        try:
            await self._process.stage.options(timeout=2.0).host_leaving(name, plain_exit(exit))
        except ActorError:
            evidence.leave_farewell(self._process.config["run_dir"], name, plain_exit(exit))
        shutdown = self._plan.shutdown if self._plan is not None else 0.0
        await asyncio.gather(
            *(self._end_life(name, exit, shutdown, True) for name in list(self._incarnations))
        )
        self._process.leave()

    async def families(self) -> dict[str, dict[str, Any]]:
        """What lives in each member: its own children and supervisors, and theirs."""
        return families(self.context.system, self._living)

    async def statistics(self) -> dict[str, Any]:
        """This process's counters."""
        import dataclasses

        return dataclasses.asdict(self.context.system.statistics())

    # -- reports -----------------------------------------------------------------------------

    def _began(self, name: str, outcome: tuple[Any, ...]) -> None:
        if outcome[0] != "started":
            self._living.pop(name, None)
        elif (living := self._living.get(name)) is not None:
            self._living[name] = replace(living, is_running=True)
        future = self._starting.pop(name, None)
        if future is not None and not future.done():
            future.set_result(outcome)

    def _ended(self, name: str, exit: Exit, handled: int, *, counts: bool = True) -> None:
        self._living.pop(name, None)
        ended = EndedMember(self._incarnations.get(name, 0), plain_exit(exit), handled, counts)
        self._last_words[name] = ended
        if exit.kind == "hung" and name in self._process.abandoned:
            # Its handler holds on to a thread or to the loop: only the end of the process ends that.
            host = self._process.config["host_name"]
            self._process.stage.tell("member_hung", host, name, ended.incarnation, ended.exit)
            return
        self._process.stage.tell(
            "member_exited",
            self._process.config["host_name"],
            name,
            ended.incarnation,
            ended.exit,
            ended.handled,
            ended.counts,
        )

    def _worked(self, name: str) -> None:
        if (living := self._living.get(name)) is not None:
            self._living[name] = replace(living, has_worked=True)
        # Evidence for the supervisor, told now: a process that is killed later says nothing more.
        self._process.stage.tell("member_worked", name, self._incarnations.get(name, 0))

    def _stopped(self, name: str, exit: Exit) -> None:
        self._living.pop(name, None)
        self._began(name, ("failed", plain_exit(exit)))
        future = self._stopping.get(name)
        if future is not None and not future.done():
            future.set_result(exit)
        else:
            # The stage that has ordered it is gone: the next one is told, and that it costs nothing.
            self._ended(name, exit, 0, counts=False)


def _on_thread(name: str, function: Callable[[], Any]) -> asyncio.Future[Any]:
    """
    Run *function* on a thread of its own, which may never end.

    Those of the loop's pool are few, and the start of a member needs one.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        loop.call_soon_threadsafe(future.set_result, function())

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class _Reports:
    """What became of the members (`actors.children.Reports`)."""

    def __init__(self, host: HostActor) -> None:
        self._host = host

    def started(self, child_id: str) -> None:
        self._host._began(child_id, ("started",))

    def worked(self, child_id: str) -> None:
        self._host._worked(child_id)

    def ignored(self, child_id: str) -> None:
        self._host._began(child_id, ("ignored",))

    def start_failed(self, child_id: str, exit: Exit) -> None:
        self._host._began(child_id, ("failed", plain_exit(exit)))

    def exited(self, child_id: str, exit: Exit, handled: int) -> None:
        self._host._ended(child_id, exit, handled)

    def stopped(self, child_id: str, exit: Exit) -> None:
        self._host._stopped(child_id, exit)


def plain_exit(exit: Exit) -> tuple[str, str, str]:
    """An exit without anything of the user's in it: kind, one line, traceback."""
    detail = exit.detail
    if isinstance(detail, BaseException):
        return (
            exit.kind,
            f"{type(detail).__name__}: {detail}",
            users_traceback(detail),
        )
    return exit.kind, "" if detail is None else str(detail), ""

"""
Clusters: a running app as its clients see it. The driver, `connect` and the command line
are the same thing: clients of the stage over nng, without Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from actors.errors import ActorError, Unavailable
from actors.events import DeadLettered, Event, PeerLost, log_sink
from actors.interceptors import Interceptor
from actors.ref import Ref, as_order
from actors.reply import Reply
from actors.rundir import read_key
from actors.system import ActorSystem
from actors.transport import open_nng
from supervisors import checks, settings
from supervisors.registry import REGISTRY_NAME, Registry, ServiceView, spawn_registry
from supervisors.service import ServiceRef

A = TypeVar("A")

_QUESTION_TIMEOUT = 5.0
_RETURN_LIMIT = 60.0
_RETURN_POLL = 0.05


def connect(app_name: str | None = None, *, interceptors: Sequence[Interceptor] = ()) -> Cluster:
    """
    A client of the running app *app_name*; without a name, of the only one that runs.

    `with connect("restaurant") as cluster`, `async with`, or `.open()`. Leaving only disconnects.
    *interceptors* (default: none) stand around what this client sends to services: `on_send` of each
    ask, stream and tell, on the thread that sends it. Orders and questions to the app itself pass none;
    what stands around handlers is named by their class (`actors.interceptors`).

    Raises at once: `NotFound` with the nearest name when no such app runs, `InvalidArgument` for what is
    no sequence of interceptors.
    """
    checks.interceptors("connect", "interceptors", interceptors)
    return Cluster(settings.find_record(app_name).app, interceptors)


class Cluster:
    """A running app: its services, its state, its orders. Every operation returns a `Reply`."""

    def __init__(self, app_name: str, interceptors: Sequence[Interceptor] = ()) -> None:
        self.app_name = app_name
        self._interceptors = tuple(interceptors)
        self._registry = Registry(app_name)
        self._system: ActorSystem | None = None
        self._stage: Ref[Any] | None = None
        self._stage_address = ""
        self._returning: asyncio.Task[None] | None = None

    # -- connecting ------------------------------------------------------------------------

    def open(self) -> Cluster:
        """Connect, with a system on a thread of its own."""
        record = settings.find_record(self.app_name)
        system = self._new_system(record)
        system.__enter__()
        try:
            self._take(self._subscribe(system, record).result())
        except BaseException:
            self.close()
            raise
        return self

    async def open_here(self) -> Cluster:
        """Connect, with a system on the running loop."""
        record = settings.find_record(self.app_name)
        system = self._new_system(record)
        await system.__aenter__()
        try:
            self._take(await self._subscribe(system, record))
        except BaseException:
            await self.aclose()
            raise
        return self

    def close(self) -> None:
        """Disconnect; the app goes on. Closing twice is fine. From another thread than the system's loop."""
        system, self._system = self._system, None
        self._stop_waiting()
        if system is not None:
            system.stop().result()
            system.join()

    async def aclose(self) -> None:
        """`close` for who opened on a running loop."""
        system, self._system = self._system, None
        self._stop_waiting()
        if system is not None:
            await system.stop()

    def _stop_waiting(self) -> None:
        returning, self._returning = self._returning, None
        if returning is not None and not returning.done():
            returning.get_loop().call_soon_threadsafe(returning.cancel)

    def __enter__(self) -> Cluster:
        return self if self._system is not None else self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Cluster:
        return self if self._system is not None else await self.open_here()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _new_system(self, record: settings.StageRecord) -> ActorSystem:
        return ActorSystem(
            transport=open_nng(record.run_dir),
            key=read_key(record.key_path),
            directory=self._registry,
            sinks=(_log_what_concerns_users,),
            interceptors=self._interceptors,
        )

    def _subscribe(self, system: ActorSystem, record: settings.StageRecord) -> Reply[Any]:
        self._system = system
        spawn_registry(system, self._registry)
        system.subscribe(self._saw)
        return self._follow(system, record)

    def _follow(self, system: ActorSystem, record: settings.StageRecord) -> Reply[Any]:
        self._stage_address = record.address
        self._stage = as_order(system.ref(f"{record.address}#stage"))
        return self._stage.options(timeout=_QUESTION_TIMEOUT).subscribe(system.address)

    def _saw(self, event: Event) -> None:
        if self._system is None or self._returning is not None:
            return
        if isinstance(event, PeerLost) and event.address == self._stage_address:
            self._returning = asyncio.get_running_loop().create_task(self._wait_return())

    async def _wait_return(self) -> None:
        """The stage is gone: calls go on from the membership we have, until its next life is there."""
        give_up_at = time.monotonic() + _RETURN_LIMIT
        while self._system is not None and time.monotonic() < give_up_at:
            try:
                record = settings.find_record(self.app_name)
                if record.address != self._stage_address:
                    self._returning = None
                    self._take(await self._follow(self._system, record))
                    return
            except ActorError:
                pass  # not there yet
            await asyncio.sleep(_RETURN_POLL)

    def _take(self, views: list[tuple[Any, ...]]) -> None:
        self._registry.take([ServiceView.from_plain(view) for view in views])

    # -- services ---------------------------------------------------------------------------

    @overload
    def service(self, name: str) -> ServiceRef[Any]: ...
    @overload
    def service(self, name: str, actor_class: type[A]) -> ServiceRef[A]: ...
    def service(self, name: str, actor_class: Any = None) -> ServiceRef[Any]:
        """A ref to a service; with the class, a typed one. `NotFound` at once for an unknown name."""
        ref: ServiceRef[Any] = self._registry.service(name)
        return ref

    # -- questions --------------------------------------------------------------------------

    def ps(self) -> Reply[dict[str, Any]]:
        """The app, its services and members, as plain data."""
        return self._ask("ps")

    def tree(self) -> Reply[dict[str, Any]]:
        """The supervision tree."""
        return self._ask("tree")

    def nodes(self) -> Reply[list[dict[str, Any]]]:
        """The Ray cluster's nodes."""
        return self._ask("nodes")

    def events(self, *, follow: bool = False, last: int = 100) -> Reply[Any]:
        """A stream of the last events, oldest first; with *follow*, of all to come as well."""
        return self._control().options(timeout=None).stream("events", follow, last)

    # -- orders -----------------------------------------------------------------------------

    def scale(self, service: str, size: int | str) -> Reply[dict[str, Any]]:
        """Have *size* members, or `"+1"` / `"-2"`. Resolves when each runs, has left, or waits for room."""
        return self._order("scale", service, size)

    def kill(self, member: str, *, yes: bool = False) -> Reply[dict[str, Any]]:
        """SIGKILL a member's process. `Refusal` when others live in it, unless *yes*."""
        return self._order("kill_member", member, yes)

    def restart(self, name: str, *, rolling: bool = False) -> Reply[dict[str, Any]]:
        """
        New lives for a service, a group or one member, in order: running handlers finish, mailboxes stay.

        *rolling* restarts one member after the other, each when the one before runs. A group restarts
        by its strategy: part after part, or all stop in reverse order and start in order, which
        *rolling* does not go with (`InvalidArgument`). Nothing is counted.
        """
        return self._order("restart", name, rolling)

    def reset(self, name: str) -> Reply[dict[str, Any]]:
        """Revive a service or group that has failed, with fresh limits; one in a group revives all of it."""
        return self._order("reset", name)

    def describe(self, service: str) -> Reply[dict[str, Any]]:
        """Class, methods with signatures and docstrings, resources and strategy of a service."""
        return self._ask("describe", service)

    def stop(self) -> Reply[None]:
        """Stop the app, for everyone, in order."""
        return self._order("stop_app")

    def wait_ready(self) -> Reply[dict[str, Any]]:
        """Resolves when everything that can be placed is up."""
        return self._order("wait_ready")

    def _ask(self, method: str, *args: Any) -> Reply[Any]:
        return self._control().options(timeout=_QUESTION_TIMEOUT).ask(method, *args)

    def _order(self, method: str, *args: Any) -> Reply[Any]:
        return self._control().ask(method, *args)

    def _control(self) -> Ref[Any]:
        if self._system is None or self._stage is None:
            raise Unavailable(
                f"this client of {self.app_name} is closed", may_have_run=False, reason="closed"
            )
        return self._stage

    def __repr__(self) -> str:
        return f"<Cluster {self.app_name}>"


def _log_what_concerns_users(event: Event) -> None:
    """A view of the members that comes too late, as when both sides leave, is nobody's loss."""
    if not (isinstance(event, DeadLettered) and event.target == REGISTRY_NAME):
        log_sink(event)

"""
The registry: who the members of an app's services are and where they live, as each process knows it.

The stage owns the truth and sends a new view of a service whenever it changes; every
process keeps the newest. Refs and service refs are resolved here, without asking anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from actors.actor import Actor
from actors.errors import ActorStopped, NotFound, ServiceFailed, Unavailable, nearest
from actors.exit import Exit
from actors.ref import Ref
from actors.system import ActorSystem
from supervisors import routing

REGISTRY_NAME = "registry"
"""Name of the actor that takes new views, in every process of an app."""

EXPECTED_SOON = ("starting", "restarting")
"""States of members that are worth waiting for."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member as the rest of the app sees it."""

    name: str
    uid: int
    state: str
    incarnation: int
    address: str
    """The inbox of its host; empty while it has none."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service as the rest of the app sees it. A higher version replaces a lower one."""

    name: str
    version: int
    state: str
    reason: str
    ask_timeout: float | None
    routing: str
    members: tuple[MemberView, ...]
    member_by_name: dict[str, MemberView] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "member_by_name", {member.name: member for member in self.members})

    def to_plain(self) -> tuple[Any, ...]:
        """As plain data for the wire."""
        members = tuple((m.name, m.uid, m.state, m.incarnation, m.address, m.reason) for m in self.members)
        return self.name, self.version, self.state, self.reason, self.ask_timeout, self.routing, members

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> ServiceView:
        """The other way round."""
        name, version, state, reason, ask_timeout, policy, members = plain
        return cls(name, version, state, reason, ask_timeout, policy, tuple(MemberView(*m) for m in members))


class Registry:
    """What this process knows of its app. Implements `actors.directory.Directory`."""

    def __init__(self, app: str) -> None:
        self.app = app
        self._views: dict[str, ServiceView] = {}
        self._routers: dict[str, ServiceRouter] = {}
        self._watchers: dict[tuple[str, int], list[Callable[[Exit], None]]] = {}
        self._system: ActorSystem | None = None

    def attach(self, system: ActorSystem) -> None:
        """Tell which system's refs to hand out."""
        self._system = system

    @property
    def system(self) -> ActorSystem:
        """The system of this process."""
        assert self._system is not None, "attach the registry first"
        return self._system

    # -- what the stage says -----------------------------------------------------------

    def take(self, views: Collection[ServiceView]) -> None:
        """Take new views; on the system's loop."""
        for view in views:
            known = self._views.get(view.name)
            if known is not None and known.version >= view.version:
                continue
            self._views = {**self._views, view.name: view}
            self._tell_watchers(known, view)
            if (router := self._routers.get(view.name)) is not None:
                router.changed()

    def _tell_watchers(self, old: ServiceView | None, new: ServiceView) -> None:
        if not self._watchers or old is None:
            return
        present = {(member.name, member.uid) for member in new.members}
        for member in old.members:
            key = (member.name, member.uid)
            if key not in present or new.state == "failed":
                exit = Exit("shutdown", new.reason or None)
                for notify in self._watchers.pop(key, ()):
                    notify(exit)

    # -- actors.directory.Directory ----------------------------------------------------------

    def locate(self, name: str, uid: int) -> str:
        member = self._member(name, uid)
        if member.address:
            # Whatever its state: an actor that restarts in its process has its mailbox there.
            return member.address
        raise Unavailable(
            f"{name} is {member.state}" + (f" ({member.reason})" if member.reason else ""),
            may_have_run=False,
            reason=member.state,
        )

    def incarnation_of(self, name: str, uid: int) -> int:
        return self._member(name, uid).incarnation

    def watch(self, name: str, uid: int, notify: Callable[[Exit], None]) -> Callable[[], None]:
        try:
            self._member(name, uid)
        except (ActorStopped, NotFound, ServiceFailed):
            notify(Exit("not_found"))
            return lambda: None
        waiting = self._watchers.setdefault((name, uid), [])
        waiting.append(notify)
        return lambda: waiting.remove(notify) if notify in waiting else None

    def service(self, name: str) -> Any:
        from supervisors.service import ServiceRef

        view = self.view(name)
        return ServiceRef(self.system, self.router(name), timeout=view.ask_timeout)

    # -- what service refs ask ---------------------------------------------------------------

    def view(self, name: str) -> ServiceView:
        """The newest view of a service. `NotFound` with the nearest name for an unknown one."""
        view = self._views.get(name)
        if view is None:
            raise NotFound(f"app {self.app!r} has no service {name!r}{nearest(name, self._views)}")
        return view

    def router(self, name: str) -> ServiceRouter:
        """The one router of a service in this process."""
        router = self._routers.get(name)
        if router is None:
            router = self._routers.setdefault(name, ServiceRouter(self, name))
        return router

    def member_ref(self, member: MemberView, timeout: float | None) -> Ref[Any]:
        """A ref to a member that outlives its moves."""
        return Ref(self.system, member.name, member.uid, "", timeout=timeout)

    def _member(self, name: str, uid: int) -> MemberView:
        view = self.view(name.partition("/")[0])
        if view.state == "failed":
            raise failure(view)
        member = view.member_by_name.get(name)
        if member is None:
            raise ActorStopped(f"{name} is no member of {view.name} (any more)")
        if uid not in (0, member.uid):
            raise ActorStopped(f"this {name} has left; another has its name now")
        return member


def failure(view: ServiceView) -> ServiceFailed:
    """What callers of a service that gave up are told."""
    return ServiceFailed(f"service {view.name} has failed ({view.reason})", reason=view.reason)


class ServiceRouter:
    """Picks members of one service for this process's calls. Implements `actors.routed.Router`."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self.name = name
        self._busy: dict[str, int] = {}
        self._turn = 0
        self._waiting: list[Callable[[], None]] = []
        self._changes = 0
        self._lock = threading.Lock()

    @property
    def registry(self) -> Registry:
        return self._registry

    def pick(self, key: str | None, refused: Collection[tuple[str, str]]) -> Ref[Any] | None:
        view = self._registry.view(self.name)
        if view.state == "failed":
            raise failure(view)
        if key is not None:
            member = routing.by_key(view.members, key)
            usable = [member] if member is not None and routing.is_usable(member, refused) else []
        else:
            usable = [member for member in view.members if routing.is_usable(member, refused)]
        if usable:
            chosen = self._choose(view.routing, usable)
            return Ref(
                self._registry.system, chosen.name, chosen.uid, chosen.address, timeout=view.ask_timeout
            )
        if refused or any(member.state in EXPECTED_SOON for member in view.members):
            return None
        raise Unavailable(routing.nobody(view.name, view.members), may_have_run=False, reason="no member")

    def _choose(self, policy: str, members: list[MemberView]) -> MemberView:
        self._turn += 1
        if policy == "round_robin":
            return members[self._turn % len(members)]
        return routing.least_busy(members, self._busy, self._turn)

    def begun(self, member: str) -> None:
        with self._lock:
            self._busy[member] = self._busy.get(member, 0) + 1

    def ended(self, member: str) -> None:
        with self._lock:
            left = self._busy.get(member, 1) - 1
            if left > 0:
                self._busy[member] = left
            else:
                self._busy.pop(member, None)

    @property
    def changes(self) -> int:
        return self._changes

    def when_changed(self, callback: Callable[[], None], since: int) -> bool:
        with self._lock:
            if self._changes != since:
                return False
            self._waiting.append(callback)
            return True

    def changed(self) -> None:
        """A new view is there: wake who waits for a member."""
        with self._lock:
            self._changes += 1
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class RegistryActor(Actor):
    """Takes the stage's views for this process."""

    mailbox = 100_000

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def update(self, views: list[tuple[Any, ...]]) -> None:
        """New views of services, newest last."""
        self._registry.take([ServiceView.from_plain(plain) for plain in views])


def spawn_registry(system: ActorSystem, registry: Registry) -> Ref[Any]:
    """Start the actor that keeps *registry* up to date."""
    registry.attach(system)
    return system.options(name=REGISTRY_NAME).spawn(RegistryActor, registry)

"""
The registry: who the members of an app's services are and where they live, as each process knows it.

The stage owns the truth and sends a new view of a service whenever it changes; every
process keeps the newest. Refs and service refs are resolved here, without asking anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.actor import Actor
from actors.blame import blamed
from actors.errors import ActorStopped, Cancelled, NotFound, ServiceFailed, Unavailable, nearest
from actors.exit import Exit
from actors.idempotency import Naming
from actors.ref import Ref
from actors.retry import RetryBudget
from actors.system import ActorSystem
from supervisors import routing
from supervisors.affinity import Affinity
from supervisors.outliers import Outliers

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
    places: int = 0
    """Members that are to stay, those that have ended for good and keep their place included."""
    idempotent: tuple[str, ...] = ()
    """Methods that may be called again when nobody knows whether they ran."""
    member_by_name: dict[str, MemberView] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "member_by_name", {member.name: member for member in self.members})

    def to_plain(self) -> tuple[Any, ...]:
        """As plain data for the wire."""
        members = tuple((m.name, m.uid, m.state, m.incarnation, m.address, m.reason) for m in self.members)
        service = (self.name, self.version, self.state, self.reason, self.ask_timeout, self.routing)
        return *service, members, self.places, self.idempotent

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> ServiceView:
        """The other way round."""
        name, version, state, reason, ask_timeout, policy, members, places, idempotent = plain
        seen = tuple(MemberView(*m) for m in members)
        return cls(name, version, state, reason, ask_timeout, policy, seen, places, tuple(idempotent))


class Registry:
    """What this process knows of its app. Implements `actors.directory.Directory`."""

    def __init__(self, app: str) -> None:
        self.app = app
        self.version = 0
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
            self.version += 1
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
            if name in self._views:
                router.changed()
        return router

    def member_ref(self, member: MemberView, timeout: float | None) -> Ref[Any]:
        """A ref to a member that outlives its moves."""
        methods = self.view(member.name.partition("/")[0]).idempotent
        naming = Naming(frozenset(methods)) if methods else None
        return Ref(self.system, member.name, member.uid, "", timeout=timeout, naming=naming)

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
        self._outliers = Outliers()
        self._crew: _Crew | None = None
        self.idempotent: frozenset[str] = frozenset()
        self.retries = RetryBudget()

    @property
    def registry(self) -> Registry:
        return self._registry

    def pick(
        self, key: str | None, refused: Collection[tuple[str, str]], *, is_followed: bool = False
    ) -> Ref[Any] | None:
        view = self._registry.view(self.name)
        crew = self._crew
        if crew is None or crew.view is not view:
            crew = self._gather(view)
        if view.state == "failed":
            raise failure(view)
        if key is not None:
            return self._pick_by_key(crew, key, refused)
        usable = crew.usable
        if is_followed and self._outliers.avoided and (probed := self._probe(crew, refused)) is not None:
            return crew.ref(self._registry.system, probed)
        if refused:
            # One that is avoided is better than one that has just declined.
            usable = [member for member in usable if routing.is_usable(member, refused)] or [
                member for member in crew.running if routing.is_usable(member, refused)
            ]
        if usable:
            return crew.ref(self._registry.system, self._choose(view.routing, usable))
        if refused or any(member.state in EXPECTED_SOON for member in view.members):
            return None
        raise Unavailable(routing.nobody(view.name, view.members), may_have_run=False, reason="no member")

    def _pick_by_key(self, crew: _Crew, key: str, refused: Collection[tuple[str, str]]) -> Ref[Any] | None:
        owner, view = crew.affinity.owner(key), crew.view
        if owner is None:
            raise Unavailable(routing.nobody(view.name, view.members), may_have_run=False, reason="no member")
        if routing.is_usable(owner, refused):
            return crew.ref(self._registry.system, owner)
        if refused or owner.state in EXPECTED_SOON:
            return None
        why = f"{owner.name}, where key {key!r} belongs, is {owner.state}"
        why += f" ({owner.reason})" if owner.reason else ""
        raise Unavailable(why, may_have_run=False, reason=owner.state)

    def expected(self, key: str | None) -> Ref[Any] | None:
        view = self._registry.view(self.name)
        crew = self._crew
        if crew is None or crew.view is not view:
            crew = self._gather(view)
        if key is not None:
            owner = crew.affinity.owner(key)
            candidates: Sequence[MemberView] = (owner,) if owner is not None else ()
        else:
            candidates = view.members
        # One that runs by now is as good: `pick` may have looked at an older view.
        soon = [member for member in candidates if member.state in ("running", *EXPECTED_SOON)]
        return crew.ref(self._registry.system, self._choose(view.routing, soon)) if soon else None

    def _choose(self, policy: str, members: Sequence[MemberView]) -> MemberView:
        self._turn = turn = self._turn + 1
        if policy == "round_robin":
            return routing.round_robin(members, turn)
        return routing.least_busy(members, self._busy, turn)

    def _probe(self, crew: _Crew, refused: Collection[tuple[str, str]]) -> MemberView | None:
        with self._lock:
            name = self._outliers.probe(crew.running_names, self._registry.system.clock.now())
        member = crew.view.member_by_name[name] if name is not None else None
        return member if member is not None and routing.is_usable(member, refused) else None

    def _gather(self, view: ServiceView) -> _Crew:
        """Look at a new view once, and not for each call."""
        with self._lock:
            before, outliers = self._crew, self._outliers
            crew = _Crew(view)
            outliers.forget_others(view.member_by_name)
            lives = before.view.member_by_name if before is not None else {}
            for name in outliers.avoided:
                if name not in lives or lives[name].incarnation != view.member_by_name[name].incarnation:
                    outliers.renewed(name, self._registry.system.clock.now())
            crew.usable = outliers.others(crew.running)
            self._crew = crew
            self.idempotent = frozenset(view.idempotent)
        return crew

    def begun(self, member: str) -> int:
        with self._lock:
            self._busy[member] = self._busy.get(member, 0) + 1
            return self._outliers.incidents(member) if self._outliers.records else 0

    def ended(self, member: str, known: int, error: BaseException | None) -> None:
        with self._lock:
            left = self._busy.get(member, 1) - 1
            if left > 0:
                self._busy[member] = left
            else:
                self._busy.pop(member, None)
            if error is not None or member in self._outliers.records:
                self._judge(member, known, error)

    def _judge(self, member: str, known: int, error: BaseException | None) -> None:
        outliers, crew = self._outliers, self._crew
        if crew is None or (error is not None and isinstance(error, Cancelled)):
            return
        before = outliers.avoided
        if error is not None and blamed(error) == member:
            outliers.failed(member, known, self._registry.system.clock.now(), len(crew.running))
        else:
            outliers.succeeded(member, known)
        if outliers.avoided is not before:
            crew.usable = outliers.others(crew.running)

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
        self._gather(self._registry.view(self.name))
        with self._lock:
            self._changes += 1
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class _Crew:
    """What one view comes to for the calls that follow it: 1,000 members cost each of them what 2 do."""

    __slots__ = ("_affinity", "_refs", "running", "running_names", "usable", "view")

    def __init__(self, view: ServiceView) -> None:
        self.view = view
        self.running = tuple(member for member in view.members if member.state == "running")
        self.running_names = frozenset(member.name for member in self.running)
        self.usable: Sequence[MemberView] = self.running
        """Those that run and are not avoided."""
        self._affinity: Affinity[MemberView] | None = None
        self._refs: dict[str, Ref[Any]] = {}

    @property
    def affinity(self) -> Affinity[MemberView]:
        if self._affinity is None:
            self._affinity = Affinity(self.view.members, self.view.places)
        return self._affinity

    def ref(self, system: ActorSystem, member: MemberView) -> Ref[Any]:
        """A ref to *member* where it lives now."""
        ref = self._refs.get(member.name)
        if ref is None:
            ref = Ref(system, member.name, member.uid, member.address, timeout=self.view.ask_timeout)
            self._refs[member.name] = ref
        return ref


class RegistryActor(Actor):
    """Takes the stage's views for this process."""

    is_supervisor = True  # of ours: no interceptor of a program's may keep it from hearing of members
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

"""
Services: what an app says of a group of equal actors, and the ref that calls go through.

A `Service` is checked where it is written; what travels from there is a `ServicePlan`,
plain data in which the user's class and arguments stay closed until a host opens them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from actors.actor import OVERFLOWS, Method, Overflow, idempotent_methods_of, methods_of
from actors.errors import InvalidArgument, NotFound, nearest
from actors.ref import Ref
from actors.reply import Outcome, Reply, gather
from actors.routed import Routed
from actors.stream import is_stream
from supervisors import checks, loading, warm
from supervisors.backoff import Backoff
from supervisors.budget import Intensity
from supervisors.registry import ServiceRouter, failure
from supervisors.resources import Resources
from supervisors.routing import ROUTINGS
from supervisors.spec import RESTARTS, Restart, bound_arguments, check_class, check_shutdown
from supervisors.strategy import Strategy
from supervisors.supervision import check_flags

A = TypeVar("A")
"""The members' class."""


@dataclass(frozen=True)
class Service(Generic[A]):
    """
    A named group of equal, supervised actors: its size, its placement, how it restarts and routes.

    By default a member that fails too often (3 times in 5 s) restarts with `backoff` while the
    others serve; an explicit *intensity* gives OTP's shared window, and the service fails beyond it.
    """

    name: str
    actor_class: type[A]
    args: tuple[Any, ...] = field(default=(), kw_only=True)
    kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    size: int = field(default=1, kw_only=True)
    resources: Resources = field(default_factory=Resources, kw_only=True)
    """What one member needs; a host asks for the sum of its members."""
    per_host: int | None = field(default=None, kw_only=True)
    """Members that share a process.

    None: 1 when `resources` asks for anything, else they spread over as many hosts as the cluster has CPUs.
    """
    understudies: int = field(default=0, kw_only=True)
    """Processes that stand ready for this service alone, on every node where it has members.

    They have imported the class and called its `warm`, a `classmethod` or `staticmethod` that takes what
    `__init__` takes, or nothing: what it loads and keeps on the class is there when they take over.
    """
    restart: Restart = field(default="permanent", kw_only=True)
    strategy: Strategy = field(default="one_for_one", kw_only=True)
    intensity: Intensity | None = field(default=None, kw_only=True)
    """None backs off per member; a number, or one for each kind of exit, gives OTP's shared window."""
    period: float = field(default=5.0, kw_only=True)
    backoff: Backoff = field(default_factory=Backoff, kw_only=True)
    shutdown: float = field(default=5.0, kw_only=True)
    """Seconds in which running handlers may finish and `on_stop` may run."""
    start_timeout: float = field(default=60.0, kw_only=True)
    mailbox: int | None = field(default=None, kw_only=True)
    overflow: Overflow | None = field(default=None, kw_only=True)
    """What happens to a message when a member's mailbox is full; None leaves it to the class."""
    routing: str = field(default="least_busy", kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)
    handler_timeout: float | None = field(default=None, kw_only=True)
    """Seconds that one handler may run before its member counts as hung; None leaves it to the class."""

    def __post_init__(self) -> None:
        owner = "Service"
        checks.plain_name(owner, "name", self.name)
        owner = f"Service {self.name!r}:"
        check_class(owner, self.actor_class)
        checks.whole(owner, "size", self.size)
        if not isinstance(self.resources, Resources):
            raise checks.misfit(owner, "resources", self.resources, "is not a Resources(…)")
        for option in ("per_host", "mailbox", "concurrency"):
            if getattr(self, option) is not None:
                checks.whole(owner, option, getattr(self, option), least=1)
        if self.overflow is not None:
            checks.choice(owner, "overflow", self.overflow, OVERFLOWS)
        checks.choice(owner, "restart", self.restart, RESTARTS)
        check_flags(self.strategy, self.intensity, self.period, owner=owner)
        if not isinstance(self.backoff, Backoff):
            raise checks.misfit(owner, "backoff", self.backoff, "is not a Backoff(…)")
        check_shutdown(owner, self.shutdown)
        checks.positive(owner, "start_timeout", self.start_timeout, allow_infinity=True)
        if self.handler_timeout is not None:
            checks.positive(owner, "handler_timeout", self.handler_timeout, allow_infinity=True)
        checks.choice(owner, "routing", self.routing, ROUTINGS)
        checks.whole(owner, "understudies", self.understudies)
        args, kwargs = bound_arguments(owner, self.actor_class, self.args, self.kwargs)
        if self.understudies:
            warm.check(owner, self.actor_class, args, kwargs)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)
        self.resources.times(self.members_per_host or 1)

    @property
    def members_per_host(self) -> int | None:
        """How many members share a process; None leaves it to the cluster's size."""
        if self.per_host is not None:
            return self.per_host
        return None if self.resources.is_empty else 1

    def plan(self) -> ServicePlan:
        """What travels. `SerializationError` names the argument that cannot."""
        cls: Any = self.actor_class
        return ServicePlan(
            name=self.name,
            class_name=cls.__qualname__,
            class_reference=loading.class_reference(cls),
            arguments=loading.pack_arguments(f"Service {self.name!r}", self.args, self.kwargs),
            size=self.size,
            resources=self.resources.times(self.members_per_host or 1).to_dict(),
            per_host=self.members_per_host,
            restart=self.restart,
            strategy=self.strategy,
            intensity=dict(self.intensity) if isinstance(self.intensity, Mapping) else self.intensity,
            period=self.period,
            backoff=dataclasses.asdict(self.backoff),
            shutdown=0.0 if isinstance(self.shutdown, str) else self.shutdown,
            start_timeout=self.start_timeout,
            mailbox=self.mailbox or cls.mailbox,
            overflow=self.overflow or cls.overflow,
            concurrency=self.concurrency or cls.concurrency,
            handler_timeout=self.handler_timeout or cls.handler_timeout,
            routing=self.routing,
            ask_timeout=cls.ask_timeout,
            methods=[_described(method) for _, method in sorted(methods_of(cls).items())],
            doc=inspect.getdoc(cls) or "",
            understudies=self.understudies,
            warms=warm.hook_of(cls) is not None,
            idempotent=tuple(sorted(idempotent_methods_of(cls))),
        )


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A service as plain data: what the stage works from."""

    name: str
    class_name: str
    class_reference: dict[str, str]
    arguments: str
    """Opened by hosts alone."""
    size: int
    resources: dict[str, Any]
    """Of one host: the sum of its members."""
    per_host: int | None
    restart: Restart
    strategy: Strategy
    intensity: Intensity | None
    period: float
    backoff: dict[str, float]
    shutdown: float
    start_timeout: float
    mailbox: int
    overflow: str
    concurrency: int
    handler_timeout: float
    routing: str
    ask_timeout: float | None
    methods: list[dict[str, str]]
    """Name, signature, docstring and kind of each."""
    doc: str
    understudies: int = 0
    """Reserved ones, on each node where it has members."""
    warms: bool = False
    """Whether the class has a `warm` for them."""
    idempotent: tuple[str, ...] = ()
    """Methods that callers may repeat."""

    def to_plain(self) -> dict[str, Any]:
        """For JSON and for the wire."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ServicePlan:
        """The other way round."""
        return cls(**{**plain, "idempotent": tuple(plain["idempotent"])})


def _described(method: Method) -> dict[str, str]:
    signature = inspect.signature(method.function)
    without_self = signature.replace(parameters=list(signature.parameters.values())[1:])
    return {
        "name": method.name,
        "signature": str(without_self),
        "doc": inspect.getdoc(method.function) or "",
        "kind": "stream" if "stream" in method.kind else "value",
    }


class ServiceRef(Routed[A]):
    """
    A service as its callers see it: each call goes to one member, the least busy by default.

    It follows membership by itself and is usable from any thread or loop. May be sent in messages.
    """

    __slots__ = ()

    _router: ServiceRouter

    def member(self, number: int) -> Ref[A]:
        """One member. `NotFound` when the service is smaller, `ServiceFailed` when it has given up."""
        view = self._router.registry.view(self._router.name)
        name = f"{view.name}/{number}"
        found = view.member_by_name.get(name)
        if found is None and view.state == "failed":
            raise failure(view)
        if found is None:
            raise NotFound(
                f"{name}: {view.name} has {len(view.members)} members{nearest(name, view.member_by_name)}"
            )
        ref: Ref[A] = self._router.registry.member_ref(found, self._timeout)
        return ref if not self._timeout_given else ref.options(timeout=self._timeout)

    def broadcast(self, method: Any, /, *args: Any, **kwargs: Any) -> Reply[dict[str, Outcome[Any]]]:
        """
        Call *method* on every member at once; the reply has each `Outcome` by name, failures included.

        `InvalidArgument` for an async iterator among the arguments: it has one reader.
        """
        if any(map(is_stream, (*args, *kwargs.values()))):
            raise InvalidArgument(
                f"{self!r}.broadcast(): an async iterator has one reader, not a whole service"
            )
        view = self._router.registry.view(self._router.name)
        refs = {
            member.name: self._router.registry.member_ref(member, self._timeout) for member in view.members
        }
        if self._timeout_given:
            refs = {name: ref.options(timeout=self._timeout) for name, ref in refs.items()}
        return gather({name: ref.ask(method, *args, **kwargs) for name, ref in refs.items()})

    @property
    def name(self) -> str:
        """The service's name."""
        return self._router.name

    def __repr__(self) -> str:
        return self._router.name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceRef):
            return NotImplemented
        return (self.name, self._key, self._idempotency_key, self._router.registry.app) == (
            other.name,
            other._key,
            other._idempotency_key,
            other._router.registry.app,
        )

    def __hash__(self) -> int:
        return hash((self.name, self._key))

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self._timeout, self._timeout_given, self._key, self._idempotency_key, self._reliable)
        return _unpickled, (self.name, *options)


def _unpickled(
    name: str,
    timeout: float | None,
    given: bool,
    key: str | None,
    idempotency_key: str | None,
    reliable: bool,
) -> ServiceRef[Any]:
    from actors.ref import decoding
    from actors.system import current_system

    system = getattr(decoding, "system", None) or current_system()
    ref = system.service(name)
    if not isinstance(ref, ServiceRef):
        raise InvalidArgument(f"{name} is not a service here")
    return ref._with(  # type: ignore[no-any-return]
        timeout=timeout,
        timeout_given=given,
        key=key,
        idempotency_key=idempotency_key,
        reliable=reliable,
    )


def wanted_size(service: str, size: int | str, now: int) -> int:
    """What an absolute or relative *size* comes to. `InvalidArgument` for anything else."""
    try:
        wanted = now + int(size) if isinstance(size, str) and size[:1] in ("+", "-") else int(size)
    except (TypeError, ValueError):
        raise InvalidArgument(f"scale {service}={size!r}: use a number, +N or -N") from None
    if isinstance(size, bool) or wanted < 0 or (isinstance(size, float) and size != wanted):
        raise InvalidArgument(
            f"scale {service}={size!r}: {service} has {now} members; a size is a whole number of 0 or more"
        )
    return wanted

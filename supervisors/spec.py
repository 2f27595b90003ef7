"""
Child specs: what a supervisor is told about a child, and what it tells about one.

A `ChildSpec` is checked where it is written: a wrong field, or arguments that do
not fit the class, raise `InvalidArgument` on that line and nothing has started.
`ChildInfo` and `ChildCounts` are a supervisor's answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from actors.actor import OVERFLOWS, Overflow
from actors.errors import InvalidArgument
from actors.exit import Exit
from supervisors import checks

Restart = Literal["permanent", "transient", "temporary"]
RESTARTS: tuple[str, ...] = get_args(Restart)
Kind = Literal["worker", "supervisor"]
ChildState = Literal["running", "restarting", "stopped", "pending"]
Shutdown = float | Literal["brutal_kill"]

WORKER_SHUTDOWN = 5.0

OPTIONS = ("restart", "shutdown", "start_timeout", "mailbox", "overflow", "concurrency", "handler_timeout")
"""What every way to describe a child says of it, as `check_options` wants it."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: what it is called, what it runs, and what its end means."""

    id: str
    actor_class: type[Any]
    args: tuple[Any, ...] = field(default=(), kw_only=True)
    kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    restart: Restart = field(default="permanent", kw_only=True)
    """permanent: after every end; transient: after abnormal ends; temporary: never."""
    shutdown: Shutdown | None = field(default=None, kw_only=True)
    """Seconds to stop in, `math.inf`, or "brutal_kill"; None means 5 s, for supervisors infinity."""
    start_timeout: float = field(default=60.0, kw_only=True)
    significant: bool = field(default=False, kw_only=True)
    """Whether its end by itself may end the supervisor, as `auto_shutdown` says; never with permanent."""
    mailbox: int | None = field(default=None, kw_only=True)
    """None leaves it to the class, here, in `overflow` and in `concurrency`."""
    overflow: Overflow | None = field(default=None, kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)
    handler_timeout: float | None = field(default=None, kw_only=True)
    """Seconds that one handler may run before the child counts as hung."""

    def __post_init__(self) -> None:
        checks.name("ChildSpec", "id", self.id)
        check_class("ChildSpec", self.actor_class)
        check_options("ChildSpec", **{option: getattr(self, option) for option in OPTIONS})
        checks.flag("ChildSpec", "significant", self.significant)
        if self.significant and self.restart == "permanent":
            raise checks.misfit("ChildSpec", "significant", True, "does not go with restart='permanent'")
        args, kwargs = bound_arguments("ChildSpec", self.actor_class, self.args, self.kwargs)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    @property
    def kind(self) -> Kind:
        """Whether the child is itself a supervisor."""
        return "supervisor" if getattr(self.actor_class, "is_supervisor", False) else "worker"

    @property
    def shutdown_time(self) -> Shutdown:
        """The shutdown that applies once None has been resolved."""
        if self.shutdown is not None:
            return self.shutdown
        return math.inf if self.kind == "supervisor" else WORKER_SHUTDOWN


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of `which_children()`."""

    id: str | None
    """None under a `DynamicSupervisor`."""
    ref: Any
    state: ChildState
    kind: Kind
    restarts: int
    """All lives after the first, also those that no intensity counts: after a lost node, or an order."""
    last_exit: Exit | None


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """The answer to `count_children()`."""

    specs: int
    active: int
    """Children that are really alive."""
    supervisors: int
    """By spec, alive or not; so are `workers`."""
    workers: int


def check_options(
    owner: str,
    *,
    restart: object,
    shutdown: object,
    start_timeout: object,
    mailbox: object,
    overflow: object,
    concurrency: object,
    handler_timeout: object,
) -> None:
    """What every way to describe a child says of it."""
    checks.choice(owner, "restart", restart, RESTARTS)
    if shutdown is not None:
        check_shutdown(owner, shutdown)
    checks.positive(owner, "start_timeout", start_timeout, allow_infinity=True)
    for limit, value in (("mailbox", mailbox), ("concurrency", concurrency)):
        if value is not None:
            checks.whole(owner, limit, value, least=1)
    if overflow is not None:
        checks.choice(owner, "overflow", overflow, OVERFLOWS)
    if handler_timeout is not None:
        checks.positive(owner, "handler_timeout", handler_timeout, allow_infinity=True)


def check_shutdown(owner: str, value: object) -> None:
    """Seconds, infinity, or the word "brutal_kill"."""
    if isinstance(value, str):
        checks.choice(owner, "shutdown", value, ["brutal_kill"])
    else:
        checks.non_negative(owner, "shutdown", value, allow_infinity=True)


def bound_arguments(
    owner: str, actor_class: type[Any], args: object, kwargs: object
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """*args* and *kwargs* as an own tuple and dict, once they are known to fit *actor_class*."""
    if not isinstance(args, (tuple, list)):
        raise checks.misfit(owner, "args", args, "is not a tuple")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise checks.misfit(owner, "kwargs", kwargs, "is not a mapping from names")
    # Imported here so that reading a spec's names never loads the runtime.
    from actors.actor import signature_of

    try:
        signature_of(actor_class).bind(*args, **kwargs)
    except TypeError as misfit:
        given = f"args={tuple(args)!r} kwargs={dict(kwargs)!r}"
        raise InvalidArgument(f"{owner} {given} do not fit {actor_class.__qualname__}: {misfit}") from None
    return tuple(args), dict(kwargs)


def check_class(owner: str, actor_class: object) -> None:
    """A subclass of `Actor`."""
    # Imported here so that reading a spec's names never loads the runtime.
    from actors.actor import Actor

    if not isinstance(actor_class, type):
        raise checks.misfit(owner, "actor_class", actor_class, "is not a class")
    if not issubclass(actor_class, Actor):
        raise checks.misfit(owner, "actor_class", actor_class, "is not a subclass of Actor")

"""
Orders: what a supervision is asked to do.

An order carries a token of the asker's choice, `order`, unique among the orders
that are open; the one `Answer` to it carries the same token. `Stop` is answered by
`Finished`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from actors.exit import Exit
from supervisors.spec import Kind, Restart, Shutdown


class Spec(Protocol):
    """What a supervision needs to know of a child: a `ChildSpec`, or a member of a service."""

    @property
    def id(self) -> str: ...
    @property
    def restart(self) -> Restart: ...
    @property
    def shutdown_time(self) -> Shutdown: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def significant(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the first children; once in a supervision's life."""

    order: Hashable
    specs: tuple[Spec, ...]


@dataclass(frozen=True, slots=True)
class StartChild:
    """Add a child, last in start order, and start it."""

    order: Hashable
    spec: Spec


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """Stop a child, or give up on its pending restart; its spec stays unless it is temporary."""

    order: Hashable
    id: str


@dataclass(frozen=True, slots=True)
class RestartChild:
    """Start a child that is stopped."""

    order: Hashable
    id: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Forget the spec of a child that is stopped."""

    order: Hashable
    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop everything, whatever is under way, and finish with *exit*."""

    exit: Exit


ChildOrder = StartChild | TerminateChild | RestartChild | DeleteChild
Order = Begin | ChildOrder | Stop

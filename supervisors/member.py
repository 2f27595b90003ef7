"""
Members: what a troupe knows of each, and of ends whose cause is still being looked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from actors.exit import Exit
from supervisors.exits import Verdict
from supervisors.slot import Host, Slot
from supervisors.spec import Kind, Restart, Shutdown


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """A member as its supervision sees it (`orders.Spec`)."""

    id: str
    restart: Restart
    shutdown_time: Shutdown
    kind: Kind = "worker"
    significant: bool = False


@dataclass(eq=False)
class Member:
    """One member: where it lives and which life it is in."""

    name: str
    uid: int
    incarnation: int = 0
    host: Host | None = None
    slot: Slot | None = None
    is_registered: bool = False
    """Its host knows the name: messages may be sent there."""
    pending: str = ""
    """Why it cannot be placed, while it cannot."""
    last_exit: Exit | None = None
    traceback: str = ""
    task: asyncio.Task[None] | None = None
    """Its start under way."""
    has_worked: bool = False
    """This life has finished a message."""
    leaving: bool = False
    renewing: bool = False
    """An order has its life end so that another begins."""
    has_settled: bool = False
    """It has started, failed once, or waits for room."""
    is_over: bool = False
    """It has ended for good, and keeps its place."""


@dataclass(eq=False)
class Unexplained:
    """An end of a host, and of *members* with it, whose cause is still being looked for."""

    host: Host
    members: tuple[str, ...]
    verdict: Verdict | None = None


def number_of(name: str) -> int:
    """Of a member in its service, from 0."""
    return int(name.rpartition("/")[2])

"""
Slots and the hosts in them, as the company knows them.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.exit import Exit
from actors.ref import Ref

HOST_ACTOR = "host"
"""Name of the actor in every host that takes the stage's orders."""

Readiness = Literal["starting", "warming", "cold", "ready"]
"""Of an understudy; one whose `warm` has failed is cold, and of use all the same."""


@dataclass(eq=False)
class Host:
    """One process of ours, from the order to start it until its proven end."""

    name: str
    node_id: str | None
    actor: Any
    """The Ray actor that carries it."""
    lifeline: Any = None
    ref: Ref[Any] | None = None
    address: str = ""
    pid: int = 0
    start_time: int = 0
    gpu_ids: tuple[str, ...] = ()
    service: str | None = None
    """None as long as it waits for one."""
    reserved_for: str | None = None
    """The one service it waits for; None where it waits for any."""
    readiness: Readiness = "starting"
    """How far it is as an understudy."""
    slot: Slot | None = None
    up: asyncio.Future[None] | None = None
    """Done once it has said hello; failed when it never will."""
    dead: bool = False
    farewell: Exit | None = None
    """What it said itself before it ended."""
    ordered: Exit | None = None
    """Why we ended it."""
    stack: str = ""
    """Where its threads were when it was found to hang."""
    starting: set[str] = field(default_factory=set)
    """Members whose `__init__` and `on_start` may be running."""
    handler_timeout: float = math.inf
    """Of the service it is open for."""
    pidfd: int = -1
    has_poison: bool = False
    """It died of a message that another process had died of before."""

    @property
    def members(self) -> tuple[str, ...]:
        """Who lives in it."""
        return tuple(self.slot.members) if self.slot is not None and self.slot.host is self else ()


@dataclass(eq=False)
class Slot:
    """What a host may use: a Ray placement group, or just a node where nothing was asked for."""

    name: str
    service: str
    bundle: dict[str, float]
    labels: dict[str, str]
    node_id: str | None = None
    is_made: bool = False
    gpu_ids: tuple[str, ...] = ()
    """Told by Ray to the first host; later ones are given the same devices."""
    host: Host | None = None
    manning: asyncio.Task[Host] | None = None
    members: dict[str, None] = field(default_factory=dict)

    @property
    def gpus(self) -> float:
        return self.bundle.get("GPU", 0.0)

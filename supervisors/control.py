"""
Control: what the actors of the stage's process have in common.
"""

from __future__ import annotations

from typing import ClassVar

from actors.actor import Actor
from actors.errors import ActorError


class ControlActor(Actor):
    """
    A supervisor whose children are services, groups or members on hosts.

    Its messages are orders and questions, any number side by side: questions are answered while
    orders are carried out, an order that is refused is an answer, and none has a deadline of its own.
    """

    is_supervisor: ClassVar[bool] = True
    expected: ClassVar[tuple[type[BaseException], ...]] = (ActorError,)
    ask_timeout: ClassVar[float | None] = None
    concurrency: ClassVar[int] = 10_000
    mailbox: ClassVar[int] = 100_000

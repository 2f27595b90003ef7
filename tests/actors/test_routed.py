"""Calls to a group: what is declined finds another way, whatever comes first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from actors import Actor, ActorSystem, Ref
from actors.retry import RetryBudget
from actors.routed import Routed


class Chef(Actor):
    async def cook(self, dish: str) -> str:
        return dish


class Group:
    """A group of one, whose news come as soon as somebody has looked: it is another one now."""

    def __init__(self, *members: Ref[Any]) -> None:
        self.changes = 0
        self._members = members

    idempotent: Collection[str] = ()
    retries = RetryBudget()

    def pick(
        self, key: str | None, refused: Collection[tuple[str, str]], *, is_followed: bool = False
    ) -> Ref[Any] | None:
        if refused:
            return None
        member = self._members[self.changes]
        self.changes += 1
        return member

    def begun(self, member: str) -> int:
        return 0

    def ended(self, member: str, known: int, error: BaseException | None) -> None: ...

    def when_changed(self, callback: Callable[[], None], since: int) -> bool:
        return self.changes == since


async def test_news_of_the_next_life_may_come_before_the_refusal_of_the_last(system: ActorSystem) -> None:
    """Else the call waits for news that came already, until its deadline."""
    gone, back = system.spawn(Chef), system.spawn(Chef)
    await gone.stop()

    group: Routed[Chef] = Routed(system, Group(gone, back), timeout=2.0)

    assert await group.ask("cook", "steak") == "steak"

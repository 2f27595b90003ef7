"""The takeover: what an earlier stage has left goes on."""

from __future__ import annotations

from typing import Any

import pytest

from actors import Actor
from actors.exit import Exit
from actors.testing import wait_until
from supervisors import Service, facts
from supervisors.exits import Verdict
from supervisors.member import Member, MemberSpec
from supervisors.playbill import MemberEntry, ServiceEntry
from supervisors.takeover import Takeover


class Chef(Actor):
    pass


class Empty:
    """A company in which nobody is left."""

    def verdict_on_absence(self, slot: str | None) -> Verdict:
        return Verdict(Exit("killed"), counts=True)


class Takers:
    """A service of two that the last stage was making one of; nobody of it runs any more."""

    def __init__(self) -> None:
        self.fed: list[facts.Fact] = []
        self.members: dict[str, Member] = {}
        entries = tuple(MemberEntry(f"kitchen/{n}", 7 + n, 3, None, True) for n in range(2))
        self.takeover = Takeover(
            Service("kitchen", Chef).plan(),
            Empty(),  # type: ignore[arg-type]
            self.members,
            ServiceEntry("kitchen", 1, "", entries, {}),
            {},
            {},
            self.fed.append,
            lambda: None,
        )

    def name(self, *names: str) -> tuple[MemberSpec, ...]:
        for name in names:
            self.members[name] = self.takeover.heir(name) or Member(name, 99)
        return ()


async def resume(takers: Takers, name: str) -> bool:
    async def join(*started: Any) -> None:
        raise AssertionError("nobody is starting")

    return await takers.takeover.resume(takers.members[name], join)


@pytest.fixture
def takers() -> Takers:
    return Takers()


async def test_who_is_named_again_goes_on_and_its_end_is_told(takers: Takers) -> None:
    takers.takeover.begin(lambda: takers.name("kitchen/0"))

    assert takers.members["kitchen/0"].uid == 7
    assert await resume(takers, "kitchen/0")
    await wait_until(lambda: len(takers.fed) == 2)
    assert takers.fed == [
        facts.Started("kitchen/0"),
        facts.Exited(("kitchen/0",), Exit("killed"), handled=1, counts=True),
    ]

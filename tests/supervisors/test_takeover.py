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
from supervisors.playbill import EndedMember, LivingMember, MemberEntry, ServiceEntry
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


async def resume(takers: Takers | Renewed, name: str) -> bool:
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


class Renewed:
    """A service of three, told of in their third lives, of which those in *living* run."""

    def __init__(
        self, strategy: str, living: dict[str, int], ended: dict[str, EndedMember] | None = None
    ) -> None:
        self.fed: list[facts.Fact] = []
        self.members: dict[str, Member] = {}
        names = [f"kitchen/{n}" for n in range(3)]
        entries = tuple(MemberEntry(name, 7, 3, None, True) for name in names)
        self.takeover = Takeover(
            Service("kitchen", Chef, strategy=strategy).plan(),  # type: ignore[arg-type]
            Empty(),  # type: ignore[arg-type]
            self.members,
            ServiceEntry("kitchen", 3, "", entries, {}),
            {name: (Living(), LivingMember(7, life, True, True)) for name, life in living.items()},  # type: ignore[misc]
            ended or {},
            self.fed.append,
            lambda: None,
        )
        self.takeover.begin(lambda: self.name(*names))

    def name(self, *names: str) -> tuple[MemberSpec, ...]:
        for name in names:
            self.members[name] = self.takeover.heir(name) or Member(name, 99)
        return ()


class Living:
    """A host that runs somebody."""

    dead, slot, handler_timeout = False, None, 0.0


async def test_a_restart_of_all_that_had_begun_is_brought_to_its_end() -> None:
    renewed = Renewed("one_for_all", {"kitchen/0": 4})

    assert [await resume(renewed, name) for name in renewed.members] == [True, False, False]
    assert renewed.fed == [facts.Started("kitchen/0")]
    assert renewed.members["kitchen/0"].incarnation == 4


@pytest.mark.parametrize(
    ("strategy", "living"), [("one_for_all", {"kitchen/0": 3}), ("one_for_one", {"kitchen/0": 4})]
)
async def test_who_ended_meanwhile_has_its_end_told(strategy: str, living: dict[str, int]) -> None:
    renewed = Renewed(strategy, living)

    assert [await resume(renewed, name) for name in renewed.members] == [True, True, True]
    await wait_until(lambda: len(renewed.fed) == 4)
    assert renewed.fed[-1] == facts.Exited(("kitchen/1", "kitchen/2"), Exit("killed"), handled=1, counts=True)


async def test_who_began_anew_in_it_and_ended_again_has_that_end_told() -> None:
    ended = {"kitchen/1": EndedMember(4, ("error", "soup", ""), 1, True)}
    renewed = Renewed("one_for_all", {"kitchen/0": 4}, ended)

    assert [await resume(renewed, name) for name in renewed.members] == [True, True, False]
    [_, _, exited] = renewed.fed
    assert isinstance(exited, facts.Exited)
    assert exited.ids == ("kitchen/1",)

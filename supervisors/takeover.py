"""
The takeover: what a new stage does with the members of one service that an earlier stage has left.

Who runs goes on in the same process and life, a start under way is joined, and who has ended for
good stays so. What ended while nobody was in charge leads to what it would have led to then; a
restart of all that the earlier stage had begun is brought to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from actors.exit import Exit
from supervisors import facts
from supervisors.company import Company
from supervisors.exits import exit_from_plain
from supervisors.member import Member, MemberSpec, number_of
from supervisors.playbill import EndedMember, LivingMember, MemberEntry, ServiceEntry
from supervisors.service import ServicePlan
from supervisors.slot import Host
from supervisors.spec import Shutdown


class Takeover:
    """
    Of what the *entry* in the playbill tells, and of who is *living* in hosts or has *ended* there.

    *members* of the same names go on with that. *feed* hears what became of each when its turn to start
    comes. Loop thread only.
    """

    def __init__(
        self,
        plan: ServicePlan,
        company: Company,
        members: Mapping[str, Member],
        entry: ServiceEntry | None,
        living: dict[str, tuple[Host, LivingMember]],
        ended: Mapping[str, EndedMember],
        feed: Callable[[facts.Fact], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._company = company
        self._members = members
        self._feed = feed
        self._on_changed = on_changed
        self._left = entry.members if entry is not None else ()
        self._entries = {member.name: member for member in self._left}
        """Members that have not been named again."""
        self._resumed: dict[str, MemberEntry] = {}
        """Members whose turn has not come yet."""
        self.living = living
        """Members that run already, until their turn comes: they are taken over, not started."""
        self._ended = {
            name: (
                each.incarnation,
                facts.Exited((name,), exit_from_plain(each.exit)[0], each.handled, each.counts),
            )
            for name, each in ended.items()
        }
        """How lives ended while nobody was in charge, where their hosts could say."""
        self._fallen: list[tuple[str, str | None]] = []
        self._is_renewed = plan.strategy == "one_for_all" and any(
            name in self._entries and each.incarnation > self._entries[name].incarnation
            for name, (_, each) in living.items()
        )
        """
        True when all were being restarted and the playbill has not learned of it.

        All have ended before the first begins anew, so the lives it tells of are settled.
        """

    def size(self, wanted: int) -> int:
        """With those beyond the *wanted* size that run: they were leaving when the stage went away."""
        return max([wanted, *(number_of(name) + 1 for name in self.living)])

    def begin(self, name_members: Callable[[], tuple[MemberSpec, ...]]) -> tuple[MemberSpec, ...]:
        """The next life of the service takes over whom *name_members* names, and no later one does."""
        self._resumed = dict(self._entries)
        specs = name_members()
        self._entries.clear()
        self._meet()
        return specs

    def heir(self, name: str) -> Member | None:
        """The member that goes on under this name; None when the name is new."""
        known = self._entries.pop(name, None)
        if known is None:
            return None
        # A life that was begun in the last moment is known to its host alone.
        return Member(name, known.uid, max(known.incarnation, self._last_ended(name)))

    def _last_ended(self, name: str) -> int:
        return self._ended[name][0] if name in self._ended else 0

    def _meet(self) -> None:
        """Members that run already go on, in the same process and life; nobody sees them come and go."""
        for name, (host, living) in self.living.items():
            member = self._members[name]
            member.uid, member.incarnation = living.uid, living.incarnation
            member.has_worked, member.is_registered = living.has_worked, living.is_running
            member.host, member.slot = host, host.slot
            host.handler_timeout = self._plan.handler_timeout

    async def send_off(self, halt: Callable[[Member, Shutdown], Awaitable[None]]) -> None:
        """Of a service that has failed with its group some may still run: they were being stopped."""
        self._meet()
        await asyncio.gather(*(halt(self._members[name], self._plan.shutdown) for name in self.living))
        self.living.clear()
        for entry in self._left:
            slot = self._company.slot_named(entry.slot)
            if slot is not None:
                self._company.leave_slot(slot, entry.name)
            if entry.name in self._members:
                self._members[entry.name].host, self._members[entry.name].is_registered = None, False

    def take_exit(self, incarnation: int, exited: facts.Exited) -> bool:
        """True when that life has not been taken over yet, and need not be: its turn begins with its end."""
        [name] = exited.ids
        if self.living.pop(name, None) is None:
            return False
        self._ended[name] = incarnation, exited
        return True

    async def resume(self, member: Member, join: Callable[[Member, Host], Awaitable[None]]) -> bool:
        """
        Go on with *member* where it runs, or from its end; *join* waits for a start under way.

        False when an earlier stage has left no more of it than a name: then it starts.
        """
        known = self._resumed.pop(member.name, None)
        host, living = self.living.pop(member.name, (None, None))
        if living is None and not self._has_past(member, known):
            return False
        if host is not None and living is not None and not host.dead:
            if living.is_running:
                member.has_settled = True
                self._feed(facts.Started(member.name))
                self._on_changed()
            else:
                await join(member, host)
        elif known is not None and known.is_over:
            member.is_over = member.has_settled = True
            self._feed(facts.Ignored(member.name))
        else:
            self._mourn(member, known)
        return True

    def _has_past(self, member: Member, known: MemberEntry | None) -> bool:
        if known is None:
            return False
        if self._is_renewed and not known.is_over:
            return self._last_ended(member.name) > known.incarnation
        return known.is_running or known.is_over or self._last_ended(member.name) == member.incarnation > 0

    def _mourn(self, member: Member, known: MemberEntry | None) -> None:
        """A life ended while nobody was in charge: what follows is what would have followed then."""
        nothing = 0, facts.Exited((member.name,), Exit("killed"))
        incarnation, exited = self._ended.pop(member.name, nothing)
        self._feed(facts.Started(member.name))
        if incarnation == member.incarnation:
            member.last_exit = exited.exit
            self._feed(exited)
        else:
            if not self._fallen:
                asyncio.get_running_loop().call_soon(self._bury)
            self._fallen.append((member.name, known.slot if known is not None else None))
        self._on_changed()

    def _bury(self) -> None:
        """Whose process ended while nobody was in charge: those of one process are one incident."""
        fallen, self._fallen = self._fallen, []
        for slot in dict.fromkeys(slot for _, slot in fallen):
            verdict = self._company.verdict_on_absence(slot)
            names = tuple(name for name, its_slot in fallen if its_slot == slot)
            for name in names:
                member = self._members[name]
                member.last_exit, member.traceback = verdict.exit, verdict.stack
                member.host, member.is_registered = None, False
            # They are said to have worked: whatever they did, an earlier stage was content with it.
            self._feed(facts.Exited(names, verdict.exit, handled=1, counts=verdict.counts))
        self._on_changed()

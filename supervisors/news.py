"""
News: the views of one service that everybody routes by, each newer than the last.

What changes together is told once. News that callers can do without wait for more, a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from supervisors.registry import ServiceView

_PAUSE = 0.005
"""Seconds that news may wait which nobody waits for; a restart in its process takes one or two."""


class News:
    """Tells *on_view* what *view* says at each new version; *on_looked* hears of each look."""

    def __init__(
        self,
        view: Callable[[int], ServiceView],
        on_view: Callable[[ServiceView], None],
        on_looked: Callable[[], None],
        epoch: int,
    ) -> None:
        self._view = view
        self._on_view = on_view
        self._on_looked = on_looked
        # Views of a later stage are newer than all of an earlier one.
        self._version = epoch << 32
        self._is_dirty = False
        self._shown: ServiceView | None = None
        """The newest view that others have been told."""
        self._waiting: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something that others see has changed: tell them soon."""
        if not self._is_dirty:
            self._is_dirty = True
            # One turn later: what is begun in the next one goes before the news, and into them.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._tell_in_time)

    def _tell_in_time(self) -> None:
        if self._is_dirty and is_at_leisure(self._shown, self._view(self._version)):
            # By then the next start is part of the news: every process is woken once, not three times.
            self._is_dirty = False
            if self._waiting is None:
                self._waiting = asyncio.get_running_loop().call_later(_PAUSE, self.tell)
            self._on_looked()
        else:
            self.tell()

    def tell(self) -> None:
        """Tell everybody what has changed, if anything has."""
        self._is_dirty = False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        view = self._view(self._version)
        if view != self._shown:
            self._version += 1
            self._shown = replace(view, version=self._version)
            self._on_view(self._shown)
        self._on_looked()

    def hurry(self) -> None:
        """Whoever is answered now may act on it: news that wait go first."""
        if self._waiting is not None:
            self.tell()


def is_at_leisure(shown: ServiceView | None, now: ServiceView) -> bool:
    """
    True when callers are as well off with what they have been *shown* for a few milliseconds more.

    Members that ran and have begun to restart where they are: their mailboxes take what comes.
    """
    if shown is None or (shown.state, shown.member_by_name.keys()) != (now.state, now.member_by_name.keys()):
        return False
    return all(
        member == before
        or (
            before.state == "running"
            and member.state in ("running", "restarting", "starting")
            and (member.address, member.uid) == (before.address, before.uid)
        )
        for member, before in zip(now.members, shown.members, strict=True)
    )

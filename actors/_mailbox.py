"""
The mailbox: two bounded lanes in front of one actor.

Control messages (a watched actor ended) overtake user messages; stops and starts do
not queue at all. Order holds per sender within a lane.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors._message import Message, Notice


class Mailbox:
    """Messages in front of one actor. Loop thread only."""

    __slots__ = ("_control", "_user", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Made on first use: an empty deque costs 760 bytes, most actors are idle.
        self._user: deque[Message] | None = None
        self._control: deque[Notice] | None = None

    def __len__(self) -> int:
        """Messages that wait, in both lanes."""
        return (len(self._user) if self._user else 0) + (len(self._control) if self._control else 0)

    def put(self, message: Message) -> bool:
        """Take a user message; False when the lane is at its limit."""
        user = self._user
        if user is None:
            user = self._user = deque()
        elif len(user) >= self.limit:
            return False
        user.append(message)
        return True

    def put_control(self, notice: Notice) -> None:
        """Take a control message. Unbounded here, bounded by what the actor itself asked to hear of."""
        if self._control is None:
            self._control = deque()
        self._control.append(notice)

    def take(self) -> Message | None:
        """The next message, control first; None when both lanes are empty."""
        if self._control:
            return self._control.popleft()
        return self._user.popleft() if self._user else None

    def remove(self, message: Message) -> bool:
        """Take *message* out of its place in the queue; False when it is not there."""
        if not self._user:
            return False
        try:
            self._user.remove(message)
        except ValueError:
            return False
        return True

    def withdraw(self, key: Any) -> list[Message]:
        """Take out the notices of one watch."""
        notices: list[Message] = [notice for notice in self._control or () if notice.key == key]
        for notice in notices:
            self._control.remove(notice)  # type: ignore[union-attr, arg-type]
        return notices

    def clear(self) -> list[Message]:
        """Empty both lanes; returns what was there, user messages oldest first."""
        messages = [*self.clear_control(), *(self._user or ())]
        self._user = None
        return messages

    def clear_control(self) -> list[Message]:
        """Forget the control messages that were meant for a life that is over; returns them."""
        notices: list[Message] = list(self._control or ())
        self._control = None
        return notices

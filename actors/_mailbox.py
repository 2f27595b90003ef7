"""
The mailbox: two bounded lanes in front of one actor.

Control messages (a watched actor ended) overtake user messages; stops and starts do
not queue at all. Order holds per sender within a lane.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors._message import Message


class Mailbox:
    """Messages in front of one actor. Loop thread only."""

    __slots__ = ("_control", "_user", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Made on first use: an empty deque costs 760 bytes, most actors are idle.
        self._user: deque[Message] | None = None
        self._control: deque[Message] | None = None

    def __len__(self) -> int:
        """User messages that wait."""
        return len(self._user) if self._user else 0

    def put(self, message: Message) -> bool:
        """Take a user message; False when the lane is at its limit."""
        user = self._user
        if user is None:
            user = self._user = deque()
        elif len(user) >= self.limit:
            return False
        user.append(message)
        return True

    def put_control(self, message: Message) -> None:
        """Take a control message. Unbounded here, bounded by what the actor itself asked to hear of."""
        if self._control is None:
            self._control = deque()
        self._control.append(message)

    def take(self) -> Message | None:
        """The next message, control first; None when both lanes are empty."""
        if self._control:
            return self._control.popleft()
        return self._user.popleft() if self._user else None

    def remove(self, message: Message) -> bool:
        """Take *message* out of its place in the queue; False when it is not there."""
        try:
            (self._user or deque()).remove(message)
        except ValueError:
            return False
        return True

    def clear(self) -> list[Message]:
        """Empty both lanes; returns the user messages, oldest first."""
        messages = list(self._user or ())
        self._user = self._control = None
        return messages

    def clear_control(self) -> None:
        """Forget control messages that were meant for a life that is over."""
        self._control = None

    @property
    def has_work(self) -> bool:
        """True when a message waits in either lane."""
        return bool(self._control or self._user)

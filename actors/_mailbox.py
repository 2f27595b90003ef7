"""
The mailbox: two bounded lanes in front of one actor.

Control messages (a watched actor ended) overtake user messages; stops and starts do
not queue at all. Order holds per sender within a lane, and callers take turns: one
who floods the actor waits behind itself, not in front of the others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from actors._message import Origin

if TYPE_CHECKING:
    from actors._message import Message, Notice
    from actors._overflow import WaitingRoom


def caller_of(message: Message) -> Hashable:
    """Whose turn a message takes: its actor's, else that of the process it came from."""
    sender = message.sender
    if sender is None:
        return message.via
    if isinstance(sender, Origin):
        return sender.address, sender.name
    return sender.cell


class Turns:
    """A queue in which callers take turns. In order per caller; a plain queue while there is one."""

    __slots__ = ("_count", "_turns", "queue")

    def __init__(self) -> None:
        # Made on first use: an empty deque costs 760 bytes, most actors are idle.
        self.queue: deque[Message] | None = None
        """The messages of all, while they are of one caller."""
        self._turns: OrderedDict[Hashable, deque[Message]] | None = None
        """The messages of each, while there are several; whose turn is next comes first."""
        self._count = 0
        """Messages in `_turns`."""

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return self._count if self._turns is not None else len(self.queue or ())

    def append(self, message: Message) -> None:
        """Put *message* behind those of its caller."""
        user = self.queue
        if self._turns is None:
            if user is None:
                user = self.queue = deque()
            if not user:
                user.append(message)
                return
            if caller_of(message) == caller_of(user[-1]):
                user.append(message)
                return
            self._split(user)
        assert self._turns is not None
        self._turns.setdefault(caller_of(message), deque()).append(message)
        self._count += 1

    def append_first(self, message: Message) -> None:
        """Put *message* before all others, with nobody's turn between."""
        if self._turns is None:
            self._split(self.queue or deque())
        assert self._turns is not None
        caller = caller_of(message)
        self._turns.setdefault(caller, deque()).appendleft(message)
        self._turns.move_to_end(caller, last=False)
        self._count += 1
        if len(self._turns) == 1:
            self._join()

    def pop(self) -> Message | None:
        """The next message of whose turn it is."""
        turns = self._turns
        if turns is None:
            return self.queue.popleft() if self.queue else None
        caller, queue = turns.popitem(last=False)
        message = queue.popleft()
        self._count -= 1
        if queue:
            turns[caller] = queue
        if len(turns) == 1:
            self._join()
        return message

    def count_of(self, message: Message) -> int:
        """Messages of the caller of *message* in the queue."""
        if self._turns is not None:
            return len(self._turns.get(caller_of(message), ()))
        user = self.queue
        return len(user) if user and caller_of(user[-1]) == caller_of(message) else 0

    @property
    def greediest(self) -> deque[Message]:
        """The messages of the caller who has most."""
        if self._turns is not None:
            return max(self._turns.values(), key=len)
        return self.queue or deque()

    def remove(self, message: Message) -> bool:
        """Take *message* out of its place in the queue; False when it is not there."""
        queue = self.queue
        if self._turns is not None:
            queue = self._turns.get(caller_of(message))
        if not queue:
            return False
        try:
            queue.remove(message)
        except ValueError:
            return False
        if self._turns is not None:
            self._removed(caller_of(message))
        return True

    def drain(self) -> list[Message]:
        """Empty the queue; returns what was there, in the order of turns."""
        messages: list[Message] = []
        while (message := self.pop()) is not None:
            messages.append(message)
        self.queue = None
        return messages

    def _removed(self, caller: Hashable) -> None:
        assert self._turns is not None
        self._count -= 1
        if not self._turns[caller]:
            del self._turns[caller]
        if len(self._turns) == 1:
            self._join()

    def _split(self, user: deque[Message]) -> None:
        self._turns = OrderedDict({caller_of(user[-1]): user}) if user else OrderedDict()
        self._count = len(user)
        self.queue = None

    def _join(self) -> None:
        assert self._turns is not None
        ((_, self.queue),) = self._turns.items()
        self._turns = None


class Mailbox(Turns):
    """Messages in front of one actor. Loop thread only."""

    __slots__ = ("control", "limit", "waiting_room")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.control: deque[Notice] | None = None
        """The control lane; made on first use, too."""
        self.waiting_room: WaitingRoom | None = None
        """Who waits for room, while somebody does."""

    def __len__(self) -> int:
        """Messages that wait, in both lanes; those that wait for room have not been taken."""
        waiting = self._count if self._turns is not None else len(self.queue) if self.queue else 0
        return waiting + (len(self.control) if self.control else 0)

    @property
    def has_more(self) -> bool:
        """True while anything waits."""
        return bool(self.queue or self._turns is not None or self.control)

    def put(self, message: Message) -> bool:
        """Take a user message; False when the lane is at its limit."""
        user = self.queue
        if not user:
            if self._turns is None:
                if user is None:
                    user = self.queue = deque()
                user.append(message)
                return True
        elif message.sender is user[-1].sender and message.via is user[-1].via:
            if len(user) >= self.limit:
                return False
            user.append(message)
            return True
        if self.waiting >= self.limit:
            return False
        self.append(message)
        return True

    def put_all(self, messages: Sequence[Message]) -> int:
        """Take user messages of one caller, as many as there is room for; returns how many."""
        room = self.limit - self.waiting
        if room < len(messages):
            messages = messages[: max(0, room)]
            if not messages:
                return 0
        user, first = self.queue, messages[0]
        if self._turns is None and (
            not user or (first.sender is user[-1].sender and first.via is user[-1].via)
        ):
            if user is None:
                user = self.queue = deque()
            user.extend(messages)
        else:
            for message in messages:
                self.append(message)
        return len(messages)

    def put_control(self, notice: Notice) -> None:
        """Take a control message. Unbounded here, bounded by what the actor itself asked to hear of."""
        if self.control is None:
            self.control = deque()
        self.control.append(notice)

    def take(self) -> Message | None:
        """The next message, control first; None when both lanes are empty."""
        if self.control:
            return self.control.popleft()
        if self._turns is None and self.waiting_room is None:
            return self.queue.popleft() if self.queue else None
        message = self.pop()
        if self.waiting_room is not None:
            self.waiting_room.admit()
        return message

    def remove(self, message: Message) -> bool:
        """Take *message* out of its place in the queue; False when it is not there."""
        found = super().remove(message)
        if found and self.waiting_room is not None:
            self.waiting_room.admit()
        return found

    def withdraw(self, key: Any) -> list[Message]:
        """Take out the notices of one watch."""
        notices: list[Message] = [notice for notice in self.control or () if notice.key == key]
        for notice in notices:
            self.control.remove(notice)  # type: ignore[union-attr, arg-type]
        return notices

    def clear(self) -> list[Message]:
        """Empty both lanes; returns what was there, user messages of each caller oldest first."""
        return [*self.clear_control(), *self.drain()]

    def clear_control(self) -> list[Message]:
        """Forget the control messages that were meant for a life that is over; returns them."""
        notices: list[Message] = list(self.control or ())
        self.control = None
        return notices

    # -- at the limit ------------------------------------------------------------------

    def drop_oldest(self) -> Message:
        """Take out the oldest message of the caller who has most, to make room."""
        queue = self.greediest
        oldest = queue.popleft()
        self._shortened(oldest)
        return oldest

    def displace(self, message: Message) -> Message | None:
        """
        Take out the youngest of the caller who has most, so that *message* finds room; None: it does not.

        Only where its own caller has at least two less: else one who floods an actor leaves no room
        for others.
        """
        queue = self.greediest
        if len(queue) < self.count_of(message) + 2:
            return None
        youngest = queue.pop()
        self._shortened(youngest)
        return youngest

    def _shortened(self, message: Message) -> None:
        if self._turns is not None:
            self._removed(caller_of(message))

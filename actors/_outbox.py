"""
The outbox in front of another process: what waits to leave, in which order, and how much may.

Messages wait as they came and become envelopes when their frame is made, small ones alike together
(`batch`). Only `put` may be called by any thread at any time, for it is called for every message; all
else needs the lock of the `Peer`.

Back-pressure is end to end. What has left and was not yet taken in at the far end is bounded by
`MAX_IN_FLIGHT`: the rest waits here, which is bounded too. Messages for an actor without room wait
apart (`_held`), so that they hold up nobody else's.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

from actors import batch
from actors._held import Held
from actors.pickling import dumps_flat
from actors.wire import AS_BEFORE, ENVELOPE, ENVELOPE_OVERHEAD, Codec, Kind

if TYPE_CHECKING:
    from actors._calls import SentTell

MAX_OUTBOX_BYTES = 256 * 1024 * 1024

MAX_IN_FLIGHT = 32 * 1024 * 1024
"""Bytes that one process may have sent another which has not taken them in, and one frame more."""

MESSAGE_OVERHEAD = 512
"""Bytes that each message counts beyond its envelope: objects stand behind it on both sides."""

_OVERHEAD = ENVELOPE_OVERHEAD + MESSAGE_OVERHEAD

_CHECKPOINT = 64 * 1024
"""Bytes between two frames that are remembered until they are taken in."""

# Bytes after which a frame is closed although more waits: a small message behind
# 60 MB should not wait for all of it.
_FRAME_TARGET = 1024 * 1024

_MOST = 512
"""Messages in a frame: who takes it in works on them all in one go, 2 ms."""

_TELL, _PICKLE = int(Kind.TELL), int(Codec.PICKLE)
_pack = ENVELOPE.pack

LATE = -1
"""
The codec of a message that is pickled when its frame is made.

Its body is what `batch.is_small` allows, its head has at most `batch.MOST_BYTES`.
"""

_LATE_COUNTS = 2 * batch.MOST_BYTES + _OVERHEAD
"""Bytes that such a message counts while it waits, whatever it has."""


class Unsent(Protocol):
    """What stands behind an outgoing message and wants to know when it cannot leave."""

    def never_sent(self, reason: str) -> None: ...


Outgoing = tuple[int, int, int, Any, bytes, float, Unsent | None]
"""
A message that waits: kind, codec, number, body, head, seconds that remain for it, and its owner.

The body is bytes, but with `LATE`: then the arguments of a call, or the value of an answer.
"""


Frame = tuple[list[bytes], list[Unsent | None], int]
"""What leaves together: envelopes, the owners of what is in them, and the bytes it counts on its way."""


class OutboxFull(Exception):
    """The peer takes messages slower than they come."""


def _counted(one: Outgoing) -> int:
    """The bytes that *one* counts while it waits."""
    return _LATE_COUNTS if one[1] == LATE else len(one[3]) + len(one[4]) + _OVERHEAD


class Outbox:
    """What waits for one other process, and what of it is on its way."""

    __slots__ = (
        "_address",
        "_bytes",
        "_checkpoints",
        "_granted",
        "_is_closed",
        "_last_tell",
        "_parked",
        "_sent_bytes",
        "_taken_bytes",
        "_tells",
        "_waiting",
        "held",
    )

    def __init__(self, address: str) -> None:
        self._address = address
        self._waiting: deque[Outgoing] = deque()
        """Oldest first."""
        self._granted: deque[Outgoing] = deque()
        """Were held, and may leave now: before all that waits."""
        self.held = Held()
        """Messages for actors without room."""
        self._bytes = 0
        """What waits and is held, with overhead."""
        self._is_closed = False
        self._tells: deque[SentTell] = deque()
        """Tells that have left and whose taking is not confirmed yet, oldest first."""
        self._last_tell = 0
        self._parked: dict[int, SentTell] = {}
        """Tells that wait at the far end for room in a mailbox, by number."""
        self._sent_bytes = 0
        """Left for there, ever."""
        self._taken_bytes = 0
        """Of those, taken in there for certain."""
        self._checkpoints: deque[tuple[int, int]] = deque()
        """Frames on their way: sequence, and `_sent_bytes` once it had left."""

    def put(self, one: Outgoing) -> int:
        """
        Let *one* wait for the next frame; any thread. `OutboxFull` beyond 256 MB.

        Returns how many wait; 0, after its owner was told, when the process is gone.
        """
        size = _LATE_COUNTS if one[1] == LATE else len(one[3]) + len(one[4]) + _OVERHEAD
        # No lock, it would double what this takes. Should a sum get lost between two threads, the
        # next empty outbox makes it good.
        self._bytes += size
        if self._bytes > MAX_OUTBOX_BYTES:
            self._bytes -= size
            raise OutboxFull(f"{self._bytes} bytes wait for {self._address}")
        waiting = self._waiting
        waiting.append(one)
        if self._is_closed:
            self._turn_away()
            return 0
        return len(waiting)

    def _turn_away(self) -> None:
        while self._waiting:
            try:
                owner = self._waiting.popleft()[-1]
            except IndexError:
                return  # another thread has done it
            if owner is not None:
                owner.never_sent("its process is gone")

    def pack(self) -> Frame:
        """What leaves in the next frame, as envelopes; empty while nothing may."""
        envelopes: list[bytes] = []
        owners: list[Unsent | None] = []
        size = gone = 0
        last_head = b""
        waiting = self._waiting
        queue = self._granted or waiting
        if not queue or self._sent_bytes - self._taken_bytes >= MAX_IN_FLIGHT:
            return envelopes, owners, 0
        while queue and len(owners) < _MOST:
            one = queue[0]
            kind, codec, number, body, head, remaining, owner = one
            if codec == LATE:
                most = min(_MOST - len(owners), (_FRAME_TARGET - size) // batch.MOST_BYTES)
                if most <= 0:
                    break
                alike = self._alike(queue, most)
                if not alike:
                    queue = queue or waiting
                    continue
                kind, codec, number, body, head, remaining = self._together(alike, owners)
                gone += len(alike) * _LATE_COUNTS
            else:
                next_size = size + ENVELOPE_OVERHEAD + len(head) + len(body)
                if envelopes and next_size > _FRAME_TARGET:
                    break
                queue.popleft()
                if self.held.by_name and queue is waiting and self.held.takes(one):
                    continue
                if kind == _TELL and owner is not None:
                    number = self._numbered(owner)
                gone += _counted(one)
                owners.append(owner)
            head_size = len(head)
            if head_size and head == last_head:
                head, head_size = b"", AS_BEFORE
            else:
                last_head = head or last_head
            envelopes.append(_pack(kind, codec, head_size, len(body), number, remaining) + head + body)
            size += len(envelopes[-1])
            queue = queue or waiting
        charge = size + MESSAGE_OVERHEAD * len(owners)
        is_empty = not (waiting or self._granted or self.held.by_name)
        self._bytes = 0 if is_empty else self._bytes - gone
        return envelopes, owners, charge

    def _alike(self, queue: deque[Outgoing], most: int) -> list[Outgoing]:
        """Take out of *queue* what can leave in one batch with its first; nothing if all of it is held."""
        kind = queue[0][0]
        if queue is self._waiting and self.held.by_name:
            alike: list[Outgoing] = []
            while queue and len(alike) < most and queue[0][0] == kind and queue[0][1] == LATE:
                one = queue.popleft()
                if not self.held.takes(one):
                    alike.append(one)
            return alike
        # In steps, to ask all at once whether they are alike: what is taken too much goes back.
        alike, step = [queue.popleft()], 1
        while queue and len(alike) < most:
            step = min(2 * step, len(queue), most - len(alike))
            more = [queue.popleft() for _ in range(step)]
            if [one[0] for one in more].count(kind) == [one[1] for one in more].count(LATE) == step:
                alike += more
                continue
            end = next(at for at, one in enumerate(more) if one[0] != kind or one[1] != LATE)
            alike += more[:end]
            queue.extendleft(reversed(more[end:]))
            break
        return alike

    def _together(
        self, alike: list[Outgoing], owners: list[Unsent | None]
    ) -> tuple[int, int, int, bytes, bytes, float]:
        """Kind, codec, number, body, head and seconds left of the envelope for small messages."""
        kind, _, number, content, head, left, _ = alike[0]
        _, _, numbers, contents, heads, remaining, whose = zip(*alike, strict=True)
        owners += whose
        if kind == _TELL:
            number = self._last_tell + 1
            for self._last_tell, tell in enumerate(whose, number):
                tell.number = self._last_tell
            self._tells += whose
        if len(alike) == 1:
            return kind, _PICKLE, number, dumps_flat(content), head, left
        if heads.count(head) == len(heads):
            body = batch.pack(kind, numbers, remaining, contents)
        else:
            head, body = b"", batch.pack(kind, numbers, remaining, contents, heads)
        return batch.KIND_OF[kind], _PICKLE, number, body, head, math.inf

    def _numbered(self, owner: Unsent | None) -> int:
        """Tells leave in the order of their numbers: one confirmation covers all before it."""
        tell = cast("SentTell", owner)
        self._last_tell = tell.number = number = self._last_tell + 1
        self._tells.append(tell)
        return number

    @property
    def waits(self) -> int:
        """Messages that have not left, beside those that are held."""
        return len(self._waiting) + len(self._granted)

    def close(self) -> tuple[list[Unsent], list[SentTell]]:
        """Nothing leaves any more: what never did, and the tells that nobody confirmed."""
        self._is_closed = True
        waiting: list[Outgoing] = [*self._granted, *self.held.drain()]
        with contextlib.suppress(IndexError):  # whoever puts meanwhile empties it as well
            while True:
                waiting.append(self._waiting.popleft())
        self._granted.clear()
        self._bytes = 0
        unconfirmed = [*self._parked.values(), *self._tells]
        self._tells.clear()
        self._parked.clear()
        return [one[-1] for one in waiting if one[-1] is not None], unconfirmed

    # -- what is on its way --------------------------------------------------------

    def left(self, sequence: int, charge: int) -> None:
        """The frame *sequence* has left."""
        self._sent_bytes += charge
        marked = self._checkpoints[-1][1] if self._checkpoints else self._taken_bytes
        if self._sent_bytes - marked >= _CHECKPOINT:
            self._checkpoints.append((sequence, self._sent_bytes))

    def taken_in(self, sequence: int) -> None:
        """The far end has taken in our frames up to *sequence*."""
        while self._checkpoints and self._checkpoints[0][0] <= sequence:
            self._taken_bytes = self._checkpoints.popleft()[1]

    @property
    def on_its_way(self) -> int:
        """Bytes that have left and are not known to be taken in."""
        return self._sent_bytes - self._taken_bytes

    def told(self, number: int) -> list[SentTell]:
        """The tells up to *number* whose fate was not known so far, oldest first."""
        tells = self._tells
        if not tells:
            return []
        count = min(number - tells[0].number + 1, len(tells))  # their numbers have no gaps
        return [tells.popleft() for _ in range(count)]

    # -- receivers without room --------------------------------------------------

    def parked(self, name: str, number: int) -> list[SentTell]:
        """
        A message waits there for room in the mailbox of *name*: tell *number*, or an ask (0).

        Returns the tells before it, which were taken.
        """
        tells = self.told(number) if number else []
        if tells:
            self._parked[number] = tells.pop()
        self.held.block(name)
        return tells

    def admitted(self, number: int) -> SentTell | None:
        """A tell that waited for room there has been taken, or refused."""
        return self._parked.pop(number, None)

    def grant(self, name: str, places: int) -> None:
        """The mailbox of *name* has room for that many."""
        leaving, more = self.held.grant(name, places)
        for one in leaving:
            if getattr(one[-1], "done", False):
                self._bytes -= _counted(one)
            else:
                self._granted.append(one)  # else cancelled, or out of time: nobody wants it
        if more:
            self._bytes += len(name.encode()) + _OVERHEAD
            self._granted.append((Kind.WANT, 0, 0, name.encode(), b"", math.inf, None))

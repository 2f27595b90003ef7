"""
Parcels: how values leave for another process and are read, large ones through shared memory.

What is small travels in its envelope. Of what is large the envelope only says where it lies
(`_shared`): its sender lends it, its receiver borrows it, and whoever has read it says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import pickling
from actors._peers import MAX_BODY, TooLarge
from actors._shared import IDLE_TIME, SHARED_FROM, Borrower, Lender, parcel
from actors.wire import Codec, Kind

if TYPE_CHECKING:
    from actors._peers import Peer
    from actors.system import ActorSystem

_PICKLE, _SHARED = int(Codec.PICKLE), int(Codec.SHARED)

_HAS_MEMFD = hasattr(os, "memfd_create")


class Parcels:
    """What one process lends to others, and has borrowed from them."""

    def __init__(self, system: ActorSystem, send: Callable[[Peer, int, int, bytes], None]) -> None:
        self._system = system
        self._send = send
        self._shares = False
        """True where other processes can open what this one puts into shared memory."""
        self._lender = Lender()
        self._borrower = Borrower()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    def open(self, address: str) -> None:
        """Share memory, if those who reach this process at *address* can read it."""
        self._shares = address.startswith("ipc:") and _HAS_MEMFD

    def close(self) -> None:
        """Forget what was lent and borrowed; what others still read stays with them."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._lender.close()
        self._borrower.close()

    # -- leaving -------------------------------------------------------------------

    def pack(self, peer: Peer, value: Any, *, is_flat: bool = False) -> tuple[int, bytes]:
        """
        Codec and body of any value: in the envelope, or in shared memory if it is large.

        Raises what pickling raises, and `TooLarge`. *is_flat*: there are no buffers in it.
        """
        buffers: list[memoryview] = []
        if is_flat or not self._shares:
            data = pickling.dumps(value)
        else:
            data, buffers = pickling.dumps_apart(value, SHARED_FROM)
        if len(data) < SHARED_FROM and not buffers:
            return _PICKLE, data
        _check_size(len(data) + sum(buffer.nbytes for buffer in buffers))
        if self._shares:
            try:
                if buffers and len(data) < SHARED_FROM:
                    place = self._borrower.place_of(peer.address, buffers)
                    if place is not None:
                        return _SHARED, self._lender.pass_on(peer.address, place, data, buffers)
                return _SHARED, self._lender.lend(peer.address, [data, *buffers])
            except OSError:
                if buffers:  # no memory for it: through the socket
                    data = pickling.dumps(value)
        _check_size(len(data))
        return _PICKLE, data

    def take_back(self, peer: Peer, codec: int, body: bytes) -> None:
        """What was to leave does not: nobody will read it."""
        if codec == _SHARED:
            self._lender.give_back(peer.address, parcel(body).number)

    def returned(self, peer: Peer, number: int) -> None:
        """*peer* no longer reads a segment; loop thread only."""
        self._lender.give_back(peer.address, number)
        self._sweep_later()

    def lost(self, peer: Peer) -> None:
        """*peer* is gone: what it has borrowed, it reads no more."""
        self._lender.lost(peer.address)

    # -- arriving ------------------------------------------------------------------

    def unpack(self, peer: Peer, body: bytes | memoryview) -> Any:
        """The value in a body of codec `SHARED`; its arrays lie where the sender wrote them. Any thread."""
        wanted = parcel(body)
        post = self._system._inbox.post
        self._system._on_loop(self._sweep_later)
        try:
            on_unread = partial(post, self._unread, peer, wanted.number)
            parts: list[Any] = self._borrower.read(peer.address, wanted, on_unread)
        except OSError:
            post(self._unread, peer, wanted.number)
            raise
        data, *buffers = [wanted.data, *parts] if wanted.data else parts
        return pickling.loads(data, buffers=buffers)

    def leave_unread(self, peer: Peer, body: bytes | memoryview) -> None:
        """A body of codec `SHARED` that nobody wants; any thread."""
        self._system._inbox.post(self._unread, peer, parcel(body).number)

    def _unread(self, peer: Peer, number: int) -> None:
        """Nobody here holds anything of a segment any more."""
        if not (peer.is_lost or self._closed):
            self._send(peer, Kind.UNREAD, number, b"")

    # -- what lies idle --------------------------------------------------------------

    def _sweep_later(self) -> None:
        if self._sweeping is None and not self._closed:
            assert self._system._loop is not None
            self._sweeping = self._system._loop.call_later(IDLE_TIME, self.sweep)

    def sweep(self) -> None:
        """Give memory back that was not used lately."""
        self._sweeping = None
        lends, borrows = self._lender.sweep(), self._borrower.sweep()
        if lends or borrows:
            self._sweep_later()


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise TooLarge(f"{size} bytes, a message at most {MAX_BODY}")

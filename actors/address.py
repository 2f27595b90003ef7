"""
Addresses: where a process listens. One address belongs to one process life.

    ipc://<private directory>/<16 hex>.ipc     processes of one machine
    tcp://127.0.0.1:<port>/<16 hex>            the contract suite only, for now
    mem://<16 hex>                             tests, inside one process

The 16 hex digits are the process's host id, 64 random bits. They stand in every
frame, so a message can only be taken by the life it was meant for.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from actors.errors import InvalidArgument
from actors.rundir import check_socket_path


def new_host_id() -> int:
    """64 random bits that name one process life; never 0."""
    return secrets.randbits(64) or 1


def ipc_address(directory: str | Path, host_id: int) -> str:
    """The ipc address of *host_id* in *directory*."""
    return "ipc://" + check_socket_path(f"{directory}/{host_id:016x}.ipc")


def host_id_of(address: str) -> int:
    """The host id inside an address. `InvalidArgument` when there is none."""
    tail = address.removesuffix(".ipc")[-16:]
    try:
        if len(tail) != 16:
            raise ValueError
        return int(tail, 16)
    except ValueError:
        raise InvalidArgument(
            f"{address!r} is not an address: no host id of 16 hex digits at its end"
        ) from None


def nng_url(address: str) -> str:
    """What nng dials: a tcp address without its host id."""
    return address.rsplit("/", 1)[0] if address.startswith("tcp://") else address


def split_target(text: str) -> tuple[str, str]:
    """`"<address>#<name>"` as its two halves."""
    address, mark, name = text.partition("#")
    if not mark or not name:
        raise InvalidArgument(f"{text!r} is not <address>#<name>")
    host_id_of(address)
    return address, name

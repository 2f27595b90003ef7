"""
The files two processes of one app meet over: run root, private directories, MAC key, stage record.

Everything here is private to one user of one machine. A directory or key that
somebody else could have written or can read is refused by name, never used.
Standard library only: the command line imports this on its way to a first
answer, and a process is recognised by pid *and* start time, so a reused pid is
never mistaken for a running app.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actors.errors import InvalidArgument, NotFound, nearest
from actors.rundir import (
    KEY_BYTES,
    KEY_NAME,
    MAX_DIRECTORY_LENGTH,
    MAX_SOCKET_PATH_LENGTH,
    RUN_ROOT_VARIABLE,
    check_socket_path,
    ensure_private_dir,
    make_key,
    read_key,
    run_root,
    write_private,
)

__all__ = [
    "KEY_BYTES",
    "KEY_NAME",
    "LAST_WORD_NAME",
    "MAX_DIRECTORY_LENGTH",
    "MAX_SOCKET_PATH_LENGTH",
    "RECORD_NAME",
    "RUN_ROOT_VARIABLE",
    "StageRecord",
    "app_dir",
    "check_app_name",
    "check_socket_path",
    "ensure_private_dir",
    "find_record",
    "is_alive",
    "is_returning",
    "make_key",
    "process_start_time",
    "read_key",
    "record_path",
    "run_root",
    "running_apps",
    "write_private",
]

RECORD_NAME = "stage.json"
LAST_WORD_NAME = "stage.end"
"""Why an app ended by itself, left by its stage for the house."""

_APP_NAME = re.compile(r"[A-Za-z0-9_.-]{1,30}")


def app_dir(app_name: str) -> Path:
    """The run directory of one app; not created here."""
    return run_root() / check_app_name(app_name)


def check_app_name(app_name: str) -> str:
    """*app_name* itself, or `InvalidArgument`: it becomes a directory and a Ray namespace."""
    # "." and ".." match the pattern, but are directories of somebody else.
    if not _APP_NAME.fullmatch(app_name) or not app_name.strip("."):
        raise InvalidArgument(f"app name {app_name!r}: use 1 to 30 of letters, digits, '_', '-' and '.'")
    return app_name


@dataclass(frozen=True, slots=True)
class StageRecord:
    """Where a running app is found; written by each life of its stage into the app's run directory."""

    address: str
    """The stage's inbox, `ipc://…`."""
    host_id: str
    """The stage's 64-bit id on the wire, in hex."""
    pid: int
    start_time: int
    """Of the stage's process, as `process_start_time` gives it."""
    epoch: int
    key_path: str
    """The file with the MAC key; the key itself never stands in a record."""
    app: str
    house_pid: int | None = None
    """The owner of the embedded cluster; None where the cluster is somebody else's."""
    house_start_time: int | None = None

    def has_house(self) -> bool:
        """True while that owner runs."""
        return self.house_pid is not None and is_alive(self.house_pid, self.house_start_time)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Replace the record in *path*, atomically and with mode 0600."""
        write_private(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> StageRecord:
        """The record in *path*. `FileNotFoundError` without one, `InvalidArgument` if it is no record."""
        try:
            found = json.loads(Path(path).read_bytes())
            return cls(**_known_fields(found))
        except (TypeError, ValueError, AttributeError) as exc:
            raise InvalidArgument(f"{path}: is not a stage record: {exc}") from exc

    @property
    def run_dir(self) -> str:
        """Of the app: where its processes have their sockets."""
        return self.address.removeprefix("ipc://").rsplit("/", 1)[0]

    def is_alive(self) -> bool:
        """True while the very process that wrote this record runs."""
        return is_alive(self.pid, self.start_time)


def _known_fields(found: dict[str, Any]) -> dict[str, Any]:
    # A newer release may add fields: a record is read by whoever is there.
    known = {field.name for field in fields(StageRecord)}
    return {name: value for name, value in found.items() if name in known}


def record_path(app_name: str) -> Path:
    """Where the stage of *app_name* puts its record."""
    return app_dir(app_name) / RECORD_NAME


def running_apps() -> list[StageRecord]:
    """The records of the apps of this user whose stage lives, by app name; unreadable ones are skipped."""
    return [record for record in _records() if record.is_alive()]


def is_returning(app_name: str | None) -> bool:
    """True while the stage of an app (any, without a name) is gone and its house has it brought back."""
    return any(
        app_name in (None, record.app) and not record.is_alive() and record.has_house()
        for record in _records()
    )


def find_record(app_name: str | None) -> StageRecord:
    """The record of a running app. `NotFound` when there is none, or several and no name was given."""
    records = {record.app: record for record in running_apps()}
    if app_name is not None:
        record = records.get(app_name)
        if record is None:
            raise NotFound(f"no app named {app_name!r} is running{nearest(app_name, records)}")
        return record
    if not records:
        raise NotFound("no app is running here; start one with `understudy up FILE`")
    if len(records) > 1:
        raise NotFound(f"several apps are running ({', '.join(sorted(records))}); say which with --app NAME")
    return next(iter(records.values()))


def _records() -> Iterator[StageRecord]:
    for path in sorted(run_root().glob(f"*/{RECORD_NAME}")):
        try:
            yield StageRecord.read(path)
        except (OSError, InvalidArgument):
            continue  # Going away right now, or not ours to judge: `doctor` reports leftovers.


def process_start_time(pid: int) -> int | None:
    """Start of the process in clock ticks since boot, or None; together with the pid it is an identity."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (OSError, ValueError):
        return None
    # The second field is the command in parentheses and may itself hold spaces
    # and parentheses: count from the last one. State is field 3, start time 22.
    state, *rest = line[line.rindex(b")") + 1 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])


def is_alive(pid: int, start_time: int | None) -> bool:
    """True while *pid* is the process that started at *start_time*. A zombie is not alive."""
    return start_time is not None and process_start_time(pid) == start_time


def send_signal(pid: int, start_time: int | None, number: int) -> bool:
    """
    Signal the very process that started at *start_time*; False when it is gone.

    Through a descriptor that is checked after it was opened: whoever has its pid now is never hit.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return False
    try:
        if not is_alive(pid, start_time):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True

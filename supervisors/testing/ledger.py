"""
The ledger: what was sent, taken, handled and answered, written where no fault reaches it.

Each process appends to a file of its own, one line a record and one `write` a line, so what
stands there survives the SIGKILL of the writer. Times are monotonic, and on one machine
comparable between processes.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

What = Literal["sent", "accepted", "handled", "outcome", "dead_letter", "life"]
"""
`accepted`: a mailbox took a tell. `outcome`: the one end of an ask, or of a tell that was refused.
`dead_letter`: a receiver dropped a message it had taken. `life`: an actor began one.
"""

OK, NEVER_RAN, MAY_HAVE_RUN, FAILED = "ok", "never ran", "may have run", "failed"
"""How an `outcome`'s detail begins."""

_SUFFIX = ".ledger"


@dataclass(frozen=True, slots=True)
class Record:
    """One line. *sender* and *seq* name a message; per sender the numbers grow in the order of sending."""

    what: What
    at: float
    target: str
    """A service or a member when sent, the member itself when handled or answered."""
    sender: str = ""
    seq: int = 0
    incarnation: int = 0
    pid: int = 0
    detail: str = ""
    due_at: float | None = None
    """When an outcome has to be there, of what is sent."""


class Ledger:
    """Appends records to one file in *directory*; any thread."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self._descriptor = os.open(
            self.directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    def write(
        self,
        what: What,
        target: str,
        sender: str = "",
        seq: int = 0,
        *,
        incarnation: int = 0,
        pid: int = 0,
        detail: str = "",
        due_at: float | None = None,
    ) -> None:
        """Append one record, with the time now."""
        record = Record(what, time.monotonic(), target, sender, seq, incarnation, pid, detail, due_at)
        os.write(self._descriptor, json.dumps(astuple(record)).encode() + b"\n")

    def close(self) -> None:
        """No more records."""
        os.close(self._descriptor)


def read_ledger(directory: str | os.PathLike[str]) -> list[Record]:
    """All records of all processes, oldest first. A line that its writer's death cut short is left out."""
    records = []
    for path in sorted(Path(directory).glob(f"*{_SUFFIX}")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                records.append(Record(*json.loads(line)))
    return sorted(records, key=lambda record: record.at)

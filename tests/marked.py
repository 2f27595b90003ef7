"""The mark that all processes of a test session, or of a user in it, inherit: what is left is known by it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MARK = "UNDERSTUDY_TEST_SESSION"


def marked_processes(mark: str) -> dict[int, str]:
    """Living processes that inherited *mark*, this one excepted, with their command lines."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != os.getpid() and needle in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    return found

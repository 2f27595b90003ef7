"""What the fault rows need beside scribes; hosts import it by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

from actors.actor import Actor


class Sleeper(Actor):
    """Its constructor never returns while a file is there, and blocks the thread it has."""

    def __init__(self, file: str) -> None:
        if Path(file).exists():
            time.sleep(1e6)

    def who(self) -> tuple[str, int, int]:
        """A plain `def`, so that the constructor has a thread of its own."""
        return self.context.name, self.context.incarnation, os.getpid()

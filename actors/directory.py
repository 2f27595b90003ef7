"""
Directories: where actors live that this process did not start. Declared here, filled by whoever runs an app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from actors.exit import Exit


class Directory(Protocol):
    """What a system asks about names that are not its own."""

    @property
    def version(self) -> int:
        """Grows with every change: until then an answer of `locate` holds."""

    def locate(self, name: str, uid: int) -> str:
        """
        The address of the process where *name* lives now.

        Raises `NotFound`, `ActorStopped` (its registration ended) or `Unavailable` (never ran)
        when its process is known dead.
        """

    def incarnation_of(self, name: str, uid: int) -> int:
        """Which life of it runs; the same errors."""

    def watch(self, name: str, uid: int, notify: Callable[[Exit], None]) -> Callable[[], None]:
        """Call *notify* on the system's loop when the registration ends; returns what undoes it."""

    def service(self, name: str) -> Any:
        """A ref to a service. `NotFound` for an unknown one."""

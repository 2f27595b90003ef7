"""
How a life ends: `Exit` says why, `Terminated` tells a watcher, `Ignore` declines to start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from actors.errors import InvalidArgument, nearest

if TYPE_CHECKING:
    from actors.ref import Ref

ExitKind = Literal[
    "normal", "shutdown", "error", "killed", "oom", "hung", "node_lost", "start_failed", "not_found"
]
EXIT_KINDS: tuple[str, ...] = get_args(ExitKind)


@dataclass(frozen=True, slots=True)
class Exit:
    """Why an actor ended. `normal` and `shutdown` are clean, all other kinds are abnormal."""

    kind: ExitKind
    detail: Any = None
    """The exception for `error` and `start_failed`, the signal for `killed`, else a word or nothing."""

    def __post_init__(self) -> None:
        if self.kind not in EXIT_KINDS:
            raise InvalidArgument(f"Exit kind={self.kind!r} is unknown{nearest(str(self.kind), EXIT_KINDS)}")

    def __reduce__(self) -> tuple[Any, ...]:
        # It must reach whoever asks why, also a process that lacks the user's classes.
        from actors.pickling import portable

        return _unpickled, (self.kind, portable(self.detail))

    @property
    def is_clean(self) -> bool:
        """True for `normal` and `shutdown`."""
        return self.kind in ("normal", "shutdown")

    def __str__(self) -> str:
        if self.detail is None:
            return self.kind
        if isinstance(self.detail, BaseException):
            return f"{self.kind} ({type(self.detail).__name__}: {self.detail})"
        return f"{self.kind} ({self.detail})"


def _unpickled(kind: ExitKind, detail: Any) -> Exit:
    from actors.pickling import unpacked

    return Exit(kind, unpacked(detail))


@dataclass(frozen=True, slots=True)
class Terminated:
    """What a watcher's `on_terminated` receives, once, when the watched actor has ended for good."""

    ref: Ref[Any]
    exit: Exit


class Ignore(Exception):
    """Raised in `__init__` or `on_start`: do not start me, and it is not an error."""

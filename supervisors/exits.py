"""
Exits: why a process ended, read from the evidence it left.

The strongest evidence speaks alone, in this order: the process's own farewell, its crash
file, Ray's typed cause (out of memory, node lost; it knows no other apart), an order of ours,
else SIGKILL or `os._exit`, which nothing tells apart. Pure functions of that evidence.
"""

from __future__ import annotations

import os
import re
import sysconfig
from dataclasses import dataclass, replace
from typing import Literal

from actors.exit import Exit

Cause = tuple[Literal["oom", "node_lost", "killed"], str]
"""Ray's word on an end (`_ray.cause_of_death`); `killed` stands for all that it cannot tell apart."""

UNEXPLAINED = Exit("killed", "SIGKILL or os._exit")
"""An end that has left nothing behind: the two look the same."""

_SIGNAL_BY_CRASH = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
}
_CRASH = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line', re.MULTILINE)
_LONGEST_STACK = 16_000

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = (f"{_ROOT}/actors/", f"{_ROOT}/supervisors/")
_STDLIB = sysconfig.get_path("stdlib") + "/"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a process ended, as far as is known."""

    exit: Exit
    counts: bool
    """False for lost nodes and for orders of an operator: restarted, never counted."""
    stack: str = ""
    """Where its threads were, when it left that behind."""
    is_final: bool = False
    """True when Ray's word, which comes later, could not change it."""


def judge(
    farewell: Exit | None = None,
    crash: str = "",
    cause: Cause | None = None,
    ordered: Exit | None = None,
    *,
    has_poison: bool = False,
    default: Exit = UNEXPLAINED,
) -> Verdict:
    """
    The verdict on what is there: farewell, text of the crash file, Ray's cause, the order we gave.

    Where nothing is, *default*. With *has_poison* it died with a message in a handler that had been in
    one at an earlier death: that is the message's fault and does not count.
    """
    verdict = _judged(farewell, crash, cause, ordered, default)
    if not has_poison or farewell is not None or not verdict.counts:
        return verdict
    exit = verdict.exit
    told = f"{exit.detail}, poison" if exit.detail else "poison"
    return replace(verdict, exit=Exit(exit.kind, told), counts=False)


def _judged(
    farewell: Exit | None, crash: str, cause: Cause | None, ordered: Exit | None, default: Exit
) -> Verdict:
    # A process that hung was ended by us, but it had failed by itself.
    counts = ordered is None or ordered.kind == "hung"
    if farewell is not None:
        return Verdict(farewell, counts, is_final=True)
    if crash:
        return Verdict(Exit("killed", crash_signal(crash)), counts, readable(crash), is_final=True)
    if cause is not None and cause[0] != "killed":
        kind, text = cause
        return Verdict(Exit(kind, text or None), counts and kind != "node_lost", is_final=True)
    return Verdict(ordered or default, counts, is_final=cause is not None)


def exit_from_plain(plain: tuple[str, str, str]) -> tuple[Exit, str]:
    """An exit as a host reported it, and its traceback."""
    kind, detail, traceback = plain
    return Exit(kind, detail or None), traceback  # type: ignore[arg-type]


def crash_signal(crash: str) -> str:
    """The signal that a crash file tells of, or its own words for it."""
    found = _CRASH.search(crash)
    if found is None:
        return "crashed"
    return _SIGNAL_BY_CRASH.get(found[1].strip(), found[1].strip())


def readable(stack: str) -> str:
    """What `faulthandler` wrote: of all threads the one that crashed and those in the user's code."""
    head, *threads = re.split(r"^(?=(?:Thread|Current thread) 0x)", stack, flags=re.MULTILINE)
    crashed = [thread for thread in threads if head.strip() and thread.startswith("Current")]
    shown = crashed + [thread for thread in threads if thread not in crashed and _is_users(thread)]
    parts = [part.strip() for part in [head, *(shown or threads)] if part.strip()]
    if shown and len(shown) < len(threads):
        parts.append(f"({len(threads) - len(shown)} more threads, none of them in code of yours)")
    text = "\n\n".join(parts)
    return text if len(text) <= _LONGEST_STACK else f"{text[:_LONGEST_STACK]}\n…"


def _is_users(thread: str) -> bool:
    """True when a frame of *thread* is neither ours, nor the standard library's, nor installed."""
    return any(
        not file.startswith((*_OURS, _STDLIB, "<")) and "site-packages" not in file
        for file in _FRAME.findall(thread)
    )

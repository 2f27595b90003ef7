"""
Tracebacks as users want them: their own frames, without the runtime's on the way there.
"""

from __future__ import annotations

import asyncio
import os
import traceback

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_CALLERS = tuple(_HERE + name for name in ("_runner.py", "_drive.py", "_threads.py", "_life.py"))
"""From here the user's code is called: what stands above is how the message got there."""
_ON_THE_WAY = (_HERE, os.path.dirname(asyncio.__file__) + os.sep)


def users_traceback(error: BaseException) -> str:
    """The traceback of *error* and its causes, each from the first frame that is not the runtime's."""
    found = traceback.TracebackException.from_exception(error)
    _trim(found)
    return "".join(found.format()).rstrip()


def _trim(found: traceback.TracebackException | None) -> None:
    if found is None:
        return
    frames = list(found.stack)
    called = [place for place, frame in enumerate(frames) if frame.filename.startswith(_CALLERS)]
    rest = frames[called[-1] + 1 :] if called else frames
    while rest and rest[0].filename.startswith(_ON_THE_WAY):
        rest = rest[1:]
    found.stack = traceback.StackSummary.from_list(rest or frames)
    _trim(found.__cause__)
    _trim(found.__context__)
    for each in getattr(found, "exceptions", None) or ():
        _trim(each)

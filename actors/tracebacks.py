"""
Tracebacks as users want them: their own frames first, the runtime's on the way there left out.
"""

from __future__ import annotations

import asyncio
import os
import traceback

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ON_THE_WAY = (f"{_ROOT}/actors/", f"{_ROOT}/supervisors/", os.path.dirname(asyncio.__file__) + os.sep)


def users_traceback(error: BaseException) -> str:
    """The traceback of *error* and its causes, each from the first frame that is not the runtime's."""
    found = traceback.TracebackException.from_exception(error)
    _trim(found)
    return "".join(found.format()).rstrip()


def _trim(found: traceback.TracebackException | None) -> None:
    if found is None:
        return
    frames = list(found.stack)
    first = next((i for i, frame in enumerate(frames) if not frame.filename.startswith(_ON_THE_WAY)), 0)
    found.stack = traceback.StackSummary.from_list(frames[first:])
    _trim(found.__cause__)
    _trim(found.__context__)
    for each in getattr(found, "exceptions", None) or ():
        _trim(each)

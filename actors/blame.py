"""
Blame: which actor an error speaks against.

Errors that say that somebody failed (its process died, its handler crashed, its mailbox was full,
it did not answer in time) carry its name; answers that happen to be errors carry none. Who routes
calls learns from it who fails, also when the error has travelled through others.
"""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_MARK = "_understudy_blames"


def blame(error: E, actor: str) -> E:
    """*error*, held against *actor* from now on."""
    try:
        object.__setattr__(error, _MARK, actor)
    except (AttributeError, TypeError):
        pass  # an exception class that allows no attributes: nobody is blamed
    return error


def blamed(error: BaseException) -> str:
    """The name of the actor whose failure *error* is; empty for an answer."""
    return getattr(error, _MARK, "")

"""
Foreign doors: calls, answers and errors as JSON, for whoever must not unpickle.

A foreign call has its arguments as JSON text, a list, and is answered in JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from actors import errors
from actors.errors import ActorError, InvalidArgument

MARK = "%"
"""What the method name of a foreign call begins with."""


def to_json(value: Any) -> str:
    """*value* as JSON text; what JSON cannot say becomes `{"repr": …}`, as small a part as possible."""
    try:
        return json.dumps(value, default=_odd, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        # A key that is no string, a circle, a NaN: no part of it can be replaced from inside.
        return json.dumps(_odd(value))


def _odd(value: Any) -> dict[str, str]:
    return {"repr": repr(value)}


def arguments(text: Any) -> tuple[Any, ...]:
    """The arguments in a foreign call's JSON: an array. `InvalidArgument` says what is wrong with it."""
    try:
        args = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"the arguments are not JSON: {error}") from None
    if not isinstance(args, list):
        raise InvalidArgument(f"the arguments must be a JSON array, not {text[:40]}")
    return tuple(args)


def plain_error(error: BaseException) -> dict[str, Any]:
    """An error as plain data."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status", "UNKNOWN"),
        "ours": isinstance(error, ActorError),
        "may_have_run": getattr(error, "may_have_run", None),
    }


class ForeignError(ActorError):
    """
    An error of the far side as a foreign door gets it: text, type and status, no pickle.

    `type_name` is the class as the far side knew it, `is_ours` tells the runtime's errors from the user's.
    """

    def __init__(self, plain: dict[str, Any]) -> None:
        super().__init__(plain["message"])
        self.type_name = plain["type"]
        self.status = plain["status"]
        self.is_ours = plain["ours"]
        self.may_have_run = plain["may_have_run"]


def error_of(plain: dict[str, Any]) -> ActorError:
    """The error behind plain data: one of ours as its own class, others as `ForeignError`."""
    cls = getattr(errors, plain["type"], None) if plain.get("ours") else None
    if not (isinstance(cls, type) and issubclass(cls, ActorError)):
        return ForeignError(plain)
    may_have_run = plain.get("may_have_run")
    attributes = {} if may_have_run is None else {"may_have_run": may_have_run}
    return errors.rebuilt(cls, (plain["message"],), attributes)

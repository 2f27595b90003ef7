"""
Significance: whether the end of a child is the end of its supervisor.

Only a child that ended by itself, and is not restarted, can be that; what the
supervisor stops never is.

    never              it never is (the default)
    any_significant    it is when that child was significant
    all_significant    it is when that child was the last significant one
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from supervisors import checks
from supervisors.child import Child
from supervisors.orders import Spec

AutoShutdown = Literal["never", "any_significant", "all_significant"]
AUTO_SHUTDOWNS: tuple[str, ...] = get_args(AutoShutdown)


def check_significance(spec: Spec, auto_shutdown: AutoShutdown) -> None:
    """`InvalidArgument` for a significant child whose end could never have that meaning."""
    if not spec.significant:
        return
    for field, value in (("restart", spec.restart), ("auto_shutdown", auto_shutdown)):
        if value in ("permanent", "never"):
            why = f"does not go with {field}={value!r}"
            raise checks.misfit(f"ChildSpec {spec.id!r}", "significant", True, why)


def is_the_end(child: Child, everyone: Iterable[Child], auto_shutdown: AutoShutdown) -> bool:
    """Whether the supervisor stops because *child* has ended by itself."""
    if auto_shutdown == "never" or not child.spec.significant:
        return False
    if auto_shutdown == "any_significant":
        return True
    return all(other.state == "stopped" for other in everyone if other.spec.significant)

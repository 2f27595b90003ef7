"""
The `warm` hook: what a service's own understudies do before they are needed.

A `classmethod` or `staticmethod` of the actor class that takes what `__init__` takes, or nothing.
What it makes it keeps on the class or in its module, where `__init__` looks for it:

    class Classifier(Actor):
        @classmethod
        def warm(cls, path: str) -> None:
            cls.model = load(path)

        def __init__(self, path: str) -> None:
            if not hasattr(type(self), "model"):
                self.warm(path)

It runs on a thread of its own, in a process that has no actor yet and none of the service's
devices: `CUDA_VISIBLE_DEVICES` is empty until the process takes over, so a model is loaded into
memory here, and onto the device in `__init__`. CUDA must not be initialised before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from supervisors import checks

HOOK = "warm"


def hook_of(cls: type[Any]) -> Callable[..., Any] | None:
    """The hook, ready to call; None for a class without one. A plain method `warm` is a message."""
    found = inspect.getattr_static(cls, HOOK, None)
    return getattr(cls, HOOK) if isinstance(found, (classmethod, staticmethod)) else None


def check(owner: str, cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """`InvalidArgument` for a `warm` that could not be called with the members' arguments."""
    name = f"{cls.__qualname__}.{HOOK}"
    hook = hook_of(cls)
    if hook is None:
        if callable(inspect.getattr_static(cls, HOOK, None)):
            raise checks.misfit(owner, HOOK, name, "is a message; make it a classmethod or a staticmethod")
        return
    if inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook):
        raise checks.misfit(owner, HOOK, name, "is async; it runs on a thread, so make it a plain `def`")
    if not takes_nothing(hook):
        try:
            inspect.signature(hook).bind(*args, **kwargs)
        except TypeError as error:
            why = f"takes neither nothing nor what `__init__` is given: {error}"
            raise checks.misfit(owner, HOOK, name, why) from None


def call(cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Run the hook of *cls* with the members' arguments, if it has one."""
    hook = hook_of(cls)
    if hook is None:
        return
    if takes_nothing(hook):
        hook()
    else:
        hook(*args, **kwargs)


def takes_nothing(hook: Callable[..., Any]) -> bool:
    """True for a hook without parameters."""
    return not inspect.signature(hook).parameters

"""An app that goes down as a whole when something in it gives up."""

from __future__ import annotations

import os

from bistro import Chef

from supervisors import App, Group, Service


class Stillborn(Chef):
    """Never starts."""

    def __init__(self) -> None:
        raise RuntimeError("no stove")


app = App(
    Service("bar", Chef),
    Group("shop", Service("stove", Chef, intensity=0), Service("sink", Chef), intensity=0),
    *([Service("stillborn", Stillborn, intensity=0)] if "FRAGILE_START" in os.environ else []),
    escalate=True,
)

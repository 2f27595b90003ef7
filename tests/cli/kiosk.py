"""The smallest app with a `main`: where only how it begins and ends is of interest."""

from __future__ import annotations

from bistro import Chef, main

from supervisors import App, Service

__all__ = ["app", "main"]

app = App(Service("kitchen", Chef, shutdown=30.0), understudies=0)

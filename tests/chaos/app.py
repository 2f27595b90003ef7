"""The app that chaos is done to: members that share processes, members in slots, a pair that falls as one."""

from __future__ import annotations

from supervisors import App, Backoff, Resources, Service
from supervisors.testing import Scribe

SOON = Backoff(initial=0.05, factor=2, maximum=0.4, jitter=0.1)
SIZES = {"desk": (2, 6), "cell": (1, 3)}
MEMBERS = {"desk": 6, "cell": 3, "pair": 2}


def chaos_app(directory: str, name: str = "chaos") -> App:
    def service(title: str, **options: object) -> Service[Scribe]:
        return Service(
            title,
            Scribe,
            args=(directory,),
            backoff=SOON,
            shutdown=1.0,
            start_timeout=5.0,
            **options,  # type: ignore[arg-type]
        )

    return App(
        service("desk", size=4, per_host=2),
        service("cell", size=2, resources=Resources(cpu=0.1)),
        service("pair", size=2, per_host=1, strategy="one_for_all"),
        name=name,
    )

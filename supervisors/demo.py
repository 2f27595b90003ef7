"""
The demo: an app that the tour of `understudy demo` starts, breaks and scales.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from actors.actor import Actor
from actors.errors import Unavailable
from actors.reply import Reply
from supervisors.app import App
from supervisors.cluster import Cluster
from supervisors.service import Service


class Greeter(Actor):
    """Greets, and counts whom it has greeted in this life."""

    def __init__(self) -> None:
        self.greeted = 0

    async def greet(self, name: str) -> str:
        """A greeting that says who gave it."""
        self.greeted += 1
        life = self.context.incarnation
        return f"hello {name}, from {self.context.name} (life {life}, greeting {self.greeted})"


app = App(Service("greeter", Greeter, size=2, per_host=1), name="demo")

Say = Callable[[str], None]


async def tour(cluster: Cluster, say: Say) -> None:
    """Call, kill, see it come back, scale."""
    greeter = cluster.service("greeter", Greeter)
    say("1. call a service: each call goes to its least busy member")
    for name in ("Ada", "Grace"):
        say(f"   {await greeter.ask(Greeter.greet, name)}")
    say("2. kill the process of greeter/0 with SIGKILL")
    killed = await cluster.kill("greeter/0")
    say(f"   pid {killed['pid']} is dead")
    say(f"   meanwhile {await _answer(lambda: greeter.ask(Greeter.greet, 'Alan'))}")
    member = await _came_back(cluster, "greeter/0", killed["pid"])
    say(
        f"   greeter/0 is back: pid {member['pid']}, life {member['incarnation']},"
        f" last exit {member['last_exit']}"
    )
    say(f"   {await _answer(lambda: greeter.member(0).ask(Greeter.greet, 'Barbara'))}")
    say("3. scale it to 4 members while it serves, then back to 1")
    for size in (4, 1):
        report = await cluster.scale("greeter", size)
        answers = await asyncio.gather(*(greeter.ask(Greeter.greet, f"guest {n}") for n in range(8)))
        said_by = {answer.split("from ")[1].split(" ")[0] for answer in answers}
        say(f"   {report['size']} members; 8 calls answered by {', '.join(sorted(said_by))}")


async def _answer(ask: Callable[[], Reply[str]]) -> str:
    """A call that reaches who was just killed fails, and a greeting may be asked for twice."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(0.01)


async def _came_back(cluster: Cluster, name: str, old_pid: int) -> dict[str, Any]:
    while True:
        members = {member["name"]: member for member in (await cluster.ps())["members"]}
        if members[name]["state"] == "running" and members[name]["pid"] != old_pid:
            return dict(members[name])
        await asyncio.sleep(0.01)

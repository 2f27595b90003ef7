"""
Watching: `on_terminated`, once, when the watched actor has ended for good.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import Actor, ActorSystem, Exit, Ref, Terminated
from actors.testing import memory_system, wait_until
from supervisors import ChildSpec, Supervisor

Seen = list[Terminated]


class Target(Actor):
    """Ends in whatever way it is told."""

    async def leave(self, kind: str, detail: Any = None) -> None:
        self.context.stop(kind, detail)

    async def crash(self, error: BaseException) -> None:
        raise error

    async def incarnation(self) -> int:
        return self.context.incarnation


class Watcher(Actor):
    """Writes down what it is told."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.heard: list[str] = []
        self.gate = asyncio.Event()

    async def watch(self, ref: Ref[Any]) -> None:
        self.context.watch(ref)

    async def unwatch(self, ref: Ref[Any]) -> None:
        self.context.unwatch(ref)

    async def unwatch_later(self, ref: Ref[Any], gate: asyncio.Event) -> None:
        await gate.wait()
        self.context.unwatch(ref)

    def watch_from_thread(self, ref: Ref[Any]) -> None:
        self.context.watch(ref)

    async def hold(self, gate: asyncio.Event) -> None:
        await gate.wait()

    async def hear(self, word: str) -> list[str]:
        self.heard.append(word)
        return self.heard

    async def crash(self) -> None:
        raise ValueError("boom")

    async def on_terminated(self, terminated: Terminated) -> None:
        self.heard.append("terminated")
        self.seen.append(terminated)


class BornWatching(Watcher):
    """Watches from its first moment on."""

    def __init__(self, seen: Seen, ref: Ref[Any]) -> None:
        super().__init__(seen)
        self.context.watch(ref)


async def test_c48_every_watcher_is_told_once_and_the_late_one_at_once(system: ActorSystem) -> None:
    target = system.spawn(Target)
    lists: list[Seen] = [[], [], [], []]
    watchers = [system.spawn(Watcher, seen) for seen in lists]
    for watcher in watchers[:3]:
        await watcher.watch(target)

    await target.stop()
    await watchers[3].watch(target)
    await wait_until(lambda: all(lists))
    for watcher in watchers:
        await watcher.hear("on")

    assert [[one.exit for one in seen] for seen in lists] == [[Exit("shutdown")]] * 3 + [[Exit("not_found")]]


async def test_what_is_told_names_the_incarnation_that_ended(system: ActorSystem) -> None:
    seen: Seen = []
    target, watcher = system.spawn(Target), system.spawn(Watcher, seen)
    await watcher.watch(target)
    pinned = target.pinned()
    await target.stop()
    await wait_until(lambda: seen)
    assert seen[0].ref == pinned


@pytest.mark.parametrize(
    ("kind", "detail"), [("normal", None), ("normal", "tired"), ("shutdown", None), ("error", "bad")]
)
async def test_the_exit_says_why(system: ActorSystem, kind: str, detail: Any) -> None:
    seen: Seen = []
    target, watcher = system.spawn(Target), system.spawn(Watcher, seen)
    await watcher.watch(target)
    await target.leave(kind, detail)
    await wait_until(lambda: seen)
    assert (seen[0].exit.kind, seen[0].exit.detail) == (kind, detail)


async def test_a_crash_a_kill_and_a_failed_start_are_told_too(system: ActorSystem) -> None:
    class Stillborn(Actor):
        async def on_start(self) -> None:
            await gate.wait()
            raise error

    seen: Seen = []
    gate, error = asyncio.Event(), ValueError("boom")
    watcher = system.spawn(Watcher, seen)
    targets = [system.spawn(cls) for cls in (Target, Target, Stillborn)]
    crashing, killed, _ = targets
    pinned = [target.pinned() for target in targets]
    for target in targets:
        await watcher.watch(target)

    crashing.tell("crash", error)
    await crashing.wait_stopped()
    await killed.kill()
    gate.set()
    await wait_until(lambda: len(seen) == 3)

    assert [one.ref for one in seen] == pinned
    assert [one.exit for one in seen] == [Exit("error", error), Exit("killed"), Exit("start_failed", error)]


async def test_watching_what_never_was_is_told_at_once() -> None:
    seen: Seen = []
    async with memory_system(sinks=()) as system:
        await system.spawn(Watcher, seen).watch(system.ref(f"{system.address}#nobody"))
        await wait_until(lambda: seen)
    assert seen[0].exit == Exit("not_found")


async def test_watching_twice_is_watching_once(system: ActorSystem) -> None:
    seen: Seen = []
    target, watcher = system.spawn(Target), system.spawn(Watcher, seen)
    for _ in range(3):
        await watcher.watch(target)
    await watcher.watch_from_thread(target)
    await target.stop()
    await wait_until(lambda: seen)
    await watcher.hear("on")
    assert len(seen) == 1


async def test_one_actor_may_watch_many(system: ActorSystem) -> None:
    seen: Seen = []
    watcher = system.spawn(Watcher, seen)
    targets = [system.spawn(Target) for _ in range(50)]
    await asyncio.gather(*(watcher.watch(target) for target in targets))
    await asyncio.gather(*(target.stop() for target in targets))
    await wait_until(lambda: len(seen) == 50)
    assert len({one.ref for one in seen}) == 50


async def test_unwatch_undoes_a_watch(system: ActorSystem) -> None:
    seen: Seen = []
    target, watcher = system.spawn(Target), system.spawn(Watcher, seen)
    await watcher.watch(target)
    await watcher.unwatch(target)
    await watcher.unwatch(target)
    await target.stop()
    await watcher.hear("on")
    assert seen == []


async def test_unwatch_takes_back_a_notice_that_waits(system: ActorSystem) -> None:
    seen: Seen = []
    target, watcher, gate = system.spawn(Target), system.spawn(Watcher, seen), asyncio.Event()
    await watcher.watch(target)
    busy = watcher.unwatch_later(target, gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    await target.stop()
    assert system.statistics().in_mailbox == 1
    gate.set()
    await busy
    await watcher.hear("on")
    assert seen == []


async def test_a_notice_overtakes_messages_that_wait(system: ActorSystem) -> None:
    """Also where the mailbox is full."""
    seen: Seen = []
    watcher = system.options(mailbox=2).spawn(Watcher, seen)
    target, gate = system.spawn(Target), asyncio.Event()
    await watcher.watch(target)
    busy = watcher.hold(gate)
    await wait_until(lambda: system.statistics().in_progress == 1)
    queued = [watcher.hear("one"), watcher.hear("two")]
    await target.stop()
    gate.set()
    await busy
    await asyncio.gather(*queued)
    assert await watcher.hear("three") == ["terminated", "one", "two", "three"]


async def test_a_watch_in_init_counts(system: ActorSystem) -> None:
    seen: Seen = []
    target = system.spawn(Target)
    await system.spawn(BornWatching, seen, target).wait_started()
    await target.stop()
    await wait_until(lambda: seen)


async def test_on_terminated_that_is_not_overridden_is_ignored(system: ActorSystem) -> None:
    class Indifferent(Actor):
        async def watch(self, ref: Ref[Any]) -> str:
            self.context.watch(ref)
            return "watching"

    target, indifferent = system.spawn(Target), system.spawn(Indifferent)
    await indifferent.watch(target)
    await target.stop()
    assert await indifferent.watch(target) == "watching"


async def test_an_error_in_on_terminated_is_a_crash(system: ActorSystem) -> None:
    class Fragile(Watcher):
        async def on_terminated(self, terminated: Terminated) -> None:
            raise KeyError("lost")

    target, fragile = system.spawn(Target), system.spawn(Fragile, [])
    await fragile.watch(target)
    await target.stop()
    exit = await fragile.wait_stopped()
    assert (exit.kind, type(exit.detail)) == ("error", KeyError)


async def test_on_terminated_may_be_a_def(system: ActorSystem) -> None:
    class Plain(Watcher):
        def on_terminated(self, terminated: Terminated) -> None:  # type: ignore[override]
            self.seen.append(terminated)

    seen: Seen = []
    target, plain = system.spawn(Target), system.spawn(Plain, seen)
    await plain.watch(target)
    await target.stop()
    await wait_until(lambda: seen)
    assert await plain.hear("on") == ["on"]


async def test_actors_may_watch_each_other(system: ActorSystem) -> None:
    seen_by_one: Seen = []
    one, two = system.spawn(Watcher, seen_by_one), system.spawn(Watcher, [])
    await one.watch(two)
    await two.watch(one)
    await two.stop()
    await wait_until(lambda: seen_by_one)
    await one.stop()


async def test_a_watcher_that_is_gone_is_told_nothing(system: ActorSystem) -> None:
    seen: Seen = []
    target, watcher = system.spawn(Target), system.spawn(Watcher, seen)
    await watcher.watch(target)
    await watcher.stop()
    await target.stop()
    assert seen == []
    assert system.statistics().dead_lettered == 0


async def test_a_watch_ends_with_the_life_that_began_it(system: ActorSystem) -> None:
    """A restarted watcher watches again, or not at all."""
    seen: Seen = []
    target, other = system.spawn(Target), system.spawn(Target)
    pinned = other.pinned()
    specs = [
        ChildSpec("forgetful", Watcher, args=(seen,)),
        ChildSpec("faithful", BornWatching, args=(seen, other)),
    ]
    supervisor = system.options(name="sup").spawn(Supervisor, specs)
    await supervisor.wait_started()
    forgetful, faithful = system.find("sup/forgetful"), system.find("sup/faithful")
    await forgetful.watch(target)
    for watcher in (forgetful, faithful):
        with pytest.raises(ValueError, match="boom"):
            await watcher.crash()
        await watcher.hear("again")

    await target.stop()
    await other.stop()
    await wait_until(lambda: seen)
    await forgetful.hear("on")
    await faithful.hear("on")

    assert [one.ref for one in seen] == [pinned]


async def test_a_restart_is_not_the_end(system: ActorSystem) -> None:
    seen: Seen = []
    watcher = system.spawn(Watcher, seen)
    supervisor = system.options(name="sup").spawn(Supervisor, [ChildSpec("target", Target)], "one_for_one", 1)
    await supervisor.wait_started()
    target = system.find("sup/target")
    await watcher.watch(target)

    with pytest.raises(ValueError, match="one"):
        await target.crash(ValueError("one"))
    assert await target.incarnation() == 2
    await watcher.hear("on")
    assert seen == []

    second = target.pinned()
    with pytest.raises(ValueError, match="two"):
        await target.crash(ValueError("two"))
    await wait_until(lambda: seen)
    await watcher.hear("on")
    assert [(one.ref, one.exit.kind) for one in seen] == [(second, "error")]

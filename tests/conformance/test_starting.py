"""
C01-C10, C32: how a supervisor and its children start.
"""

from __future__ import annotations

from typing import Any

import pytest
from cast import Boom, Child, Notes, Spec, Whim, infos, up

from actors.errors import (
    ActorStopped,
    AlreadyStarted,
    InvalidArgument,
    NotFound,
    StartFailed,
)
from actors.events import Event
from actors.exit import Exit, Ignore
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.spec import ChildCounts
from supervisors.supervisor import Supervisor


async def test_c01_a_supervisor_starts_and_stops(system: ActorSystem) -> None:
    sup = await up(system)

    await sup.stop()

    assert await sup.wait_stopped() == Exit("shutdown")
    with pytest.raises(ActorStopped):
        await sup.count_children()
    with pytest.raises(ActorStopped):
        await sup.stop()


async def test_c02_one_that_ignores_is_not_an_error(system: ActorSystem, events: list[Event]) -> None:
    class Reluctant(Supervisor):
        async def on_start(self) -> None:
            raise Ignore

    sup = system.options(name="top").spawn(Reluctant)

    assert await sup.wait_started() is False
    with pytest.raises(NotFound):
        system.find("top")
    assert [event.kind for event in events] == []


async def test_c03_a_child_that_ignores_keeps_its_spec(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system)

    assert await sup.start_child(spec("a", Whim, "ignore")) is None
    running = await sup.start_child(spec("b"))

    assert await running.life() == 1
    assert [(info.id, info.state) for info in await sup.which_children()] == [
        ("a", "stopped"),
        ("b", "running"),
    ]
    assert await sup.count_children() == ChildCounts(2, 1, 0, 2)


async def test_c04_what_init_raises_is_what_the_starter_gets(system: ActorSystem) -> None:
    class Broken(Supervisor):
        def __init__(self) -> None:
            raise Boom("no stage")

    sup = system.options(name="top").spawn(Broken)

    with pytest.raises(StartFailed) as failure:
        await sup.wait_started()
    assert isinstance(failure.value.__cause__, Boom)
    with pytest.raises(NotFound):
        system.find("top")


async def test_c05_a_child_that_fails_to_start_is_not_kept(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system)

    with pytest.raises(StartFailed, match="'a' did not start") as failure:
        await sup.start_child(spec("a", Whim, "fail"))

    assert isinstance(failure.value.__cause__, Boom)
    assert await sup.which_children() == []


async def test_c06_a_restart_by_hand_that_fails_keeps_the_spec(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a", Whim, "ok", "fail"))
    await sup.terminate_child("a")

    with pytest.raises(StartFailed) as failure:
        await sup.restart_child("a")

    assert isinstance(failure.value.__cause__, Boom)
    assert (await infos(sup))["a"].state == "stopped"
    assert await sup.count_children() == ChildCounts(1, 0, 0, 1)


async def test_c07_a_first_start_that_fails_fails_the_supervisor(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "fail"), spec("c")])

    with pytest.raises(StartFailed) as failure:
        await sup.wait_started()

    reason = failure.value.__cause__
    assert isinstance(reason, StartFailed)
    assert "'b'" in str(reason)
    assert isinstance(reason.__cause__, Boom)
    assert notes == [("init", "a"), ("start", "a"), ("init", "b"), ("stop shutdown", "a")]
    with pytest.raises(NotFound):
        system.find("top/a")


async def test_c08_specs_are_read_back_as_they_were_given(system: ActorSystem, spec: Spec) -> None:
    given = spec("a", shutdown="brutal_kill", restart="transient")
    sup = await up(system, given)

    assert await sup.get_childspec("a") == given
    with pytest.raises(NotFound, match="no child 'z'"):
        await sup.get_childspec("z")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (([], "none_for_one"), "strategy='none_for_one' is not one of one_for_one, .*did you mean"),
        (([], "one_for_one", float("inf")), "intensity=inf"),
        (([], "one_for_one", -1), "intensity=-1"),
        (([], "one_for_one", None), "intensity=None"),
        (([], "one_for_one", {"eror": 1}), "names 'eror', which is no kind of exit; did you mean 'error'"),
        (([], "one_for_one", 1, 0), "period=0"),
        ((["a"],), "children='a' is not a ChildSpec"),
    ],
)
async def test_c09_wrong_flags_are_refused_before_anything_starts(
    system: ActorSystem, flags: tuple[Any, ...], complaint: str
) -> None:
    sup = system.spawn(Supervisor, *flags)

    with pytest.raises(StartFailed) as failure:
        await sup.wait_started()
    with pytest.raises(InvalidArgument, match=complaint):
        raise failure.value.__cause__  # type: ignore[misc]


async def test_c09_two_children_of_one_id_are_refused_before_anything_starts(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = system.spawn(Supervisor, [spec("a"), spec("b"), spec("a")])

    with pytest.raises(StartFailed) as failure:
        await sup.wait_started()
    with pytest.raises(InvalidArgument, match="the id 'a' stands twice"):
        raise failure.value.__cause__  # type: ignore[misc]
    assert notes == []


async def test_a_wrong_argument_of_a_message_is_an_answer(system: ActorSystem) -> None:
    """A caller's mistake must not cost anybody else the supervisor."""
    sup = await up(system)

    with pytest.raises(InvalidArgument, match="is not a ChildSpec"):
        await sup.start_child("a")

    assert await sup.count_children() == ChildCounts(0, 0, 0, 0)
    assert await sup.is_alive()


async def test_c10_children_start_in_order_and_stop_in_reverse(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    ids = ["ch7", "ch3", "ch10", "ch2", "ch5"]
    sup = await up(system, *map(spec, ids))

    assert notes == [(what, id) for id in ids for what in ("init", "start")]
    notes.clear()
    await sup.stop()

    assert notes == [("stop shutdown", id) for id in reversed(ids)]


async def test_a_start_that_takes_too_long_has_failed(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    sup = await up(system)
    started = sup.start_child(spec("a", Whim, "hang", start_timeout=7))
    await wait_until(lambda: ("hang", "a") in notes)

    await clock.elapse(6.9)
    assert not started.done
    await clock.elapse(0.2)

    with pytest.raises(StartFailed, match="within 7 s"):
        await started
    assert await sup.which_children() == []


async def test_questions_are_answered_while_a_child_starts(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = system.options(name="top").spawn(Supervisor, [spec("a"), spec("b", Whim, "hang")])
    await wait_until(lambda: ("hang", "b") in notes)

    assert [(info.id, info.state) for info in await sup.which_children()] == [
        ("a", "running"),
        ("b", "pending"),
    ]
    assert await sup.count_children() == ChildCounts(2, 1, 0, 2)
    assert (await sup.get_childspec("b")).id == "b"
    assert not sup.wait_started().done


async def test_c32_a_name_that_somebody_else_has_fails_the_start(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    stranger = system.options(name="top/a").spawn(Child, notes)
    sup = await up(system)

    with pytest.raises(StartFailed) as failure:
        await sup.start_child(spec("a"))

    taken = failure.value.__cause__
    assert isinstance(taken, AlreadyStarted)
    assert taken.ref == stranger
    assert await stranger.life() == 1
    assert await sup.which_children() == []

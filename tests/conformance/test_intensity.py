"""
C23-C25, C27, C28: how often is too often.
"""

from __future__ import annotations

from cast import GAVE_UP, Child, Notes, Spec, Whim, child, crash, end_life, infos, inits, lives, up

from actors.exit import Exit
from actors.system import ActorSystem
from actors.testing import ManualClock, wait_until
from supervisors.dynamic import DynamicSupervisor
from supervisors.supervisor import Supervisor


async def test_c23_one_restart_too_many_ends_them_all(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, *map(spec, "abc"), intensity=2)
    for id in "ab":
        await crash(await child(sup, id))
    assert await lives(system, "a", "b", "c") == [2, 2, 1]
    notes.clear()

    await crash(await child(sup, "c"))

    assert await sup.wait_stopped() == GAVE_UP
    assert notes == [("stop shutdown", "b"), ("stop shutdown", "a")]
    assert system.statistics().actors == 0


async def test_c24_what_is_older_than_the_period_does_not_count(
    system: ActorSystem, spec: Spec, clock: ManualClock
) -> None:
    sup = system.options(name="top").spawn(Supervisor, [spec("a")], "one_for_one", 1, 1.0)
    await sup.wait_started()

    for life in range(1, 5):
        assert await lives(system, "a") == [life]
        await crash(await child(sup, "a"))
        await clock.elapse(2.1)

    assert await lives(system, "a") == [5]
    await crash(await child(sup, "a"))
    await lives(system, "a")
    await crash(await child(sup, "a"))
    assert await sup.wait_stopped() == GAVE_UP


async def test_c25_intensity_0_restarts_nothing(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a"), intensity=0)

    await crash(await child(sup, "a"))

    assert await sup.wait_stopped() == GAVE_UP
    assert inits(notes, "a") == 1


async def test_c27_a_stop_is_served_between_failing_restarts(
    system: ActorSystem, spec: Spec, notes: Notes, clock: ManualClock
) -> None:
    sup = await up(system, spec("a", Whim, "ok", "hang", start_timeout=2), intensity=8)
    await crash(await child(sup, "a"))
    await wait_until(lambda: notes.count(("hang", "a")) == 1)
    await clock.elapse(2)
    await wait_until(lambda: notes.count(("hang", "a")) == 2)

    await sup.stop()

    assert await sup.wait_stopped() == Exit("shutdown")
    assert inits(notes, "a") == 3


async def test_c28_a_restart_that_fails_is_tried_again(system: ActorSystem, spec: Spec, notes: Notes) -> None:
    sup = await up(system, spec("a", Whim, "ok", "fail", "ok"), intensity=3)

    await crash(await child(sup, "a"))

    assert await lives(system, "a") == [3]
    assert inits(notes, "a") == 3
    assert (await infos(sup))["a"].restarts == 2


async def test_restarts_that_keep_failing_use_the_budget_up(
    system: ActorSystem, spec: Spec, notes: Notes
) -> None:
    sup = await up(system, spec("a", Whim, "ok", "fail"), intensity=3)

    await crash(await child(sup, "a"))

    assert await sup.wait_stopped() == GAVE_UP
    assert inits(notes, "a") == 4


async def test_a_permanent_child_that_ends_normally_counts_too(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"), intensity=1)
    ref = await child(sup, "a")
    await ref.end("normal")
    assert await ref.life() == 2

    await ref.end("normal")

    assert await sup.wait_stopped() == GAVE_UP


async def test_an_entry_counts_until_it_is_older_than_the_period(
    system: ActorSystem, spec: Spec, clock: ManualClock
) -> None:
    """The bound is inclusive: exactly one period ago still counts."""
    sup = system.options(name="top").spawn(Supervisor, [spec("a")], "one_for_one", 1, 5.0)
    await sup.wait_started()

    for gap in (5.001, 5.001, 5.0):
        await crash(await child(sup, "a"))
        await lives(system, "a")
        await clock.elapse(gap)
    await crash(await child(sup, "a"))

    assert await sup.wait_stopped() == GAVE_UP


async def test_a_group_restart_is_one_entry(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, *map(spec, "abcdefghij"), strategy="one_for_all", intensity=1)

    await crash(await child(sup, "j"))

    # The last one first: it answers when all have been restarted.
    assert await lives(system, *"jihgfedcba") == [2] * 10


async def test_restarts_by_hand_do_not_count(system: ActorSystem, spec: Spec) -> None:
    sup = await up(system, spec("a"), intensity=0)

    for _ in range(3):
        await sup.terminate_child("a")
        await sup.restart_child("a")

    assert await lives(system, "a") == [1]


class TestCauses:
    """An intensity for each kind of exit."""

    async def test_each_cause_has_a_budget_of_its_own(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system, spec("a"), intensity={"error": 2, "killed": 1})
        ref = await child(sup, "a")

        for life, how in enumerate(("crash", "kill", "crash"), 2):
            await end_life(ref, how)
            assert await ref.life() == life
        await ref.kill()

        assert await sup.wait_stopped() == GAVE_UP

    async def test_causes_it_does_not_name_have_three_each(self, system: ActorSystem, spec: Spec) -> None:
        sup = await up(system, spec("a"), intensity={"oom": 0})
        ref = await child(sup, "a")

        for life in range(2, 5):
            await ref.kill()
            assert await ref.life() == life
        await crash(ref)
        assert await ref.life() == 5
        await ref.kill()

        assert await sup.wait_stopped() == GAVE_UP

    async def test_a_restart_that_fails_counts_as_what_led_to_it(
        self, system: ActorSystem, spec: Spec, notes: Notes
    ) -> None:
        sup = await up(
            system, spec("a", Whim, "ok", "fail"), intensity={"error": 2, "start_failed": 100, "killed": 100}
        )

        await crash(await child(sup, "a"))

        assert await sup.wait_stopped() == GAVE_UP
        assert inits(notes, "a") == 3

    async def test_a_dynamic_supervisor_counts_so_too(self, system: ActorSystem, notes: Notes) -> None:
        sup = system.spawn(DynamicSupervisor, Child, intensity={"error": 0}, period=3600.0)
        ref = await sup.start_child(notes)

        await ref.kill()
        assert await ref.life() == 2
        await crash(ref)

        assert await sup.wait_stopped() == GAVE_UP

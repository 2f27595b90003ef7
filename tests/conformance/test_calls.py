"""
C36, C41, C44: supervised actors as their callers see them; other calls are in `tests/actors`.
"""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from cast import Boom, Spec, child, up

from actors.errors import AlreadyStarted, Unavailable
from actors.system import ActorSystem


async def test_c36_the_name_of_a_child_is_taken_while_it_is_supervised(
    system: ActorSystem, spec: Spec
) -> None:
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")
    given = spec("a")

    with pytest.raises(AlreadyStarted) as taken:
        system.options(name="top/a").spawn(given.actor_class, *given.args)
    assert taken.value.ref == ref
    await sup.terminate_child("a")

    stranger = system.options(name="top/a").spawn(given.actor_class, *given.args)
    assert await stranger.life() == 1


async def test_c41_who_asked_a_handler_that_raised_has_its_error_and_its_traceback(
    system: ActorSystem, spec: Spec
) -> None:
    sup = await up(system, spec("a"))

    with pytest.raises(Boom, match="on request") as error:
        await (await child(sup, "a")).options(timeout=30).crash()

    assert "raise Boom" in "".join(traceback.format_exception(error.value))


async def test_c41_who_asked_a_handler_that_was_killed_learns_that_it_may_have_run(
    system: ActorSystem, spec: Spec
) -> None:
    class Suicidal(spec("x").actor_class):  # type: ignore[misc]
        async def die(self) -> None:
            await self.context.ref.kill()

    sup = await up(system, spec("a", Suicidal))

    with pytest.raises(Unavailable) as error:
        await (await child(sup, "a")).options(timeout=30).die()

    assert error.value.may_have_run


async def test_c44_a_restart_is_a_fresh_state_at_the_same_address(
    system: ActorSystem, spec: Spec, notes: Any
) -> None:
    """The hook part does not apply: `on_stop` runs on clean stops only."""
    sup = await up(system, spec("a"))
    ref = await child(sup, "a")
    assert [await ref.add(), await ref.add()] == [1, 2]

    with pytest.raises(Boom):
        await ref.crash()

    assert await ref.add() == 1
    assert await child(sup, "a") == ref
    assert not [what for what, _ in notes if what.startswith("stop")]

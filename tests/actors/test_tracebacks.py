"""Tracebacks begin with the user's own frames; storms of log lines are cut short."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from actors.actor import Actor
from actors.events import ActorExited, DeadLettered, log_sink
from actors.exit import Exit
from actors.system import ActorSystem
from actors.tracebacks import users_traceback


class Cook(Actor):
    async def burn(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("burnt")

    def scorch(self) -> None:
        try:
            {}["salt"]
        except KeyError as missing:
            raise ValueError("scorched") from missing


def files(text: str) -> list[str]:
    return re.findall(r'File "[^"]*/([^/"]+)"', text)


@pytest.mark.parametrize("method", ["burn", "scorch"])
async def test_the_first_frame_is_the_users(method: str) -> None:
    exits: list[Any] = []
    async with ActorSystem(sinks=(exits.append,)) as system:
        cook = system.spawn(Cook)
        with pytest.raises(ValueError):
            await cook.ask(method)
        await cook.wait_stopped()
    [error] = [
        event.exit.detail for event in exits if isinstance(event, ActorExited) and event.exit.kind == "error"
    ]

    text = users_traceback(error)

    assert set(files(text)) == {"test_tracebacks.py"}
    assert text.count("Traceback (most recent call last)") == (1 if method == "burn" else 2)
    assert text.splitlines()[-1].startswith("ValueError: ")


def test_an_error_of_the_runtimes_own_keeps_its_frames() -> None:
    try:
        Exit("nonsense")  # type: ignore[arg-type]
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        text = users_traceback(error)

    assert files(text) == ["exit.py"]


def test_an_error_that_was_never_raised_has_no_frames() -> None:
    assert users_traceback(ValueError("x")) == "ValueError: x"


def test_a_storm_of_equal_lines_is_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(1000):
        log_sink(DeadLettered("storm/0", None, "cook", "stopped"))
        log_sink(ActorExited("storm/0", 1, Exit("error", ValueError("burnt")), 0))
    log_sink(DeadLettered("storm/1", None, "cook", "stopped"))

    lines = [line for line in capsys.readouterr().err.splitlines() if "storm/" in line]
    assert 11 <= len(lines) <= 15
    assert sum("storm/1" in line for line in lines) == 1


def test_clean_ends_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_sink(ActorExited("calm", 1, Exit("normal"), 0))

    assert capsys.readouterr().err == ""

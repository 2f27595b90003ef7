"""What a process leaves behind of the calls it was handling, and what one that lives does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actors.remains import NOTHING, Held, InHand, Remains, Tag, remains_of

ROOT = Path(__file__).resolve().parents[2]

FATAL = """
import os, sys
from actors.remains import InHand, Tag
hand = InHand(sys.argv[1], sys.argv[2])
first, second, third = (hand.hold(Tag(7, n, None, 1, deaths)) for n, deaths in ((1, 0), (2, 1), (3, 1)))
hand.let_go(third)
for held in eval(sys.argv[3]):
    hand.let_go({1: first, 2: second}[held])
open(sys.argv[2], "w").write("Fatal Python error: Segmentation fault")
os._exit(9)
"""


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/0123456789abcdef.ipc"


def die(address: str, tmp_path: Path, let_go: str = "[]") -> Remains:
    """What is left of a process that dies with calls 1 and 2 in its handlers, but for those *let_go*."""
    command = [sys.executable, "-c", FATAL, address, str(tmp_path / "crash"), let_go]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    remains = remains_of(address)
    assert remains is not None
    return remains


def test_what_was_in_a_handler_is_left_behind(address: str, tmp_path: Path) -> None:
    remains = die(address, tmp_path)

    assert remains.deaths_by_call == {(7, 1): 0, (7, 2): 1}
    assert remains.has_poison
    assert "Segmentation fault" in remains.crash()


def test_a_first_death_is_not_the_messages_fault_yet(address: str, tmp_path: Path) -> None:
    assert not die(address, tmp_path, "[2]").has_poison


def test_nothing_is_said_of_a_process_that_lives(address: str) -> None:
    hand = InHand(address)
    hand.hold(Tag(7, 1))

    assert remains_of(address) is None


def test_who_ends_in_order_leaves_nothing(address: str, tmp_path: Path) -> None:
    hand = InHand(address)
    hand.hold(Tag(7, 1))

    hand.close()

    assert remains_of(address) == NOTHING
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_such_calls_makes_no_file(address: str, tmp_path: Path) -> None:
    InHand(address).close()

    assert list(tmp_path.iterdir()) == []
    assert remains_of(address) == NOTHING
    assert remains_of("mem://0123456789abcdef") == NOTHING


def test_a_file_of_somebody_else_says_nothing(address: str, tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef.hand").write_bytes(b"x" * 40_000)

    assert remains_of(address) == NOTHING


def test_there_is_room_for_a_thousand_and_no_harm_beyond(address: str) -> None:
    hand = InHand(address)

    held = [Held(hand, Tag(7, number), None) for number in range(1030)]
    for each in held:
        each.cancel()

    assert len({hand.hold(Tag(7, number)) for number in range(1024)}) == 1024
    assert hand.hold(Tag(7, 9)) == 0
    hand.close()

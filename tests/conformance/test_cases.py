"""
The list itself: every case is a test somewhere in this tree, or stands here with the reason why not.
"""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

ELSEWHERE = {
    55: "senders keep nothing on disk: the window dies with its sender",
}


def cases_below(folder: Path) -> set[int]:
    """The cases that tests below *folder* are named by."""
    source = "".join(path.read_text() for path in folder.rglob("test_*.py"))
    names = " ".join(re.findall(r"def test_((?:c\d\d_)+)", source))
    return {int(number) for number in re.findall(r"c(\d\d)", names)}


def test_every_case_has_a_test_or_a_reason() -> None:
    assert set(range(1, 57)) - cases_below(TESTS) - ELSEWHERE.keys() == set()


def test_a_reason_is_gone_once_there_is_a_test() -> None:
    assert cases_below(TESTS) & ELSEWHERE.keys() == set()


ON_HOSTS = {14, 15, 16, 17, 18, 19, 20, 23, 25, 27, 28, 29, 31, 40, 41, 44, 46, 47, 48, 51, 52}
"""Cases in which processes matter."""


def test_cases_of_processes_are_tested_on_hosts_too() -> None:
    assert ON_HOSTS - cases_below(TESTS / "ray") == set()

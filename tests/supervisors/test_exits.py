"""Why a process ended: which evidence speaks, and what of it is shown."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from actors.exit import Exit
from supervisors.exits import Verdict, crash_signal, judge, readable

FAREWELL = Exit("shutdown", "SIGTERM")
ORDER = Exit("killed", "order")
HUNG = Exit("hung", "stopped")
CRASH = """Fatal Python error: Segmentation fault

Current thread 0x00007f7be9ffb6c0 (most recent call first):
  File "/app/kitchen.py", line 4 in cook

Thread 0x00007f7be9ffb6c1 (most recent call first):
  <no Python frame>
"""


def test_the_strongest_evidence_speaks() -> None:
    """Farewell before crash file before Ray's typed cause before an order of ours."""
    evidence = [
        ("farewell", FAREWELL, "shutdown (SIGTERM)"),
        ("crash", CRASH, "killed (SIGSEGV)"),
        ("cause", ("oom", "out of memory"), "oom (out of memory)"),
        ("ordered", ORDER, "killed (order)"),
    ]
    for (name, strong, told), *weaker in (evidence[place:] for place in range(len(evidence))):
        for count in range(len(weaker) + 1):
            for others in itertools.combinations(weaker, count):
                given = {name: strong, **{each[0]: each[1] for each in others}}
                assert str(judge(**given).exit) == told  # type: ignore[arg-type]


def test_without_evidence_it_was_a_kill_or_os_exit() -> None:
    assert judge() == Verdict(Exit("killed", "SIGKILL or os._exit"), counts=True)


def test_rays_killed_says_no_more_than_nothing() -> None:
    assert judge(cause=("killed", "connection error code 2")).exit == judge().exit
    assert judge(cause=("killed", "End of file"), ordered=ORDER).exit == ORDER


@pytest.mark.parametrize(
    ("evidence", "counts"),
    [
        ({}, True),
        ({"crash": CRASH}, True),
        ({"farewell": FAREWELL}, True),
        ({"cause": ("oom", "")}, True),
        ({"ordered": HUNG}, True),
        ({"cause": ("node_lost", "")}, False),
        ({"ordered": ORDER}, False),
        ({"ordered": ORDER, "farewell": FAREWELL}, False),
        ({"ordered": HUNG, "cause": ("node_lost", "")}, False),
    ],
)
def test_lost_nodes_and_orders_never_count(evidence: dict[str, object], counts: bool) -> None:
    assert judge(**evidence).counts is counts  # type: ignore[arg-type]


def test_a_verdict_is_final_once_ray_could_not_change_it() -> None:
    assert judge(FAREWELL).is_final
    assert judge(crash=CRASH).is_final
    assert not judge(ordered=ORDER).is_final
    assert judge(ordered=ORDER, cause=("killed", "")).is_final


@pytest.mark.parametrize(
    ("words", "signal"),
    [
        ("Segmentation fault", "SIGSEGV"),
        ("Aborted", "SIGABRT"),
        ("Bus error", "SIGBUS"),
        ("Illegal instruction", "SIGILL"),
        ("Floating point exception", "SIGFPE"),
        ("Floating-point exception", "SIGFPE"),
        ("Cannot recover from stack overflow.", "Cannot recover from stack overflow."),
    ],
)
def test_a_crash_is_named_by_its_signal(words: str, signal: str) -> None:
    assert crash_signal(f"Fatal Python error: {words}\n\nCurrent thread …") == signal


def test_half_a_crash_file_is_a_crash_all_the_same() -> None:
    assert judge(crash="Fatal Pyt").exit == Exit("killed", "crashed")


def test_the_stack_of_a_crash_is_kept_without_the_threads_that_idle() -> None:
    stack = judge(crash=CRASH).stack

    assert stack.splitlines()[0] == "Fatal Python error: Segmentation fault"
    assert "/app/kitchen.py" in stack
    assert "no Python frame" not in stack
    assert stack.endswith("(1 more threads, none of them in code of yours)")


def test_the_users_threads_stand_first() -> None:
    """SIGUSR1 lands on whatever thread: the one it interrupts is not the one that hangs."""
    stack = (
        'Current thread 0x1 (most recent call first):\n  File "/x/site-packages/ray/w.py", line 9 in main\n\n'
        'Thread 0x2 (most recent call first):\n  File "/app/kitchen.py", line 3 in _stir\n'
    )

    assert readable(stack).splitlines()[:2] == [
        "Thread 0x2 (most recent call first):",
        '  File "/app/kitchen.py", line 3 in _stir',
    ]


def test_a_stack_without_users_code_is_shown_whole() -> None:
    stack = 'Thread 0x1 (most recent call first):\n  File "/x/site-packages/ray/worker.py", line 9 in main'

    assert readable(stack) == stack
    assert readable("") == ""


def test_a_stack_is_not_endlessly_long() -> None:
    deep = "Thread 0x1 (most recent call first):\n" + '  File "/app/kitchen.py", line 3 in stir\n' * 10_000

    assert len(readable(deep)) < 20_000


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        ({}, "killed (SIGKILL or os._exit, poison)"),
        ({"crash": CRASH}, "killed (SIGSEGV, poison)"),
        ({"ordered": HUNG}, "hung (stopped, poison)"),
        ({"cause": ("oom", "")}, "oom (poison)"),
    ],
)
def test_an_end_by_poison_says_so_and_never_counts(evidence: dict[str, Any], told: str) -> None:
    verdict = judge(**evidence, has_poison=True)

    assert str(verdict.exit) == told
    assert not verdict.counts


@pytest.mark.parametrize(
    "evidence", [{"farewell": FAREWELL}, {"ordered": ORDER}, {"cause": ("node_lost", "")}]
)
def test_poison_is_not_blamed_for_other_ends(evidence: dict[str, Any]) -> None:
    assert judge(**evidence, has_poison=True) == judge(**evidence)

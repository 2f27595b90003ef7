"""What `ps`, `tree` and events look like, and what counts as healthy."""

from __future__ import annotations

from typing import Any

import pytest

from supervisors import status


def service(state: str = "running", **changes: Any) -> dict[str, Any]:
    return {
        "name": "kitchen",
        "state": state,
        "size": 2,
        "ready": 1,
        "restarts": 3,
        "reason": "",
        "strategy": "one_for_one",
        **changes,
    }


def member(state: str = "running", **changes: Any) -> dict[str, Any]:
    row = {
        "name": "kitchen/0",
        "service": "kitchen",
        "state": state,
        "incarnation": 4,
        "pid": 12,
        "node": "abcdef0123456789",
    }
    return {**row, "restarts": 3, "last_exit": None, "reason": "", **changes}


def ps(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "app": "restaurant",
        "stage": {"pid": 1, "epoch": 1},
        "services": [service(**changes)],
        "members": list(members),
    }


@pytest.mark.parametrize(
    ("found", "healthy"),
    [
        (ps(member()), True),
        (ps(member("restarting")), True),
        (ps(member(), state="starting"), True),
        (ps(member(), state="degraded"), False),
        (ps(state="failed"), False),
        (ps(member("pending")), False),
    ],
)
def test_degraded_failed_and_pending_are_unhealthy(found: dict[str, Any], healthy: bool) -> None:
    assert status.is_healthy(found) is healthy


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert status.table([("a", None), ("long", 2)], ("X", "YY")) == "X     YY\na     -\nlong  2"


def test_a_table_without_rows_is_its_head() -> None:
    assert status.table([], ("NAME", "STATE")) == "NAME  STATE"


def test_ps_shows_services_members_and_understudies() -> None:
    waiting = member(
        "pending",
        pid=None,
        node=None,
        reason="needs 1 GPU; nodes have 0 free of 0",
        last_exit="killed (order)",
    )
    text = status.ps_text({**ps(waiting), "understudies": [{"name": "host-3", "pid": 9}]})

    assert text.splitlines()[0] == "app restaurant, stage pid 1"
    assert "kitchen  running  1/2" in text
    assert (
        "kitchen/0  pending  4     -    -     3         killed (order)  needs 1 GPU; nodes have 0 free of 0"
        in text
    )
    assert text.endswith("understudies ready: host-3 (pid 9)")


def test_ps_shows_for_whom_understudies_stand_ready_and_who_does_not_yet() -> None:
    understudies = [
        {"name": "host-3", "pid": 9, "service": None, "state": "ready"},
        {"name": "host-4", "pid": 10, "service": "vision", "state": "warming"},
        {"name": "host-5", "pid": 11, "service": "vision", "state": "ready"},
    ]

    assert status.ps_text({**ps(), "understudies": understudies}).endswith(
        "understudies ready: host-3 (pid 9), host-5 (pid 11, for vision);"
        " warming: host-4 (pid 10, for vision)"
    )
    assert status.ps_text({**ps(), "understudies": understudies[1:2]}).endswith(
        "understudies ready: none; warming: host-4 (pid 10, for vision)"
    )


def test_a_tree_shows_strategy_state_life_and_last_exit() -> None:
    one = {**member(last_exit="error (Boom: x)"), "kind": "worker"}
    two = {**member(name="kitchen/1", restarts=0), "kind": "worker"}
    tree = {
        "name": "restaurant",
        "kind": "supervisor",
        "strategy": "one_for_one",
        "children": [{**service(), "kind": "supervisor", "children": [one, two]}],
    }

    assert status.tree_text(tree).splitlines() == [
        "restaurant  [one_for_one]",
        "└── kitchen  [one_for_one]  running  1/2  3 restarts",
        "    ├── kitchen/0  running  life 4  pid 12  3 restarts  last exit: error (Boom: x)",
        "    └── kitchen/1  running  life 4  pid 12",
    ]


def test_an_event_is_one_line() -> None:
    event = {
        "number": 1,
        "time": 0.0,
        "event": "member.started",
        "member": "kitchen/0",
        "incarnation": 2,
        "pid": 12,
    }

    assert status.event_text(event).endswith("  kitchen/0 started (life 2, pid 12)")


def test_a_stack_stands_below_its_event() -> None:
    event = {
        "number": 1,
        "time": 0.0,
        "event": "member.hung",
        "child": "kitchen/0",
        "reason": "hung (stopped)",
    }

    assert status.event_text(event).endswith("  kitchen/0 hung: hung (stopped)")
    text = status.event_text({**event, "traceback": "Thread 0x1", "left_out": 7})
    assert text.splitlines()[0].endswith("  (and 7 more like it)")
    assert text.splitlines()[1] == "Thread 0x1"


def test_an_event_without_a_sentence_shows_its_fields() -> None:
    event = {"number": 1, "time": 0.0, "event": "curtain.fell", "act": 3, "traceback": "Traceback: …"}

    assert status.event_text(event).splitlines()[0].endswith("  curtain.fell  act=3")
    assert status.event_text(event).splitlines()[1] == "Traceback: …"


def test_an_event_that_lacks_a_field_is_still_a_line() -> None:
    assert status.event_text({"time": 0.0, "event": "host.died", "host": "host-1"}).endswith(
        "host host-1 of ? (pid ?) died: ?"
    )

"""Which host a member goes to, and the words for what cannot be placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from supervisors import placement

GiB = 1024.0**3


@dataclass(frozen=True)
class Node:
    node_id: str = "n1"
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 4.0, "memory": 8 * GiB})
    available: Mapping[str, float] = field(default_factory=lambda: {"CPU": 4.0, "memory": 8 * GiB})
    labels: Mapping[str, str] = field(default_factory=dict)
    alive: bool = True


def fill(per_host: int | None, most_hosts: int, count: int) -> dict[str, int]:
    """Members by slot after *count* of them have been placed."""
    slots: dict[str, int] = {}
    for _ in range(count):
        chosen = placement.choose_slot(slots, per_host, most_hosts) or f"slot-{len(slots)}"
        slots[chosen] = slots.get(chosen, 0) + 1
    return slots


def test_one_per_host_gives_everyone_a_slot_of_its_own() -> None:
    assert fill(1, most_hosts=2, count=5) == {f"slot-{n}": 1 for n in range(5)}


def test_a_slot_with_room_is_shared_first() -> None:
    assert fill(3, most_hosts=1, count=7) == {"slot-0": 3, "slot-1": 3, "slot-2": 1}


def test_members_that_ask_for_nothing_spread_over_as_many_hosts_as_there_are_cpus() -> None:
    assert fill(None, most_hosts=2, count=7) == {"slot-0": 4, "slot-1": 3}
    assert fill(None, most_hosts=0, count=2) == {"slot-0": 2}


def test_the_node_with_the_fewest_hosts_for_its_cpus_is_chosen() -> None:
    small, big, dead = Node("small", {"CPU": 1.0}), Node("big", {"CPU": 8.0}), Node("dead", alive=False)

    assert placement.choose_node([small, big, dead], {}, {"small": 1, "big": 2}) == "big"
    assert placement.choose_node([small, big, dead], {}, {"small": 1, "big": 9}) == "small"


def test_labels_narrow_the_choice() -> None:
    nodes = [Node("a", labels={"disk": "hdd"}), Node("b", labels={"disk": "ssd", "zone": "x"})]

    assert placement.choose_node(nodes, {"disk": "ssd"}, {"b": 100}) == "b"
    assert placement.choose_node(nodes, {"disk": "tape"}, {}) is None


def test_cpus_are_those_of_the_living_and_at_least_one() -> None:
    assert placement.cpus([Node(), Node(), Node(alive=False)]) == 8
    assert placement.cpus([Node(resources={})]) == 1
    assert placement.cpus([]) == 1


@pytest.mark.parametrize(
    ("bundle", "labels", "nodes", "sentence"),
    [
        ({"GPU": 1.0}, {}, [Node()], "needs 1 GPU; nodes have 0 free of 0"),
        ({"CPU": 0.5}, {}, [Node(available={"CPU": 0.25})], "needs 0.5 CPU; nodes have 0.25 free of 4"),
        ({"memory": 16 * GiB}, {}, [Node()], "needs 16 GiB memory; nodes have 8 GiB free of 8 GiB"),
        ({"press": 2.0}, {}, [Node()], "needs 2 press; nodes have 0 free of 0"),
        (
            {"CPU": 8.0, "GPU": 1.0},
            {},
            [Node()],
            "needs 8 CPU; nodes have 4 free of 4; needs 1 GPU; nodes have 0 free of 0",
        ),
        (
            {},
            {"zone": "x", "disk": "ssd"},
            [Node()],
            "needs a node with labels disk=ssd, zone=x; no node has them",
        ),
        ({"CPU": 1.0}, {}, [Node(alive=False)], "needs 1 CPU; nodes have 0 free of 0"),
        (
            {"CPU": 2.0, "press": 1.0},
            {},
            [Node("a", available={"CPU": 4.0}), Node("b", available={"press": 1.0})],
            "needs 2 CPU, 1 press on one node; no node has it all free",
        ),
    ],
)
def test_why_something_waits_is_said_in_words(
    bundle: Mapping[str, float], labels: Mapping[str, str], nodes: list[Node], sentence: str
) -> None:
    assert placement.why_pending(bundle, labels, nodes) == sentence


@pytest.mark.parametrize(
    ("bundle", "labels", "nodes", "seconds"),
    [
        ({"GPU": 1.0}, {}, [Node()], 0.0),
        ({"CPU": 1.0}, {"zone": "x"}, [Node()], 0.0),
        ({"CPU": 1.0}, {}, [Node(alive=False)], 0.0),
        ({"CPU": 1.0, "press": 1.0}, {}, [Node("a"), Node("b", resources={"press": 1.0})], 0.0),
        ({"CPU": 0.5}, {}, [Node(available={"CPU": 0.25})], 1.0),
        ({"CPU": 1.0}, {}, [Node()], 10.0),
        ({"CPU": 1.0}, {}, [Node(available={}), Node("b")], 10.0),
    ],
)
def test_ray_is_given_time_for_what_has_room_and_a_moment_for_what_may_get_it(
    bundle: Mapping[str, float], labels: Mapping[str, str], nodes: list[Node], seconds: float
) -> None:
    assert placement.patience(bundle, labels, nodes) == seconds

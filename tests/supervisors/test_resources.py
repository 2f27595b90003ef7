"""What a member asks for, in words that Ray can place."""

import json
import math
import pickle
from typing import Any

import pytest

from actors.errors import InvalidArgument
from supervisors.resources import Resources


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        (100, 100),
        ("100", 100),
        ("512KiB", 512 * 1024),
        ("256MiB", 256 * 1024**2),
        ("2GiB", 2 * 1024**3),
        ("1.5GB", 1_500_000_000),
        ("1 TB", 10**12),
        ("0.1GB", 100_000_000),
    ],
)
def test_memory_is_bytes_or_an_amount_with_its_unit(memory: int | str, size: int) -> None:
    assert Resources(memory=memory).memory_bytes == size


def test_no_memory_is_none() -> None:
    assert Resources().memory_bytes is None


@pytest.mark.parametrize(
    "fields",
    [
        {"cpu": -1},
        {"cpu": True},
        {"cpu": math.nan},
        {"cpu": 0.00001},
        {"gpu": 1.5},
        {"gpu": math.inf},
        {"gpu": "1"},
        {"memory": 0},
        {"memory": -5},
        {"memory": 1.5},
        {"memory": "lots"},
        {"memory": "0.1"},
        {"memory": "2GIB"},
        {"labels": {"zone": 1}},
        {"labels": ["zone"]},
        {"custom": {"": 1}},
        {"custom": [("a", 1)]},
    ],
)
def test_wrong_values_are_refused_by_name_and_value(fields: dict[str, Any]) -> None:
    [(field, value)] = fields.items()

    with pytest.raises(InvalidArgument) as refusal:
        Resources(**fields)

    assert f"Resources {field}={value!r}" in str(refusal.value)


@pytest.mark.parametrize(("name", "amount"), [("oven", -1), ("GPU", 1), ("oven", 0.00001)])
def test_a_wrong_custom_resource_is_named(name: str, amount: float) -> None:
    with pytest.raises(InvalidArgument, match=rf"custom\['{name}'\]={amount!r}"):
        Resources(custom={name: amount})


def test_a_misspelt_unit_gets_a_suggestion() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'GiB'"):
        Resources(memory="2Gib")


@pytest.mark.parametrize("gpu", [0, 0.25, 1, 2, 4.0])
def test_gpus_are_fractions_of_one_or_whole_ones(gpu: float) -> None:
    assert Resources(gpu=gpu).gpu == gpu


def test_a_bundle_names_only_what_is_asked_for() -> None:
    asked = Resources(cpu=2, gpu=0.5, memory="1KiB", custom={"oven": 1, "sink": 0}, labels={"zone": "a"})

    assert asked.bundle() == {"CPU": 2.0, "GPU": 0.5, "memory": 1024.0, "oven": 1.0}
    assert Resources().bundle() == {}


def test_only_a_wish_of_any_kind_needs_a_place() -> None:
    assert Resources().is_empty
    assert Resources(custom={"oven": 0}).is_empty
    assert not Resources(cpu=0.1).is_empty
    assert not Resources(labels={"zone": "a"}).is_empty


def test_a_host_asks_for_the_sum_of_its_members() -> None:
    one = Resources(cpu=0.1, gpu=0.25, memory="1KiB", labels={"zone": "a"}, custom={"oven": 2})

    four = one.times(4)

    assert four.bundle() == {"CPU": 0.4, "GPU": 1.0, "memory": 4096.0, "oven": 8.0}
    assert four.labels == {"zone": "a"}
    assert one.times(3).cpu == 0.3
    assert one.times(0).bundle() == {}


def test_a_sum_that_ray_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"gpu=1\.5"):
        Resources(gpu=0.5).times(3)


def test_resources_travel_as_pickle_and_as_json() -> None:
    asked = Resources(cpu=2, gpu=1, memory="1KiB", labels={"zone": "a"}, custom={"oven": 1})

    assert pickle.loads(pickle.dumps(asked)) == asked
    assert Resources.from_dict(json.loads(json.dumps(asked.to_dict()))).bundle() == asked.bundle()
    assert Resources.from_dict({}) == Resources()


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="gpus=1 is unknown; did you mean 'gpu'"):
        Resources.from_dict({"gpus": 1})

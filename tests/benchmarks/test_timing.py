"""The stopwatches' arithmetic: percentiles, callers, arrays that are read at both ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.benchmarks.timing import ask_p99_us, callers_us, p99

numpy = pytest.importorskip("numpy")


def test_the_99th_percentile_leaves_one_of_a_hundred_out() -> None:
    assert p99([float(n) for n in range(101)]) == 99.0
    assert p99([1.0] * 99 + [1000.0]) < 1000.0


async def test_the_percentile_of_calls_is_in_microseconds() -> None:
    async def call() -> None:
        await asyncio.sleep(0.001)

    assert await ask_p99_us(call, 20) >= 1000


async def test_callers_wait_for_their_own_answers_only() -> None:
    """No caller has two calls on their way, and all callers have one each."""
    on_their_way = most = calls = 0

    async def call() -> None:
        nonlocal on_their_way, most, calls
        calls += 1
        on_their_way += 1
        most = max(most, on_their_way)
        await asyncio.sleep(0)
        on_their_way -= 1

    await callers_us(call, 40, 4)

    assert (calls, most) == (40, 4)


async def test_an_array_that_nobody_read_is_no_sample() -> None:
    """A receiver must answer with what only who read the whole array can know."""
    from tests.benchmarks.arrays import glance
    from tests.benchmarks.timing import taken_rate

    async def read(array: object) -> float:
        return glance(array)  # type: ignore[arg-type]

    async def unread(array: object) -> float:
        return 0.0

    assert await taken_rate(read, 2, 80_000) > 0
    with pytest.raises(AssertionError):
        await taken_rate(unread, 2, 80_000)


async def test_an_array_that_comes_back_changed_is_no_sample() -> None:
    from tests.benchmarks.timing import echoed_rate

    async def echo(array: object) -> object:
        return array

    async def cut(array: object) -> object:
        return array[:100]  # type: ignore[index]

    assert await echoed_rate(echo, 2, 80_000) > 0  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        await echoed_rate(cut, 2, 80_000)  # type: ignore[arg-type]


def test_a_glance_reads_a_number_of_every_page() -> None:
    from tests.benchmarks.arrays import filled, glance

    array = filled(40_960)
    assert array.nbytes == 40_960
    for page in range(10):
        changed = array.copy()
        changed[page * 512] += 1
        assert glance(changed) == glance(array) + 1

"""Stopwatches that several peers share."""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.benchmarks.arrays import Array, filled, glance
from tests.benchmarks.worker import ROOT, TEXTS, WINDOW

_END_LIMIT = 60.0


async def ask_us(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Microseconds of one call, awaited one after the other."""
    began_at = time.perf_counter()
    for _ in range(count):
        await call()
    return (time.perf_counter() - began_at) / count * 1e6


async def ask_p99_us(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Microseconds that 99 of 100 calls stay below, awaited one after the other."""
    took = []
    for _ in range(count):
        began_at = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began_at)
    return p99(took) * 1e6


def p99(samples: Sequence[float]) -> float:
    """The 99th percentile, between neighbours where it falls between them."""
    return statistics.quantiles(samples, n=100, method="inclusive")[-1]


async def callers_us(call: Callable[[], Awaitable[Any]], count: int, callers: int) -> float:
    """Microseconds of time per call; each of *callers* waits for its answer before it calls again."""
    each = max(1, count // callers)

    async def caller() -> None:
        for _ in range(each):
            await call()

    began_at = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - began_at) / (each * callers) * 1e6


async def taken_rate(take: Callable[[Array], Awaitable[float]], count: int, size: int) -> float:
    """MB a second of arrays that go one way; *take* is the receiver's glance at one."""
    array = filled(size)
    expected = glance(array)
    began_at = time.perf_counter()
    for _ in range(count):
        assert await take(array) == expected
    return count * size / 1e6 / (time.perf_counter() - began_at)


async def echoed_rate(echo: Callable[[Array], Awaitable[Array]], count: int, size: int) -> float:
    """MB a second of arrays that go there and come back, both ways counted."""
    array = filled(size)
    expected = glance(array)
    began_at = time.perf_counter()
    for _ in range(count):
        assert glance(await echo(array)) == expected
    return 2 * count * size / 1e6 / (time.perf_counter() - began_at)


async def gathered_rate(call: Callable[[str], Awaitable[Any]], count: int) -> float:
    """Calls a second, a window of them in flight at once, each with a text of its own."""
    windows = max(1, count // WINDOW)
    began_at = time.perf_counter()
    for _ in range(windows):
        await asyncio.gather(*map(call, TEXTS))
    return windows * WINDOW / (time.perf_counter() - began_at)


async def seconds_until(line: str, *arguments: str) -> float:
    """From the start of a Python process to *line* on its stdout; the process is interrupted and awaited."""
    began_at = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        seen = []
        async for raw in process.stdout:
            seen.append(raw.decode().strip())
            if seen[-1] == line:
                return time.perf_counter() - began_at
        raise RuntimeError(f"{' '.join(arguments[:3])} ended without {line!r}: {seen[-3:]}")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(asyncio.gather(process.wait(), process.stdout.read()), _END_LIMIT)

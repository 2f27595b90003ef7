"""Stopwatches that several peers share."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.benchmarks.worker import ROOT, WINDOW

_END_LIMIT = 60.0


async def ask_us(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Microseconds of one call, awaited one after the other."""
    began_at = time.perf_counter()
    for _ in range(count):
        await call()
    return (time.perf_counter() - began_at) / count * 1e6


async def gathered_rate(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Calls a second, a window of them in flight at once."""
    windows = max(1, count // WINDOW)
    began_at = time.perf_counter()
    for _ in range(windows):
        await asyncio.gather(*[call() for _ in range(WINDOW)])
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

"""
Workers: a peer in a process of its own, and the harness's end of it.

An order is a JSON line on stdin, `{"action": …, "arguments": […]}`; the answer a line with
`sample` or `error`. The end of stdin ends the peer and all it started, also in the
middle of an order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = "x" * 50
WINDOW = 1000
TEXTS = [f"{number:050}" for number in range(WINDOW)]
"""What goes in one window: no two alike, for a pickle writes what it has seen before only once."""

_CLOSE_LIMITS = (30.0, 10.0)
"""Seconds for an end in order, then for one after SIGTERM."""


class Peer(Protocol):
    """An object whose methods are the actions: `async def action(count, …) -> float`."""

    async def close(self) -> None: ...


def serve(peer: Peer) -> None:
    """The peer's process: take orders until stdin ends."""
    # Whatever a library prints goes to stderr; the answers have stdout for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        import uvloop as loops
    except ImportError:
        loops = asyncio
    loops.run(_serve(peer, answers))


async def _serve(peer: Peer, answers: IO[str]) -> None:
    orders: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    threading.Thread(target=_read_orders, args=(loop, orders, task), name="orders", daemon=True).start()
    try:
        while True:
            order = await orders.get()
            try:
                answer = {"sample": await getattr(peer, order["action"])(*order["arguments"])}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
    except asyncio.CancelledError:
        pass  # stdin has ended
    finally:
        await peer.close()


def _read_orders(loop: Any, orders: asyncio.Queue[dict[str, Any]], task: Any) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
    loop.call_soon_threadsafe(task.cancel)


class WorkerError(Exception):
    """A peer that gave no sample, and why."""


class Worker:
    """The harness's end of a peer's process."""

    def __init__(self, peer: str, log: Path, environment: Mapping[str, str]) -> None:
        self.peer = peer
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.benchmarks.peer_{peer}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                cwd=ROOT,
                env={**os.environ, **environment},
                # Ctrl-C is the harness's, which ends its peers in order.
                start_new_session=True,
            )

    def sample(self, action: str, arguments: Sequence[int], limit: float) -> float:
        """One sample. `WorkerError` when the peer fails, ends, or takes longer than *limit* seconds."""
        stdin, stdout = self._pipes
        with contextlib.suppress(BrokenPipeError):  # the empty line below says so
            stdin.write(json.dumps({"action": action, "arguments": list(arguments)}).encode() + b"\n")
        if not select.select([stdout], [], [], limit)[0]:
            self.close(in_order=False)
            raise WorkerError(f"no answer within {limit:g} s")
        line = stdout.readline()
        if not line:
            raise WorkerError(f"the peer's process ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return float(answer["sample"])

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self, *, in_order: bool = True) -> None:
        """End the peer and whatever of its processes is left."""
        stdin, stdout = self._pipes
        family = self._family()
        stdin.close()
        for limit, step in zip(_CLOSE_LIMITS, (lambda: None, self._process.terminate), strict=True):
            step()
            try:
                self._process.wait(limit if in_order else min(limit, 5.0))
                break
            except subprocess.TimeoutExpired:
                family |= self._family()
        stdout.close()
        _, left = psutil.wait_procs(family, timeout=5.0)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _family(self) -> set[psutil.Process]:
        try:
            me = psutil.Process(self._process.pid)
            return {me, *me.children(recursive=True)}
        except psutil.NoSuchProcess:
            return set()

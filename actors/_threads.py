"""
Leased threads: where `def` handlers run.

A cell leases a thread while its actor has work. A thread that waits in
`Reply.result()` lends its place to another, so handlers that wait for each other
never use up the pool; idle threads end by themselves.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any

from actors._loop import LoopInbox

MAX_THREADS = 256
IDLE_TIME = 10.0
"""Seconds after which an unused thread ends."""

_here = threading.local()


class Worker:
    """One thread, with one holder at a time."""

    __slots__ = ("_inbox", "_jobs", "_on_idle", "_pool", "abandoned")

    def __init__(self, pool: ThreadPool, inbox: LoopInbox) -> None:
        self._pool = pool
        self._inbox = inbox
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self.abandoned = False
        threading.Thread(target=self._work, name="understudy-handler", daemon=True).start()

    def run(
        self, context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Call *function* on this thread; loop thread only, one job at a time."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, context, function, args, kwargs))
        return future

    def end(self) -> None:
        """Let the thread end after its current job."""
        self._jobs.put(None)

    def _work(self) -> None:
        _here.worker = self
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_TIME)
            except Empty:
                if self._pool._retire(self):
                    return
                continue
            if job is None:
                return
            future, context, function, args, kwargs = job
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as error:
                self._inbox.post(_settle, future, None, error)
                error = None  # type: ignore[assignment]
            else:
                self._inbox.post(_settle, future, result, None)
                result = None
            job = future = context = function = args = kwargs = None
            if self.abandoned:
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses StopIteration; inside a coroutine it would turn into RuntimeError as well.
        future.set_exception(RuntimeError("handler raised StopIteration"))
    else:
        future.set_exception(error)


class ThreadPool:
    """At most `MAX_THREADS` threads that are not waiting for a reply."""

    def __init__(self, inbox: LoopInbox, limit: int = MAX_THREADS) -> None:
        self._inbox = inbox
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._queue: deque[asyncio.Future[Worker]] = deque()
        self._busy = 0
        self._threads = 0

    @property
    def threads(self) -> int:
        """Threads alive now, idle ones included."""
        return self._threads

    async def lease(self) -> Worker:
        """A thread of one's own until `release`; waits while all are busy."""
        with self._lock:
            worker = self._take()
        if worker is not None:
            return worker
        future: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._queue.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, worker: Worker) -> None:
        """Give a leased thread back; loop thread only."""
        with self._lock:
            self._busy -= 1
            self._idle.append(worker)
        self._serve_queue()

    def abandon(self, worker: Worker) -> None:
        """Stop counting a thread whose handler does not return; it ends when the handler does."""
        worker.abandoned = True
        worker.end()
        with self._lock:
            self._busy -= 1
            self._threads -= 1
        self._serve_queue()

    def close(self) -> None:
        """End the idle threads."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._threads -= len(idle)
        for worker in idle:
            worker.end()

    def _take(self) -> Worker | None:
        if self._idle:
            self._busy += 1
            return self._idle.pop()
        if self._busy >= self._limit:
            return None
        self._busy += 1
        self._threads += 1
        return Worker(self, self._inbox)

    def _serve_queue(self) -> None:
        while self._queue:
            with self._lock:
                worker = self._take()
            if worker is None:
                return
            future = self._queue.popleft()
            if future.cancelled():
                self.release(worker)
            else:
                future.set_result(worker)

    def _retire(self, worker: Worker) -> bool:
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._threads -= 1
            return True

    def _waiting(self, change: int) -> None:
        with self._lock:
            self._busy -= change
        if change > 0 and self._queue:
            self._inbox.post(self._serve_queue)


class waiting:
    """`with waiting():` around a blocking wait, so that it does not use up the pool."""

    __slots__ = ("_worker",)

    def __enter__(self) -> None:
        self._worker: Worker | None = getattr(_here, "worker", None)
        if self._worker is not None and not self._worker.abandoned:
            self._worker._pool._waiting(1)

    def __exit__(self, *exc: object) -> None:
        if self._worker is not None and not self._worker.abandoned:
            self._worker._pool._waiting(-1)

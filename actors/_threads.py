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
IDLE_TIME = 9.0
"""Seconds after which an unused thread ends: after ten it is gone."""

_here = threading.local()


class Worker:
    """One thread, with one holder at a time."""

    __slots__ = ("_inbox", "_jobs", "abandoned", "pool", "waits")

    def __init__(self, pool: ThreadPool, inbox: LoopInbox) -> None:
        self.pool = pool
        self._inbox = inbox
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self.abandoned = False
        """True once its job is nobody's concern any more; it ends with the job."""
        self.waits = False
        """True while its job waits for a reply, so that its place is lent. Under the pool's lock."""
        threading.Thread(target=self._work, name="understudy-handler", daemon=True).start()

    def run(
        self, context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Call *function* on this thread; loop thread only."""
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
                if self.pool.retire(self):
                    return
                continue
            if job is None:
                return
            future, context, function, args, kwargs = job
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as error:
                self._inbox.post(_settle, future, None, error)
            else:
                self._inbox.post(_settle, future, result, None)
            # Nothing of a message stays alive in an idle thread.
            job = future = context = function = args = kwargs = result = None
            if self.abandoned:
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses it, as a coroutine would.
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
        """Who waits for a thread, oldest first."""
        self._busy = 0
        self._threads = 0

    @property
    def threads(self) -> int:
        """Threads alive now, idle ones included, abandoned ones not."""
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
        with self._lock:
            worker.abandoned = True
            if not worker.waits:
                self._busy -= 1
            self._threads -= 1
        worker.end()
        self._serve_queue()

    def close(self) -> None:
        """End the idle threads."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._threads -= len(idle)
        for worker in idle:
            worker.end()

    def retire(self, worker: Worker) -> bool:
        """True when *worker* is idle and may end; its own thread asks."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._threads -= 1
            return True

    def wait(self, worker: Worker, waits: bool) -> None:
        """*worker*'s job begins or ends to wait for a reply; its own thread says so."""
        with self._lock:
            if worker.abandoned:
                return
            worker.waits = waits
            self._busy += -1 if waits else 1
            asked_for = waits and bool(self._queue)
        if asked_for:
            self._inbox.post(self._serve_queue)

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
        while True:
            with self._lock:
                while self._queue and self._queue[0].cancelled():
                    self._queue.popleft()
                worker = self._take() if self._queue else None
                if worker is None:
                    return
                future = self._queue.popleft()
            future.set_result(worker)


class waiting:
    """`with waiting():` around a blocking wait, so that it does not use up the pool."""

    __slots__ = ("_worker",)

    def __enter__(self) -> None:
        self._worker: Worker | None = getattr(_here, "worker", None)
        if self._worker is not None:
            self._worker.pool.wait(self._worker, True)

    def __exit__(self, *exc: object) -> None:
        if self._worker is not None:
            self._worker.pool.wait(self._worker, False)

"""The harness: runs rows, every round each contestant once, and owns the peers' processes."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.rows import OURS, Contestant, Row
from tests.benchmarks.worker import ROOT, Worker, WorkerError

_PACKAGES = ("ray", "pynng", "xoscar", "pykka", "numpy", "uvloop", "cloudpickle")


class Harness:
    """A context manager: leaving it ends every peer and removes what they wrote."""

    def __init__(self, rounds: int, *, is_quick: bool) -> None:
        self._rounds = rounds
        self._is_quick = is_quick
        self._workers: dict[str, Worker] = {}
        self._scratch = Path(tempfile.mkdtemp(prefix="us-bench-"))
        # Our sockets and Ray's have little room for their paths.
        self._environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
            "UNDERSTUDY_RUN_ROOT": str(self._scratch / "run"),
            "RAY_TMPDIR": str(self._scratch / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close(set(self._workers))
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, row: Row) -> dict[str, Any]:
        """One row's result."""
        self._close(set(self._workers) if row.starts_fresh else set(self._workers) - row.peers)
        taking_part = [contestant for contestant in row.contestants if not _is_missing(contestant.peer)]
        samples: dict[str, list[float]] = {contestant.label: [] for contestant in taking_part}
        count = row.quick_count if self._is_quick else row.count
        if row.warms_up:
            for contestant in taking_part:
                self._sample(row, contestant, max(1, count // 4), "warm-up")
        for number in range(1, self._rounds + 1):
            for contestant in taking_part:
                found = self._sample(row, contestant, count, f"round {number} of {self._rounds}")
                if found is not None:
                    samples[contestant.label].append(found)
        return report.result(row, samples)

    def _sample(self, row: Row, contestant: Contestant, count: int, when: str) -> float | None:
        try:
            found = self._worker(contestant.peer).sample(contestant.action, count, row.limit)
        except WorkerError as error:
            progress(f"{row.key}, {when}: {contestant.label} failed: {error}")
            return None
        progress(f"{row.key}, {when}: {contestant.label} {report.number(found)} {row.unit}")
        return found

    def _worker(self, peer: str) -> Worker:
        worker = self._workers.get(peer)
        if worker is None or not worker.is_alive:
            worker = self._workers[peer] = Worker(peer, self._scratch / f"{peer}.log", self._environment)
        return worker

    def _close(self, peers: Iterable[str]) -> None:
        for peer in peers:
            self._workers.pop(peer).close()


def missing_peers(rows: Iterable[Row]) -> list[str]:
    """Peers of *rows* whose package is not installed."""
    return sorted({peer for row in rows for peer in row.peers if _is_missing(peer)})


def _is_missing(peer: str) -> bool:
    return peer != OURS and importlib.util.find_spec(peer) is None


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def progress(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)

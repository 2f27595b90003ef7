"""The harness: runs rows and sweeps, every round each contestant once, and owns the peers' processes."""

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
from tests.benchmarks.sweeps import Sweep
from tests.benchmarks.worker import ROOT, Worker, WorkerError

_PACKAGES = ("ray", "pynng", "xoscar", "pykka", "numpy", "uvloop", "cloudpickle")


class Harness:
    """A context manager: leaving it ends every peer and removes what they wrote."""

    def __init__(self, rounds: int, *, is_quick: bool) -> None:
        self._rounds = rounds
        self._is_quick = is_quick
        self._workers: dict[str, Worker] = {}
        self._lives = 0
        self._scratch = Path(tempfile.mkdtemp(prefix="us-bench-"))
        # Our sockets and Ray's have little room for their paths.
        self._environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
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
        self._make_room(row)
        taking_part = _present(row)
        samples: dict[str, list[float]] = {contestant.label: [] for contestant in taking_part}
        count = row.quick_count if self._is_quick else row.count
        if row.warms_up:
            for contestant in taking_part:
                self._sample(row, contestant, (max(1, count // 4),), "warm-up")
        for number in range(1, self._rounds + 1):
            for contestant in taking_part:
                found = self._sample(row, contestant, (count,), f"round {number} of {self._rounds}")
                if found is not None:
                    samples[contestant.label].append(found)
        return report.result(row, samples)

    def sweep(self, sweep: Sweep) -> dict[str, Any]:
        """One sweep's result: every round goes through all points, and at each all contestants take turns."""
        self._make_room(sweep)
        taking_part = _present(sweep)
        samples: dict[str, list[list[float]]] = {
            each.label: [[] for _ in sweep.points] for each in taking_part
        }
        for number in range(self._rounds + 1):
            when = f"round {number} of {self._rounds}" if number else "warm-up"
            for place, point in enumerate(sweep.points):
                count = sweep.count_at(point, is_quick=self._is_quick or not number)
                for contestant in taking_part:
                    found = self._sample(sweep, contestant, (count, point.at), f"at {point.at:,}, {when}")
                    if found is not None and number:
                        samples[contestant.label][place].append(found)
        return report.sweep_result(sweep, samples)

    def _make_room(self, each: Row | Sweep) -> None:
        self._close(set(self._workers) if each.starts_fresh else set(self._workers) - each.peers)

    def _sample(
        self, each: Row | Sweep, contestant: Contestant, arguments: tuple[int, ...], when: str
    ) -> float | None:
        try:
            found = self._worker(contestant.peer).sample(
                contestant.action, (*arguments, *contestant.arguments), each.limit
            )
        except WorkerError as error:
            progress(f"{each.key}, {when}: {contestant.label} failed: {error}")
            return None
        progress(f"{each.key}, {when}: {contestant.label} {report.number(found)} {each.unit}")
        return found

    def _worker(self, peer: str) -> Worker:
        worker = self._workers.get(peer)
        if worker is None or not worker.is_alive:
            self._lives += 1
            # What one life left behind, for it was killed, is nothing that the next may stumble over.
            environment = {
                **self._environment,
                "UNDERSTUDY_RUN_ROOT": str(self._scratch / f"run{self._lives}"),
            }
            worker = self._workers[peer] = Worker(peer, self._scratch / f"{peer}.log", environment)
        return worker

    def _close(self, peers: Iterable[str]) -> None:
        for peer in peers:
            self._workers.pop(peer).close()


def missing_peers(rows: Iterable[Row | Sweep]) -> list[str]:
    """Peers of *rows* whose package is not installed."""
    return sorted({peer for row in rows for peer in row.peers if _is_missing(peer)})


def _present(each: Row | Sweep) -> list[Contestant]:
    return [contestant for contestant in each.contestants if not _is_missing(contestant.peer)]


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

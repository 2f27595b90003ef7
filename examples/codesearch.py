"""
Code search over a source tree, Python's own library by default: how a supervised pipeline is written.

    understudy up examples/codesearch.py -- [ROOT] [--tests]
    understudy call search.query '"asyncio event loop"'
    understudy kill shards/1                # any member, at any moment: no file is lost

The files are read, indexed and ranked by the plain functions of `codeindex.py`; here is what
keeps that going. `parse` needs CPU: it turns files into pages. `shards` need memory: each holds
its part of the index. `search` ranks, on a GPU where there is one. `ledger` knows which life of
which shard has acknowledged which file, and feeds what is missing.

Four rules keep the index whole, whoever is killed when:

1. Facts are reported again and again, not announced once. A lost report costs half a second.
2. A put replaces by path, so it may be sent any number of times.
3. An acknowledgement counts for one incarnation. A shard that comes back is empty and reports
   its new incarnation, and what only the old one had acknowledged is missing again.
4. Every put carries the job, and the newest job wins. A ledger that comes back knows nothing,
   hears of the job from the shards' reports, and does it from the start.

A job is forgotten only if the ledger and all shards are down together after `main` has returned.
"""

import argparse
import asyncio
import importlib
import os
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from codeindex import (
    Finding,
    Index,
    Page,
    Unreadable,
    digest_of,
    rank,
    read_page,
    shard_of,
    source_paths,
    words_of,
)

from actors import (
    Actor,
    ActorStopped,
    DeadlineExceeded,
    MailboxFull,
    NotFound,
    Refusal,
    StartFailed,
    Unavailable,
)
from supervisors import App, Resources, Service

SHARDS = 3
"""Fixed, for it decides where a file belongs. Scale `parse` and `search` as you like."""
PARSERS = max(2, min(os.cpu_count() or 1, 8))
LANES = 2 * PARSERS
"""Files under way at once: for each parser one in work and one waiting."""
REPORT_PERIOD = 0.5
RETRY_PAUSE = 0.1
PATIENCE = 600.0
HAS_GPU = Path("/dev/nvidia0").exists()

OUTAGES = (Unavailable, ActorStopped, DeadlineExceeded, MailboxFull, StartFailed, NotFound)
"""What a caller gets while a member is down, coming back or overrun. All calls here may be repeated."""


@dataclass(frozen=True, order=True, slots=True)
class Job:
    """What to index. The higher number is the newer job."""

    number: int
    root: str
    tests: bool = False


class Progress(TypedDict):
    """How far the ledger is; plain data, so that `understudy call ledger.progress` can show it."""

    files: int
    indexed: int
    skipped: dict[str, str]
    is_complete: bool
    incarnations: list[int]
    """The newest life of each shard. Only what these have acknowledged counts."""


# --- the actors ---------------------------------------------------------------------------------


class Ledger(Actor):
    """The book of the current job. Nothing in it survives a restart, and nothing has to."""

    concurrency = 4  # `_feed` keeps one turn all the time; orders and reports take the others

    def __init__(self, shards: int) -> None:
        self.job: Job | None = None
        self.paths: list[str] = []
        self.skipped: dict[str, str] = {}
        self.acknowledged: dict[str, int] = {}
        """The life of its shard that has taken each file."""
        self.incarnations = [1] * shards

    async def on_start(self) -> None:
        self.context.after(0, self._feed)

    async def index(self, job: Job) -> Progress:
        """Begin *job*, unless it is under way already. `Refusal` when a newer one is."""
        self._begin(job)
        if job != self.job:
            raise Refusal(f"a newer job is under way: {self.job}")
        return await self.progress()

    async def report(self, shard: int, incarnation: int, job: Job | None) -> None:
        """A shard says which life it lives and which job it has seen."""
        if job is not None:
            self._begin(job)
        if shard < len(self.incarnations):
            self.incarnations[shard] = max(self.incarnations[shard], incarnation)

    async def progress(self) -> Progress:
        """How far the job is."""
        missing = len(self._missing())
        return {
            "files": len(self.paths),
            "indexed": len(self.paths) - len(self.skipped) - missing,
            "skipped": dict(self.skipped),
            "is_complete": self.job is not None and not missing,
            "incarnations": list(self.incarnations),
        }

    def _begin(self, job: Job) -> None:
        if self.job is None or job > self.job:
            self.job, self.paths = job, source_paths(job.root, job.tests)
            self.skipped, self.acknowledged = {}, {}

    def _missing(self) -> list[str]:
        return [
            path
            for path in self.paths
            if path not in self.skipped
            and self.acknowledged.get(path) != self.incarnations[shard_of(path, len(self.incarnations))]
        ]

    async def _feed(self) -> None:
        """Feed all that is missing, then look again. What fails is still missing: that is the retry."""
        missing, away = iter(self._missing()), set[int]()
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(LANES):
                    lanes.create_task(self._feed_lane(self.job, missing, away))
        finally:
            self.context.after(RETRY_PAUSE, self._feed)

    async def _feed_lane(self, job: Job | None, missing: Iterator[str], away: set[int]) -> None:
        """Feed one file after the other; the lanes of a pass share *missing* and *away*."""
        for path in missing:
            shard = shard_of(path, len(self.incarnations))
            if shard in away:
                continue  # in the next pass; else all files of a shard that is away would be parsed in vain
            try:
                incarnation = await self.context.service("parse").index(job, path, shard)
            except Unreadable as exc:
                if job == self.job:  # else a newer one has begun, and this answer is of no use
                    self.skipped[path] = str(exc)
            except (*OUTAGES, Refusal):
                away.add(shard)
            else:
                if job == self.job:
                    self.acknowledged[path] = incarnation
                    await self.report(shard, incarnation, job)


class Parser(Actor):
    """Turns files into pages and gives them to their shards. Remembers nothing."""

    expected = (Unreadable,)

    def __init__(self) -> None:
        warnings.simplefilter("ignore", SyntaxWarning)  # other people's escapes

    def index(self, job: Job, path: str, shard: int) -> int:
        """
        Put one file into its shard; returns the life of the shard that has taken it.

        A `def`, so parsing runs on a thread and the loop stays free. If the shard is away,
        its error is our answer: what comes out of a call passes through and is no crash.
        """
        page = read_page(job.root, path)
        incarnation: int = self.context.service("shards").member(shard).put(job, page).result()
        return incarnation


class Shard(Actor):
    """One part of the index, in memory. A new life is empty, and says so."""

    def __init__(self) -> None:
        self.number = int(self.context.name.rpartition("/")[2])
        self.job: Job | None = None
        self.content = Index()

    async def on_start(self) -> None:
        self.context.every(REPORT_PERIOD, self._report)
        await self._report()

    async def put(self, job: Job, page: Page) -> int:
        """Take a page; returns the life that has it now. `Refusal` when a newer job has begun."""
        if self.job is None or job > self.job:
            self.job, self.content = job, Index()
        elif job < self.job:
            raise Refusal(f"{self.context.name} has begun a newer job than {job}")
        self.content.put(page)
        return self.context.incarnation

    async def find(self, words: Sequence[str]) -> Finding:
        """The files that have one of *words*."""
        return self.content.find(words)

    def digests(self) -> tuple[int, int, dict[str, str]]:
        """Shard, life, and a digest of each file it holds."""
        return self.number, self.context.incarnation, self.content.digests()

    async def _report(self) -> None:
        self.context.service("ledger").tell(Ledger.report, self.number, self.context.incarnation, self.job)


class Search(Actor):
    """Asks all shards and ranks what they have."""

    own_thread = True  # so `__init__` has one: torch takes seconds to load

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.arrays = load_arrays()

    async def query(self, text: str, limit: int = 10) -> list[dict[str, Any]]:
        """
        The files that fit *text* best: file, line, snippet, score.

        A shard that is away is waited for, until the deadline; one that is being fed again
        answers with what it has.
        """
        words = tuple(dict.fromkeys(words_of(text)))
        findings = await asyncio.gather(*(self._find(shard, words) for shard in range(self.shards)))
        return rank(findings, limit, self.arrays)

    async def _find(self, shard: int, words: Sequence[str]) -> Finding:
        while True:
            try:
                finding: Finding = await self.context.service("shards").member(shard).find(words)
                return finding
            except OUTAGES:
                await asyncio.sleep(RETRY_PAUSE)


def load_arrays() -> Any:
    """torch if there is a GPU for it, else numpy, else None: lists of numbers do as well."""
    for name in ("torch", "numpy") if HAS_GPU else ("numpy",):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


app = App(
    Service("ledger", Ledger, args=(SHARDS,)),
    Service("shards", Shard, size=SHARDS, resources=Resources(memory="128MiB")),
    Service("parse", Parser, size=PARSERS, resources=Resources(cpu=0.5)),
    Service("search", Search, args=(SHARDS,), resources=Resources(gpu=1) if HAS_GPU else Resources()),
)


# --- the job ------------------------------------------------------------------------------------


async def main(cluster: Any, *args: str) -> None:
    """Index a tree, then say how many files there are and what the index amounts to. The app stays up."""
    parser = argparse.ArgumentParser(prog="codesearch")
    parser.add_argument("root", nargs="?", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--tests", action="store_true", help="test directories too")
    options = parser.parse_args(args)
    job = Job(time.time_ns(), str(Path(options.root).resolve()), options.tests)

    begun_at = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        progress, digest = await index(cluster, job)
    seconds = time.monotonic() - begun_at
    for path, reason in sorted(progress["skipped"].items()):
        print(f"skipped {path}: {reason}")
    print(f"indexed {progress['indexed']} files, skipped {len(progress['skipped'])}, in {seconds:.1f} s")
    print(f"digest {digest}", flush=True)


async def index(cluster: Any, job: Job) -> tuple[Progress, str]:
    """Have *job* done, whoever is killed meanwhile; returns the state at the end and the digest."""
    ledger, shards = cluster.service("ledger"), cluster.service("shards")
    begun_at = time.monotonic()
    while True:
        try:
            # The same order every time: a ledger that has just come back needs it again.
            progress: Progress = await ledger.index(job)
            show(progress, time.monotonic() - begun_at)
            if progress["is_complete"]:
                outcomes = await shards.options(timeout=30.0).broadcast(Shard.digests)
                contents = [outcome.unwrap() for outcome in outcomes.values()]
                # Complete means: acknowledged by these lives. Another life may hold nothing yet.
                if {shard: life for shard, life, _ in contents} == dict(enumerate(progress["incarnations"])):
                    return progress, digest_of(digests for _, _, digests in contents)
        except OUTAGES:
            pass
        await asyncio.sleep(RETRY_PAUSE)


def show(progress: Progress, seconds: float) -> None:
    """One line on stderr: a terminal sees it grow, a file gets the last one only."""
    done = progress["indexed"] + len(progress["skipped"])
    if sys.stderr.isatty() or progress["is_complete"]:
        line = f"\r{done}/{progress['files']} files, {done / seconds:.0f} files/s".ljust(50)
        print(line, end="\n" if progress["is_complete"] else "", file=sys.stderr, flush=True)

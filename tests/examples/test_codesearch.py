"""
The code search example: its plain functions, and the pipeline while its members are killed.

The pipeline runs in one process. A kill ends a member with its mailbox and its state, as the
end of its process does, and the next incarnation begins a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from actors import Actor, ActorSystem, Exit, NotFound, Outcome, Ref, Reply, Unavailable
from actors.children import Children
from actors.reply import failed

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE_BY_SERVICE = {"ledger": 1, "shards": 3, "parse": 2, "search": 1}
FILES = 60


def load(name: str) -> ModuleType:
    """An example by its path, under its own name."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


codeindex = load("codeindex")
codesearch = load("codesearch")


# --- a company of actors, in place of a cluster ---------------------------------------------------


class Reports:
    """Hears when a member was ended, or crashed, which none should."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.crashes: list[Exit] = []

    def started(self, child_id: str) -> None: ...
    def worked(self, child_id: str) -> None: ...

    def ignored(self, child_id: str) -> None: ...
    def start_failed(self, child_id: str, exit: Exit) -> None:
        self.crashes.append(exit)

    def exited(self, child_id: str, exit: Exit, handled: int) -> None:
        self.crashes.append(exit)

    def stopped(self, child_id: str, exit: Exit) -> None:
        self.ended.set()


class Cast(Actor):
    """The members of one service: begins and ends their lives as it is told."""

    def __init__(self, cls: type[Actor], args: tuple[Any, ...]) -> None:
        self._cls = cls
        self._args = args
        self._reports = Reports()
        self._children = Children(self.context, self._reports)
        self._lives: dict[int, int] = {}

    async def begin(self, number: int) -> Ref[Any]:
        self._lives[number] = self._lives.get(number, 0) + 1
        self._children.start(str(number), self._cls, self._args, {}, incarnation=self._lives[number])
        ref = self._children.ref(str(number))
        assert ref is not None
        return ref

    async def end(self, number: int) -> None:
        self._reports.ended.clear()
        self._children.halt(str(number), Exit("killed"), 0.0, keep_mailbox=False)
        await self._reports.ended.wait()
        self._children.forget(str(number))

    async def crashes(self) -> list[Exit]:
        return self._reports.crashes


class ServiceDouble:
    """As much of a service ref as the example uses. Answers and reports get lost with probability *loss*."""

    def __init__(self, members: dict[int, Ref[Any]], chance: random.Random, loss: float) -> None:
        self.members = members
        self._chance = chance
        self._loss = loss

    def __getattr__(self, method: str) -> Any:
        return lambda *args: self._answer(self._chance.choice(list(self.members.values())).ask(method, *args))

    async def _answer(self, reply: Reply[Any]) -> Any:
        answer = await reply
        if self._chance.random() < self._loss:
            raise Unavailable("the answer got lost", may_have_run=True)
        return answer

    def options(self, **_: Any) -> ServiceDouble:
        return self

    def tell(self, method: Any, *args: Any) -> Reply[None]:
        if self._chance.random() < self._loss:
            return failed(Unavailable("lost"))
        return self.members[0].tell(method, *args)

    def member(self, number: int) -> Ref[Any]:
        return self.members[number]

    async def broadcast(self, method: Any) -> dict[str, Outcome[Any]]:
        async def outcome(member: Ref[Any]) -> Outcome[Any]:
            try:
                return Outcome(await member.ask(method))
            except Exception as exc:
                return Outcome(error=exc)

        return {repr(member): await outcome(member) for member in self.members.values()}


class Company:
    """A directory of services, and who kills their members."""

    def __init__(self, seed: int = 0, loss: float = 0.0) -> None:
        self.chance = random.Random(seed)
        self.loss = loss
        self.casts: dict[str, Ref[Any]] = {}
        self.services: dict[str, ServiceDouble] = {}
        self.kills = 0

    def service(self, name: str) -> ServiceDouble:
        if name not in self.services:
            raise NotFound(name)
        return self.services[name]

    async def open(self, system: ActorSystem) -> None:
        classes = {
            "ledger": (codesearch.Ledger, (SIZE_BY_SERVICE["shards"],)),
            "shards": (codesearch.Shard, ()),
            "parse": (codesearch.Parser, ()),
            "search": (codesearch.Search, (SIZE_BY_SERVICE["shards"],)),
        }
        for name, (cls, args) in classes.items():
            self.casts[name] = cast = system.options(name=name).spawn(Cast, cls, args)
            members = {number: await cast.begin(number) for number in range(SIZE_BY_SERVICE[name])}
            self.services[name] = ServiceDouble(members, self.chance, self.loss)

    async def end(self, service: str, number: int) -> None:
        """End a member at once, with all it holds."""
        await self.casts[service].end(number)

    async def begin(self, service: str, number: int) -> None:
        """Begin the next life of a member."""
        self.services[service].members[number] = await self.casts[service].begin(number)

    async def kill(self, service: str, number: int, pause: float = 0.0) -> None:
        """End a member, and have the next one *pause* seconds later."""
        await self.end(service, number)
        await asyncio.sleep(pause)
        await self.begin(service, number)
        self.kills += 1

    async def kill_at_random(self, times: int) -> None:
        """Any member, at any moment."""
        for _ in range(times):
            await asyncio.sleep(self.chance.uniform(0.0, 0.06))
            service = self.chance.choice(list(SIZE_BY_SERVICE))
            number = self.chance.randrange(SIZE_BY_SERVICE[service])
            await self.kill(service, number, self.chance.uniform(0.0, 0.03))


@contextlib.asynccontextmanager
async def opened(company: Company) -> AsyncIterator[Company]:
    async with ActorSystem(directory=company, sinks=()) as system:  # type: ignore[arg-type]
        await company.open(system)
        yield company
        assert [await cast.crashes() for cast in company.casts.values()] == [[], [], [], []]


# --- a small tree -------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """60 modules in packages, two of them unreadable, and a test directory."""
    for number in range(FILES - 2):
        folder = tmp_path / f"package{number % 5}"
        folder.mkdir(exist_ok=True)
        lines = [f'"""Module number {number} about kettle{number % 7}."""', "import asyncio", ""]
        lines += [f"def boil_{n}(water, heat{number}):\n    return water.warm()" for n in range(number)]
        (folder / f"module{number}.py").write_text("\n".join(lines))
    (tmp_path / "broken.py").write_text("def broken(:\n")
    (tmp_path / "latin.py").write_bytes(b'name = "\xe9"\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_it(): ...\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text("x = 1\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codesearch, "REPORT_PERIOD", 0.05)
    monkeypatch.setattr(codesearch, "RETRY_PAUSE", 0.02)


def index_of(root: Path) -> Any:
    """What one plain loop makes of a tree."""
    index = codeindex.Index()
    for path in codeindex.source_paths(str(root)):
        with contextlib.suppress(codeindex.Unreadable):
            index.put(codeindex.read_page(str(root), path))
    return index


def digest_without_actors(root: Path) -> str:
    digest: str = codeindex.digest_of([index_of(root).digests()])
    return digest


_numbers = itertools.count(1)


def job(root: Path, **options: Any) -> Any:
    return codesearch.Job(next(_numbers), str(root), **options)


# --- the plain functions --------------------------------------------------------------------------


def test_source_paths_leave_out_installed_packages_and_tests(root: Path) -> None:
    paths = codeindex.source_paths(str(root))

    assert len(paths) == FILES
    assert paths == sorted(paths)
    assert "tests/test_it.py" not in paths
    assert set(codeindex.source_paths(str(root), tests=True)) - set(paths) == {"tests/test_it.py"}


@pytest.mark.parametrize("path", ["broken.py", "latin.py", "gone.py"])
def test_what_cannot_be_parsed_is_unreadable(root: Path, path: str) -> None:
    with pytest.raises(codeindex.Unreadable):
        codeindex.read_page(str(root), path)


@pytest.mark.parametrize("text", ["BaseEventLoop", "base_event_loop", "the Base: event, loop!"])
def test_names_and_texts_fall_into_words(text: str) -> None:
    assert set(codeindex.words_of(text)) >= {"base", "event", "loop"}


def test_a_page_knows_paths_definitions_docstrings_and_first_uses_by_line() -> None:
    source = '"""Kettles."""\n\n\ndef boil(water):\n    """Make tea."""\n    return water.warm(water)\n'

    page = codeindex.page_of("kitchen/stove.py", source)

    assert page.hits["stove"] == {1: codeindex.DEFINITION}
    assert page.hits["kettles"] == {1: codeindex.DOCSTRING}
    assert page.hits["boil"] == {4: codeindex.DEFINITION}
    assert page.hits["tea"] == {4: codeindex.DOCSTRING}
    assert page.hits["water"] == {4: codeindex.USE}
    assert page.hits["warm"] == {6: codeindex.USE}
    assert page.lines[4] == "def boil(water):"


def test_a_page_that_is_put_again_replaces_the_one_before() -> None:
    index = codeindex.Index()
    index.put(codeindex.page_of("a.py", "def old(): ..."))
    index.put(codeindex.page_of("a.py", "def new(): ..."))
    fresh = codeindex.Index()
    fresh.put(codeindex.page_of("a.py", "def new(): ..."))

    assert index.find(["old"]).matches == []
    assert [match.path for match in index.find(["new"]).matches] == ["a.py"]
    assert index.digests() == fresh.digests()


def test_the_digest_forgets_order_and_shards_but_no_content() -> None:
    pages = [codeindex.page_of(f"{n}.py", f"def kettle{n}(): ...") for n in range(8)]

    def digest(pages: list[Any], shards: int) -> str:
        parts = [codeindex.Index() for _ in range(shards)]
        for page in pages:
            parts[codeindex.shard_of(page.path, shards)].put(page)
        result: str = codeindex.digest_of(part.digests() for part in parts)
        return result

    whole = digest(pages, 1)

    assert digest(pages[::-1], 3) == whole
    assert digest(pages[1:], 3) != whole
    assert digest([replace(pages[0], lines={1: "?"}), *pages[1:]], 3) != whole


def test_rare_words_and_short_files_rank_first() -> None:
    index = codeindex.Index()
    index.put(codeindex.page_of("a.py", "def common(): ..."))
    index.put(codeindex.page_of("b.py", "def common(): ...\ndef rare(): ..."))
    index.put(codeindex.page_of("c.py", "def common(): ...\n" + "def filler(): ...\n" * 50))

    ranked = codeindex.rank([index.find(["common", "rare"])], limit=2)

    assert [found["file"] for found in ranked] == ["b.py", "a.py"]
    assert (ranked[0]["line"], ranked[0]["snippet"]) == (1, "def common(): ...")
    assert ranked[0]["score"] > ranked[1]["score"] > 0


def test_numpy_ranks_as_plain_numbers_do(root: Path) -> None:
    numpy = pytest.importorskip("numpy")
    finding = index_of(root).find(["boil", "heat", "kettle", "17"])

    plain, fast = codeindex.rank([finding], FILES), codeindex.rank([finding], FILES, numpy)

    assert len(plain) > 20
    assert [found["file"] for found in fast] == [found["file"] for found in plain]
    assert [found["score"] for found in fast] == pytest.approx([found["score"] for found in plain], abs=2e-4)


# --- the pipeline ---------------------------------------------------------------------------------


async def test_every_file_is_indexed_or_reported_as_skipped(root: Path) -> None:
    async with opened(Company()) as company:
        progress, digest = await codesearch.index(company, job(root))

    assert (progress["files"], progress["indexed"]) == (FILES, FILES - 2)
    assert set(progress["skipped"]) == {"broken.py", "latin.py"}
    assert digest == digest_without_actors(root)


async def test_main_prints_counts_and_the_digest(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(Company()) as company:
        await codesearch.main(company, str(root), "--tests")

    printed = capsys.readouterr()
    assert f"indexed {FILES - 1} files, skipped 2, in " in printed.out
    assert "skipped broken.py: SyntaxError" in printed.out
    assert len(printed.out.splitlines()[-1].removeprefix("digest ")) == 64
    assert f"{FILES + 1}/{FILES + 1} files" in printed.err


async def test_a_query_answers_with_file_line_and_snippet(root: Path) -> None:
    async with opened(Company()) as company:
        await codesearch.index(company, job(root))

        best, *others = await company.service("search").query("heat17 boil")

    assert best["file"] == "package2/module17.py"
    assert best["snippet"].startswith("def boil_0(water, heat17)")
    assert best["line"] == 4
    assert best["score"] > others[0]["score"]


@pytest.mark.parametrize("seed", range(5))
async def test_kills_while_indexing_leave_no_trace_in_the_digest(root: Path, seed: int) -> None:
    """Any member, at any moment, and one answer or report in ten is lost."""
    async with opened(Company(seed, loss=0.1)) as company:
        for _ in range(3):
            killer = asyncio.create_task(company.kill_at_random(10))
            progress, digest = await asyncio.wait_for(codesearch.index(company, job(root)), 20.0)

            assert digest == digest_without_actors(root)
            assert progress["indexed"] == FILES - 2
            await killer
        assert company.kills == 30


@pytest.mark.parametrize("service", list(SIZE_BY_SERVICE))
async def test_a_kill_after_indexing_is_repaired_by_the_services_themselves(root: Path, service: str) -> None:
    """`main` has returned: nobody asks again for the job."""
    async with opened(Company()) as company:
        await codesearch.index(company, job(root))
        before = await company.service("search").query("heat17 boil")

        await company.kill(service, 0)

        await wait_complete(company)
        assert await company.service("search").query("heat17 boil") == before


async def test_the_ledger_and_a_shard_may_be_killed_one_after_the_other(root: Path) -> None:
    """The shard that is left knows the job; the ledger hears of it and feeds both from the start."""
    async with opened(Company()) as company:
        await codesearch.index(company, job(root))
        before = await company.service("search").query("heat17 boil", 60)

        kills = [company.kill("ledger", 0, 0.1), company.kill("shards", 0), company.kill("shards", 2)]
        await asyncio.gather(*kills)

        await wait_complete(company)
        assert await company.service("search").query("heat17 boil", 60) == before


async def test_a_newer_job_replaces_the_older_one_while_it_runs(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "package1"
    async with opened(Company()) as company:
        ledger = company.service("ledger")
        older, newer = job(root), job(other)
        await ledger.index(older)

        progress, digest = await codesearch.index(company, newer)

        assert digest == digest_without_actors(other)
        assert progress["skipped"] == {}
        with pytest.raises(codesearch.Refusal, match="newer job"):
            await ledger.index(older)


async def test_a_query_waits_for_a_shard_that_is_away(root: Path) -> None:
    async with opened(Company()) as company:
        await codesearch.index(company, job(root))
        await company.end("shards", 1)

        query = asyncio.create_task(company.service("search").query("heat17 boil"))
        await asyncio.sleep(0.1)
        assert not query.done()
        await company.begin("shards", 1)

        assert await query


async def wait_complete(company: Company) -> None:
    """Until every file is acknowledged by the shards that live now."""
    async with asyncio.timeout(10.0):
        while True:
            progress = await company.service("ledger").progress()
            lives = [(await shard.digests())[1] for shard in company.service("shards").members.values()]
            if progress["is_complete"] and progress["incarnations"] == lives:
                return
            await asyncio.sleep(0.02)

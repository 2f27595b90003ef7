"""
The plain half of `codesearch.py`: from files to pages, from pages to an index, from finds to a ranking.

Functions of data, without an actor in them, so they can be tested and reused as they are.
"""

import ast
import hashlib
import math
import os
import re
import threading
import tokenize
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

TESTS = {"test", "tests", "idle_test"}
NOT_SOURCE = {"site-packages", "dist-packages", "__pycache__"}
DEFINITION, DOCSTRING, USE = 8, 2, 1
"""What a word weighs, by where it stands."""

# CPython 3.11 counts the depth of syntax trees once per process: two threads that parse
# at the same time get "SystemError: AST constructor recursion depth mismatch".
_parsing = threading.Lock()


class Unreadable(Exception):
    """A file that cannot be read, or is not Python."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the index holds of one file."""

    path: str
    hits: dict[str, dict[int, int]]
    """Weight by line by word."""
    lines: dict[int, str]
    """The text of each line that has a hit."""
    length: int
    """The sum of all weights."""


@dataclass(frozen=True, slots=True)
class Match:
    """A file that has some of the words asked for."""

    path: str
    length: int
    weights: list[int]
    """One for each word."""
    line: int
    snippet: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one shard has for a query, and the size of all it has."""

    matches: list[Match]
    files: int
    length: int


# --- from files to pages ------------------------------------------------------------------------


def source_paths(root: str, tests: bool = False) -> list[str]:
    """All Python files below *root*, relative to it."""
    left_out = NOT_SOURCE if tests else NOT_SOURCE | TESTS
    paths = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out]
        inside = Path(folder).relative_to(root)
        paths += [(inside / name).as_posix() for name in files if name.endswith(".py")]
    return sorted(paths)


def read_page(root: str, path: str) -> Page:
    """Read and parse one file, or raise `Unreadable`."""
    try:
        with tokenize.open(Path(root, path)) as file:  # minds coding cookies
            return page_of(path, file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise Unreadable(f"{type(exc).__name__}: {exc}") from exc


def page_of(path: str, source: str) -> Page:
    """Index one file: its path, its definitions with their docstrings, other names where first used."""
    hits: dict[str, dict[int, int]] = {}
    first_uses: dict[str, int] = {}

    def hit(text: str | None, line: int, weight: int) -> None:
        for word in set(words_of(text or "")):
            by_line = hits.setdefault(word, {})
            by_line[line] = by_line.get(line, 0) + weight

    with _parsing:
        tree = ast.parse(source, path)
    first = tree.body[0].lineno if tree.body else 1
    hit(path.removesuffix(".py"), first, DEFINITION)
    hit(ast.get_docstring(tree, clean=False), first, DOCSTRING)
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                hit(name, node.lineno, DEFINITION)
                hit(ast.get_docstring(node, clean=False), node.lineno, DOCSTRING)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                first_uses[name] = min(node.lineno, first_uses.get(name, node.lineno))
    for name, line in first_uses.items():
        hit(name, line, USE)
    found = sorted({line for by_line in hits.values() for line in by_line})
    text = source.split("\n")
    length = sum(sum(by_line.values()) for by_line in hits.values())
    return Page(path, hits, {line: text[line - 1].strip()[:120] for line in found}, length)


@lru_cache(maxsize=100_000)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text or a name: `BaseEventLoop` and `base_event_loop` have the same three."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", text)
    return tuple(word.lower() for word in words if len(word) > 1)


# --- the index ----------------------------------------------------------------------------------


def shard_of(path: str, shards: int) -> int:
    """Where a file belongs. Not by `hash`, which differs from process to process."""
    return zlib.crc32(path.encode()) % shards


class Index:
    """An inverted index in memory."""

    def __init__(self) -> None:
        self.page_by_path: dict[str, Page] = {}
        self.paths_by_word: dict[str, set[str]] = {}

    def put(self, page: Page) -> None:
        """Take *page* instead of the one its path had."""
        older = self.page_by_path.get(page.path)
        for word in older.hits if older is not None else ():
            self.paths_by_word[word].discard(page.path)
        for word in page.hits:
            self.paths_by_word.setdefault(word, set()).add(page.path)
        self.page_by_path[page.path] = page

    def find(self, words: Sequence[str]) -> Finding:
        """Every file that has one of *words*."""
        paths = {path for word in words for path in self.paths_by_word.get(word, ())}
        matches = [_match_of(self.page_by_path[path], words) for path in sorted(paths)]
        length = sum(page.length for page in self.page_by_path.values())
        return Finding(matches, len(self.page_by_path), length)

    def digests(self) -> dict[str, str]:
        """A digest by path, made of all that can be found of that file."""
        hits: dict[str, list[Any]] = {path: [] for path in self.page_by_path}
        for word, paths in sorted(self.paths_by_word.items()):
            for path in paths:
                hits[path].append((word, sorted(self.page_by_path[path].hits[word].items())))
        texts = {path: sorted(page.lines.items()) for path, page in self.page_by_path.items()}
        return {path: _sha256((hits[path], texts[path])) for path in hits}


def digest_of(parts: Iterable[dict[str, str]]) -> str:
    """One digest of all shards: their number, and the order and timing of the work, leave no trace."""
    return _sha256(sorted(item for part in parts for item in part.items()))


def _sha256(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _match_of(page: Page, words: Sequence[str]) -> Match:
    """What *page* has of *words*, with the line that has most of them."""
    hits = [page.hits.get(word, {}) for word in words]

    def worth(line: int) -> tuple[int, int, int]:
        weights = [by_line[line] for by_line in hits if line in by_line]
        return len(weights), sum(weights), -line

    line = max({line for by_line in hits for line in by_line}, key=worth)
    return Match(page.path, page.length, [sum(by_line.values()) for by_line in hits], line, page.lines[line])


# --- ranking ------------------------------------------------------------------------------------


def rank(findings: Sequence[Finding], limit: int, arrays: Any = None) -> list[dict[str, Any]]:
    """The best matches of all shards, best first. *arrays* is torch, numpy or None."""
    matches = [match for finding in findings for match in finding.matches]
    if not matches:
        return []
    files = sum(finding.files for finding in findings)
    mean = sum(finding.length for finding in findings) / files
    weights = [match.weights for match in matches]
    having = [sum(weight > 0 for weight in column) for column in zip(*weights, strict=True)]
    rarities = [math.log(1 + (files - n + 0.5) / (n + 0.5)) for n in having]
    scores = scores_of(weights, [match.length / mean for match in matches], rarities, arrays)
    # Rounded before sorting, so that the last bits of torch, numpy and floats decide nothing.
    ranked = sorted(zip(scores, matches, strict=True), key=lambda pair: (-round(pair[0], 4), pair[1].path))
    return [
        {"file": match.path, "line": match.line, "snippet": match.snippet, "score": round(score, 4)}
        for score, match in ranked[:limit]
    ]


def scores_of(
    weights: list[list[int]], lengths: list[float], rarities: list[float], arrays: Any = None
) -> list[float]:
    """The score of each file; *weights* has a row for each, with a column for each word."""
    if arrays is None:
        rows = zip(weights, lengths, strict=True)
        return [sum(bm25(w, length, r) for w, r in zip(row, rarities, strict=True)) for row, length in rows]
    where = {"device": "cuda"} if arrays.__name__ == "torch" and arrays.cuda.is_available() else {}
    table, column, row = (
        arrays.asarray(values, dtype=arrays.float64, **where)
        for values in (weights, [[length] for length in lengths], [rarities])
    )
    scores: list[float] = bm25(table, column, row).sum(1).tolist()
    return scores


def bm25(weight: Any, length: Any, rarity: Any) -> Any:
    """BM25 with k1 = 1.2 and b = 0.3 (a long module is hardly worse for it), for numbers and arrays alike."""
    return rarity * weight * 2.2 / (weight + 1.2 * (0.7 + 0.3 * length))

"""The logbook and its readers: who said what in which life, in bounded files, meanwhile and afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidArgument
from supervisors import logbook
from supervisors.logbook import Logbook, prune
from supervisors.logs import Choice, Library, Line, line_text, parse_duration, read_lines

LIVES = {"kitchen/0": 1, "kitchen/1": 4}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Logbook]:
    book = Logbook(str(tmp_path / "host-1.log"))
    book.attribute("kitchen", LIVES)
    yield book
    os.close(book._file)


def said(folder: Path, **choice: Any) -> list[str]:
    return [line.text for line in read_lines(str(folder), Choice(**choice))]


def test_an_entry_says_who_in_which_life_and_how(book: Logbook, tmp_path: Path) -> None:
    book.say("log", "soup ready", "info", {"station": "grill"}, ("kitchen/1", 4))

    [line] = read_lines(str(tmp_path), Choice())

    assert line.to_dict() | {"time": 0} == {
        "time": 0,
        "service": "kitchen",
        "member": "kitchen/1",
        "actor": "kitchen/1",
        "incarnation": 4,
        "pid": os.getpid(),
        "level": "info",
        "source": "log",
        "text": "soup ready",
        "fields": {"station": "grill"},
    }


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("kitchen", ["a", "b", "c", "d"]),
        ("kitchen/1", ["b", "c"]),
        ("kitchen/1/clerk-1", ["c"]),
        ("kitchen/10", ["d"]),
        ("kit", []),
    ],
)
def test_names_are_those_of_services_members_and_children(
    book: Logbook, tmp_path: Path, name: str, found: list[str]
) -> None:
    for text, actor in zip(
        "abcd", ("kitchen/0", "kitchen/1", "kitchen/1/clerk-1", "kitchen/10"), strict=True
    ):
        book.say("stdout", text, actor=(actor, 1))

    assert said(tmp_path, name=name) == found


def test_what_nobody_signed_is_the_only_members_or_the_services(book: Logbook, tmp_path: Path) -> None:
    book.say("stdout", "one of two")
    book.attribute("kitchen", {"kitchen/1": 5})
    book.say("stdout", "the only one")

    lines = list(read_lines(str(tmp_path), Choice()))

    assert [(line.service, line.member, line.incarnation) for line in lines] == [
        ("kitchen", None, None),
        ("kitchen", "kitchen/1", 5),
    ]


def test_what_was_written_past_python_has_the_time_of_what_follows_or_of_the_file(
    book: Logbook, tmp_path: Path
) -> None:
    os.write(book._file, b"from C, half a li")
    book.say("stdout", "an entry behind half a line", actor=("kitchen/0", 1))
    os.write(book._file, b"the last words\n")

    lines = list(read_lines(str(tmp_path), Choice()))

    assert [(line.text, line.source) for line in lines] == [
        ("from C, half a li", "raw"),
        ("an entry behind half a line", "stdout"),
        ("the last words", "raw"),
    ]
    assert lines[0].time == lines[1].time
    assert time.time() - lines[2].time < 5


def test_a_torn_entry_is_left_out(book: Logbook, tmp_path: Path) -> None:
    book.say("stdout", "whole")
    os.write(book._file, logbook.MARK + b'{"time": 12')

    assert said(tmp_path) == ["whole"]


def test_who_talks_without_end_loses_its_own_past(
    book: Logbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "LONGEST_FILE", 20_000)
    for number in range(1000):
        book.say("stdout", f"line {number}", actor=("kitchen/0", 1))

    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    texts = said(tmp_path, name="kitchen/0")

    assert len(sizes) == 2
    assert sum(sizes) < 2 * 20_500
    assert texts[-1] == "line 999"
    assert texts == [f"line {number}" for number in range(1000 - len(texts), 1000)]


def test_a_long_text_is_cut(book: Logbook, tmp_path: Path) -> None:
    book.say("stdout", "x" * 1_000_000)

    assert said(tmp_path)[0].endswith("… (934464 characters more)")


def test_values_that_json_has_not_are_shown(book: Logbook, tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    book.say("log", "odd", "info", {"set": {1}})
    book.say("log", "odder", "info", {"circle": circle})

    assert [line.fields for line in read_lines(str(tmp_path), Choice())] == [
        {"set": "{1}"},
        {"fields": "{'circle': [[...]]}"},
    ]


def test_a_follower_misses_nothing_over_new_files_and_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "LONGEST_FILE", 3000)
    library = Library(str(tmp_path))
    books, texts = [], []
    for number in range(100):
        if number % 50 == 0:
            books.append(Logbook(str(tmp_path / f"host-{number}.log")))
            books[-1].attribute("kitchen", {})
        books[-1].say("stdout", str(number))
        texts += [line.text for line in library.read(to_the_end=False)]
    for book in books:
        os.close(book._file)

    assert texts == [str(number) for number in range(100)]


def test_following_ends_with_what_was_said_last(book: Logbook, tmp_path: Path) -> None:
    answers = iter([False, True])

    def is_over() -> bool:
        book.say("stdout", "still here")
        return next(answers)

    assert [line.text for line in read_lines(str(tmp_path), Choice(), 0, is_over)] == ["still here"] * 2


def test_lines_of_several_processes_are_in_the_order_of_time(tmp_path: Path) -> None:
    books = [Logbook(str(tmp_path / f"host-{number}.log")) for number in (1, 2)]
    for number in range(6):
        books[number % 2].say("stdout", str(number))
        time.sleep(0.002)
    for book in books:
        os.close(book._file)

    assert said(tmp_path) == list("012345")
    assert [line.text for line in read_lines(str(tmp_path), Choice(), last=2)] == ["4", "5"]


def test_age_and_pattern_choose(book: Logbook, tmp_path: Path) -> None:
    book.say("log", "soup", "info", {"table": 7})
    book.say("log", "fish", "info", {"table": 8})

    assert said(tmp_path, pattern=re.compile("table=7")) == ["soup"]
    assert said(tmp_path, since=time.time() - 60) == ["soup", "fish"]
    assert said(tmp_path, since=time.time() + 60) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("2d", 172800)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "-5m", "5 m 3"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="use 30s, 5m, 2h or 1d"):
        parse_duration(text)


def test_a_line_begins_with_when_and_who_and_ends_with_the_traceback() -> None:
    fields = {"table": 7, "traceback": "\nTraceback …\nValueError: burnt"}
    line = Line(0.0, "kitchen", "kitchen/0", "kitchen/0", 2, 1, "error", "log", "actor.exited", fields)

    head, *below = line_text(line, now=0.0).splitlines()

    assert re.fullmatch(r"\d\d:\d\d:\d\d  kitchen/0 life 2  error: actor\.exited  table=7", head)
    assert below == ["Traceback …", "ValueError: burnt"]


def test_of_the_dead_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "KEPT_FILES", 2)
    for number in range(1, 6):
        path = tmp_path / f"host-{number}.log"
        path.write_bytes(b"" if number == 4 else b"said")
        os.utime(path, (number, number))
    (tmp_path / "house.log").write_bytes(b"not ours")

    prune(str(tmp_path), {"host-1"})

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "host-1.log",
        "host-3.log",
        "host-5.log",
        "house.log",
    ]


PROGRAM = """
import logging, os, subprocess, sys, threading, warnings
from supervisors.logbook import open_logbook
book = open_logbook(sys.argv[1], "host-7")
book.attribute("kitchen", {"kitchen/0": 3})
print("two", "words")
print("two\\nlines")
print("in ", end=""); print("parts")
print("error", file=sys.stderr)
logging.getLogger("stove").warning("hot")
logging.getLogger("stove").info("nobody asked for")
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
logging.getLogger("stove").info("asked for")
from actors.events import logger
logger(actor="kitchen/0", incarnation=3).info("structured", table=7)
try:
    1 / 0
except ZeroDivisionError:
    logger().exception("caught")
thread = threading.Thread(target=print, args=("in a thread",)); thread.start(); thread.join()
subprocess.run(["echo", "a child"])
sys.stdout.write("no end of line"); sys.stdout.flush()
os._exit(3)
"""


def test_all_ways_of_a_process_to_say_something_end_there(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")
    lines = list(read_lines(str(tmp_path), Choice("kitchen/0")))
    assert [(line.source, line.level, line.text) for line in lines] == [
        ("stdout", None, "two words"),
        ("stdout", None, "two\nlines"),
        ("stdout", None, "in parts"),
        ("stderr", None, "error"),
        ("log", "warning", "hot"),
        ("stderr", None, "INFO asked for"),
        ("log", "info", "structured"),
        ("log", "error", "caught"),
        ("stdout", None, "in a thread"),
        ("raw", None, "a child"),
        ("stdout", None, "no end of line"),
    ]
    assert {line.incarnation for line in lines} == {3}
    assert lines[6].fields == {"table": 7}
    assert lines[7].fields["exception"].endswith("ZeroDivisionError: division by zero")
    assert json.dumps(lines[7].to_dict())


FULL_DISK = """
import resource, signal, sys
from supervisors.logbook import open_logbook

complaints = []
book = open_logbook(sys.argv[1], "host-1", complaints.append)
book.attribute("kitchen", {"kitchen/0": 3})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for round in range(2):
    print("room", round)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    for number in range(50):
        print("lost", number)
        book.say("log", "lost too")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print("room again")
with open(sys.argv[1] + "/complaints", "w") as file:
    file.write("; ".join(complaints))
"""


def test_where_nothing_can_be_written_that_is_told_once_and_nobody_is_hurt(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk; there is room again in between."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "complaints").read_text() == "File too large; File too large"
    assert [line.text for line in read_lines(str(tmp_path), Choice("kitchen/0"))] == [
        "room 0",
        "(100 entries before this one could not be written)",
        "room 1",
        "(100 entries before this one could not be written)",
        "room again",
    ]


def test_a_file_that_cannot_even_be_made_is_no_reason_to_fail(tmp_path: Path) -> None:
    complaints: list[str] = []
    book = Logbook(str(tmp_path / "missing" / "host-1.log"), complaints.append)

    for _ in range(3):
        book.say("log", "into the void")

    assert complaints == ["No such file or directory"]

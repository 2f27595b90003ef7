"""Calls from anywhere: notebooks, programs with and without a loop, hosts; what goes along with them."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Chef, Clerk

from actors.errors import DeadlineExceeded
from actors.traces import Trace
from actors.tracing import carrying
from supervisors import App, Cluster, Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    services = [Service("desk", Clerk, size=2, per_host=1), Service("archive", Clerk)]
    with venue.play(*services) as cluster:
        yield cluster


def test_a_class_takes_its_interceptors_into_the_hosts(cluster: Cluster) -> None:
    """Where its members are spawned, handle and send; a trace begun here goes all the way."""
    begun = Trace.new()
    with carrying(begun, baggage={"tenant": "7"}):
        desk, archive = cluster.service("desk").member(0).file("form", "archive").result()

    passed = {}
    for name in ("desk/0", "archive/0"):
        service, _, number = name.partition("/")
        stamps = cluster.service(service).member(int(number)).stamped().result()
        passed[name] = [stamp for stamp in stamps if not stamp[1].endswith(".stamped")]
    assert [stamp[:2] for stamp in passed["desk/0"]] == [
        ("spawn", "desk/0.Clerk"),
        ("handle", "desk/0.file"),
        ("send", "archive.file"),
    ]
    assert [stamp[:2] for stamp in passed["archive/0"]] == [
        ("spawn", "archive/0.Clerk"),
        ("handle", "archive/0.file"),
    ]
    assert {stamp[4] for stamp in passed["desk/0"]} == {desk}
    assert {stamp[4] for stamp in passed["archive/0"]} == {archive}
    carried = [*passed["desk/0"][1:], *passed["archive/0"][1:]]
    assert {Trace.parse(stamp[2]).trace_id for stamp in carried} == {begun.trace_id}  # type: ignore[union-attr]
    assert [stamp[3] for stamp in carried] == [{"tenant": "7"}] * 3
    assert carried[0][2] == str(begun)
    assert carried[1][2] == carried[2][2] != str(begun), "the desk's own span asked the archive"


def test_a_ref_works_in_any_process_of_the_app(cluster: Cluster) -> None:
    """Of a member, of a service, and a plain pickle of it."""
    first, second = (cluster.service("desk").member(number) for number in (0, 1))
    archive = cluster.service("archive").member(0)
    copy = pickle.loads(pickle.dumps(second))

    one, two = first.forward(copy, "form").result()
    three, four = archive.forward(first, "form").result()

    assert len({one, two, three}) == 3
    assert four == one
    assert first.forward(second, "form").result() == [one, two]


PROGRAM = """
import pickle, sys
from supervisors import connect
with connect(sys.argv[1]):
    ref = pickle.load(sys.stdin.buffer)
    print(ref.file("form").result()[0])
"""


def test_a_ref_from_a_file_works_in_a_program_that_connects(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "desk.pickle"
    desk = cluster.service("desk").member(1)
    file.write_bytes(pickle.dumps(desk))
    with file.open("rb") as stdin:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, cluster.app_name],
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    assert ran.stdout.strip() == str(desk.file("form").result()[0]), ran.stderr


def test_an_app_in_a_notebook(venue: Any) -> None:
    """Started in one cell, used in others, stopped in the last: all on the one loop of the kernel."""
    run = App(Service("kitchen", Chef), name="notebook").run(address=venue.address)
    loop = asyncio.new_event_loop()
    names: dict[str, Any] = {}

    def cell(code: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(code)

    async def start() -> None:
        names["kitchen"] = run.start().service("kitchen")

    async def awaited() -> Any:
        kitchen = names["kitchen"]
        dishes = await asyncio.gather(*(kitchen.cook(dish) for dish in ("soup", "fish")))
        with pytest.raises(DeadlineExceeded):
            await kitchen.options(timeout=0.1).nap(5)
        return [*dishes, *[course async for course in kitchen.courses(["cake"])]]

    async def waited_for() -> Any:
        kitchen = names["kitchen"]
        names["reply"] = kitchen.cook("pie")
        return [kitchen.cook("soup").result(), *kitchen.courses(["cake"])]

    async def read_later() -> Any:
        return await names["reply"]

    async def stop() -> None:
        run.stop()

    try:
        cell(start())
        assert cell(awaited()) == [f"{dish} from the grill" for dish in ("soup", "fish", "cake")]
        assert cell(waited_for()) == [f"{dish} from the grill" for dish in ("soup", "cake")]
        assert cell(read_later()) == "pie from the grill"
    finally:
        cell(stop())
        loop.close()
    assert not (venue.run_root / "notebook").exists()

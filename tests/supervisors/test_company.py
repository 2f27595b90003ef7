"""The company: what it makes of the end of a process, with Ray's word on it coming later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.exit import Exit
from actors.system import ActorSystem
from supervisors.company import Company
from supervisors.exits import Verdict
from supervisors.slot import Host, Slot


class Ray:
    """Says why a process ended, when it is asked."""

    def __init__(self, cause: tuple[str, str] | None) -> None:
        self._cause = cause

    def wait_lifelines(self, lifelines: list[Any], timeout: float) -> list[Any]:
        return lifelines if self._cause is not None else []

    def cause_of_death(self, lifeline: Any) -> Any:
        return self._cause


class Stage:
    """Hears what the company says."""

    def __init__(self, system: ActorSystem, run_dir: Path, cause: tuple[str, str] | None) -> None:
        self.died: list[Verdict] = []
        self.explained: list[tuple[Verdict, Verdict]] = []
        self.company = Company(
            system,
            {"epoch": 1, "run_dir": str(run_dir)},
            0,
            heartbeat_limit=10.0,
            on_died=lambda host, members, verdict: self.died.append(verdict),
            on_explained=lambda host, members, told, verdict: self.explained.append((told, verdict)),
            on_refused=lambda: None,
            everybody_told=self.hear,
            on_event=lambda *args, **fields: None,
        )
        self.company._ray = Ray(cause)  # type: ignore[assignment]
        self.run_dir = run_dir

    async def hear(self) -> None: ...

    async def lose(self, crash: str = "", lifeline: object = "lifeline", **host_fields: Exit) -> None:
        """A host ends; returns when everything about it has been said."""
        host = Host("host-1", "node", None, lifeline=lifeline, pid=1, **host_fields)
        host.slot = Slot("kitchen-1", "kitchen", {}, {}, host=host, members={"kitchen/0": None})
        (self.run_dir / "host-1.crash").write_text(crash)
        (self.run_dir / "host-1.stack").write_text("")
        self.company._died(host)
        for task in list(self.company._tasks):
            await task


@pytest.mark.parametrize(("cause", "counts"), [(("oom", "low"), True), (("node_lost", "gone"), False)])
async def test_rays_cause_comes_after_the_restart_has_begun(
    system: ActorSystem, tmp_path: Path, cause: tuple[str, str], counts: bool
) -> None:
    stage = Stage(system, tmp_path, cause)

    await stage.lose()

    assert [str(verdict.exit) for verdict in stage.died] == ["killed (SIGKILL or os._exit)"]
    [(told, verdict)] = stage.explained
    assert told is stage.died[0]
    assert (str(verdict.exit), verdict.counts) == (f"{cause[0]} ({cause[1]})", counts)


@pytest.mark.parametrize("cause", [None, ("killed", "End of file")])
async def test_a_cause_that_says_nothing_new_is_told_as_well(
    system: ActorSystem, tmp_path: Path, cause: tuple[str, str] | None
) -> None:
    """Whoever was told that the cause is open waits for it before giving up."""
    stage = Stage(system, tmp_path, cause)

    await stage.lose(ordered=Exit("killed", "order"))

    [(told, verdict)] = stage.explained
    assert (told.is_final, verdict.is_final) == (False, True)
    assert told.exit == verdict.exit == Exit("killed", "order")


async def test_a_cause_that_ray_cannot_say_any_more_is_told_as_well(
    system: ActorSystem, tmp_path: Path
) -> None:
    stage = Stage(system, tmp_path, None)
    stage.company._ray = None  # type: ignore[assignment]

    await stage.lose()

    assert [str(verdict.exit) for _, verdict in stage.explained] == ["killed (SIGKILL or os._exit)"]


async def test_where_nobody_can_be_asked_the_first_word_is_final(system: ActorSystem, tmp_path: Path) -> None:
    stage = Stage(system, tmp_path, ("oom", "low"))

    await stage.lose(lifeline=None)

    assert [verdict.is_final for verdict in stage.died] == [True]
    assert stage.explained == []


async def test_a_crash_file_is_read_and_removed_and_needs_no_other_word(
    system: ActorSystem, tmp_path: Path
) -> None:
    stage = Stage(system, tmp_path, ("oom", "low"))

    await stage.lose(crash="Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n")

    assert [str(verdict.exit) for verdict in stage.died] == ["killed (SIGABRT)"]
    assert stage.explained == []
    assert list(tmp_path.iterdir()) == []

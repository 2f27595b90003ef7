"""A stage that cannot open: nobody is left waiting for one that is never in charge."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from players import Chef

from actors.errors import ServiceFailed
from supervisors import App, Service
from supervisors import app as app_module

pytestmark = pytest.mark.ray

SABOTEURS = """
from pathlib import Path
from supervisors.cast import Cast
from supervisors.company import Company
from supervisors.stage_process import open_stage

def open_stuck(config):
    async def begin(self):
        raise RuntimeError("the curtain is stuck")
    Cast.begin = begin
    return open_stage(config)

def open_clumsy(config):
    honest, note = Company.take_over, Path(__file__).with_name("note")
    async def take_over(self, *args):
        if not note.exists():
            note.write_text("dropped it")
            raise RuntimeError("dropped it")
        await honest(self, *args)
    Company.take_over = take_over
    return open_stage(config)
"""


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the next app's stage opened by one of the above."""
    (tmp_path / "saboteurs.py").write_text(SABOTEURS)

    def sabotage(opener: str) -> None:
        class Sabotaged(app_module.House):
            def __init__(self, config: dict[str, Any], *args: Any) -> None:
                path = [*config["sys_path"], str(tmp_path)]
                super().__init__({**config, "opener": f"saboteurs:{opener}", "sys_path": path}, *args)

        monkeypatch.setattr(app_module, "House", Sabotaged)

    return sabotage


def test_an_app_whose_stage_cannot_open_it_ends_and_says_why(sabotage: Any, run_root: Path) -> None:
    sabotage("open_stuck")

    with pytest.raises(ServiceFailed, match="could not be opened: RuntimeError: the curtain is stuck"):
        App(Service("kitchen", Chef), name="stuck").run(num_cpus=1).start()

    assert not (run_root / "stuck").exists()


def test_a_stage_that_cannot_take_over_leaves_it_to_the_next_one(
    sabotage: Any, tmp_path: Path, until: Any
) -> None:
    sabotage("open_clumsy")
    with App(Service("kitchen", Chef), name="clumsy").run(num_cpus=1) as cluster:
        before = cluster.ps().result()

        os.kill(before["stage"]["pid"], signal.SIGKILL)

        until((tmp_path / "note").exists)
        until(lambda: cluster.ps().outcome().ok)
        after = cluster.ps().result()
        assert after["stage"]["epoch"] == before["stage"]["epoch"] + 2
        assert [row["pid"] for row in after["members"]] == [row["pid"] for row in before["members"]]

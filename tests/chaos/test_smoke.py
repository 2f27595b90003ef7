"""A short run of everything at once; `python -m tests.chaos` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisors.testing import FAULTS, LONG
from tests.chaos.run import chaos_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

SEED = int(os.environ.get("CHAOS_SEED", "7"))


def test_random_faults_under_load_lose_hang_and_leave_nothing(tmp_path: Path) -> None:
    faults: list[str] = []

    verdict = chaos_run(tmp_path, seconds=15, seed=SEED, period=1.5, rate=150, say=faults.append)

    assert verdict.is_clean, "\n".join([f"seed {SEED}", *faults, verdict.text()])
    assert verdict.handled > 500
    assert len(faults) > 3


def test_every_fault_has_a_name_and_the_long_ones_are_known() -> None:
    assert set(FAULTS) >= LONG
    assert {"kill", "pause", "crash", "kill_stage", "scale", "starve", "descriptors", "memory"} <= set(FAULTS)

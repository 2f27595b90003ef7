"""What a type checker sees of the public interface: `types_checked.py`, expected errors included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_the_types_are_what_users_are_promised() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(HERE / "types_checked.py")],
        check=False,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr

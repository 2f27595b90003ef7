"""What the tests of actors share: a run root of their own, and modules that far processes know too."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `distant`: classes that this process and a far one know by name

from distant import Far  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def run_root() -> Iterator[Path]:
    """A private run root with a short path: sockets have room for 107 characters."""
    root = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    before = os.environ.get("UNDERSTUDY_RUN_ROOT")
    os.environ["UNDERSTUDY_RUN_ROOT"] = str(root)
    yield root
    if before is None:
        del os.environ["UNDERSTUDY_RUN_ROOT"]
    else:
        os.environ["UNDERSTUDY_RUN_ROOT"] = before
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def lasting(run_root: Path) -> Iterator[Far]:
    """A process for the tests that leave it alive."""
    far = Far()
    yield far
    far.end()


@pytest.fixture
def far(run_root: Path) -> Iterator[Far]:
    """A process of the test's own, to be killed."""
    far = Far()
    yield far
    far.end()

"""What the tests of actors share: run roots of their own, and modules that far processes know too."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors._reliable import Outgoing

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `distant`: classes that this process and a far one know by name

from distant import Far  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def run_root() -> Iterator[Path]:
    """A run root of the module's own: processes that are killed here leave their sockets in it."""
    root = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_RUN_ROOT", str(root))
        yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def lasting(run_root: Path) -> Iterator[Far]:
    """A process for the tests that leave it alive."""
    far = Far()
    yield far
    far.end()


@pytest.fixture
def frames_of_tells(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of reliable tells that leave this process, each as often as it is sent."""
    sent: list[int] = []
    plain_send = Outgoing._send

    def send(self: Outgoing, address: str, numbers: tuple[int, ...], now: float, *, inquires: bool) -> None:
        sent.extend(numbers)
        plain_send(self, address, numbers, now, inquires=inquires)

    monkeypatch.setattr(Outgoing, "_send", send)
    return sent


@pytest.fixture
def far(run_root: Path) -> Iterator[Far]:
    """A process of the test's own, to be killed."""
    far = Far()
    yield far
    far.end()

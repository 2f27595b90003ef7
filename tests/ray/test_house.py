"""The house, with real processes and a real Ray: what it starts, when it stops, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidArgument
from supervisors import _probe, settings
from supervisors._probe import ProcessId
from supervisors.house import LOCK_NAME, LOG_NAME, HouseConfig, Orders

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]

# What the stage's process opens in these tests, in the place of `supervisors.stage`.
FAKE_STAGES = '''
import os, subprocess, sys, time
from pathlib import Path

class Fake:
    def __init__(self, config):
        self.config = config

def open_fake(config):
    return Fake(config)

def open_broken(config):
    raise RuntimeError("the scenery fell over")

class Orderly(Fake):
    def terminate(self):
        Path(self.config["app"]).write_text("stopped in order")
        os._exit(0)

class Stubborn(Fake):
    def terminate(self):
        Path(self.config["app"]).write_text("heard")

def open_parent(config):
    """Leaves a process behind that has lost its parent."""
    child = "import os, time; os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(99)"
    with open(config["app"], "w") as note:
        subprocess.run([sys.executable, "-c", child], stdout=note)
    return Fake(config)

def open_explorer(config):
    """Uses the cluster as a stage does and writes down what it saw."""
    import json, signal
    from supervisors import _ray
    seen = {}
    host_config = {"opener": "fake_stages:open_fake", "sys_path": config["sys_path"]}
    node = _ray.nodes()[0]
    seen["this machine"] = _ray.refuse_other_machines()
    _ray.make_slot("seat", {"CPU": 1, "GPU": 1}, {"kind": "gpu"})
    _ray.make_slot("stadium", {"CPU": 1000})
    inside = _ray.wait_started(_ray.spawn_host(host_config, name="inside", slot="seat", num_gpus=1))
    pinned = _ray.wait_started(_ray.spawn_host(host_config, name="pinned", node_id=node.node_id))
    seen["slots"] = [[v.name, v.state, v.node_id == node.node_id] for v in _ray.list_slots()]
    seen["hosts"] = _ray.list_hosts()
    seen["gpus"] = [inside.gpu_ids, pinned.gpu_ids]
    older = _ray.arm_lifeline(_ray.find_actor("pinned"), 1)
    time.sleep(0.1)
    newer = _ray.arm_lifeline(_ray.find_actor("pinned"), 2)
    seen["released"] = [_ray.wait_lifelines([older, newer], 5) == [older], _ray.cause_of_death(older)]
    os.kill(pinned.pid, signal.SIGKILL)
    seen["killed"] = [_ray.wait_lifelines([newer], 5) == [newer], _ray.cause_of_death(newer)]
    try:
        host_config["opener"] = "fake_stages:open_broken"
        _ray.wait_started(_ray.spawn_host(host_config, name="broken"))
    except Exception as exc:
        seen["broken"] = [type(exc).__name__, str(exc)]
    Path(config["app"]).write_text(json.dumps(seen))
    return Fake(config)
'''


class HouseUnderTest:
    """A house started the way a driver does it, with its own run root and home."""

    address: str
    stage: ProcessId

    def __init__(self, base: Path, app_name: str = "play") -> None:
        self.base = base
        self.app_name = app_name
        self.run_dir = base / "root" / app_name
        self.family: list[ProcessId] = []
        (base / "home").mkdir(exist_ok=True)
        (base / "fake_stages.py").write_text(FAKE_STAGES)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {**kept, "HOME": str(self.base / "home"), settings.RUN_ROOT_VARIABLE: str(self.base / "root")}

    def config(self, opener: str = "open_fake", **changes: Any) -> bytes:
        config = {
            "app_name": self.app_name,
            "run_dir": str(self.run_dir),
            "num_cpus": 2,
            "num_gpus": 0,
            "sys_path": [str(self.base)],
            "opener": f"fake_stages:{opener}",
            **changes,
        }
        return json.dumps(config).encode() + b"\n"

    def start(
        self, opener: str = "open_fake", environment: dict[str, str] | None = None, **changes: Any
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisors.house"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**self.environment, **(environment or {})},
            start_new_session=True,
        )
        self._write(self.config(opener, **changes))

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def order(self, order: str) -> None:
        self._write(json.dumps({"order": order}).encode() + b"\n")

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def wait_phase(self, phase: str) -> dict[str, Any]:
        for line in self.lines():
            if line.get("phase") == phase:
                self.family = [*_probe.descendants(self.process.pid), identity(self.process.pid)]
                return line
        raise AssertionError(f"the house ended before {phase!r}; its log:\n{self.log()}")

    def log(self) -> str:
        path = self.run_dir / LOG_NAME
        return path.read_text() if path.exists() else "(no log)"

    def wait_ended(self, timeout: float = 5.0) -> int:
        return self.process.wait(timeout)

    def what_is_left(self) -> list[object]:
        """Processes and files; empty is what the house promises."""
        living = [process for process in self.family if process.is_alive()]
        return [*living, *self.base.glob("root/*"), *self.base.glob("home/*")]

    def clean_up(self) -> None:
        if hasattr(self, "process"):
            if self.process.poll() is None:
                self.family += [*_probe.descendants(self.process.pid), identity(self.process.pid)]
                self.hang_up()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(5)
            _probe.end_processes(self.family)
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]


def identity(pid: int) -> ProcessId:
    found = _probe.process_id(pid)
    assert found is not None
    return found


def wait_until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true"
        time.sleep(0.02)


@contextlib.contextmanager
def open_house() -> Iterator[HouseUnderTest]:
    # Not tmp_path: sockets need a short directory.
    base = Path(tempfile.mkdtemp(prefix="ut-", dir="/tmp"))
    under_test = HouseUnderTest(base)
    yield under_test
    under_test.clean_up()
    shutil.rmtree(base)


@pytest.fixture
def house() -> Iterator[HouseUnderTest]:
    """For one test, which ends it."""
    with open_house() as house:
        yield house


@pytest.fixture(scope="module")
def standing() -> Iterator[HouseUnderTest]:
    """For the tests that leave it as it is: a house whose stage runs."""
    with open_house() as house:
        house.start(num_gpus=1, labels={"kind": "gpu"})
        house.address = house.wait_phase("ray")["address"]
        house.stage = identity(house.wait_phase("stage")["pid"])
        yield house


@pytest.fixture
def another() -> Iterator[Callable[[HouseUnderTest], HouseUnderTest]]:
    with contextlib.ExitStack() as stack:

        def tidy(under_test: HouseUnderTest) -> HouseUnderTest:
            stack.callback(under_test.clean_up)
            return under_test

        yield tidy


def test_end_of_file_leaves_no_process_and_no_file(house: HouseUnderTest) -> None:
    """The owner is gone, however it went: within 5 s so is everything it had started."""
    note = house.base / "note"
    house.start("open_parent", app=str(note))
    phases = [next(line for line in house.lines() if "phase" in line)["phase"] for _ in range(2)]
    stage = house.wait_phase("stage")
    wait_until(lambda: note.exists() and note.read_text())
    house.family.append(identity(int(note.read_text())))  # it has lost its parent

    assert phases == ["starting ray", "ray"]
    assert identity(stage["pid"]) in house.family
    assert len(house.family) >= 6
    assert (house.run_dir / settings.KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert house.run_dir.stat().st_mode & 0o777 == 0o700

    house.hang_up()

    assert house.wait_ended() == 0
    assert house.what_is_left() == []


def test_nobody_on_the_network_can_reach_an_embedded_cluster(standing: HouseUnderTest) -> None:
    host, port = standing.address.rsplit(":", 1)

    assert host == "127.0.0.1"
    with socket.socket() as outside, pytest.raises(OSError):
        # Every address of 127/8 is this machine: a server on all devices would answer.
        outside.connect(("127.0.0.2", int(port)))


def test_a_killed_owner_takes_everything_with_it(house: HouseUnderTest) -> None:
    program = (
        "import subprocess, sys, time\n"
        "house = subprocess.Popen([sys.executable, '-m', 'supervisors.house'], stdin=subprocess.PIPE,\n"
        "                         start_new_session=True)\n"
        f"house.stdin.write({house.config()!r})\n"
        "house.stdin.flush()\n"
        "time.sleep(99)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, env=house.environment
    )
    assert owner.stdout is not None
    for line in owner.stdout:
        if json.loads(line).get("phase") == "stage":
            break
    house.family = _probe.descendants(owner.pid)
    assert len(house.family) >= 6

    owner.kill()
    owner.communicate()

    wait_until(lambda: house.what_is_left() == [])


def test_the_stage_stops_the_app_in_order_first(house: HouseUnderTest) -> None:
    note = house.base / "note"
    house.start("Orderly", app=str(note))
    house.wait_phase("stage")

    house.terminate()

    assert house.wait_ended() == 0
    assert note.read_text() == "stopped in order"
    assert house.what_is_left() == []


def test_a_second_order_skips_the_waiting(house: HouseUnderTest) -> None:
    note = house.base / "note"
    house.start("Stubborn", app=str(note), grace=60)
    house.wait_phase("stage")
    house.order("stop")
    wait_until(note.exists)
    assert house.process.poll() is None

    house.order("force")

    assert house.wait_ended(2) == 0
    assert house.what_is_left() == []


def test_a_stage_that_ended_by_itself_ends_the_house(house: HouseUnderTest) -> None:
    house.start()
    stage = house.wait_phase("stage")

    os.kill(stage["pid"], signal.SIGKILL)

    assert next(house.lines())["reason"] == "the stage ended"
    assert house.wait_ended() == 0
    assert house.what_is_left() == []


def _is_raylet(pid: int) -> bool:
    program, _, _ = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")
    return program.endswith(b"/raylet")


def test_a_lost_raylet_ends_the_house_cleanly(house: HouseUnderTest) -> None:
    house.start()
    house.wait_phase("stage")
    raylet = [one for one in _probe.children(house.process.pid) if _is_raylet(one.pid)]

    assert len(raylet) == 1
    assert _probe.end_processes(raylet) == []

    assert next(house.lines())["reason"] == "Ray ended"
    assert house.wait_ended() == 0
    assert house.what_is_left() == []


def test_a_stage_that_does_not_start_is_one_line_and_a_log(house: HouseUnderTest) -> None:
    house.start("open_broken")

    error = next(line for line in house.lines() if "error" in line)

    assert error["type"] == "StartFailed"
    assert error["error"] == "stage did not start: RuntimeError: the scenery fell over"
    assert house.wait_ended() == 1
    assert list(house.base.glob("root/*/*")) == [house.run_dir / LOG_NAME]


def test_an_address_where_nobody_answers_fails_at_once(house: HouseUnderTest) -> None:
    house.start(address="127.0.0.1:9", num_cpus=None, num_gpus=None)

    error = next(line for line in house.lines() if "error" in line)

    assert error["error"] == "no Ray cluster at 127.0.0.1:9: Connection refused"
    assert house.wait_ended() == 1


@pytest.mark.parametrize("order", [HouseUnderTest.hang_up, HouseUnderTest.terminate])
def test_an_order_during_the_start_is_heeded(
    house: HouseUnderTest, order: Callable[[HouseUnderTest], None]
) -> None:
    house.start()
    next(house.lines())
    time.sleep(0.6)  # Into the middle of `ray.init`, which has no events of its own.
    house.family = _probe.descendants(house.process.pid)

    order(house)

    assert house.wait_ended() == 0, house.log()
    assert house.what_is_left() == []


def test_only_one_house_per_app(
    standing: HouseUnderTest, another: Callable[[HouseUnderTest], HouseUnderTest]
) -> None:
    second = another(HouseUnderTest(standing.base))

    second.start()

    assert next(second.lines())["type"] == "AlreadyStarted"
    assert second.wait_ended() == 1
    assert (standing.run_dir / LOCK_NAME).exists()


def test_an_external_cluster_lives_on_and_keeps_nothing_of_ours(
    standing: HouseUnderTest, another: Callable[[HouseUnderTest], HouseUnderTest]
) -> None:
    """One house's cluster serves as the external one of another; that one is also used as a stage does."""
    guest = another(HouseUnderTest(standing.base, "guest"))
    note = standing.base / "note"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(standing.run_dir / "ray-token")}

    guest.start("open_explorer", token, address=standing.address, num_cpus=None, num_gpus=None, app=str(note))
    guest_stage = identity(guest.wait_phase("stage")["pid"])
    seen = json.loads(note.read_text())
    guest.hang_up()

    assert guest.wait_ended() == 0
    wait_until(lambda: not guest_stage.is_alive())
    assert not guest.run_dir.exists()
    assert standing.stage.is_alive()
    assert seen["slots"] == [["seat", "ready", True], ["stadium", "infeasible", False]]
    assert seen["hosts"] == ["inside", "pinned"]
    assert seen["gpus"] == [["0"], []]
    assert seen["released"] == [True, None]
    assert seen["killed"][0] is True
    assert seen["killed"][1][0] == "killed"
    assert seen["broken"] == ["StartFailed", "broken did not start: RuntimeError: the scenery fell over"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "house config"),
        (b"[1]", "house config"),
        (b'{"app_name": "a"}', "run_dir"),
        (b'{"app_name": "a", "run_dir": "/r", "cpus": 1}', "unknown cpus"),
        (b'{"app_name": "a/b", "run_dir": "/r"}', "app name"),
        (b'{"app_name": "a", "run_dir": "/%s"}' % (b"r" * 80), "at most 60"),
    ],
)
def test_a_wrong_config_is_refused_with_what_is_wrong(line: bytes, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        HouseConfig.from_line(line)


def test_the_second_order_forces_and_end_of_file_is_never_the_second() -> None:
    orders = Orders()
    orders.stop("stop order")
    orders.stop("end of file")
    assert not orders.forced

    orders.stop("SIGTERM")

    assert orders.forced
    assert orders.reason == "stop order"

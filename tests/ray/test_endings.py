"""How apps begin and end: by their driver, by its death, over the death of a stage. Nothing may be left."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from players import Chef, Diarist

from actors.errors import ActorError, Unavailable
from supervisors import App, Service, connect, settings

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = '''
import asyncio, sys, time
from actors import Actor, UnknownMethod
from supervisors import App, Service

class Bell(Actor):
    """Lives in `__main__`: it has to travel by value."""

    class Cracked(RuntimeError):
        pass

    expected = (Cracked,)

    def __init__(self, tone):
        self.tone = tone

    async def ring(self, cracked=False):
        if cracked:
            raise self.Cracked(self.tone)
        return self.tone(self.context.name)

    async def on_stop(self, exit):
        await asyncio.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)

tone = lambda name: f"{name}: dong"
app = App(Service("bell", Bell, args=(tone,), per_host=1, shutdown=30.0), name=sys.argv[2])

if __name__ == "__main__":
    print("begins", flush=True)
    where = {"address": sys.argv[1]} if ":" in sys.argv[1] else {"num_cpus": 1}
    with app.run(**where) as cluster:
        print(cluster.service("bell").ring().result(), flush=True)
        if sys.argv[3:] == ["leave"]:
            sys.exit(0)
        time.sleep(100)
'''


class Driver:
    """A program of its own that runs an app; all it starts carries a mark."""

    def __init__(self, folder: Path, address: str, name: str, *arguments: str) -> None:
        self.name = name
        self.mark = secrets.token_hex(8)
        script = folder / "belfry.py"
        script.write_text(SCRIPT)
        environment = {**os.environ, "UNDERSTUDY_TEST_SESSION": self.mark, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(script), address, name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def finish(self, timeout: float = 20) -> tuple[int, str]:
        """Exit status and standard error."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def start(address: str, name: str, *arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, address, name, *arguments))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
        driver.process.communicate()


@pytest.fixture
def is_gone(run_root: Path, left_of: Callable[[str], dict[int, str]]) -> Callable[[Driver], bool]:
    """No process with the driver's mark, no run directory."""
    return lambda driver: not left_of(driver.mark) and not (run_root / driver.name).exists()


def test_a_class_of_main_travels_by_value(address: str, drive: Any, is_gone: Any) -> None:
    driver = drive(address, "belfry", "leave")

    assert [driver.line(), driver.line()] == ["begins", "bell/0: dong"]
    assert driver.finish() == (0, "")
    assert is_gone(driver)


def test_a_terminated_driver_takes_its_embedded_cluster_with_it(drive: Any, is_gone: Any, until: Any) -> None:
    """Within 5 s after the actors' own shutdown time, as after a SIGKILL (F16)."""
    driver = drive("embedded", "belfry", "0.5")
    assert [driver.line(), driver.line()] == ["begins", "bell/0: dong"]

    driver.process.send_signal(signal.SIGTERM)

    until(lambda: is_gone(driver), timeout=5 + 2)


def test_a_dead_driver_takes_only_its_own_from_a_shared_cluster(
    address: str, drive: Any, is_gone: Any, until: Any, venue: Any
) -> None:
    driver = drive(address, "belfry")
    assert [driver.line(), driver.line()] == ["begins", "bell/0: dong"]
    record = settings.find_record("belfry")

    driver.process.kill()

    until(lambda: is_gone(driver) and not record.is_alive(), timeout=5 + 2)
    with venue.play(Service("kitchen", Chef)) as cluster:
        assert cluster.service("kitchen").echo(1).result() == 1


def test_ctrl_c_during_the_start_leaves_nothing(drive: Any, is_gone: Any, until: Any) -> None:
    driver = drive("embedded", "belfry")
    assert driver.line() == "begins"
    until(lambda: list(settings.run_root().glob("belfry/ray/session-*")))

    driver.process.send_signal(signal.SIGINT)

    status, errors = driver.finish()
    assert status != 0
    assert "KeyboardInterrupt" in errors
    until(lambda: is_gone(driver), timeout=5)


def test_ctrl_c_twice_does_not_wait_for_the_actors(
    address: str, drive: Any, is_gone: Any, until: Any
) -> None:
    driver = drive(address, "belfry", "60")
    assert [driver.line(), driver.line()] == ["begins", "bell/0: dong"]

    driver.process.send_signal(signal.SIGINT)
    with connect("belfry") as cluster:
        until(lambda: any(event["event"] == "app.stopping" for event in cluster.events()))
    driver.process.send_signal(signal.SIGINT)

    status, _ = driver.finish(10)  # it has 30 s to stop in
    assert status != 0
    until(lambda: is_gone(driver), timeout=5)


def test_a_killed_stage_returns_and_the_app_still_ends_in_order(
    address: str, run_root: Path, until: Any
) -> None:
    """Its next life has the members that run, in the same processes, and its end leaves nothing."""
    run = App(Service("kitchen", Chef, size=2, per_host=1), name="returned").run(address=address)
    cluster = run.start()
    before = cluster.ps().result()
    kitchen = cluster.service("kitchen")

    os.kill(before["stage"]["pid"], signal.SIGKILL)

    assert kitchen.cook("steak").result() == "steak from the grill"  # while nobody is in charge
    after = until(lambda: later_life(cluster, before["stage"]["epoch"]))
    lives = [
        [(row["name"], row["pid"], row["incarnation"]) for row in ps["members"]] for ps in (before, after)
    ]
    assert lives[0] == lives[1]
    assert not run.wait(0)
    run.stop()
    pids = [ps["stage"]["pid"] for ps in (before, after)]
    pids += [row["pid"] for ps in (before, after) for row in ps["members"] + ps["understudies"]]
    until(lambda: not [pid for pid in pids if settings.process_start_time(pid) is not None], timeout=5)
    assert not (run_root / "returned").exists()


def later_life(cluster: Any, epoch: int) -> dict[str, Any] | None:
    """What `ps` says once a stage of a later epoch has its members running; None before."""
    try:
        ps: dict[str, Any] = cluster.ps().result()
    except ActorError:
        return None
    is_back = ps["stage"]["epoch"] > epoch and {row["state"] for row in ps["members"]} == {"running"}
    return ps if is_back else None


async def test_an_app_runs_in_async_code_as_well(address: str, run_root: Path) -> None:
    async with App(Service("kitchen", Chef), name="awaited").run(address=address) as cluster:
        assert await cluster.service("kitchen").cook("steak") == "steak from the grill"
        pid = (await cluster.ps())["stage"]["pid"]

    assert settings.process_start_time(pid) is None
    assert not (run_root / "awaited").exists()


def test_leaving_stops_members_in_order_and_services_in_reverse(venue: Any, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    services = [
        Service(name, Diarist, args=(str(diary),), size=2, per_host=2, strategy="rest_for_one")
        for name in ("first", "second")
    ]

    with venue.play(*services):
        assert diary.read_text().splitlines() == [
            f"{name}/{n} started" for name in ("first", "second") for n in (0, 1)
        ]

    assert diary.read_text().splitlines()[4:] == [
        f"{name}/{n} stopped shutdown" for name in ("second", "first") for n in (1, 0)
    ]


def test_a_client_can_stop_the_app_for_everyone(address: str, run_root: Path) -> None:
    run = App(Service("kitchen", Chef), name="stopped").run(address=address)
    cluster = run.start()

    cluster.stop().result()

    assert run.wait(10)
    run.stop()
    with pytest.raises(ActorError):
        cluster.ps().result()
    assert not (run_root / "stopped").exists()


def test_nobody_waits_for_a_cluster_that_is_not_there(run_root: Path) -> None:
    began_at = time.monotonic()

    with pytest.raises(Unavailable, match=r"no Ray cluster at 127\.0\.0\.1:9: Connection refused"):
        App(Service("kitchen", Chef), name="nowhere").run(address="127.0.0.1:9").start()

    assert time.monotonic() - began_at < 15
    assert [path.name for path in (run_root / "nowhere").iterdir()] == ["house.log"]
    shutil.rmtree(run_root / "nowhere")

"""How `understudy up` and `demo` begin and end; each test here starts what it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


def write(understudy: Any, name: str, text: str) -> str:
    path: Path = understudy.base / name
    path.write_text(text)
    return str(path)


LINE = """
import asyncio
from actors import Actor
from supervisors import App, Group, Service

class Cook(Actor):
    async def on_start(self) -> None:
        if self.context.incarnation > 1:
            await asyncio.sleep(60)

app = App(Group("line", Service("larder", Cook), Service("kitchen", Cook), strategy="rest_for_one"))
"""
"""A group that starts once, and then takes for ever."""


class TestBeforeAnythingStarts:
    def test_what_the_file_raises_is_the_users_traceback_alone(self, understudy: Any) -> None:
        file = write(understudy, "broken.py", "def oven():\n    return 1 / 0\n\n\noven()\n")

        result = understudy("up", file)

        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.splitlines()[0] == "Traceback (most recent call last):"
        assert result.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
        assert set(re.findall(r'File "([^"]+)"', result.stderr)) == {file}

    def test_a_file_that_is_not_python_is_shown_where(self, understudy: Any) -> None:
        file = write(understudy, "typo.py", "x = 1\ndef oven(:\n")

        result = understudy("up", file)

        assert result.returncode == 1
        assert set(re.findall(r'File "([^"]+)"', result.stderr)) == {file}
        assert "line 2" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("SyntaxError")

    def test_a_missing_import_in_the_file_is_the_users_too(self, understudy: Any) -> None:
        file = write(understudy, "needy.py", "import no_such_module_here\n")

        result = understudy("up", file)

        assert result.returncode == 1
        assert set(re.findall(r'File "([^"]+)"', result.stderr)) == {file}
        assert result.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module_here'"

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "it defines no App"),
            ("from supervisors import App\napplication = App()\n", "it has application"),
            (
                "from supervisors import *\nfrom actors import Actor\n"
                "app = App(Service('a', Actor, size=-1))\n",
                "Service 'a': size=-1 is not a whole number of 0 or more",
            ),
            (
                "import threading\nfrom supervisors import *\nfrom actors import Actor\n"
                "class A(Actor):\n    def __init__(self, lock): ...\n"
                "app = App(Service('a', A, args=(threading.Lock(),)))\n",
                "Service 'a': argument 1 cannot be pickled",
            ),
        ],
    )
    def test_an_app_that_is_none_or_wrong_is_one_line(
        self, understudy: Any, text: str, complaint: str
    ) -> None:
        result = understudy("up", write(understudy, "wrong.py", text))

        assert result.returncode == 1
        assert complaint in result.stderr.splitlines()[-1]
        assert result.stdout == ""

    @pytest.mark.parametrize(
        ("arguments", "status", "complaint"),
        [
            (["nowhere.py"], 1, "nowhere.py: no such file"),
            (["no_such_module:app"], 1, "'no_such_module' is neither a file nor a module"),
            ([], 2, "Missing argument"),
            (["x.py", "--num-cpus", "two"], 2, "'two' is not a valid float"),
            (["x.py", "--label", "disk"], 2, "'disk' is not NAME=VALUE"),
            (["x.py", "--resource", "press=many"], 2, "--resource press=many: not a number"),
        ],
    )
    def test_wrong_arguments_are_refused(
        self, understudy: Any, arguments: list[str], status: int, complaint: str
    ) -> None:
        result = understudy("up", *arguments)

        assert result.returncode == status
        assert complaint in result.stderr.splitlines()[-1]

    @pytest.mark.parametrize(
        "command",
        [("ps",), ("tree",), ("events",), ("call", "a.b"), ("kill", "a/0"), ("scale", "a=1"), ("down",)],
    )
    def test_without_an_app_every_command_exits_4(self, understudy: Any, command: tuple[str, ...]) -> None:
        result = understudy(*command)

        assert (result.returncode, result.stderr) == (
            4,
            "understudy: no app is running here; start one with `understudy up FILE`\n",
        )

    def test_the_doctor_sweeps_what_the_dead_have_left(self, understudy: Any) -> None:
        stale = understudy.run_root / "ghost"
        stale.mkdir(mode=0o700)
        (stale / "stage.json").write_text("{}")

        found = json.loads(understudy("doctor", "-o", "json").stdout)
        assert [each["state"] for each in found if each["what"] == "stale session"] == ["warning"]
        understudy("doctor", "--sweep")

        assert not stale.exists()


class TestEndings:
    def test_mains_error_is_the_users_traceback_and_ends_the_app(
        self, understudy: Any, kiosk: str, bistro: str
    ) -> None:
        result = understudy("up", kiosk, "--num-cpus", "1", "--", "--fail")

        assert result.returncode == 1
        assert "main got --fail soup" in result.stdout
        assert result.stdout.splitlines()[-1] == "kiosk is down"
        assert set(re.findall(r'File "([^"]+)"', result.stderr)) == {bistro}  # where `main` is
        assert result.stderr.splitlines()[-1] == "RuntimeError: the head chef left"

    def test_mains_exit_status_is_the_commands(self, understudy: Any, kiosk: str, joining: Any) -> None:
        assert understudy("up", kiosk, *joining, "--", "--exit").returncode == 7

    def test_down_from_another_terminal_ends_it_in_order(self, understudy: Any, kiosk: str) -> None:
        up = understudy.start("up", kiosk, "--num-cpus", "1")
        up.wait_line("running; Ctrl-C stops it")

        down = understudy("down")

        assert (down.returncode, down.stdout, down.stderr) == (0, "kiosk is down\n", "stopping kiosk …\n")
        assert up.finish() == 0
        assert up.out.splitlines()[-2:] == ["kiosk was stopped from elsewhere", "kiosk is down"]

    def test_a_main_that_runs_on_ends_with_the_app(self, understudy: Any, kiosk: str, joining: Any) -> None:
        """It would try again for as long as it likes, but nobody will ever be there."""
        up = understudy.start("up", kiosk, *joining, "--", "--stay")
        up.wait_line("main got --stay soup")

        assert understudy("down").returncode == 0

        assert up.finish() == 0
        assert up.out.splitlines()[-2:] == ["kiosk was stopped from elsewhere", "kiosk is down"]
        assert "Traceback" not in up.out

    @pytest.mark.parametrize("second", ["down --force", "Ctrl-C"])
    def test_a_second_order_does_not_wait_for_the_actors(
        self, understudy: Any, kiosk: str, second: str, until: Any
    ) -> None:
        up = understudy.start("up", kiosk, "--num-cpus", "1", BISTRO_CLEANUP="60")
        up.wait_line("running; Ctrl-C stops it")
        began_at = time.monotonic()

        if second == "Ctrl-C":
            up.interrupt()
            until(lambda: "app.stopping" in understudy("events", "-o", "json").stdout)
            up.interrupt()
            up.finish(25)
        else:
            assert understudy("down", "--force").returncode == 0
            up.finish(25)

        assert time.monotonic() - began_at < 15  # the kitchen has 30 s to stop in
        assert "Traceback" not in up.err

    @pytest.mark.parametrize("times", [1, 2])
    def test_ctrl_c_while_ray_starts_leaves_nothing(
        self, understudy: Any, kiosk: str, times: int, until: Any
    ) -> None:
        up = understudy.start("up", kiosk, "--num-cpus", "1")
        up.wait_line("starting Ray")
        until(lambda: list(understudy.run_root.glob("kiosk/ray/session-*")))

        for _ in range(times):
            up.interrupt()

        assert up.finish() == 0
        assert "Traceback" not in up.err
        until(lambda: understudy.left() == [], timeout=6)

    def test_ctrl_c_while_a_group_restarts_ends_all_of_it(self, understudy: Any, until: Any) -> None:
        """Whoever has ordered the restart is told, and nobody waits for the start that takes so long."""
        (understudy.base / "line.py").write_text(LINE)
        up = understudy.start("up", "line.py", "--num-cpus", "1")
        up.wait_line("running; Ctrl-C stops it")
        restart = understudy.start("restart", "line")
        up.wait_line("group line is restarted by order")
        until(lambda: '"starting"' in understudy("ps", "-o", "json").stdout.replace("restarting", "starting"))

        up.interrupt()

        assert up.finish() == 0
        assert restart.finish() != 0
        assert restart.err.startswith("understudy: ")
        assert len(restart.err.splitlines()) == 1
        until(lambda: understudy.left() == [], timeout=6)

    def test_a_killed_stage_returns_and_up_says_so(self, understudy: Any, bistro: str) -> None:
        up = understudy.start("up", bistro, "--num-cpus", "1")
        up.wait_line("running; Ctrl-C stops it")
        stage = json.loads(understudy("ps", "-o", "json").stdout)["stage"]
        following = understudy.start("events", "-f", "--last", "1")
        following.wait_line("")

        os.kill(stage["pid"], signal.SIGKILL)

        up.wait_line("the stage is away")
        assert "epoch 2" in up.wait_line("the stage is back")
        assert json.loads(understudy("ps", "-o", "json").stdout)["stage"]["epoch"] == stage["epoch"] + 1
        # Who follows the events goes on with those of the next life, up to the end of the app.
        following.wait_line("the stage is back (epoch 2)")
        understudy("scale", "kitchen=+0")
        following.wait_line("service kitchen scales")
        up.interrupt()
        assert following.finish() == 0
        assert following.err == "understudy: the stage of bistro is gone; it should be back soon\n"
        assert up.finish() == 0
        assert up.out.splitlines()[-1] == "bistro is down"

    def test_a_killed_up_leaves_nothing(self, understudy: Any, kiosk: str, until: Any) -> None:
        up = understudy.start("up", kiosk, "--num-cpus", "1")
        up.wait_line("running; Ctrl-C stops it")

        up.process.kill()
        up.process.wait()

        until(lambda: understudy.left() == [], timeout=6)

    def test_the_demo_kills_an_actor_and_shows_it_back(self, understudy: Any) -> None:
        result = understudy("demo")

        assert (result.returncode, result.stderr) == (0, "")
        killed = re.search(r"pid (\d+) is dead", result.stdout)
        back = re.search(r"greeter/0 is back: pid (\d+), life 2, last exit killed \(order\)", result.stdout)
        assert killed is not None
        assert back is not None
        assert killed[1] != back[1]
        assert re.search(
            r"4 members; 8 calls answered by greeter/0, greeter/1, greeter/2, greeter/3", result.stdout
        )
        assert re.search(r"1 members; 8 calls answered by greeter/0$", result.stdout, re.M)
        assert result.stdout.splitlines()[-1] == "demo is down"


class TestAnAppThatEscalates:
    def test_goes_down_with_what_gave_up_and_says_why(
        self, understudy: Any, fragile: str, joining: Any
    ) -> None:
        up = understudy.start("up", fragile, *joining)
        up.wait_line("running; Ctrl-C stops it")
        assert understudy("call", "stove.burn").returncode == 1

        assert up.finish() == 1
        reason = "fragile has given up: shop gave up: stove gave up: error (RuntimeError: the roux)"
        assert up.err.splitlines()[-1] == f"understudy: {reason}"

    def test_does_not_come_up_without_what_cannot_start(
        self, understudy: Any, fragile: str, joining: Any
    ) -> None:
        result = understudy("up", fragile, *joining, FRAGILE_START="1")

        assert result.returncode == 1
        assert result.stderr.splitlines()[-1] == (
            "understudy: fragile has given up: stillborn did not start: start_failed (RuntimeError: no stove)"
        )

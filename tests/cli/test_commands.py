"""The commands of a second terminal, against one `understudy up` for the whole module."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def up(shared: Any, bistro: str) -> Iterator[Any]:
    running = shared.start("up", bistro, "--num-cpus", "2", "--", "red", "--deep", "7")
    running.wait_line("running; Ctrl-C stops it")
    yield running
    if running.process.poll() is None:
        running.interrupt()
        running.finish()


@pytest.fixture
def us(shared: Any, up: Any) -> Any:
    """The command line of the user whose app is up."""
    return shared


def loads(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.stderr == ""
    return json.loads(result.stdout)


def member(us: Any, name: str) -> dict[str, Any]:
    return next(row for row in loads(us("ps", "-o", "json"))["members"] if row["name"] == name)


def test_up_says_what_started_in_a_line_per_service(up: Any) -> None:
    lines = [re.sub(r"^\[ *[\d.]+ s\] ", "", line) for line in up.out.splitlines()]

    assert lines[0] == "starting Ray …"
    assert lines[1] == "Ray is up; starting bistro …"
    assert "kitchen: 2 of 2 Chef running" in lines
    assert "pair: 2 of 2 Chef running" in lines
    assert "vision: 0 of 1 Chef degraded: needs 1 GPU; nodes have 0 free of 0" in lines


def test_what_follows_two_dashes_reaches_main(up: Any) -> None:
    assert up.wait_line("main got") == "main got red --deep 7 soup"


def test_a_second_up_says_who_runs_the_app(us: Any, bistro: str) -> None:
    result = us("up", bistro)

    assert result.returncode == 1
    assert re.fullmatch(
        r"understudy: app 'bistro' runs already: stage pid \d+, house pid \d+; .*\n", result.stderr
    )
    assert result.stdout == ""


class TestPs:
    def test_it_shows_services_and_members_and_exits_3_while_one_waits(self, us: Any) -> None:
        result = us("ps")

        assert result.returncode == 3
        assert re.search(r"^kitchen +running +2/2", result.stdout, re.M)
        assert re.search(r"^vision/0 +pending .*needs 1 GPU; nodes have 0 free of 0$", result.stdout, re.M)

    def test_its_keys_are_stable(self, us: Any) -> None:
        found = loads(us("ps", "-o", "json"))

        assert {"app", "stage", "services", "members"} <= set(found)
        assert set(found["stage"]) >= {"pid", "epoch"}
        assert set(found["services"][0]) >= {"name", "state", "size", "ready", "restarts", "reason"}
        assert set(found["members"][0]) >= {
            *("name", "service", "state", "incarnation", "pid", "node", "restarts", "last_exit", "reason")
        }
        assert found["app"] == "bistro"

    def test_it_exits_0_when_all_is_well(self, us: Any) -> None:
        us("scale", "vision=0", "--wait")

        assert us("ps").returncode == 0
        us("scale", "vision=1", "--wait")
        assert us("ps", "-o", "json").returncode == 3

    @pytest.mark.parametrize(
        "command", [("ps",), ("tree",), ("call", "kitchen.add", "1", "2"), ("events",), ("logs", "kitchen")]
    )
    def test_no_command_imports_ray(self, us: Any, command: tuple[str, ...]) -> None:
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "supervisors.cli", *command],
            capture_output=True,
            check=False,
            text=True,
            env=us.environment,
            cwd=ROOT,
        )

        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
        assert "supervisors" in imported
        assert imported & {"ray", "psutil", "structlog", "cloudpickle", "numpy"} == set()


class TestTreeAndEvents:
    def test_the_tree_shows_services_and_members(self, us: Any) -> None:
        result = us("tree")

        assert result.returncode == 0
        assert result.stdout.startswith(
            "bistro  [one_for_one]\n"
            "├── kitchen  [one_for_one]  running  2/2\n"
            "│   ├── kitchen/0  running  life "
        )
        found = loads(us("tree", "-o", "json"))
        assert [child["name"] for child in found["children"]] == ["kitchen", "pair", "vision"]
        assert {"name", "state", "incarnation", "pid", "last_exit"} <= set(
            found["children"][0]["children"][0]
        )

    def test_events_are_a_line_each(self, us: Any) -> None:
        pid = member(us, "kitchen/1")["pid"]

        assert any(
            line.endswith(f"kitchen/1 started (life 1, pid {pid})")
            for line in us("events").stdout.splitlines()
        )
        events = [json.loads(line) for line in us("events", "-o", "json", "--last", "3").stdout.splitlines()]
        assert len(events) == 3
        assert all({"number", "time", "event"} <= set(event) for event in events)

    def test_followed_events_come_as_they_happen_until_ctrl_c(self, us: Any) -> None:
        following = us.start("events", "-f", "--last", "1")
        following.wait_line("")

        us("scale", "kitchen=+0")

        following.wait_line("service kitchen scales from 2 to 2")
        following.interrupt()
        assert following.finish() == 0
        assert following.err == ""


class TestCall:
    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            (["kitchen.cook", '"steak"'], '"steak"\n'),
            (["kitchen.cook", '"ei"', "2"], '"eiei"\n'),
            (["kitchen/1.cook", '"soufflé"'], '"soufflé"\n'),
            (["kitchen.add", "-1", "0.5"], "-0.5\n"),
            (["kitchen.nap", "0"], "null\n"),
            (["kitchen.courses", '["soup", "fish"]'], '"soup"\n"fish"\n'),
            (["kitchen.courses", "[]"], ""),
            (["kitchen.courses", json.dumps(["soup"] * 1000)], '"soup"\n' * 1000),
            (["kitchen.slowly", '["soup", "fish"]'], '"soup"\n"fish"\n'),
        ],
    )
    def test_arguments_and_answers_are_json(self, us: Any, arguments: list[str], printed: str) -> None:
        result = us("call", *arguments)

        assert (result.returncode, result.stdout, result.stderr) == (0, printed, "")

    def test_what_json_cannot_say_is_shown_as_python_would(self, us: Any) -> None:
        assert loads(us("call", "kitchen.oddity")) == {"set": {"repr": "{1}"}}

    @pytest.mark.parametrize(
        ("arguments", "status", "complaint"),
        [
            (["kitchen.cook", '"unicorn"'], 1, "understudy: UnknownDish: unicorn"),
            (["kitchen.cok", '"steak"'], 1, "has no method 'cok'; did you mean 'cook'?"),
            (["kitchn.cook", '"steak"'], 1, "has no service 'kitchn'; did you mean 'kitchen'?"),
            (["kitchen/9.cook", '"steak"'], 1, "kitchen has 2 members"),
            (["kitchen/x.cook", '"steak"'], 1, "kitchen/x is not a member's name"),
            (["kitchen.cook"], 1, "missing a required argument: 'dish'"),
            (["kitchen.nap", "30", "--timeout", "0.2"], 1, "within 0.2 s"),
            (["vision.cook", '"steak"'], 1, "no member of vision is running (pending)"),
            (["kitchen.cook", "steak"], 2, """'steak' is not JSON; a string is written '"steak"'"""),
            (["kitchen"], 2, "'kitchen' is not SERVICE.METHOD"),
            (["kitchen.cook", '"a"', "--timeout", "0"], 2, "--timeout 0 must be above 0"),
            (["kitchen.cook", '"a"', "--tiemout", "3"], 2, "--tiemout"),
        ],
    )
    def test_what_is_wrong_is_one_line_and_a_status(
        self, us: Any, arguments: list[str], status: int, complaint: str
    ) -> None:
        result = us("call", *arguments)

        assert (result.returncode, result.stdout) == (status, "")
        assert complaint in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        if status != 2:
            assert len(result.stderr.splitlines()) == 1

    def test_a_handlers_own_error_is_told_and_up_shows_the_traceback(
        self, us: Any, up: Any, until: Any
    ) -> None:
        result = us("call", "pair.burn")

        assert result.returncode == 1
        assert "RuntimeError: the roux" in result.stderr
        until(lambda: 'raise RuntimeError("the roux")' in up.err)
        up.wait_line("is being restarted (restart")


class TestScale:
    def test_sizes_are_absolute_or_relative(self, us: Any) -> None:
        assert us("scale", "kitchen=3", "--wait").stdout == "kitchen: 3 members\n"
        assert us("scale", "kitchen=-1").stdout == "kitchen: 2 members wanted\n"
        [report] = loads(us("scale", "kitchen=2", "--wait", "-o", "json"))
        assert (report["service"], report["size"]) == ("kitchen", 2)

    def test_who_waits_for_room_is_named(self, us: Any) -> None:
        result = us("scale", "vision=2", "kitchen=2", "--wait")

        assert result.stdout.splitlines() == [
            "vision: 2 members",
            "  vision/0 waits: needs 1 GPU; nodes have 0 free of 0",
            "  vision/1 waits: needs 1 GPU; nodes have 0 free of 0",
            "kitchen: 2 members",
        ]
        assert us("scale", "vision=1", "--wait").returncode == 0

    @pytest.mark.parametrize(
        ("arguments", "status", "complaint"),
        [
            (["kitchen"], 2, "'kitchen' is not SERVICE=SIZE"),
            (["kitchen=many"], 2, "'kitchen=many' is not SERVICE=SIZE"),
            (["kitchen="], 2, "'kitchen=' is not SERVICE=SIZE"),
            (["kitchen=--3"], 2, "'kitchen=--3' is not SERVICE=SIZE"),
            (["kitchen=-9"], 1, "kitchen has 2 members"),
            (["kitchn=3"], 1, "did you mean 'kitchen'?"),
            ([], 2, "Missing argument"),
        ],
    )
    def test_what_is_wrong_is_refused(
        self, us: Any, arguments: list[str], status: int, complaint: str
    ) -> None:
        result = us("scale", *arguments)

        assert result.returncode == status
        assert complaint in result.stderr.splitlines()[-1]


class TestKill:
    def test_a_killed_member_is_watched_coming_back(self, us: Any, up: Any) -> None:
        before = member(us, "kitchen/0")

        result = us("kill", "kitchen/0")

        assert result.returncode == 0
        assert re.fullmatch(
            rf"kitchen/0: pid {before['pid']} killed\n"
            rf"kitchen/0: back as pid \d+, life {before['incarnation'] + 1}, after \d+ ms\n",
            result.stdout,
        )
        up.wait_line(f"kitchen/0 is killed by order (pid {before['pid']})")
        assert member(us, "kitchen/0")["last_exit"] == "killed (order)"

    def test_as_json(self, us: Any) -> None:
        found = loads(us("kill", "kitchen/1", "-o", "json"))

        assert found["member"] == "kitchen/1"
        assert found["back"]["pid"] != found["pid"]

    def test_neighbours_are_named_and_nobody_dies_without_a_yes(self, us: Any) -> None:
        before = member(us, "pair/0")["pid"]

        result = us("kill", "pair/0")

        assert result.returncode == 2
        assert "is also that of pair/1;" in result.stderr
        assert "--yes" in result.stderr
        assert member(us, "pair/0")["pid"] == before
        assert us("kill", "pair/0", "--yes").returncode == 0
        assert member(us, "pair/1")["last_exit"] == "killed (order)"

    @pytest.mark.parametrize(
        ("name", "status", "complaint"),
        [
            ("kitchen", 2, "'kitchen' is not a member's name; they are kitchen/0, kitchen/1, …"),
            ("kitchen/9", 1, "kitchen has no member 'kitchen/9'"),
            ("kitchn/0", 1, "did you mean 'kitchen'?"),
            ("vision/0", 1, "vision/0 has no process now"),
        ],
    )
    def test_what_is_wrong_is_refused(self, us: Any, name: str, status: int, complaint: str) -> None:
        result = us("kill", name)

        assert result.returncode == status
        assert complaint in result.stderr.splitlines()[-1]


class TestRestartAndReset:
    def test_a_member_gets_a_new_life_in_its_process(self, us: Any, up: Any) -> None:
        before = member(us, "pair/0")

        result = us("restart", "pair/0")

        assert (result.returncode, result.stdout, result.stderr) == (0, "restarted: pair/0\n", "")
        after = member(us, "pair/0")
        assert (after["pid"], after["incarnation"]) == (before["pid"], before["incarnation"] + 1)
        up.wait_line("pair/0 is restarted by order")

    def test_a_service_one_by_one(self, us: Any) -> None:
        assert loads(us("restart", "pair", "--rolling", "-o", "json")) == {"restarted": ["pair/0", "pair/1"]}

    def test_reset_says_when_there_is_nothing_to_revive(self, us: Any) -> None:
        result = us("reset", "pair")

        assert (result.returncode, result.stdout) == (0, "pair: had not failed, running\n")
        assert us("reset", "vision").returncode == 3  # it is degraded

    @pytest.mark.parametrize("command", ["restart", "reset", "describe"])
    def test_an_unknown_name_has_a_nearest_one(self, us: Any, command: str) -> None:
        result = us(command, "kitchn")

        assert result.returncode == 1
        assert "did you mean 'kitchen'?" in result.stderr.splitlines()[-1]


class TestDescribeAndTop:
    def test_a_service_is_described(self, us: Any) -> None:
        result = us("describe", "kitchen")

        assert result.returncode == 0
        lines = [line.strip() for line in result.stdout.splitlines()]
        assert lines[:2] == ["kitchen", "Cooks at one station."]
        assert "add(first: 'float', second: 'float') -> 'float'" in lines
        assert "courses(menu: 'list[str]') -> 'AsyncIterator[str]' (stream)" in lines
        assert loads(us("describe", "kitchen", "-o", "json"))["shutdown"] == 30.0

    def test_top_shows_ps_again_and_again_until_ctrl_c(self, us: Any, until: Any) -> None:
        top = us.start("top", "--period", "0.2")
        until(lambda: top.out.count("kitchen/0") >= 2)

        top.interrupt()

        assert (top.finish(), top.err) == (0, "")

    def test_a_period_of_nothing_is_refused(self, us: Any) -> None:
        assert us("top", "--period", "0").returncode == 2


class TestLogs:
    def test_they_go_by_name_over_all_lives(self, us: Any) -> None:
        us("call", "kitchen/0.announce", '"soup"')
        killed = loads(us("kill", "kitchen/0", "-o", "json"))
        us("call", "kitchen/0.announce", '"fish"')
        life = killed["back"]["incarnation"]

        texts = [line.partition("  ")[2] for line in us("logs", "kitchen/0").stdout.splitlines()]
        assert texts[-4:] == [
            f"kitchen/0 life {life - 1}  printed soup",
            f"kitchen/0 life {life - 1}  warning: served  dish=soup",
            f"kitchen/0 life {life}  printed fish",
            f"kitchen/0 life {life}  warning: served  dish=fish",
        ]
        lines = [
            json.loads(line)
            for line in us(
                "logs", "kitchen", "--grep", "dish=", "--since", "5m", "--last", "2", "-o", "json"
            ).stdout.splitlines()
        ]
        assert [(line["incarnation"], line["fields"]) for line in lines] == [
            (life - 1, {"dish": "soup"}),
            (life, {"dish": "fish"}),
        ]
        assert lines[0]["pid"] == killed["pid"]
        assert us("logs", "pair/0").stdout == ""

    def test_followed_ones_come_as_they_are_said_until_ctrl_c(self, us: Any) -> None:
        us("call", "pair/1.announce", '"toast"')
        following = us.start("logs", "pair", "-f")
        following.wait_line("served  dish=toast")
        us("call", "pair/0.announce", '"cake"')
        following.wait_line("printed cake")
        following.wait_line("served  dish=cake")

        following.interrupt()

        assert following.finish() == 0
        assert following.err == ""

    def test_a_wrong_name_or_option_is_one_line(self, us: Any) -> None:
        unknown = us("logs", "kichen/0")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == (
            "understudy: app 'bistro' has no service or member 'kichen/0'; did you mean 'kitchen/0'?\n"
        )
        assert us("logs", "kitchen/0", "--since", "yesterday").returncode == 2
        assert "is no regular expression" in us("logs", "--grep", "(").stderr


class TestAStageThatIsKilled:
    def test_up_says_that_it_is_away_and_back(self, us: Any, up: Any) -> None:
        stage = loads(us("ps", "-o", "json"))["stage"]

        os.kill(stage["pid"], signal.SIGKILL)

        up.wait_line("the stage is away")
        up.wait_line(f"the stage is back (epoch {stage['epoch'] + 1})")
        assert loads(us("ps", "-o", "json"))["stage"]["epoch"] == stage["epoch"] + 1

    def test_top_looks_again_and_again_also_over_its_lives(self, us: Any, until: Any) -> None:
        looking = us.start("top", "--period", "0.2", "-o", "json")
        first = json.loads(looking.wait_line("stage"))["stage"]
        os.kill(first["pid"], signal.SIGKILL)

        looking.wait_line(f'"epoch": {first["epoch"] + 1}')
        looking.interrupt()

        assert looking.finish() == 0
        assert looking.err == ""

    def test_who_asks_while_the_stage_is_away_waits_for_it(self, us: Any) -> None:
        stage = loads(us("ps", "-o", "json"))["stage"]
        os.kill(stage["pid"], signal.SIGKILL)

        again = loads(us("ps", "-o", "json"))["stage"]

        assert again["epoch"] == stage["epoch"] + 1


class TestTypos:
    def test_a_command_that_is_not_there_has_a_nearest_one(self, us: Any) -> None:
        result = us("scael", "kitchen=3")

        assert result.returncode == 2
        assert "there is no command 'scael'; did you mean 'scale'?" in result.stderr

    def test_an_option_that_is_not_there_too(self, us: Any) -> None:
        result = us("ps", "--outptu", "json")

        assert result.returncode == 2
        assert "--output" in result.stderr

    def test_an_app_that_does_not_run_is_unreachable(self, us: Any) -> None:
        result = us("ps", "--app", "bistr")

        assert (result.returncode, result.stderr) == (
            4,
            "understudy: no app named 'bistr' is running; did you mean 'bistro'?\n",
        )

    def test_help_names_every_command(self, us: Any) -> None:
        listed = re.findall(r"^  (\w+)  ", us("--help").stdout, re.M)

        assert sorted(listed) == [
            "call",
            "demo",
            "describe",
            "doctor",
            "down",
            "events",
            "kill",
            "logs",
            "ps",
            "reset",
            "restart",
            "scale",
            "top",
            "tree",
            "up",
        ]


def test_the_doctor_finds_the_running_app_and_nothing_stale(us: Any) -> None:
    result = us("doctor", "-o", "json")

    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert result.returncode == 0
    assert findings["app bistro"]["state"] == "ok"
    assert findings["ray token"]["state"] == "ok"
    assert "stale session" not in findings
    assert {"python", "ray", "pynng", "/dev/shm", "open files", "loopback ports", "run root"} <= set(findings)
    assert us("doctor").stdout.startswith("STATE")


def test_ctrl_c_stops_the_app_and_leaves_nothing(us: Any, up: Any) -> None:
    """The last test here: it ends the app that the others used."""
    following, looking = us.start("logs", "-f"), us.start("top", "-o", "json")
    following.wait_line("printed")
    looking.wait_line("kitchen")

    up.interrupt()

    assert up.finish() == 0
    assert following.finish() == 0
    assert looking.finish() == 4
    assert looking.err.startswith("understudy: no app is running here")
    assert up.out.splitlines()[-2:] == ["stopping …", "bistro is down"]
    assert us.left() == []
    assert us("ps").returncode == 4

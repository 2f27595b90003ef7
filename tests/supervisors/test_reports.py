"""What a supervisor reports: four keys, always the same, and the ordinary course in silence."""

from __future__ import annotations

import pytest

from actors.events import ActorExited, log_sink
from actors.exit import Exit
from actors.throttle import Throttle
from supervisors.events import ChildReported

BURNT = Exit("error", ValueError("burnt"))


@pytest.mark.parametrize(
    "context", ["child_exited", "start_failed", "backing_off", "shutdown_overrun", "gave_up"]
)
def test_a_report_has_the_four_keys(context: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = ChildReported("kitchen", context, BURNT, f"cook-{context}", 2, 0.5)

    assert list(report.fields())[:4] == ["supervisor", "context", "reason", "child"]
    log_sink(report)

    line = capsys.readouterr().err
    assert f"context={context}" in line
    assert f"child=cook-{context}" in line
    assert "supervisor=kitchen" in line
    assert "reason='error (ValueError: burnt)'" in line


@pytest.mark.parametrize(
    ("context", "exit"),
    [("restarting", BURNT), ("child_exited", Exit("normal")), ("child_exited", Exit("shutdown"))],
)
def test_the_ordinary_course_is_not_logged(
    context: str, exit: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    log_sink(ChildReported("kitchen", context, exit, "cook", 1))

    assert capsys.readouterr().err == ""


def test_a_storm_is_a_few_lines_and_the_users_traceback_stands_in_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.events._throttle", Throttle())
    try:
        raise ValueError("burnt")
    except ValueError as error:
        exit = Exit("error", error)

    for life in range(2000):
        log_sink(ActorExited("kitchen/0", life, exit, 0))
        log_sink(ChildReported("kitchen", "backing_off", exit, "kitchen/0", life, 0.1))

    lines = capsys.readouterr().err
    assert lines.count("actor.exited") <= 6
    assert lines.count("backing_off") <= 6
    assert lines.count('raise ValueError("burnt")') == lines.count("actor.exited")

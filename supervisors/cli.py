"""
The command line: clients of a running app's stage, over nng, without Ray.

Exit codes: 0 ok, 1 error, 2 usage, 3 unhealthy, 4 unreachable.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from actors.errors import ActorError, DeadlineExceeded, InvalidArgument, NotFound, Unavailable, nearest
from supervisors import settings, status

if TYPE_CHECKING:
    from actors.door import Door

OK, ERROR, USAGE, UNHEALTHY, UNREACHABLE = range(5)

_DYING = 2.0
"""Seconds that a process whose pipe has closed may take to be dead."""

_LOOK = 0.05
"""Seconds between two looks for the next life of a stage."""
_ALL = 1_000_000
"""Events: more than a stage keeps."""
_RETURN_LIMIT = 5.0
"""Seconds in which the next life of a stage should be there; 0.35 to 0.54 measured."""


class Commands(click.Group):
    """Commands by name; a typo gets the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(
                f"there is no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Unavailable, DeadlineExceeded) as error:
            _fail(str(error), UNREACHABLE)
        except ActorError as error:
            _fail(_told(error), ERROR)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="understudy")
def main() -> None:
    """Supervised actors as services: run them, watch them, break them, scale them."""


def _told(error: ActorError) -> str:
    """The error's text; what the user's own code raised comes with its type, as in a traceback."""
    if getattr(error, "is_ours", True):
        return str(error)
    return f"{getattr(error, 'type_name', '').rpartition('.')[2]}: {error}"


def _fail(text: str, code: int) -> None:
    click.echo(f"understudy: {text}", err=True)
    sys.exit(code)


output = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Readable text, or JSON."
)
which_app = click.option("--app", "app_name", metavar="NAME", help="Which app, where several run.")


@contextmanager
def _door(app_name: str | None) -> Iterator[Door]:
    """A door to the stage of a running app."""
    from actors.door import Door
    from actors.rundir import read_key

    record = _record(app_name)
    with Door(record.address, record.run_dir, read_key(record.key_path)) as door:
        yield door


def _record(app_name: str | None) -> settings.StageRecord:
    """Where to find a running app; waits while its stage comes back."""
    give_up_at = time.monotonic() + _RETURN_LIMIT
    while True:
        try:
            return settings.find_record(app_name)
        except NotFound as error:
            if time.monotonic() > give_up_at or not settings.is_returning(app_name):
                raise Unavailable(str(error), may_have_run=False) from None
        time.sleep(_LOOK)


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


# --- questions --------------------------------------------------------------------------------


@main.command()
@which_app
@output
def ps(app_name: str | None, output: str) -> None:
    """
    Services and members. Exits 3 when something is degraded, failed or pending.

    RESTARTS counts all lives after the first, those after a lost node or an order too, which no
    limit counts.
    """
    with _door(app_name) as door:
        found = door.ask("stage", "ps")
    _json(found) if output == "json" else click.echo(status.ps_text(found))
    sys.exit(OK if status.is_healthy(found) else UNHEALTHY)


@main.command()
@which_app
@output
def tree(app_name: str | None, output: str) -> None:
    """The supervision tree, down into the members: strategy, state, life, restarts and last exit."""
    with _door(app_name) as door:
        found = door.ask("stage", "tree")
    _json(found) if output == "json" else click.echo(status.tree_text(found))


@main.command()
@which_app
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--last", default=100, show_default=True, help="How many to begin with.")
@output
def events(app_name: str | None, follow: bool, last: int, output: str) -> None:
    """
    What happened: starts, crashes, restarts, scaling. With -o json a line per event.

    With -f it ends with the app; a stage that dies is followed into its next life.
    """
    try:
        for event in _followed_events(app_name, last) if follow else _events(app_name, last):
            click.echo(json.dumps(event) if output == "json" else status.event_text(event))
    except KeyboardInterrupt:
        pass


def _events(app_name: str | None, last: int, *, follow: bool = False) -> Iterator[dict[str, Any]]:
    with _door(app_name) as door:
        yield from door.stream("stage", "events", follow, last)


def _followed_events(app_name: str | None, last: int) -> Iterator[dict[str, Any]]:
    from supervisors import logs

    record = _record(app_name)
    is_over = logs.ending(record)
    while True:
        try:
            yield from _events(record.app, last, follow=True)
        except ActorError as error:
            # Its pipe closes before it counts as dead; anything else it says itself.
            patience = _DYING if isinstance(error, Unavailable) else 0.0
            if not is_over() and not _has_ended(record, patience):
                raise
        if not is_over():
            click.echo(f"understudy: the stage of {record.app} is gone; it should be back soon", err=True)
        following = _next_life(record, is_over)
        if following is None:
            return
        record, last = following, _ALL


def _has_ended(record: settings.StageRecord, patience: float) -> bool:
    """Whether the stage of *record* is gone, or will be within *patience* seconds."""
    give_up_at = time.monotonic() + patience
    while record.is_alive():
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(_LOOK)
    return True


def _next_life(record: settings.StageRecord, is_over: Callable[[], bool]) -> settings.StageRecord | None:
    """The stage that comes after that of *record*; None when the app has ended in order, or `Unavailable`."""
    while not is_over():
        try:
            found = settings.find_record(record.app)
        except NotFound:
            pass
        else:
            if found.address != record.address:
                return found
        time.sleep(_LOOK)
    if settings.record_path(record.app).exists():
        raise Unavailable(f"the stage of {record.app} does not come back", may_have_run=False)
    return None


@main.command("logs")
@click.argument("name", required=False, metavar="[SERVICE|MEMBER]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--since", metavar="AGE", help="Nothing older: 30s, 5m, 2h, 1d.")
@click.option("--grep", metavar="REGEX", help="Only what matches.")
@click.option("--last", type=click.IntRange(0), metavar="N", help="How many to begin with; all by default.")
@which_app
@output
def show_logs(
    name: str | None,
    follow: bool,
    since: str | None,
    grep: str | None,
    last: int | None,
    app_name: str | None,
    output: str,
) -> None:
    """What members said, in all their lives: log lines, prints, errors. With -o json a line each."""
    from supervisors import logs

    try:
        oldest = time.time() - logs.parse_duration(since) if since is not None else 0.0
        pattern = re.compile(grep) if grep is not None else None
    except InvalidArgument as error:
        raise click.UsageError(f"--since {error}") from None
    except re.error as error:
        raise click.UsageError(f"--grep {grep!r} is no regular expression: {error}") from None
    record = _record(app_name)
    run_dir = record.run_dir
    if name is not None:
        _check_said(record, run_dir, name)
    until = logs.ending(record) if follow else None
    try:
        for line in logs.read_lines(run_dir, logs.Choice(name, oldest, pattern), last, until):
            click.echo(
                json.dumps(line.to_dict(), ensure_ascii=False)
                if output == "json"
                else logs.line_text(line, time.time())
            )
    except KeyboardInterrupt:
        pass


def _check_said(record: settings.StageRecord, run_dir: str, name: str) -> None:
    """`NotFound` when nobody has that name, or had it and said something."""
    from supervisors import logs

    try:
        with _door(record.app) as door:
            found = door.ask("stage", "ps")
    except (Unavailable, DeadlineExceeded):
        return  # the stage is away; what was said is there all the same
    names = [row["name"] for kind in ("services", "members") for row in found[kind]]
    if name not in names and next(logs.read_lines(run_dir, logs.Choice(name)), None) is None:
        raise NotFound(f"app {record.app!r} has no service or member {name!r}{nearest(name, names)}")


@main.command()
@click.argument("service")
@which_app
@output
def describe(service: str, app_name: str | None, output: str) -> None:
    """A service: its class, methods, resources and strategy."""
    with _door(app_name) as door:
        found = door.ask("stage", "describe", service)
    _json(found) if output == "json" else click.echo(status.description_text(found))


@main.command()
@which_app
@click.option("--period", default=1.0, show_default=True, help="Seconds between two looks.")
@output
def top(app_name: str | None, period: float, output: str) -> None:
    """A live view of `ps`, until Ctrl-C. With -o json a line per look."""
    if not period > 0:
        raise click.UsageError(f"--period {period:g} must be above 0")
    try:
        for found in _looks(app_name, period):
            if output == "text" and sys.stdout.isatty():
                click.clear()
            click.echo(json.dumps(found) if output == "json" else status.ps_text(found))
    except KeyboardInterrupt:
        pass


def _looks(app_name: str | None, period: float) -> Iterator[Any]:
    """What `ps` says, again and again, over all lives of the stage; `Unavailable` at the app's end."""
    while True:
        _record(app_name)
        try:
            with _door(app_name) as door:
                while True:
                    yield door.ask("stage", "ps")
                    time.sleep(period)
        except ActorError as error:
            if error.status not in ("UNAVAILABLE", "FAILED_PRECONDITION"):  # it is away, or stopping
                raise
        time.sleep(0.05)


@main.command()
@click.option("--sweep", is_flag=True, help="Remove what dead apps have left.")
@output
def doctor(sweep: bool, output: str) -> None:
    """Versions, limits, run directories, stale sessions. Exits 3 when something will not work."""
    from supervisors.doctor import examine

    findings = examine(sweep=sweep)
    if output == "json":
        _json([{"what": f.what, "state": f.state, "text": f.text} for f in findings])
    else:
        marks = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
        click.echo(
            status.table([(marks[f.state], f.what, f.text) for f in findings], ("STATE", "WHAT", "FOUND"))
        )
    sys.exit(UNHEALTHY if any(finding.state == "problem" for finding in findings) else OK)


# --- orders -----------------------------------------------------------------------------------


@main.command()
@click.argument("sizes", nargs=-1, required=True, metavar="SERVICE=SIZE…")
@click.option("--wait", is_flag=True, help="Return when members run, have left, or wait for room.")
@which_app
@output
def scale(sizes: tuple[str, ...], wait: bool, app_name: str | None, output: str) -> None:
    """Change the size of services: `kitchen=8`, `vision=+1`, `cellar=-2`."""
    wanted = []
    for each in sizes:
        service, mark, size = each.partition("=")
        if not mark or not service or not re.fullmatch(r"[+-]?\d+", size):
            raise click.UsageError(f"{each!r} is not SERVICE=SIZE, with SIZE a number, +N or -N")
        wanted.append((service, size if size[0] in "+-" else int(size)))
    with _door(app_name) as door:
        reports = [
            door.ask("stage", "scale", service, size, wait, timeout=None if wait else 5.0)
            for service, size in wanted
        ]
    if output == "json":
        _json(reports)
        return
    for report in reports:
        pending = "".join(f"\n  {name} waits: {reason}" for name, reason in report.get("pending", {}).items())
        click.echo(f"{report['service']}: {report['size']} members{'' if wait else ' wanted'}{pending}")


@main.command(context_settings={"ignore_unknown_options": True})  # -1 is a number
@click.argument("target", metavar="SERVICE.METHOD")
@click.argument("arguments", nargs=-1, metavar="[JSON…]")
@click.option("--timeout", type=float, help="Seconds; the service's own by default.")
@which_app
def call(target: str, arguments: tuple[str, ...], timeout: float | None, app_name: str | None) -> None:
    """Call a method with JSON arguments: `call kitchen.cook '"steak"'`, `call kitchen/2.cook '"steak"'`."""
    service, mark, method = target.rpartition(".")
    if not mark or not service or not method:
        raise click.UsageError(f"{target!r} is not SERVICE.METHOD")
    if timeout is not None and not timeout > 0:
        raise click.UsageError(f"--timeout {timeout:g} must be above 0")
    packed = f"[{', '.join(_checked(argument) for argument in arguments)}]"
    with _door(app_name) as door:
        for answer in door.stream("stage", "call", service, method, packed, timeout):
            value = json.loads(answer["value"] if "value" in answer else answer["item"])
            click.echo(json.dumps(value, indent=2 if "value" in answer else None, ensure_ascii=False))


def _checked(argument: str) -> str:
    try:
        json.loads(argument)
    except ValueError:
        raise click.UsageError(
            f"{argument!r} is not JSON; a string is written '{json.dumps(argument)}'"
        ) from None
    return argument


@main.command()
@click.argument("member")
@click.option("--yes", is_flag=True, help="Also when other members live in its process.")
@which_app
@output
def kill(member: str, yes: bool, app_name: str | None, output: str) -> None:
    """SIGKILL the process of a member (`kitchen/2`) and watch it come back."""
    if "/" not in member:
        raise click.UsageError(f"{member!r} is not a member's name; they are {member}/0, {member}/1, …")
    with _door(app_name) as door:
        try:
            killed = door.ask("stage", "kill_member", member, yes)
        except ActorError as error:
            if getattr(error, "status", "") != "FAILED_PRECONDITION" or yes:
                raise
            if not sys.stdin.isatty():
                raise click.UsageError(f"{error}; --yes does it") from None
            click.confirm(f"{error}. Kill them all?", abort=True)
            killed = door.ask("stage", "kill_member", member, True)
        killed_at = time.monotonic()
        if output == "text":
            click.echo(f"{member}: pid {killed['pid']} killed")
        back = _wait_back(door, member, killed["pid"])
    if output == "json":
        _json({**killed, "back": back})
    elif back is None:
        click.echo(f"{member} has not come back within 10 s; `understudy ps` says how it is")
    else:
        took = (time.monotonic() - killed_at) * 1000
        click.echo(f"{member}: back as pid {back['pid']}, life {back['incarnation']}, after {took:.0f} ms")
    sys.exit(OK if back is not None else UNHEALTHY)


def _wait_back(door: Door, member: str, old_pid: int, limit: float = 10.0) -> dict[str, Any] | None:
    give_up_at = time.monotonic() + limit
    while time.monotonic() < give_up_at:
        rows: list[dict[str, Any]] = door.ask("stage", "ps")["members"]
        for row in rows:
            if row["name"] == member and row["state"] == "running" and row["pid"] != old_pid:
                return row
        time.sleep(0.005)
    return None


@main.command()
@click.argument("name", metavar="SERVICE|GROUP|MEMBER")
@click.option("--rolling", is_flag=True, help="One member after the other, each when the one before runs.")
@which_app
@output
def restart(name: str, rolling: bool, app_name: str | None, output: str) -> None:
    """New lives in order, for a service, one member (`kitchen/2`) or all of a group by its strategy."""
    with _door(app_name) as door:
        report = door.ask("stage", "restart", name, rolling, timeout=None)
    _json(report) if output == "json" else click.echo(
        f"restarted: {', '.join(report['restarted']) or 'nobody'}"
    )


@main.command()
@click.argument("name", metavar="SERVICE|GROUP")
@which_app
@output
def reset(name: str, app_name: str | None, output: str) -> None:
    """Revive a service or group that has failed; with one in a group, all of the group."""
    with _door(app_name) as door:
        report = door.ask("stage", "reset", name, timeout=None)
    if output == "json":
        _json(report)
    else:
        click.echo(f"{name}: {'revived, ' if report['revived'] else 'had not failed, '}{report['state']}")
    sys.exit(UNHEALTHY if report["state"] in ("failed", "degraded") else OK)


@main.command()
@which_app
@click.option("--force", is_flag=True, help="End everything at once, without the actors' shutdown times.")
def down(app_name: str | None, force: bool) -> None:
    """Stop an app in order, wherever it was started."""
    record = _record(app_name)
    if force:
        _force(record)
    else:
        click.echo(f"stopping {record.app} …", err=True)
        try:
            with _door(record.app) as door:
                door.ask("stage", "stop_app", timeout=None)
        except Unavailable:
            pass  # it ended before its answer was out
    give_up_at = time.monotonic() + 15
    while (record.is_alive() or record.has_house()) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    if record.is_alive():
        _fail(f"{record.app} is still there (stage pid {record.pid}); try --force", ERROR)
    click.echo(f"{record.app} is down")


def _force(record: settings.StageRecord) -> None:
    import signal

    if record.house_pid is None:
        raise InvalidArgument(f"{record.app} has no house that could end it")
    for _ in range(2):  # the second order means at once
        if not settings.send_signal(record.house_pid, record.house_start_time, signal.SIGTERM):
            return
        time.sleep(0.05)


# --- running ----------------------------------------------------------------------------------


@main.command(context_settings={"ignore_unknown_options": False})
@click.argument("target", metavar="FILE|FILE:NAME|MODULE:NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS…]")
@click.option("--address", help="HOST:PORT of a running Ray cluster; an embedded one by default.")
@click.option("--num-cpus", type=float, help="CPUs of the embedded cluster.")
@click.option("--num-gpus", type=float, help="GPUs of the embedded cluster.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label of the embedded node.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="Custom resource of the embedded node.",
)
def up(
    target: str,
    arguments: tuple[str, ...],
    address: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    labels: tuple[str, ...],
    resources: tuple[str, ...],
) -> None:
    """Start an app in the foreground; Ctrl-C stops it. What follows `--` goes to the file's `main`."""
    from supervisors.foreground import run_foreground

    size = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "labels": dict(_pair(each) for each in labels),
        "resources": {name: _amount(name, amount) for name, amount in map(_pair, resources)},
    }
    sys.exit(run_foreground(target, arguments, address, size))


@main.command()
def demo() -> None:
    """A tour: starts an app, kills an actor in front of you, shows it back, scales."""
    from supervisors.foreground import run_demo

    sys.exit(run_demo())


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name or not value:
        raise click.UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def _amount(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--resource {name}={text}: not a number") from None


if __name__ == "__main__":
    main()

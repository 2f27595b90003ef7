"""
The foreground: an app that runs in a terminal, with its progress and its incidents as lines.

Ctrl-C stops the app in order, a second one at once. What the user's file raises is shown as
the user's traceback, without our frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from actors.errors import ActorError
from supervisors import demo, loading, status
from supervisors.app import App, Run
from supervisors.cluster import Cluster

_SHOWN = (
    "member.child_exited",
    "member.hung",
    "member.restarting",
    "member.backing_off",
    "member.start_failed",
    "member.pending",
    "member.started",
    "member.killed",
    "service.failed",
    "service.scaled",
    "host.failed",
    "node.lost",
    "service.restarted",
    "group.restarted",
    "log.failed",
    "service.reset",
    "group.restarting",
    "group.failed",
    "group.reset",
    "stage.returned",
    "app.stopping",
)


class Interrupts:
    """SIGINT and SIGTERM: the first interrupts the main thread, the second ends the app at once."""

    def __init__(self) -> None:
        self.count = 0
        self._run: Run | None = None

    def install(self) -> None:
        """Take the signals; main thread only."""
        signal.signal(signal.SIGINT, self._caught)
        signal.signal(signal.SIGTERM, self._caught)

    def watch(self, run: Run) -> None:
        """The run that a second signal ends."""
        self._run = run

    def _caught(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt
        if self.count == 2 and self._run is not None:
            click.echo("ending at once …", err=True)
            threading.Thread(target=self._run.force, name="force", daemon=True).start()


def run_foreground(target: str, arguments: tuple[str, ...], address: str | None, size: dict[str, Any]) -> int:
    """`understudy up`; returns the exit code."""
    interrupts = Interrupts()
    interrupts.install()
    try:
        app, module = loading.find_app(target)
    except ActorError as error:
        click.echo(f"understudy: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 0
    except BaseException as error:
        _show_users_traceback(error)
        return 1
    return _Foreground(app, interrupts, _main_of(module), arguments).run(app.run(address=address, **size))


def run_demo() -> int:
    """`understudy demo`; returns the exit code."""
    interrupts = Interrupts()
    interrupts.install()

    async def main(cluster: Cluster) -> None:
        await demo.tour(cluster, click.echo)

    foreground = _Foreground(demo.app, interrupts, main, ())
    foreground.stays = False
    return foreground.run(demo.app.run())


class _Foreground:
    """One run of an app in this terminal."""

    def __init__(
        self, app: App, interrupts: Interrupts, main: Callable[..., Any] | None, arguments: tuple[str, ...]
    ) -> None:
        self.stays = True
        """Whether the app goes on when `main` has returned."""
        self._app = app
        self._interrupts = interrupts
        self._main = main
        self._arguments = arguments
        self._began_at = time.monotonic()
        self._was_stopped = False
        self._is_ready = False
        self._is_away = False

    def run(self, run: Run) -> int:
        run.on_phase = self._show_phase
        self._interrupts.watch(run)
        try:
            cluster = run.start()
            self._show_ready(cluster)
            threading.Thread(
                target=self._show_events, args=(cluster, run), name="events", daemon=True
            ).start()
            code = self._run_main(cluster, run)
            if code == 0 and (self.stays or run.wait(0)):
                code = self._stay(run)
        except KeyboardInterrupt:
            code = 0
        except ActorError as error:
            click.echo(f"understudy: {error}", err=True)
            code = 1
        self._stop(run)
        return code

    def _run_main(self, cluster: Cluster, run: Run) -> int:
        if self._main is None:
            if self._arguments:
                click.echo(
                    f"understudy: {self._app.name} has no `async def main(cluster, …)`"
                    f" for {' '.join(self._arguments)}",
                    err=True,
                )
                return 2
            return 0
        try:
            asyncio.run(_while_it_runs(run, self._main(cluster, *self._arguments)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and run.wait(0):
                return 0
            if isinstance(error, SystemExit):
                return int(error.code or 0) if not isinstance(error.code, str) else 1
            _show_users_traceback(error)
            return 1
        return 0

    def _stay(self, run: Run) -> int:
        if not run.wait(0):
            click.echo("running; Ctrl-C stops it")
        while not run.wait(3600):
            pass
        if run.gave_up:
            click.echo(f"understudy: {run.end_reason}", err=True)
            return 1
        if self._was_stopped:
            click.echo(f"{self._app.name} was stopped from elsewhere")
            return 0
        click.echo(
            f"understudy: {self._app.name} has ended by itself: {run.end_reason or 'its house ended'}",
            err=True,
        )
        return 1

    def _stop(self, run: Run) -> None:
        try:
            if self._interrupts.count:
                click.echo("stopping …")
            run.stop()
        except KeyboardInterrupt:
            run.force()
        if self._is_ready:
            click.echo(f"{self._app.name} is down")

    # -- lines -----------------------------------------------------------------------------

    def _show_phase(self, phase: dict[str, Any]) -> None:
        at = time.monotonic() - self._began_at
        if phase["phase"] == "starting ray":
            click.echo(f"[{at:4.1f} s] starting Ray …")
        elif phase["phase"] == "ray":
            click.echo(f"[{at:4.1f} s] Ray is up; starting {self._app.name} …")

    def _show_ready(self, cluster: Cluster) -> None:
        self._is_ready = True
        at = time.monotonic() - self._began_at
        for service in cluster.ps().result()["services"]:
            reason = f": {service['reason']}" if service["reason"] else ""
            click.echo(
                f"[{at:4.1f} s] {service['name']}: {service['ready']} of {service['size']}"
                f" {service['class']} {service['state']}{reason}"
            )

    def _show_events(self, cluster: Cluster, run: Run) -> None:
        """Lines for what happens, over all lives of the stage."""
        last = 0
        while not run.wait(0):
            try:
                for event in cluster.events(follow=True, last=last):
                    self._show_event(event)
                return
            except (ActorError, RuntimeError):
                if self._was_stopped or self._interrupts.count or run.wait(0.3):
                    return
                if last == 0 and not self._is_away:
                    click.echo("the stage is away; members go on, its next life takes over")
                self._is_away = True
                last = 100  # what a new stage has seen before we are back

    def _show_event(self, event: dict[str, Any]) -> None:
        self._is_away = False
        self._was_stopped = self._was_stopped or event["event"] == "app.stopping"
        if event["event"] in _SHOWN and not self._interrupts.count:
            click.echo(status.event_text(event))
        elif event["event"] == "member.crashed":
            click.echo(f"{event['member']} crashed:\n{event['traceback']}", err=True)


async def _while_it_runs(run: Run, main: Coroutine[Any, Any, Any]) -> None:
    """Await *main*, which is cancelled once the app has ended: there is nothing left that it could do."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def watch() -> None:
        run.wait()
        with contextlib.suppress(RuntimeError):  # `main` has returned, and its loop is closed
            loop.call_soon_threadsafe(task.cancel)

    threading.Thread(target=watch, name="end", daemon=True).start()
    await main


def _main_of(module: Any) -> Callable[..., Any] | None:
    main = getattr(module, "main", None)
    return main if inspect.iscoroutinefunction(main) else None


def _show_users_traceback(error: BaseException) -> None:
    """The traceback from the user's first frame on."""
    ours = str(Path(__file__).resolve().parent)
    trace = error.__traceback__
    while trace is not None and _is_plumbing(trace.tb_frame.f_code.co_filename, ours):
        trace = trace.tb_next
    click.echo("".join(traceback.format_exception(type(error), error, trace)).rstrip(), err=True)


def _is_plumbing(filename: str, ours: str) -> bool:
    return filename.startswith((ours, "<frozen")) or os.path.dirname(filename).endswith(
        ("importlib", "asyncio")
    )

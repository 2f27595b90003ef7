"""
Apps: an ordered set of services and groups of them, and running them.

`App.run` starts a house, a small process that owns the Ray cluster and the stage; the
program itself is a client of the stage over nng and imports no Ray.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.errors import (
    ActorError,
    ActorStopped,
    AlreadyStarted,
    InvalidArgument,
    ServiceFailed,
    StartFailed,
    Unavailable,
)
from actors.interceptors import Interceptor
from supervisors import checks, loading, settings
from supervisors.cluster import Cluster
from supervisors.group import Group, Part, check_names, check_parts, walk
from supervisors.service import Service

Phase = dict[str, Any]
OnPhase = Callable[[Phase], None]

_HOUSE_START_LIMIT = 120.0
_HOUSE_END_LIMIT = 60.0


class App:
    """
    The services of one application, in the order in which they start.

    `name` defaults to the stem of the file that makes it. `understudies` blank processes per node
    stand ready to take over. A process that is silent for `heartbeat_limit` seconds is looked at,
    and replaced when it turns out to hang. A service or group that gives up has failed and the
    others go on; with `escalate` the app goes down with it, as in OTP.
    """

    def __init__(
        self,
        *services: Part,
        name: str | None = None,
        understudies: int = 1,
        escalate: bool = False,
        heartbeat_limit: float = 10.0,
        orphan_timeout: float | None = None,
    ) -> None:
        check_parts("App", services)
        check_names("App", services)
        checks.flag("App", "escalate", escalate)
        checks.whole("App", "understudies", understudies)
        checks.positive("App", "heartbeat_limit", heartbeat_limit)
        if orphan_timeout is not None:
            checks.positive("App", "orphan_timeout", orphan_timeout)
        self.parts = services
        """Its services and groups, as they were given."""
        self.services = tuple(part for part in walk(services) if isinstance(part, Service))
        """All services, in groups or not, in the order in which they start."""
        self.file = _callers_file()
        self.name = settings.check_app_name(
            name if name is not None else self.file.stem if self.file else "app"
        )
        self.understudies = understudies
        self.escalate = escalate
        self.heartbeat_limit = heartbeat_limit
        self.orphan_timeout = orphan_timeout

    def run(
        self,
        *,
        address: str | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        labels: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> Run:
        """
        Start the app when entered: `with app.run() as cluster`, `async with`, or `.start()`.

        Without *address* on an embedded Ray cluster of the given size (default: this machine's), which
        ends with it; with one on that cluster, which is left as it was. *interceptors* stand around
        what this program sends to the services, as those of `connect` do; they do not go into hosts.

        Raises here: `InvalidArgument` for a wrong option. Raises when it starts: `AlreadyStarted` when
        the app runs already, `StartFailed` when cluster or stage do not come up.
        """
        if loading.in_host:
            raise InvalidArgument(
                "app.run() while a host loads this file: put it under `if __name__ == '__main__'`"
            )
        for field, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            if value is not None:
                checks.non_negative("App.run", field, value)
        checks.words_by_name("App.run", "labels", labels or {})
        checks.numbers_by_name("App.run", "resources", resources or {})
        checks.interceptors("App.run", "interceptors", interceptors)
        size = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "labels": dict(labels or {}),
            "resources": dict(resources or {}),
        }
        return Run(self, address, size, interceptors)

    def plan(self) -> dict[str, Any]:
        """The whole app as plain data: what the stage works from."""
        files = {}
        for service in self.services:
            module = sys.modules.get(service.actor_class.__module__)
            if module is not None and module.__name__ != "__main__" and _is_app_file(module):
                files[module.__name__] = str(module.__file__)
        return {
            "name": self.name,
            "understudies": self.understudies,
            "escalate": self.escalate,
            "orphan_timeout": self.orphan_timeout,
            "files": files,
            "services": [service.plan().to_plain() for service in self.services],
            "groups": [part.plan().to_plain() for part in walk(self.parts) if isinstance(part, Group)],
            "parts": [part.name for part in self.parts],
        }

    def __repr__(self) -> str:
        return f"<App {self.name}: {', '.join(part.name for part in self.parts)}>"


class Run:
    """One run of an app, from the house's start to its end. A context manager, sync and async."""

    def __init__(
        self, app: App, address: str | None, size: dict[str, Any], interceptors: Sequence[Interceptor]
    ) -> None:
        self.app = app
        self._interceptors = tuple(interceptors)
        self._address = address
        self._size = size
        self._house: House | None = None
        self._cluster: Cluster | None = None
        self.on_phase: OnPhase = lambda phase: None
        """Called with what the house reports while it starts, from the thread that starts it."""

    def start(self) -> Cluster:
        """Start and return the cluster; `stop()` ends the app."""
        self._open_house()
        try:
            self._cluster = Cluster(self.app.name, self._interceptors).open()
            self._cluster.wait_ready().result()
        except BaseException as error:
            self._abandon()
            self._say_why(error)
            raise
        return self._cluster

    def _say_why(self, error: BaseException) -> None:
        """Raise what the app gave up for, where it was gone before it could be asked."""
        # The stage is gone, or only its actor while its process still answers.
        if isinstance(error, (Unavailable, ActorStopped)) and self.gave_up:
            raise ServiceFailed(self.end_reason, reason=self.end_reason) from error

    def stop(self) -> None:
        """Stop the app in order and wait until nothing of it is left; who interrupts this ends it at once."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            try:
                cluster.stop().result()
            except ActorError:
                pass  # the stage is gone already; the house sees to the rest
            except BaseException:
                self.force()
                raise
            finally:
                cluster.close()
        if self._house is not None:
            self._house.stop()

    def force(self) -> None:
        """End everything at once, without the actors' shutdown times."""
        if self._house is not None:
            self._house.force()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the app has ended, however; False when *timeout* seconds passed first."""
        return self._house is None or self._house.wait(timeout)

    @property
    def end_reason(self) -> str:
        """Why the house closed the app, once it has."""
        return self._house.reason if self._house is not None else ""

    @property
    def gave_up(self) -> bool:
        """True when the app went down by itself, because of `App(escalate=True)`."""
        return self._house is not None and self._house.gave_up

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Cluster:
        # The house is waited for on a thread, the client itself lives on this loop.
        await asyncio.to_thread(self._open_house)
        try:
            self._cluster = Cluster(self.app.name, self._interceptors)
            await self._cluster.open_here()
            await self._cluster.wait_ready()
        except BaseException as error:
            await asyncio.to_thread(self._abandon)
            self._say_why(error)
            raise
        return self._cluster

    async def __aexit__(self, *exc: object) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            try:
                await cluster.stop()
            except ActorError:
                pass  # the stage is gone already; the house sees to the rest
            finally:
                await cluster.aclose()
        if self._house is not None:
            await asyncio.to_thread(self._house.stop)

    def _open_house(self) -> None:
        _refuse_second(self.app.name)
        config = {
            "app_name": self.app.name,
            "run_dir": str(settings.app_dir(self.app.name)),
            "app": self.app.plan(),
            "address": self._address,
            "heartbeat_limit": self.app.heartbeat_limit,
            "sys_path": _own_path(),
            **self._size,
        }
        self._house = House(config, self.on_phase)
        self._house.wait_open()

    def _abandon(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        if self._house is not None:
            self._house.stop()


class House:
    """The house's process, seen by its owner: the end of this pipe is the end of the app."""

    def __init__(self, config: dict[str, Any], on_phase: OnPhase) -> None:
        self.reason = ""
        self.gave_up = False
        self._on_phase = on_phase
        self._opened: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisors.house"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            # A session of its own: Ctrl-C at the terminal is ours to pass on, in order.
            start_new_session=True,
        )
        self._write(config)

    @property
    def pid(self) -> int:
        """The house's process id."""
        return self._process.pid

    def wait_open(self) -> None:
        """Read phases until the stage is there. Raises what kept it from coming."""
        assert self._process.stdout is not None
        error: dict[str, Any] | None = None
        try:
            for line in self._process.stdout:
                phase = json.loads(line)
                if "error" in phase:
                    error = phase
                    continue
                self._on_phase(phase)
                if phase["phase"] == "stage":
                    threading.Thread(target=self._listen, name="house", daemon=True).start()
                    return
        except BaseException:
            self.force()
            raise
        self._process.wait()
        self._ended.set()
        raise _start_error(error)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                phase = json.loads(line)
                if phase.get("phase") == "stopping":
                    self.reason, self.gave_up = phase.get("reason", ""), phase.get("gave_up", False)
                self._on_phase(phase)
        finally:
            self._process.wait()
            self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the house and all it owned."""
        return self._ended.wait(timeout)

    def stop(self) -> None:
        """Stop in order; returns when nothing is left. Interrupted, it ends at once."""
        self._write({"order": "stop"})
        try:
            self._close()
        except BaseException:
            self.force()
            raise

    def force(self) -> None:
        """End everything at once."""
        self._write({"order": "force"})
        self._close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.wait(_HOUSE_END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended
        self._ended.wait(1.0)

    def _write(self, value: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended


def _start_error(error: dict[str, Any] | None) -> ActorError:
    if error is None:
        return StartFailed("the house ended before the stage was up")
    kinds: dict[str, type[ActorError]] = {
        "AlreadyStarted": AlreadyStarted,
        "InvalidArgument": InvalidArgument,
        "Unavailable": Unavailable,
    }
    failure = kinds.get(error.get("type", ""), StartFailed)(error["error"])
    failure.add_note(error.get("detail", ""))
    return failure


def _refuse_second(app_name: str) -> None:
    for record in settings.running_apps():
        if record.app == app_name:
            raise AlreadyStarted(
                f"app {app_name!r} runs already: stage pid {record.pid}, house pid {record.house_pid};"
                f" `understudy down --app {app_name}` ends it"
            )


def _environment() -> dict[str, str]:
    """Ours, with this package importable wherever it lies."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, path]))}


def _own_path() -> list[str]:
    """What hosts need on `sys.path` beyond every interpreter's own: the script's folder, what was added."""
    standard = {
        os.path.realpath(entry) for entry in sys.path if "site-packages" in entry or "dist-packages" in entry
    }
    prefixes = tuple(os.path.realpath(prefix) for prefix in {sys.base_prefix, sys.prefix})
    added = []
    for entry in sys.path:
        real = os.path.realpath(entry or os.getcwd())
        if (
            real not in standard
            and not real.startswith(tuple(f"{prefix}/lib" for prefix in prefixes))
            and os.path.isdir(real)
        ):
            added.append(real)
    return list(dict.fromkeys(added))


def _is_app_file(module: Any) -> bool:
    """A top-level file that was loaded by path, so that another process has to be told where it lies."""
    file = getattr(module, "__file__", None)
    return file is not None and "." not in module.__name__ and Path(file).stem == module.__name__


def _callers_file() -> Path | None:
    """The file whose top level makes an App."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file) if file else None

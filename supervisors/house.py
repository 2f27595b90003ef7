"""
The house: the small process that owns an app's Ray cluster, and ends it when its owner is gone.

    python -m supervisors.house   < config and orders, one JSON line each   > phases, one JSON line each

It starts the cluster (or joins the one it is told), makes the MAC key, starts the
stage, and waits. Whatever comes first, a stop order, end of file on standard input
(the owner died, however), SIGTERM, the end of the stage or of the cluster: the app
is stopped in order, Ray is shut down, what is left of its children is ended, their
directories are removed. A second order skips the waiting. What it promises is that
nothing is left; of an external cluster only our actors and slots are removed.

One house per run directory: a lock is held for its whole life, so whoever holds it
may sweep what an earlier house could not.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.errors import AlreadyStarted, InvalidArgument, Unavailable
from supervisors import evidence, settings, vigil
from supervisors.exits import readable

if TYPE_CHECKING:
    from supervisors._probe import ProcessId
    from supervisors._ray import ProcessView

LOG_NAME = "house.log"
LOCK_NAME = "house.lock"

_STAGE_DIED = "the stage ended"
_RETURN_LIMIT = 30.0
"""Seconds in which Ray may bring the stage back; 0.35 to 0.54 measured."""
RAY_LIMIT = 3.5
"""Seconds Ray may take, to shut down or to start after an order to stop; then the house ends it by force."""

_PR_SET_CHILD_SUBREAPER = 36
# Files that live in a run directory: ours by name, sockets and drafts by pattern.
_OWN_FILES = (settings.RECORD_NAME, settings.LAST_WORD_NAME, settings.KEY_NAME, LOG_NAME, LOCK_NAME)
_OWN_PATTERN = re.compile(
    r"[0-9a-f]{16}\.(ipc|hand)|(host-[0-9]+|stage)\.(crash|stack)|host-[0-9]+\.log(\.1)?|\..+\.[0-9a-f]{16}"
)


@dataclass(frozen=True, slots=True)
class HouseConfig:
    """The first line on standard input."""

    app_name: str
    run_dir: str
    app: Any = None
    """For the stage; the house never looks inside."""
    address: str | None = None
    """Of an external cluster; None for one of our own."""
    num_cpus: float | None = None
    num_gpus: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    sys_path: tuple[str, ...] = ()
    """What the app's processes need in front of their `sys.path`."""
    opener: str | None = None
    """`module:function` in the place of `supervisors.stage_process:open_stage`."""
    heartbeat_limit: float = 10.0
    """Seconds of silence after which a process is looked at."""
    grace: float = 30.0
    """Longest time the app may take to stop in order."""
    start_timeout: float = 60.0

    @property
    def is_embedded(self) -> bool:
        """True where the house owns its cluster."""
        return self.address is None

    @classmethod
    def from_line(cls, line: bytes) -> HouseConfig:
        """Parse and check; `InvalidArgument` says what is wrong."""
        try:
            found = json.loads(line)
            unknown = set(found) - {known.name for known in fields(cls)}
            if unknown:
                raise InvalidArgument(f"house config: unknown {', '.join(sorted(unknown))}")
            config = cls(**{**found, "sys_path": tuple(found.get("sys_path", ()))})
        except (TypeError, ValueError, AttributeError) as exc:
            raise InvalidArgument(f"house config: {exc}") from exc
        settings.check_app_name(config.app_name)
        settings.check_socket_path(os.path.join(config.run_dir, "0123456789abcdef.ipc"))
        return config


class Reporter:
    """JSON lines to the owner. An owner that does not read any more is no reason to fail."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def phase(self, phase: str, **details: Any) -> None:
        self._write({"phase": phase, **details})

    def error(self, error: BaseException) -> None:
        self._write(
            {
                "error": str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
                "type": type(error).__name__,
                "detail": "".join(traceback.format_exception(error)),
            }
        )

    def _write(self, value: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(value).encode() + b"\n")


class Orders:
    """
    Why and how hard to stop, from wherever it comes; the descriptor becomes readable with the first one.

    A second order means force. End of file is an order too, but never the second:
    an owner that asks for a stop and leaves has not asked twice.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.forced = False

    def stop(self, reason: str, *, force: bool = False) -> None:
        """Ask for a stop. Plain assignments: a signal handler that took a lock could wait for itself."""
        if force or (self.reason is not None and reason != "end of file"):
            self.forced = True
        self.reason = self.reason or reason
        os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Let the descriptor become readable again with the next order only."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def listen(self, stream: Any) -> None:
        """Read orders from *stream* on a thread of its own, until its end."""
        threading.Thread(target=self._read, args=(stream,), name="orders", daemon=True).start()

    def _read(self, stream: Any) -> None:
        with contextlib.suppress(OSError):
            for line in stream:
                with contextlib.suppress(ValueError, AttributeError):
                    self._obey(json.loads(line).get("order"))
        self.stop("end of file")

    def _obey(self, order: object) -> None:
        if order in ("stop", "force"):
            self.stop(f"{order} order", force=order == "force")


class House:
    """One app's house, from its lock to its empty run directory."""

    def __init__(
        self,
        config: HouseConfig,
        reporter: Reporter,
        orders: Orders,
        stop_app: Callable[[House, float], None] | None = None,
    ) -> None:
        self.config = config
        self.run_dir = Path(config.run_dir)
        self.stage: ProcessView | None = None
        self._reporter = reporter
        self._orders = orders
        self._stop_app = stop_app or terminate_stage
        self._services: list[ProcessId] = []
        self._owns_namespace = False
        """Until the stage's name is ours, what is in the namespace may be another app's."""

    # --- opening ---

    def open(self) -> None:
        """Cluster, key, stage; reports each phase. Raises as soon as something fails or an order comes."""
        self._sweep()
        began_at = time.monotonic()
        self._reporter.phase("starting ray", pid=os.getpid())
        address = self._open_cluster()
        _handle_signals(self._orders)
        self._reporter.phase("ray", seconds=_since(began_at), address=address)
        self._heed_orders()
        began_at = time.monotonic()
        self._open_stage(address)
        assert self.stage is not None
        self._reporter.phase("stage", seconds=_since(began_at), pid=self.stage.pid, log=str(self.log_path))

    @property
    def log_path(self) -> Path:
        return self.run_dir / LOG_NAME

    def _sweep(self) -> None:
        from supervisors import _ray_local

        _ray_local.sweep_sessions(self.run_dir)
        _remove_own_files(self.run_dir, keep=(LOG_NAME, LOCK_NAME))

    def _open_cluster(self) -> str:
        from supervisors import _ray, _ray_local

        if self.config.address is not None:
            _ray.join(self.config.address, self.config.app_name, self.config.sys_path)
            _ray.refuse_other_machines()
            return self.config.address
        _adopt_orphans()
        cluster = _ray_local.start_local(
            self.run_dir,
            namespace=self.config.app_name,
            num_cpus=self.config.num_cpus,
            num_gpus=self.config.num_gpus,
            labels=self.config.labels,
            resources=self.config.resources,
            python_path=self.config.sys_path,
        )
        # Ray's services are of our own group. The server that forks its workers is an orphan that we
        # have adopted, in a group of its own: the app outlives that.
        children = _probe().children(os.getpid())
        self._services = [child for child in children if _group(child.pid) == os.getpgrp()]
        return cluster.address

    def _open_stage(self, address: str) -> None:
        from supervisors import _ray

        key_path = settings.make_key(self.run_dir / settings.KEY_NAME)
        stage = _ray.spawn_stage(
            {
                "app": self.config.app,
                "app_name": self.config.app_name,
                "run_dir": str(self.run_dir),
                "key_path": str(key_path),
                "ray_address": address,
                "embedded": self.config.is_embedded,
                "house_pid": os.getpid(),
                "house_start_time": settings.process_start_time(os.getpid()),
                "sys_path": list(self.config.sys_path),
                "opener": self.config.opener,
                "heartbeat_limit": self.config.heartbeat_limit,
            }
        )
        self._owns_namespace = True
        self.stage = _ray.wait_started(
            stage, self.config.start_timeout, is_abandoned=lambda: self._orders.reason is not None
        )

    def _heed_orders(self) -> None:
        if self._orders.reason is not None:
            raise Unavailable(f"stopped while starting: {self._orders.reason}", may_have_run=False)

    # --- waiting ---

    def wait(self) -> str:
        """Wait for an order, or for the end of the app or of the cluster; says which it was."""
        while True:
            reason = self._wait_once()
            if reason == _STAGE_DIED and (crash := evidence.crash_of(str(self.run_dir), vigil.NAME)):
                # Now: the next life of the stage begins its own.
                print(f"the stage crashed: {readable(crash)}", file=sys.stderr, flush=True)
            if reason != _STAGE_DIED or not self._stage_returned():
                return reason

    def _stage_returned(self) -> bool:
        """
        Wait for the next life of the stage, which Ray starts; False when the app has ended instead.

        A stage that ends in order takes its record away. Orders are heeded meanwhile.
        """
        assert self.stage is not None
        record_path = self.run_dir / settings.RECORD_NAME
        give_up_at = time.monotonic() + _RETURN_LIMIT
        while self._orders.reason is None and time.monotonic() < give_up_at:
            try:
                record = settings.StageRecord.read(record_path)
            except (OSError, InvalidArgument):
                return False
            if record.pid != self.stage.pid and record.is_alive():
                self.stage = dataclasses.replace(self.stage, pid=record.pid, start_time=record.start_time)
                self._reporter.phase("stage returned", pid=record.pid, epoch=record.epoch)
                return True
            time.sleep(0.05)
        return False

    def _wait_once(self) -> str:
        assert self.stage is not None
        poll = select.poll()
        poll.register(self._orders.descriptor, select.POLLIN)
        reason_by_pid = {self.stage.pid: _STAGE_DIED, **{p.pid: "Ray ended" for p in self._services}}
        reason_by_pidfd: dict[int, str] = {}
        with contextlib.ExitStack() as stack:
            for pid, reason in reason_by_pid.items():
                pidfd = stack.enter_context(_open_pidfd(pid))
                if pidfd is None:
                    return reason
                reason_by_pidfd[pidfd] = reason
                poll.register(pidfd, select.POLLIN)
            watch = vigil.Vigil(str(self.run_dir), self.config.heartbeat_limit)
            services = {p.pid for p in self._services}
            while not (found := poll.poll(watch.period * 1000)):
                _reap_orphans(services)
                if how := watch.look(self.stage.pid, self.stage.start_time):
                    print(f"the stage hung: {how}", file=sys.stderr, flush=True)
                    self._reporter.phase("stage hung", pid=self.stage.pid, reason=how.splitlines()[0])
            [(ready, _), *_] = found
            return self._orders.reason or reason_by_pidfd[ready]

    # --- closing ---

    def close(self, reason: str) -> None:
        """Stop the app, then Ray, then everything that is left. Never raises: what fails is logged."""
        began_at = time.monotonic()
        last_word = self._last_word()
        self._reporter.phase("stopping", reason=last_word or reason, gave_up=bool(last_word))
        if self.stage is not None:
            self._close_app(self.stage)
        with _last_resort(self.end_by_force):
            if self.config.is_embedded:
                self._end_cluster()
            else:
                self._leave_external()
        self._reporter.phase("stopped", seconds=_since(began_at))

    def _last_word(self) -> str:
        """Why the app ended by itself, when its stage has said so."""
        try:
            return (self.run_dir / settings.LAST_WORD_NAME).read_text()
        except OSError:
            return ""

    def _close_app(self, stage: ProcessView) -> None:
        """Until the stage's process has ended, the grace is over, or a second order has come."""
        if self._orders.forced:
            return
        threading.Thread(target=self._call_stop_app, name="stop app", daemon=True).start()
        deadline = time.monotonic() + self.config.grace
        poll = select.poll()
        poll.register(self._orders.descriptor, select.POLLIN)
        with _open_pidfd(stage.pid) as pidfd:
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
            self._orders.clear()
            while stage.is_alive() and not self._orders.forced and time.monotonic() < deadline:
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
                self._orders.clear()

    def _call_stop_app(self) -> None:
        try:
            self._stop_app(self, self.config.grace)
        except Exception:
            traceback.print_exc()

    def _end_cluster(self) -> None:
        from supervisors import _ray

        probe = _probe()
        family = probe.descendants(os.getpid())
        if not self._orders.forced:
            with _logged("ray.shutdown"):
                _ray.leave()
        # The raylet would start new workers for those that die first: it and the
        # other services go before them.
        probe.end_processes(self._services)
        probe.end_processes(family)
        _end_family()

    def _leave_external(self) -> None:
        from supervisors import _ray

        if not self._owns_namespace:
            return
        with _logged("cleaning the cluster up"):
            for name in [*_ray.list_hosts(), _ray.STAGE_NAME]:
                _ray.kill_host(name)
            for slot in _ray.list_slots():
                _ray.remove_slot(slot.name)
            _ray.leave()

    def end_by_force(self) -> None:
        """When Ray hangs: what a close does, without Ray. The process ends with it."""
        print("Ray took too long, ending by force", file=sys.stderr, flush=True)
        if self.config.is_embedded:
            _end_family()
        # Who ends an app at once wants nothing left; a Ray that hung leaves a log to look into.
        _leave_run_dir(self.run_dir, keep_log=not self._orders.forced)
        self._reporter.phase("stopped", forced=True)
        os._exit(1)


def terminate_stage(house: House, grace: float) -> None:
    """The simplest way to stop an app: SIGTERM to its stage, which stops the others before it ends."""
    if house.stage is not None:
        settings.send_signal(house.stage.pid, house.stage.start_time, signal.SIGTERM)


# --- processes --------------------------------------------------------------------------------


def _probe() -> Any:
    # Not at the top: ray puts its own psutil first on the path, so it has to come first.
    from supervisors import _probe as probe

    return probe


def _adopt_orphans() -> None:
    """Whoever loses its parent below us becomes our child, so parentage finds it when we end everything."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_family() -> None:
    """End all descendants; again for those that were born meanwhile."""
    probe = _probe()
    for _ in range(5):
        family = probe.descendants(os.getpid())
        if not family:
            break
        probe.end_processes(family)
    _reap_orphans(set())


def _group(pid: int) -> int:
    """The process group of *pid*; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


@contextlib.contextmanager
def _open_pidfd(pid: int) -> Iterator[int | None]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _reap_orphans(services: set[int]) -> None:
    """Take leave of adopted orphans."""
    with contextlib.suppress(ChildProcessError):
        while zombie := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            # Ray waits for its services itself, and the poll sees their end.
            if zombie.si_pid in services:
                return
            os.waitpid(zombie.si_pid, os.WNOHANG)


@contextlib.contextmanager
def _last_resort(finish: Callable[[], None]) -> Iterator[None]:
    """Ray may hang, or its cluster be gone: after a while *finish* runs instead, on a thread."""
    timer = threading.Timer(RAY_LIMIT, finish)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _opening(orders: Orders, finish: Callable[[], None]) -> Iterator[None]:
    """`ray.init` cannot be interrupted: an order that comes meanwhile has the same last resort."""
    opened = threading.Event()

    def guard() -> None:
        select.select([orders.descriptor], [], [])
        if not opened.wait(RAY_LIMIT):
            finish()

    threading.Thread(target=guard, name="guard", daemon=True).start()
    try:
        yield
    finally:
        opened.set()


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        print(f"{what} failed:", file=sys.stderr)
        traceback.print_exc()


def _since(began_at: float) -> float:
    return round(time.monotonic() - began_at, 3)


# --- the run directory ------------------------------------------------------------------------


def _remove_own_files(run_dir: Path, keep: tuple[str, ...] = ()) -> None:
    """Only what is known to be ours: nobody's home directory is emptied because of a wrong option."""
    for path in run_dir.iterdir():
        ours = path.name in _OWN_FILES or _OWN_PATTERN.fullmatch(path.name)
        if ours and path.name not in keep and not path.is_dir():
            path.unlink(missing_ok=True)


def _take_lock(run_dir: Path) -> int:
    """Be the only house of *run_dir*; `AlreadyStarted` when there is one."""
    path = run_dir / LOCK_NAME
    while True:
        settings.ensure_private_dir(run_dir)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyStarted(f"{run_dir.name} runs already (its house holds {path})") from None
        # Between our open and our lock the holder may have removed the file.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        os.close(descriptor)


def _leave_run_dir(run_dir: Path, *, keep_log: bool) -> None:
    from supervisors import _ray_local

    _ray_local.sweep_sessions(run_dir)
    _remove_own_files(run_dir, keep=(LOG_NAME,) if keep_log else ())
    with contextlib.suppress(OSError):
        run_dir.rmdir()


# --- the process ------------------------------------------------------------------------------


def _take_streams() -> tuple[Any, Reporter]:
    """Standard input and output for ourselves alone; children get neither."""
    orders = os.fdopen(os.dup(0), "rb")
    reporter = Reporter(os.dup(1))
    _redirect(os.devnull, os.O_RDONLY, 0)
    return orders, reporter


def _redirect(path: str | os.PathLike[str], flags: int, *targets: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for target in targets:
        os.dup2(descriptor, target)
    os.close(descriptor)


def _run(config: HouseConfig, reporter: Reporter, orders: Orders) -> int:
    run_dir = Path(config.run_dir)
    lock = _take_lock(run_dir)
    # Ray's processes inherit these two, its chatter never reaches the user.
    _redirect(run_dir / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1, 2)
    house = House(config, reporter, orders)
    failed = False
    try:
        try:
            with _opening(orders, house.end_by_force):
                house.open()
            reason = house.wait()
        except (Exception, SystemExit) as exc:
            traceback.print_exc()
            if isinstance(exc, SystemExit):
                # What Ray makes of a SIGTERM while it starts.
                orders.stop("SIGTERM")
            failed = orders.reason is None
            reason = orders.reason or "failed to start"
            if failed:
                reporter.error(exc)
        house.close(reason)
    finally:
        _leave_run_dir(run_dir, keep_log=failed)
        os.close(lock)
    return 1 if failed else 0


def _handle_signals(orders: Orders) -> None:
    """SIGTERM is a stop order. After `ray.init`, which installs a handler of its own."""
    signal.signal(signal.SIGTERM, lambda number, frame: orders.stop("SIGTERM"))


def main() -> int:
    """Serve one owner and give back the exit status: 0 stopped as asked, 1 failed."""
    # Ctrl-C in the owner's terminal is the owner's business; it sends an order. Not
    # SIG_IGN, which every process of the app would inherit.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    stream, reporter = _take_streams()
    try:
        config = HouseConfig.from_line(stream.readline())
        orders = Orders()
        _handle_signals(orders)
        orders.listen(stream)
        return _run(config, reporter, orders)
    except Exception as exc:
        reporter.error(exc)
        return 1


if __name__ == "__main__":
    status = main()
    # Not sys.exit: Ray's exit hooks wait half a second, for a cluster that is gone.
    os._exit(status)

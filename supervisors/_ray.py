"""
The one home of Ray: an embedded cluster, the actors that carry our processes, slots, nodes, causes of death.

Everything blocks and speaks in plain values; only `RayActor.handle` and lifelines
are Ray's own objects, and nobody else looks into them. Ray's errors come out as
ours. Messages never pass through here: a Ray actor is a shell around one process
(`HostShell`, `StageShell`), its calls are `hello` and `lifeline`.

Ray is imported inside the functions, since it reads some of its environment while
it is imported and `start_local` has to be first. Names that begin with an
underscore in Ray are used where they save seconds; `pyproject.toml` pins the minor
release for that reason, and what is missing falls back to the public way.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import site
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from actors.errors import (
    ActorError,
    AlreadyStarted,
    DeadlineExceeded,
    InvalidArgument,
    StartFailed,
    Unavailable,
)
from supervisors import settings

STAGE_NAME = "stage"
"""Name of the stage's Ray actor; all other names in the app's namespace are hosts."""

_HEAD = "node:__internal_head__"
"""The resource that only the head of a cluster has."""

_NODE_ID = "ray.io/node-id"
"""The label that each node has from Ray."""

TOKEN_NAME = "ray-token"
SESSIONS_NAME = "ray"
SESSION_PREFIX = "session-"
OBJECT_STORE_BYTES = 75 * 1024 * 1024
"""Ray's own minimum. Our messages do not use the store, so it stays as small as it may be."""

_LONGEST_SOCKET = "/session-01234567/sockets/plasma_store"
_SHELL_CONCURRENCY = 8
_REGISTRATION_TIMEOUT = 30.0
_CONNECT_TIMEOUT = 3.0
_GLANCE = 0.1

# Set before Ray is imported, inherited by all of its processes. A user's own value
# wins. Measured on 2 cores, Ray 2.60, `ray.init` of the lean node below:
_KNOBS: dict[str, str] = {
    # Nobody asked the user whether we may report to Ray's makers.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nobody reads these metrics. Idle CPU of a host 0.46 -> 0.34 %, of the raylet 0.47 -> 0.40 %.
    "RAY_enable_metrics_collection": "0",
    "RAY_enable_open_telemetry": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_event_stats": "0",
    # Our calls are one hello and one lifeline each: a task history of them is noise.
    "RAY_task_events_report_interval_ms": "0",
    # Ray gives workers the niceness 15: beside any other busy program a call then waits for
    # the CPU, and so does a restart. Members are the user's programs, and run like them.
    "RAY_worker_niceness": "0",
    # The raylet dials its own store, and if that is not there yet (4 starts of 10) it
    # sleeps 1,000 ms and tries again, 10 times. As patient as that in all, but awake:
    # without these two `ray.init` takes 1.05 or 2.05 s.
    "RAY_raylet_client_connect_timeout_milliseconds": "10",
    "RAY_raylet_client_num_connect_attempts": "1000",
    # Else `uv run` makes Ray build a runtime environment, and warm workers do not fit it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

# What a surrounding Ray job or a shell profile may have left behind and would turn
# an embedded cluster into something else.
_FOREIGN_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_NAMESPACE",
    "RAY_AUTH_TOKEN",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_TMPDIR",
    "RAY_GCS_SERVER_PORT",
)


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """An embedded cluster that this process owns."""

    address: str
    """`127.0.0.1:port`: nobody on the network can reach it."""
    session_dir: str
    """Inside the run directory; holds the logs of all its processes."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One Ray node as the scheduler sees it."""

    node_id: str
    alive: bool
    address: str
    hostname: str
    resources: Mapping[str, float]
    """In total."""
    available: Mapping[str, float]
    labels: Mapping[str, str]
    raylet_socket: str = ""
    """Where Ray's process of this node listens; refuses connections once that has ended."""


@dataclass(frozen=True, slots=True)
class RayActor:
    """A shell by name; `handle` is Ray's."""

    name: str
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ProcessView:
    """The process inside a shell, as it told us itself."""

    name: str
    pid: int
    start_time: int
    node_id: str
    gpu_ids: tuple[str, ...]

    def is_alive(self) -> bool:
        """True while it runs; only on its own machine."""
        return settings.is_alive(self.pid, self.start_time)


SlotState = Literal["ready", "pending", "infeasible", "gone"]


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot now: held on a node, waiting for room, more than any node has, or not there."""

    name: str
    state: SlotState
    node_id: str | None = None


# --- the embedded cluster ---------------------------------------------------------------------


def start_local(
    run_dir: str | os.PathLike[str],
    *,
    namespace: str,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    labels: Mapping[str, str] | None = None,
    resources: Mapping[str, float] | None = None,
    python_path: Sequence[str] = (),
) -> LocalCluster:
    """
    Start a cluster for this process alone and join it.

    Call it on the main thread: Ray's processes die with the *thread* that started
    them. They live inside *run_dir*, listen on the loopback device only, ask for a
    token of their own and write nothing to the home directory. *python_path* goes
    in front of every worker's `sys.path`.
    """
    temp_dir = _temp_dir(Path(run_dir))
    _set_environment(_make_token(Path(run_dir)), python_path)
    import ray

    with _lean_node():
        context = ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            labels=dict(labels or {}),
            resources=dict(resources or {}),
            namespace=namespace,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=temp_dir,
        )
    info = context.address_info
    return LocalCluster(str(info["gcs_address"]), str(info["session_dir"]))


def sweep_sessions(run_dir: str | os.PathLike[str]) -> None:
    """Delete what a cluster of this run directory wrote; the last of its processes must be gone."""
    shutil.rmtree(Path(run_dir) / SESSIONS_NAME, ignore_errors=True)
    (Path(run_dir) / TOKEN_NAME).unlink(missing_ok=True)


def _temp_dir(run_dir: Path) -> str:
    # Ray opens what it is given to everybody (mode 0777), so it gets a directory
    # inside one that is and stays private.
    settings.ensure_private_dir(run_dir)
    temp_dir = str(run_dir / SESSIONS_NAME)
    longest = temp_dir + _LONGEST_SOCKET
    if len(os.fsencode(longest)) > settings.MAX_SOCKET_PATH_LENGTH:
        raise InvalidArgument(f"{run_dir}: too long, Ray's sockets would be {longest}")
    return temp_dir


def _make_token(run_dir: Path) -> Path:
    path = run_dir / TOKEN_NAME
    settings.write_private(path, secrets.token_hex(32).encode())
    return path


def _set_environment(token_path: Path, python_path: Sequence[str]) -> None:
    for name in _FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    for name, value in _KNOBS.items():
        os.environ.setdefault(name, value)
    # Without a mode Ray 2.60 makes a world-readable token in the home directory.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_path)
    # The environment and not a runtime_env: prestarted workers do not fit a job
    # that has one, each host would then boot its own interpreter (0.35 s).
    entries = [*_import_roots(), *python_path, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, entries)))


def _import_roots() -> list[str]:
    """Where this package comes from, unless that is where any interpreter looks anyway."""
    root = str(Path(__file__).resolve().parents[1])
    known = {os.path.realpath(path) for path in [*site.getsitepackages(), site.getusersitepackages()]}
    return [] if root in known else [root]


@contextlib.contextmanager
def _lean_node() -> Iterator[None]:
    """`ray.init` builds its head node from the class below while this is open."""
    try:
        from ray._private import node

        lean = _lean_node_class(node.Node)
    except (ImportError, AttributeError):
        yield
        return
    original, node.Node = node.Node, lean
    try:
        yield
    finally:
        node.Node = original


def _lean_node_class(base: Any) -> Any:
    class LeanNode(base):  # type: ignore[misc]
        """
        A head node without autoscaler, log monitor and dashboard.

        Together with the wait below `ray.init` takes 1.0 s instead of 2.1 to 3.2 s,
        `ray.shutdown` 0.1 to 0.3 s instead of 1.1 to 1.4, and three processes of
        80 MB are not there.
        """

        def __init__(self, ray_params: Any, **options: Any) -> None:
            # `ray.init` turns a loopback address into the public one. Given here, it
            # stays: Ray's servers then listen on the loopback device only.
            ray_params.node_ip_address = "127.0.0.1"
            ray_params.no_monitor = True
            ray_params.include_log_monitor = False
            # Ray's own name has 40 characters, our socket paths have 107 in all.
            ray_params.session_name = SESSION_PREFIX + secrets.token_hex(4)
            ray_params.worker_path = str(Path(__file__).with_name("_fork_server.py"))
            super().__init__(ray_params, **options)

        def start_api_server(self, **options: Any) -> None:
            self._webui_url = ""

        def start_ray_processes(self) -> None:
            super().start_ray_processes()
            # Ray asks once, then sleeps a full second: the raylet needs 0.45 s.
            _wait_registered(self.gcs_address)

    return LeanNode


def _wait_registered(gcs_address: str) -> None:
    import ray
    from ray._private.state import GlobalState

    state = GlobalState()
    state._initialize_global_state(
        ray._raylet.GcsClientOptions.create(
            gcs_address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
        )
    )
    deadline = time.monotonic() + _REGISTRATION_TIMEOUT
    try:
        while not state.node_table() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        state.disconnect()


# --- any cluster ------------------------------------------------------------------------------


def join(address: str, namespace: str, python_path: Sequence[str] = ()) -> None:
    """
    Connect this process as a driver to the cluster at `host:port` (or `"auto"`).

    `Unavailable` within seconds when nobody answers there, or the token is wrong.
    """
    _check_address(address)
    # Else Ray tries for two minutes, whatever the reason.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "3")
    import ray
    from ray.job_config import JobConfig

    try:
        with _loopback_stays():
            ray.init(
                address=address,
                namespace=namespace,
                job_config=JobConfig(_py_driver_sys_path=[*_import_roots(), *python_path]),
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, ray.exceptions.RayError) as exc:
        raise Unavailable(f"no Ray cluster at {address}: {_one_line(exc)}", may_have_run=False) from exc


def _check_address(address: str) -> None:
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise InvalidArgument(f"Ray address {address!r}: use HOST:PORT of the cluster's head, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT).close()
    except OSError as exc:
        raise Unavailable(f"no Ray cluster at {address}: {exc.strerror or exc}", may_have_run=False) from exc


@contextlib.contextmanager
def _loopback_stays() -> Iterator[None]:
    """Ray takes 127.0.0.1 for the public address; a cluster that listens on loopback only is not there."""
    from ray._private import services

    original = getattr(services, "resolve_ip_for_localhost", None)
    services.resolve_ip_for_localhost = lambda host: "127.0.0.1" if host == "localhost" else host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = original


def leave() -> None:
    """Disconnect; ends the cluster too where this process started it. Safe to call twice."""
    import ray

    ray.shutdown()


def refuse_other_machines() -> None:
    """`InvalidArgument` when a live node is on another machine; several nodes on this one are fine."""
    foreign = sorted(
        f"{node.hostname} ({node.address})" for node in nodes() if node.alive and not _is_this_machine(node)
    )
    if foreign:
        raise InvalidArgument(
            f"this cluster has {len(foreign)} node(s) on other machines, {foreign[0]} for one;"
            " an app runs on one machine in this version"
        )


def _is_this_machine(node: NodeView) -> bool:
    # Both: host names repeat among containers, and addresses among networks.
    return node.hostname == socket.gethostname() and _is_own_address(node.address)


def _is_own_address(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def nodes() -> list[NodeView]:
    """All nodes Ray knows, the dead ones included."""
    import ray
    from ray._private import state

    available = state.available_resources_per_node()
    return [
        NodeView(
            node_id=entry["NodeID"],
            alive=entry["Alive"],
            address=entry["NodeManagerAddress"],
            hostname=entry["NodeManagerHostname"],
            resources=_amounts(entry["Resources"]),
            available=_amounts(available.get(entry["NodeID"], {})),
            labels=dict(entry.get("Labels") or {}),
            raylet_socket=str(entry.get("RayletSocketName") or ""),
        )
        for entry in ray.nodes()
    ]


def _amounts(resources: Mapping[str, float]) -> dict[str, float]:
    # Ray counts node names and placement groups as resources too.
    return {
        name: float(amount)
        for name, amount in resources.items()
        if not name.startswith("node:") and "_group_" not in name and not name.startswith("bundle")
    }


# --- processes --------------------------------------------------------------------------------


class _Shell:
    """
    One process of ours, seen from Ray: opened in the constructor, alive as long as the process.

    The constructor runs on the main thread, so SIGTERM can be ours. What it opens
    runs on its own threads; no user code ever runs in a Ray call.
    """

    default_opener = ""

    def __init__(self, config: dict[str, Any]) -> None:
        self._epoch = -1
        self._newest_call = 0
        self._changed = threading.Condition()
        _extend_sys_path(config.get("sys_path", ()))
        self._opened: Any = _load(config.get("opener") or self.default_opener)(config)
        # After opening: until then Ray's own handler ends the process, which is right.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def hello(self) -> tuple[int, int, str, tuple[str, ...]]:
        """Pid, start time, node and GPU ids of this process; an answer means that it is open."""
        import ray

        pid = os.getpid()
        return pid, settings.process_start_time(pid) or 0, ray.get_runtime_context().get_node_id(), gpu_ids()

    def whereabouts(self) -> str:
        """Where the process listens; how a new stage finds it."""
        return str(getattr(self._opened, "address", ""))

    def lifeline(self, epoch: int) -> int:
        """
        Does not return while this process lives, except to make way for a newer call.

        The error of the pending call is the cause of death. A call of the same or a
        newer epoch releases the older ones, else a process would have no thread left
        to listen after as many lives of the stage.
        """
        with self._changed:
            if epoch < self._epoch:
                return self._epoch
            self._epoch = epoch
            self._newest_call += 1
            this_call = self._newest_call
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._newest_call > this_call)
            return self._epoch

    def _on_sigterm(self, number: int, frame: object) -> None:
        terminate = getattr(self._opened, "terminate", None)
        if terminate is not None:
            terminate()
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


class StageShell(_Shell):
    """The Ray actor that is the app's stage."""

    default_opener = "supervisors.stage:open_stage"


class HostShell(_Shell):
    """The Ray actor that is one host."""

    default_opener = "supervisors.host:open_host"

    def __init__(self, config: dict[str, Any]) -> None:
        if not gpu_ids():
            # Ray leaves it unset, and an unset one means every GPU of the machine.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        super().__init__(config)


def _extend_sys_path(entries: Sequence[str]) -> None:
    sys.path[:0] = [entry for entry in entries if entry not in sys.path]


def _load(opener: str) -> Callable[[dict[str, Any]], Any]:
    module, _, name = opener.partition(":")
    loaded: Callable[[dict[str, Any]], Any] = getattr(importlib.import_module(module), name)
    return loaded


def gpu_ids() -> tuple[str, ...]:
    """The devices Ray gave to this process; empty for what asked for none."""
    import ray

    return tuple(str(device) for device in ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))


def spawn_stage(config: dict[str, Any]) -> RayActor:
    """
    Begin to start the stage; `AlreadyStarted` when the namespace has one. See `wait_started`.

    The one process that Ray restarts: a stage that dies comes back and takes over. It lives on
    the head, without which there is no cluster: else it could go down with a node of its members.
    """
    # A resource and no affinity to its node: a node that has just joined knows no other, and a
    # soft affinity would then be none, a hard one an error.
    options = {"max_restarts": -1, "resources": {_HEAD: 0.001}}
    return _spawn(StageShell, config, STAGE_NAME, options)


def spawn_host(
    config: dict[str, Any],
    *,
    name: str,
    node_id: str | None = None,
    slot: str | None = None,
    num_gpus: float = 0,
) -> RayActor:
    """
    Begin to start a host, on *node_id*, inside *slot*, or anywhere; returns at once.

    Hosts ask for no resources, except *num_gpus* out of their slot, for Ray tells
    the device ids only to a process that asks. A host is never restarted by Ray.
    """
    options: dict[str, Any] = {"num_gpus": num_gpus} if num_gpus else {}
    if slot is not None:
        options["scheduling_strategy"] = _in_slot(slot)
    elif node_id is not None:
        options["scheduling_strategy"] = _on_node(node_id)
    return _spawn(HostShell, config, name, options)


def _spawn(shell: type[_Shell], config: dict[str, Any], name: str, options: dict[str, Any]) -> RayActor:
    import ray

    try:
        handle = (
            ray.remote(shell)
            .options(
                name=name,
                num_cpus=0,
                lifetime="detached",
                max_concurrency=_SHELL_CONCURRENCY,
                enable_task_events=False,
                **{"max_restarts": 0, **options},
            )
            .remote(config)
        )
    except ray.exceptions.ActorAlreadyExistsError as exc:
        raise AlreadyStarted(f"{name} runs already in namespace {_namespace()!r}") from exc
    return RayActor(name, handle)


def _on_node(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _in_slot(slot: str) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = _find_group(slot)
    if group is None:
        raise Unavailable(f"slot {slot} is gone", may_have_run=False)
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)


def wait_started(
    actor: RayActor, timeout: float = 60.0, *, is_abandoned: Callable[[], bool] | None = None
) -> ProcessView:
    """
    Wait until the process is open and say which one it is.

    `StartFailed` when its opener raised (the cause carries the traceback),
    `Unavailable` when it ended, can never be placed or *is_abandoned* says that nobody
    wants it any more, `DeadlineExceeded` when none of that happened in time; it may
    still start then.
    """
    import ray

    hello = actor.handle.hello.remote()
    deadline = time.monotonic() + timeout
    while not ray.wait([hello], timeout=min(_GLANCE, max(0.0, deadline - time.monotonic())))[0]:
        if is_abandoned is not None and is_abandoned():
            raise Unavailable(f"{actor.name} is not waited for any more", may_have_run=False)
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"{actor.name} did not start within {timeout:g} s")
    try:
        pid, start_time, node_id, devices = ray.get(hello)
    except ray.exceptions.RayError as exc:
        raise _start_error(actor.name, exc) from exc
    return ProcessView(actor.name, pid, start_time, node_id, devices)


def _start_error(name: str, error: Any) -> ActorError:
    if getattr(error, "actor_init_failed", False):
        # The text is the remote traceback; its last line is the exception.
        return StartFailed(f"{name} did not start: {str(error).strip().splitlines()[-1].strip()}")
    return Unavailable(f"{name} did not start: {_one_line(error)}", may_have_run=False)


def find_actor(name: str) -> RayActor | None:
    """The named shell of this namespace, e.g. to adopt a host after a new stage has come up."""
    import ray

    try:
        return RayActor(name, ray.get_actor(name))
    except ValueError:
        return None


def list_hosts() -> list[str]:
    """Names of all hosts of this namespace, those that are still starting included."""
    import ray

    return sorted(name for name in ray.util.list_named_actors() if name != STAGE_NAME)


def whereabouts(timeout: float) -> dict[str, str]:
    """Where the hosts of this namespace listen, by name, as far as they say it within *timeout* seconds."""
    import ray

    actors = [actor for name in list_hosts() if (actor := find_actor(name)) is not None]
    asked = {actor.handle.whereabouts.remote(): actor.name for actor in actors}
    if not asked:
        return {}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=timeout)
    found: dict[str, str] = {}
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):
            found[asked[answer]] = ray.get(answer)
    return {name: address for name, address in found.items() if address}


def kill_host(name: str) -> bool:
    """
    Have Ray end that process; False when there is none. Also takes `STAGE_NAME`.

    Not proof of anything: a stopped process lives 5 s longer than this says.
    """
    import ray

    actor = find_actor(name)
    if actor is None:
        return False
    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        ray.kill(actor.handle, no_restart=True)
    return True


def _namespace() -> str:
    import ray

    return str(ray.get_runtime_context().namespace)


# --- lifelines --------------------------------------------------------------------------------

CauseKind = Literal["oom", "node_lost", "killed"]


def arm_lifeline(actor: RayActor, epoch: int) -> Any:
    """A pending call into *actor* that ends when its process does, with the cause; older ones are let go."""
    return actor.handle.lifeline.remote(epoch)


def wait_lifelines(lifelines: Sequence[Any], timeout: float | None = None) -> list[Any]:
    """Those of *lifelines* that have ended, as soon as there is one, or none after *timeout*."""
    import ray

    if not lifelines:
        return []
    ended, _ = ray.wait(list(lifelines), num_returns=1, timeout=timeout)
    if ended:
        ended, _ = ray.wait(list(lifelines), num_returns=len(lifelines), timeout=0)
    return list(ended)


def cause_of_death(lifeline: Any) -> tuple[CauseKind, str] | None:
    """
    Why the process behind a finished lifeline ended; None when it lives (the call made way for a newer one).

    `killed` stands for every end that Ray knows no better: signal, exit and crash look
    the same to it (the wait status of the process, where there is one, knows more).
    """
    import ray

    try:
        ray.get(lifeline, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return None
    except ray.exceptions.RayError as exc:
        return _classify(exc)
    return None


def _classify(error: Any) -> tuple[CauseKind, str]:
    import ray

    text = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory pressure" in text.lower():
        return "oom", _one_line(error)
    lost = (ray.exceptions.NodeDiedError, ray.exceptions.LocalRayletDiedError)
    if isinstance(error, lost) or "node has died" in text or "node was terminated" in text:
        return "node_lost", _one_line(error)
    return "killed", _one_line(error)


_EMPTY_WORDS = (
    "The actor died unexpectedly before finishing this task.",
    "class_name:",
    "actor_id:",
    "pid:",
    "name:",
    "namespace:",
    "ip:",
)


def _one_line(error: BaseException) -> str:
    """The sentence in Ray's multi-line text that says something; class and actor ids are ours to know."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_EMPTY_WORDS)]
    sentence = telling[0] if telling else type(error).__name__
    return sentence.partition(" Some common causes include")[0]


# --- slots ------------------------------------------------------------------------------------


def make_slot(
    name: str,
    bundle: Mapping[str, float],
    labels: Mapping[str, str] | None = None,
    *,
    avoided: Iterable[str] = (),
) -> None:
    """
    Reserve *bundle* on one node that carries *labels*; returns before it is placed (see `slot_state`).

    Not on the nodes with the ids *avoided*: Ray still takes one for alive that we know to be gone.

    A slot is detached: it outlives the stage and the processes inside it, and a process
    that dies in it does not free it. `AlreadyStarted` when the name is taken.
    """
    from ray.util import placement_group

    if _find_group(name) is not None:
        raise AlreadyStarted(f"slot {name} exists already in namespace {_namespace()!r}")
    selector = dict(labels or {})
    if others := sorted(avoided):
        selector[_NODE_ID] = f"!in({','.join(others)})"
    placement_group(
        [dict(bundle)],
        strategy="STRICT_PACK",
        name=_group_name(name),
        lifetime="detached",
        bundle_label_selector=[selector] if selector else None,
    )


def slot_state(name: str) -> SlotView:
    """Where the slot is. A pending one is either waiting for room or infeasible: no node is big enough."""
    from ray.util import placement_group_table

    group = _find_group(name)
    return SlotView(name, "gone") if group is None else _slot_view(name, placement_group_table(group))


def _slot_view(name: str, entry: Mapping[str, Any]) -> SlotView:
    match entry.get("state"):
        case "CREATED":
            return SlotView(name, "ready", str(next(iter(entry["bundles_to_node_id"].values()))))
        case "REMOVED" | None:
            return SlotView(name, "gone")
        case _ if entry.get("stats", {}).get("scheduling_state") == "INFEASIBLE":
            return SlotView(name, "infeasible")
        case _:
            return SlotView(name, "pending")


def list_slots() -> list[SlotView]:
    """All slots of this namespace."""
    from ray.util import placement_group_table

    prefix = _group_name("")
    views = [
        _slot_view(entry["name"].removeprefix(prefix), entry)
        for entry in placement_group_table().values()
        if entry["name"].startswith(prefix)
    ]
    return sorted((view for view in views if view.state != "gone"), key=lambda view: view.name)


def remove_slot(name: str) -> bool:
    """Give the slot back; Ray kills what still runs inside it. False when there is none."""
    from ray.util import remove_placement_group

    group = _find_group(name)
    if group is None:
        return False
    remove_placement_group(group)
    return True


def _group_name(slot: str) -> str:
    # Ray's table lists the groups of all namespaces without telling which is whose.
    return f"{_namespace()}/{slot}"


def _find_group(slot: str) -> Any:
    from ray.util import get_placement_group

    try:
        return get_placement_group(_group_name(slot))
    except ValueError:
        return None

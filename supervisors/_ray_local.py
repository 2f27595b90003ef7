"""
The embedded cluster: a Ray node of our own, started lean and swept away.

It starts in 1.0 s instead of 2.1 to 3.2, listens on the loopback device only, and writes nothing
outside its run directory. `_ray` has what works on any cluster; what its docstring says of names
that begin with an underscore in Ray holds here too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import InvalidArgument
from supervisors import settings
from supervisors._ray import import_roots

TOKEN_NAME = "ray-token"
SESSIONS_NAME = "ray"
SESSION_PREFIX = "session-"
OBJECT_STORE_BYTES = 75 * 1024 * 1024
"""Ray's own minimum. Our messages do not use the store, so it stays as small as it may be."""

_LONGEST_SOCKET = "/session-01234567/sockets/plasma_store"
_REGISTRATION_TIMEOUT = 30.0

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
    entries = [*import_roots(), *python_path, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, entries)))


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

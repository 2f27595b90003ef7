"""
The home of Ray: a cluster as we use it, the actors that carry our processes, slots, nodes, causes of death.

Everything blocks and speaks in plain values; only `RayActor.handle` and lifelines
are Ray's own objects, and nobody else looks into them. Ray's errors come out as
ours. Messages never pass through here: a Ray actor is a shell around one process
(`HostShell`, `StageShell`), its calls are `hello` and `lifeline`.

Ray is imported inside the functions, since it reads some of its environment while
it is imported and `_ray_local.start_local` has to be first. Names that begin with an
underscore in Ray are used where they save seconds; `pyproject.toml` pins the minor
release for that reason, and what is missing falls back to the public way.
"""

from __future__ import annotations

import contextlib
import importlib
import os
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

_SHELL_CONCURRENCY = 8
_CONNECT_TIMEOUT = 3.0
_GLANCE = 0.1


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
                job_config=JobConfig(_py_driver_sys_path=[*import_roots(), *python_path]),
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, ray.exceptions.RayError) as exc:
        raise Unavailable(f"no Ray cluster at {address}: {_one_line(exc)}", may_have_run=False) from exc


def import_roots() -> list[str]:
    """Where this package comes from, unless that is where any interpreter looks anyway."""
    root = str(Path(__file__).resolve().parents[1])
    known = {os.path.realpath(path) for path in [*site.getsitepackages(), site.getusersitepackages()]}
    return [] if root in known else [root]


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

    default_opener = "supervisors.stage_process:open_stage"


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

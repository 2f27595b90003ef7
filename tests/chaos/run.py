"""One run of chaos: load, random faults, healing, and the verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.errors import ActorError
from supervisors import Cluster
from supervisors.testing import Ledger, Load, LocalApp, Nemesis, Verdict, check, local_app, read_ledger
from tests.chaos.app import MEMBERS, SIZES, chaos_app

WELL_LIMIT = 40.0
"""Seconds after the healing in which everybody has to be there again: backoff and start timeouts included."""

_INVENTORY = """
import json, os, sys
from supervisors import _ray
_ray.join(sys.argv[1], sys.argv[2])
print(json.dumps([_ray.list_hosts(), [slot.name for slot in _ray.list_slots()]]))
os._exit(0)
"""


def chaos_run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    period: float = 4.0,
    rate: float = 200.0,
    faults: Sequence[str] | None = None,
    keeps_logs: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Verdict:
    local = local_app(chaos_app(str(folder)), is_checked=False)
    problems: list[str] = []
    with local as cluster:
        began_at = time.monotonic()
        ledger = Ledger(folder)
        nemesis = Nemesis(
            cluster,
            seed=seed,
            directory=folder,
            faults=faults,
            period=period,
            sizes=SIZES,
            on_fault=lambda fault: say(fault.line(began_at)),
        )
        load = Load(cluster, ledger, MEMBERS, rate=rate, seed=seed)
        with load:
            time.sleep(1)
            with nemesis:
                nemesis.run(seconds)
            problems += wait_well(cluster, WELL_LIMIT)
            time.sleep(1)
        problems += [f"a caller ended with {problem!r}" for problem in load.problems]
        problems += strays(local, cluster)
        now = time.monotonic()
        say(f"{now - began_at:8.2f} s  stopping")
        if keeps_logs:
            events = [json.dumps(event) for event in cluster.events(last=10_000)]
            (folder / "events.json").write_text("\n".join(events))
            shutil.copytree(
                local.run_dir,
                folder / "logs",
                ignore=shutil.ignore_patterns("sockets", "*.ipc", "*key*", "*token*"),
            )
    ledger.close()
    return check(read_ledger(folder), nemesis.faults, orphans=[*problems, *local.left], now=now)


def wait_well(cluster: Cluster, timeout: float) -> list[str]:
    """Wait until every service runs at its size and every member answers; says what does not."""
    give_up_at = time.monotonic() + timeout
    while True:
        try:
            found = _unwell(cluster)
        except ActorError as error:
            found = [f"the stage does not answer: {error}"]
        if not found or time.monotonic() > give_up_at:
            return found
        time.sleep(0.1)


def _unwell(cluster: Cluster) -> list[str]:
    state = cluster.ps().result()
    found = [
        f"{row['name']} is {row['state']} with {row['ready']} of {row['size']} ready ({row['reason']})"
        for row in state["services"]
        if row["state"] != "running" or row["ready"] != row["size"]
    ]
    if not state["understudies"]:
        found.append("no understudy stands ready")
    for row in state["members"]:
        service, _, number = row["name"].partition("/")
        try:
            name, incarnation, pid = cluster.service(service).member(int(number)).who().result()
        except ActorError as error:
            found.append(f"{row['name']} does not answer: {error!r}")
        else:
            if (name, incarnation, pid) != (row["name"], row["incarnation"], row["pid"]):
                known = f"life {row['incarnation']} in {row['pid']}"
                found.append(f"{row['name']} says life {incarnation} in {pid}, ps says {known}")
    return found


def strays(local: LocalApp, cluster: Cluster, timeout: float = 8.0) -> list[str]:
    """Hosts and slots that Ray has and the stage does not know, once things have settled."""
    give_up_at = time.monotonic() + timeout
    while True:
        found = _strays(local, cluster.ps().result())
        if not found or time.monotonic() > give_up_at:
            return found
        time.sleep(0.3)


def _strays(local: LocalApp, state: dict[str, Any]) -> list[str]:
    hosts, slots = inventory(local)
    known = {row["host"] for row in state["members"]} | {row["name"] for row in state["understudies"]}
    found = [f"host {name} belongs to nobody" for name in hosts if name not in known]
    wanted = sum(row["size"] for row in state["services"] if row["name"] == "cell")
    if len(slots) != wanted:
        found.append(f"{len(slots)} slots for {wanted} members: {', '.join(slots)}")
    return found


def inventory(local: LocalApp) -> tuple[list[str], list[str]]:
    """Names of the hosts and slots that Ray has of the app."""
    address = next(phase["address"] for phase in local.phases if phase.get("phase") == "ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(local.run_dir / "ray-token")}
    done = subprocess.run(
        [sys.executable, "-c", _INVENTORY, address, local.app.name],
        env={**os.environ, **token, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    hosts, slots = json.loads(done.stdout.splitlines()[-1])
    return hosts, slots

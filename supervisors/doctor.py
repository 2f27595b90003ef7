"""
The doctor: whether this machine can run an app, and what earlier runs have left behind.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import resource
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from actors.errors import InvalidArgument
from supervisors import settings

_PACKAGES = ("understudy", "ray", "pynng", "cloudpickle", "psutil", "structlog", "click", "uvloop")
_OPTIONAL = ("understudy", "uvloop")
_LEAST_SHM = 256 * 1024 * 1024
_LEAST_FILES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `warning` or `problem`."""

    what: str
    state: str
    text: str


def examine(*, sweep: bool = False) -> list[Finding]:
    """Look at everything; with *sweep* remove what dead apps have left."""
    return [*_versions(), _names(), _shm(), _files(), _ports(), _run_root(), *_apps(sweep)]


def _versions() -> list[Finding]:
    findings = [Finding("python", "ok" if sys.version_info >= (3, 11) else "problem", sys.version.split()[0])]
    for package in _PACKAGES:
        try:
            findings.append(Finding(package, "ok", importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            state = "warning" if package in _OPTIONAL else "problem"
            findings.append(Finding(package, state, "is not installed"))
    return findings


def _names() -> Finding:
    """`actors` and `supervisors` are common words: are they ours?"""
    here = Path(__file__).resolve().parents[1]
    for name in ("actors", "supervisors"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or here not in origin.parents:
            return Finding("import names", "problem", f"{name!r} is another package here: {origin}")
    return Finding("import names", "ok", "actors and supervisors are ours")


def _shm() -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError as error:
        return Finding("/dev/shm", "problem", str(error))
    state = "ok" if free >= _LEAST_SHM else "warning"
    return Finding("/dev/shm", state, f"{free // 1024**2} MiB free, Ray wants {_LEAST_SHM // 1024**2}")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding("open files", "ok" if soft >= _LEAST_FILES else "warning", f"limit {soft} of {hard}")


def _ports() -> Finding:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return Finding(
                "loopback ports", "ok", f"127.0.0.1 gives ports (such as {probe.getsockname()[1]})"
            )
    except OSError as error:
        return Finding("loopback ports", "problem", str(error))


def _run_root() -> Finding:
    root = settings.run_root()
    try:
        if root.exists():
            settings.ensure_private_dir(root)
        settings.check_socket_path(str(root / ("x" * 30) / "0123456789abcdef.ipc"))
    except InvalidArgument as error:
        return Finding("run root", "problem", str(error))
    return Finding("run root", "ok", f"{root}{'' if root.exists() else ' (made when first used)'}")


def _apps(sweep: bool) -> list[Finding]:
    root = settings.run_root()
    if not root.exists():
        return []
    running = {record.app: record for record in settings.running_apps()}
    findings = [
        Finding(f"app {name}", "ok", f"runs, stage pid {record.pid}") for name, record in running.items()
    ]
    findings += [_token(root / name) for name in running]
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        if directory.name in running or _is_held(directory):
            continue
        if sweep:
            shutil.rmtree(directory, ignore_errors=True)
            findings.append(Finding("stale session", "ok", f"{directory} removed"))
        else:
            findings.append(
                Finding(
                    "stale session",
                    "warning",
                    f"{directory}: its app is dead; `understudy doctor --sweep` removes it",
                )
            )
    return findings


def _token(directory: Path) -> Finding:
    token = directory / "ray-token"
    if not token.exists():
        return Finding("ray token", "ok", f"{directory.name} runs on a cluster of somebody else's")
    mode = token.stat().st_mode & 0o777
    return Finding("ray token", "ok" if mode == 0o600 else "problem", f"{token} has mode {mode:04o}")


def _is_held(directory: Path) -> bool:
    """True while a house holds the lock of this run directory."""
    import fcntl

    try:
        descriptor = os.open(directory / "house.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

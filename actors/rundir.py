"""
Run directories: where processes meet that trust each other. Private directories, the MAC key, socket paths.

Everything here is private to one user of one machine. A directory or key that
somebody else could have written or can read is refused by name, never used.
Standard library only.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from actors.errors import InvalidArgument

RUN_ROOT_VARIABLE = "UNDERSTUDY_RUN_ROOT"
KEY_NAME = "key"
KEY_BYTES = 32

MAX_DIRECTORY_LENGTH = 60
"""Longest directory for sockets: leaves room for `/<16 hex>.ipc` and then some."""
MAX_SOCKET_PATH_LENGTH = 107
"""`sockaddr_un.sun_path` holds 108 bytes, the last one being the terminator."""


def run_root() -> Path:
    """Where the apps of this user keep their run directories; not created here."""
    chosen = os.environ.get(RUN_ROOT_VARIABLE)
    return Path(chosen).absolute() if chosen else Path(f"/tmp/understudy-{os.getuid()}")


def check_socket_path(path: str | os.PathLike[str]) -> str:
    """*path* as a string, or `InvalidArgument` when a unix socket there would not fit."""
    text = os.fspath(path)
    directory = os.path.dirname(text)
    if len(os.fsencode(directory)) > MAX_DIRECTORY_LENGTH:
        raise InvalidArgument(
            f"{directory}: {len(os.fsencode(directory))} characters, sockets need a directory of at most"
            f" {MAX_DIRECTORY_LENGTH}; set {RUN_ROOT_VARIABLE} to a shorter one"
        )
    if len(os.fsencode(text)) > MAX_SOCKET_PATH_LENGTH:
        raise InvalidArgument(
            f"{text}: {len(os.fsencode(text))} characters, a socket path has at most {MAX_SOCKET_PATH_LENGTH}"
        )
    return text


def ensure_private_dir(path: str | os.PathLike[str]) -> Path:
    """
    Create *path* with mode 0700 and verify it: ours, a real directory, closed to everybody else.

    Missing parents are created as private as the directory itself. Those that
    exist are taken as they are, except the run root, which must be private too:
    whoever owns it could swap what is inside. Raises `InvalidArgument` naming the
    path and what is wrong with it. It is never repaired: who could enter a
    directory may have left something in it.
    """
    directory = Path(path).absolute()
    if run_root() in directory.parents:
        ensure_private_dir(run_root())
    for parent in reversed(directory.parents):
        _mkdir_private(parent)
    _mkdir_private(directory)
    _verify_private_dir(directory)
    return directory


def _mkdir_private(path: Path) -> None:
    if path.is_dir():
        return
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass  # A racing creator; or a file or a dangling link, which the verification names.
    except OSError as exc:
        raise InvalidArgument(f"{path}: cannot be created: {exc.strerror}") from exc


def _verify_private_dir(path: Path) -> None:
    try:
        info = path.lstat()
    except OSError as exc:
        raise InvalidArgument(f"{path}: cannot be inspected: {exc.strerror}") from exc
    if stat.S_ISLNK(info.st_mode):
        raise InvalidArgument(f"{path}: is a symbolic link, a run directory must be a real one")
    if not stat.S_ISDIR(info.st_mode):
        raise InvalidArgument(f"{path}: is not a directory")
    _verify_ours(path, info)


def _verify_ours(path: Path, info: os.stat_result) -> None:
    if info.st_uid != os.getuid():
        raise InvalidArgument(f"{path}: belongs to user {info.st_uid}, not to {os.getuid()}")
    if info.st_mode & 0o077:
        raise InvalidArgument(
            f"{path}: mode {stat.S_IMODE(info.st_mode):04o} lets other users in; remove it or chmod go-rwx"
        )


def make_key(path: str | os.PathLike[str]) -> Path:
    """
    Make sure that *path* holds a MAC key, 32 random bytes with mode 0600; gives the path back.

    A key that exists stays. The bytes are complete before the name appears, so a
    racing reader never sees half a key, and of two racing makers the first wins.
    """
    key_path = Path(path)
    if key_path.exists():
        return key_path
    draft = _draft(key_path, secrets.token_bytes(KEY_BYTES))
    try:
        # A link is O_CREAT | O_EXCL for a finished file.
        os.link(draft, key_path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
    return key_path


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The MAC key in *path*; `InvalidArgument` if others could have read it, `FileNotFoundError` if none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _verify_ours(Path(path), os.fstat(descriptor))
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise InvalidArgument(f"{path}: is not a key of {KEY_BYTES} bytes")
    return key


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write *content* to *path* with mode 0600, all at once: a reader sees the old file or the new one."""
    target = Path(path)
    draft = _draft(target, content)
    try:
        os.replace(draft, target)
    except OSError:
        os.unlink(draft)
        raise


def _draft(target: Path, content: bytes) -> Path:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    return draft

"""
Loading: how the user's classes reach the processes that run them.

A class goes by its module's name, so that class identity and `except` work; an app file
is loaded once per process under its stem. Only what lives in `__main__`, in a notebook
or in a function goes by value. House and stage pass all of it on unopened.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from actors.errors import InvalidArgument, SerializationError, nearest
from actors.pickling import dumps, loads

_lock = threading.RLock()
"""An understudy imports ahead on one thread while it may be told on another what to be."""

in_host = False
"""True in a process that carries members: an app file must not run itself here."""


def class_reference(cls: type) -> dict[str, str]:
    """How *cls* travels: module and name, or bytes where the module cannot be imported elsewhere."""
    module = sys.modules.get(cls.__module__)
    if (
        cls.__module__ != "__main__"
        and "<locals>" not in cls.__qualname__
        and module is not None
        and getattr(module, "__file__", None)
    ):
        return {"module": cls.__module__, "name": cls.__qualname__}
    return {"name": cls.__qualname__, "bytes": _text(cls)}


def load_class(reference: Mapping[str, str], files: Mapping[str, str]) -> type:
    """The class again, in a host. Import errors are the user's and come out unchanged."""
    if "bytes" in reference:
        cls: Any = loads(base64.b64decode(reference["bytes"]))
    else:
        cls = load_module(reference["module"], files)
        for part in reference["name"].split("."):
            cls = getattr(cls, part)
    if not isinstance(cls, type):
        raise InvalidArgument(f"{reference['name']} is not a class")
    return cls


def load_module(name: str, files: Mapping[str, str]) -> ModuleType:
    """Import a module, an app file by its stem."""
    with _lock:
        return load_file(files[name], name) if name in files else importlib.import_module(name)


def load_file(path: str, name: str | None = None) -> ModuleType:
    """Load an app file once, under its stem; its folder comes first on `sys.path`, as for a script."""
    file = Path(path).resolve()
    with _lock:
        return _load_file(file, name or file.stem)


def _load_file(file: Path, name: str) -> ModuleType:
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def find_app(target: str) -> tuple[Any, ModuleType]:
    """
    The `App` that `FILE`, `FILE:NAME` or `module:NAME` means, and its module.

    `InvalidArgument` in one line when there is none; what the file itself raises comes out unchanged.
    """
    from supervisors.app import App

    place, _, name = target.partition(":")
    if place.endswith(".py") or "/" in place:
        if not Path(place).is_file():
            raise InvalidArgument(f"{place}: no such file")
        module = load_file(place)
    else:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name != place.partition(".")[0]:
                raise
            raise InvalidArgument(f"{place!r} is neither a file nor a module") from None
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    found = apps.get(name or "app")
    if found is None:
        known = f"; it has {', '.join(sorted(apps))}" if apps else "; it defines no App"
        raise InvalidArgument(
            f"{place} has no App named {name or 'app'!r}{nearest(name or 'app', apps)}{known}"
        )
    return found, module


def pack_arguments(owner: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Constructor arguments as text for hosts. `SerializationError` names the one that cannot travel."""
    try:
        return _text((args, dict(kwargs)))
    except Exception as error:
        for place, value in [*enumerate(args, 1), *kwargs.items()]:
            try:
                dumps(value)
            except Exception as reason:
                raise SerializationError(
                    f"{owner}: argument {place!r} cannot be pickled: {value!r} ({reason})"
                ) from None
        raise SerializationError(f"{owner}: the arguments cannot be pickled: {error}") from None


def unpack_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments again, in a host."""
    args, kwargs = loads(base64.b64decode(text))
    return args, kwargs


def _text(value: Any) -> str:
    return base64.b64encode(dumps(value)).decode()

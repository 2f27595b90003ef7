"""
Layers, read from the source: who may import whom, and who is a vendor's only home.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("actors", "supervisors")

HOMES = {
    "pynng": {"actors/_nng.py"},
    "cloudpickle": {"actors/pickling.py"},
    "psutil": {"supervisors/_probe.py"},
    "ray": {"supervisors/_ray.py", "supervisors/_ray_local.py"},
}

INHERITED = {
    # `ServiceRef` is a `Routed` of its own kind; public names would hide messages of the same name.
    "supervisors/service.py": {
        "_idempotency_key",
        "_reliable",
        "_timeout",
        "_timeout_given",
        "_with",
    },
}
"""Underscore names of the other package that a subclass uses on itself."""

FOREIGN = {
    "os._exit",
    "ray._raylet",
    "state._initialize_global_state",
    "asyncio.tasks._enter_task",  # these two: "Extending asyncio" in the manual
    "asyncio.tasks._leave_task",
}
"""Underscore names of the standard library and of vendors, used on purpose."""


def sources(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, wherever it stands; name is empty for plain ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def names_made_by(package: str) -> set[str]:
    """Every name that the package's code defines: functions, classes, variables, attributes."""
    made: set[str] = set()
    for _, tree in sources(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                made.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                made.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                made.add(node.id)
            elif isinstance(node, ast.arg):
                made.add(node.arg)
    return made


def test_the_arrow_points_from_supervisors_to_actors() -> None:
    found = [
        (path, module)
        for path, tree in sources("actors")
        for module, _ in imports(tree)
        if module.split(".")[0] in ("supervisors", "ray", "psutil", "examples")
    ]

    assert found == []


def test_nobody_imports_the_examples_or_the_tests() -> None:
    found = [
        (path, module)
        for package in PACKAGES
        for path, tree in sources(package)
        for module, _ in imports(tree)
        if module.split(".")[0] in ("examples", "tests")
    ]

    assert found == []


def test_underscore_modules_and_names_are_imported_by_siblings_only() -> None:
    found = [
        (path, module, name)
        for package, other in (PACKAGES, PACKAGES[::-1])
        for path, tree in sources(package)
        for module, name in imports(tree)
        if module.split(".")[0] == other and (is_private(module) or is_private(name))
    ]

    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_underscore_attributes_are_the_packages_own(package: str) -> None:
    own = names_made_by(package)
    found = {
        (path, ast.unparse(node))
        for path, tree in sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in own
        and ast.unparse(node) not in FOREIGN
        and node.attr not in INHERITED.get(path, ())
    }

    assert found <= {("actors/_loop.py", "asyncio._get_running_loop")}


def test_what_is_allowed_as_inherited_is_still_needed() -> None:
    for path, names in INHERITED.items():
        used = {
            node.attr
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert names <= used


@pytest.mark.parametrize("vendor", HOMES)
def test_each_vendor_has_one_home(vendor: str) -> None:
    users = {
        path
        for package in PACKAGES
        for path, tree in sources(package)
        for module, _ in imports(tree)
        if module.split(".")[0] == vendor
    }

    assert users == HOMES[vendor]


@pytest.mark.parametrize(
    "program",
    [
        "import actors, supervisors",
        "from actors import *\nfrom supervisors import *",
        "import supervisors.cli, supervisors.status, actors.door",
    ],
)
def test_importing_loads_no_vendor_before_its_time(program: str) -> None:
    vendors = ("ray", "psutil", "structlog", "cloudpickle", "pynng")
    check = f"{program}\nimport sys\nprint(*[name for name in {vendors} if name in sys.modules])"

    result = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == []


def test_the_clients_of_an_app_import_no_ray_and_no_user_code_is_unpickled_by_stage_and_house() -> None:
    """Only stage, company and house reach for `_ray`; stage and house pass on what they never open."""
    users = {
        path
        for path, tree in sources("supervisors")
        for module, name in imports(tree)
        if module.startswith("supervisors._ray") or (module == "supervisors" and name.startswith("_ray"))
    }
    unpicklers = {
        path
        for path, tree in sources("supervisors")
        for module, name in imports(tree)
        if (module == "actors.pickling" and name == "loads") or module in ("pickle", "marshal", "shelve")
    }

    users -= {"supervisors/_ray_local.py"}
    assert users <= {"supervisors/house.py", "supervisors/company.py", "supervisors/stage_process.py"}
    assert unpicklers == {"supervisors/loading.py"}


def test_processes_are_signalled_in_one_way_only() -> None:
    """By pid and start time, through a checked descriptor: never a reused pid, a group, or all (0 and -1)."""
    names = {"kill", "killpg", "tgkill"}
    users = {
        path
        for package in PACKAGES
        for path, tree in sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }

    assert users == set()

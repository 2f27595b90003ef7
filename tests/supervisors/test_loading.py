"""How the user's classes reach other processes, and how an app is found by the name of its file."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.actor import Actor
from actors.errors import InvalidArgument, SerializationError
from supervisors import loading
from supervisors.app import App
from supervisors.backoff import Backoff
from supervisors.service import Service

APP = """
from actors import Actor
from supervisors import App, Service

class Chef(Actor):
    class Sous:
        pass

app = App(Service("kitchen", Chef))
other = App(name="other")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose modules are forgotten afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def bistro(folder: Path) -> Path:
    file = folder / "bistro.py"
    file.write_text(APP)
    return file


class TestFindingAnApp:
    @pytest.mark.parametrize(("suffix", "name"), [("", "bistro"), (":app", "bistro"), (":other", "other")])
    def test_by_file(self, bistro: Path, suffix: str, name: str) -> None:
        app, module = loading.find_app(f"{bistro}{suffix}")

        assert (app.name, module.__name__) == (name, "bistro")

    def test_by_module(self, bistro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(bistro.parent))

        app, _ = loading.find_app("bistro:other")

        assert app.name == "other"

    @pytest.mark.parametrize(
        ("target", "complaint"),
        [
            ("{folder}/bistr.py", "bistr.py: no such file"),
            ("{folder}/bistro.py:othr", "no App named 'othr'; did you mean 'other'.*it has app, other"),
            ("{folder}/empty.py", "has no App named 'app'.*it defines no App"),
            ("no_such_module_here", "neither a file nor a module"),
            ("no_such_module_here.deep", "neither a file nor a module"),
        ],
    )
    def test_what_is_not_there_is_one_line(self, bistro: Path, target: str, complaint: str) -> None:
        (bistro.parent / "empty.py").write_text("")

        with pytest.raises(InvalidArgument, match=complaint) as error:
            loading.find_app(target.format(folder=bistro.parent))
        assert "\n" not in str(error.value)

    def test_what_the_file_raises_comes_out_unchanged(self, folder: Path) -> None:
        (folder / "broken.py").write_text("import no_such_module_here\n")

        with pytest.raises(ModuleNotFoundError):
            loading.find_app(str(folder / "broken.py"))
        assert "broken" not in sys.modules


class TestClasses:
    def test_a_class_of_an_app_file_goes_by_name(self, bistro: Path) -> None:
        app, module = loading.find_app(str(bistro))

        reference = loading.class_reference(module.Chef)

        assert reference == {"module": "bistro", "name": "Chef"}
        assert loading.load_class(reference, {"bistro": str(bistro)}) is module.Chef
        assert app.plan()["files"] == {"bistro": str(bistro)}

    def test_a_nested_class_goes_by_its_path(self, bistro: Path) -> None:
        _, module = loading.find_app(str(bistro))

        reference = loading.class_reference(module.Chef.Sous)

        assert loading.load_class(reference, {"bistro": str(bistro)}) is module.Chef.Sous

    def test_a_local_class_goes_by_value(self) -> None:
        class Local(Actor):
            async def cook(self) -> str:
                return "stew"

        reference = loading.class_reference(Local)

        assert set(reference) == {"name", "bytes"}
        assert loading.load_class(reference, {}).__qualname__ == Local.__qualname__

    def test_a_class_that_is_not_there_is_the_loaders_error(self, bistro: Path) -> None:
        with pytest.raises(AttributeError):
            loading.load_class({"module": "bistro", "name": "Waiter"}, {"bistro": str(bistro)})
        with pytest.raises(InvalidArgument, match="app is not a class"):
            loading.load_class({"module": "bistro", "name": "app"}, {"bistro": str(bistro)})

    def test_a_file_is_loaded_once_and_its_folder_comes_first(self, folder: Path) -> None:
        (folder / "spice.py").write_text("heat = object()\n")
        (folder / "meal.py").write_text("import spice\n")

        first, second = loading.load_file(str(folder / "meal.py")), loading.load_file(str(folder / "meal.py"))

        assert first is second
        assert sys.path[0] == str(folder)


class TestArguments:
    def test_arguments_travel(self) -> None:
        packed = loading.pack_arguments("Service 'kitchen'", ("grill", Backoff()), {"heat": [1, 2]})

        assert loading.unpack_arguments(packed) == (("grill", Backoff()), {"heat": [1, 2]})

    def test_functions_of_the_moment_travel_by_value(self) -> None:
        packed = loading.pack_arguments("Service 'kitchen'", (lambda: "soup",), {})

        assert loading.unpack_arguments(packed)[0][0]() == "soup"

    @pytest.mark.parametrize(
        ("args", "kwargs", "which"),
        [((1, threading.Lock()), {}, "argument 2"), ((), {"lock": threading.Lock()}, "argument 'lock'")],
    )
    def test_what_cannot_travel_is_named(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], which: str
    ) -> None:
        class Cook(Actor):
            def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        with pytest.raises(
            SerializationError, match=f"Service 'kitchen': {which} cannot be pickled: <unlocked"
        ):
            Service("kitchen", Cook, args=args, kwargs=kwargs).plan()


class TestRunningWhileAHostLoads:
    def test_it_is_refused_with_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "in_host", True)

        with pytest.raises(InvalidArgument, match="put it under `if __name__ == '__main__'`"):
            App(name="play").run()

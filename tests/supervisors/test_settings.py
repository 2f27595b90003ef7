"""Where processes of one app meet: private directories, keys, records, and who is alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from actors.errors import InvalidArgument
from supervisors import settings
from supervisors.settings import StageRecord


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    chosen = tmp_path / "root"
    monkeypatch.setenv(settings.RUN_ROOT_VARIABLE, str(chosen))
    return chosen


def a_record(**changes: object) -> StageRecord:
    start_time = settings.process_start_time(os.getpid())
    assert start_time is not None
    record = StageRecord("ipc:///x", "00ff", os.getpid(), start_time, 3, "/x/key", "restaurant", 42)
    return replace(record, **changes)  # type: ignore[arg-type]


def test_the_run_root_follows_the_environment_else_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.RUN_ROOT_VARIABLE, "/elsewhere")
    assert settings.run_root() == Path("/elsewhere")
    assert settings.app_dir("restaurant") == Path("/elsewhere/restaurant")

    monkeypatch.delenv(settings.RUN_ROOT_VARIABLE)
    assert settings.run_root() == Path(f"/tmp/understudy-{os.getuid()}")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a b", "a\n", "x" * 31, "é"])
def test_an_app_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="app name"):
        settings.app_dir(name)


def test_a_private_directory_is_made_with_its_parents(root: Path) -> None:
    made = settings.ensure_private_dir(root / "app" / "sockets")

    assert made == root / "app" / "sockets"
    assert [p.stat().st_mode & 0o777 for p in (root, root / "app", made)] == [0o700] * 3
    assert settings.ensure_private_dir(made) == made


def test_a_directory_others_may_enter_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir()
    open_dir.chmod(0o750)

    with pytest.raises(InvalidArgument, match=r"open: mode 0750 lets other users in"):
        settings.ensure_private_dir(open_dir)

    assert open_dir.stat().st_mode & 0o777 == 0o750


def test_a_link_is_refused_even_when_it_leads_to_a_private_directory(tmp_path: Path) -> None:
    real = settings.ensure_private_dir(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    for name in ("link", "dangling"):
        with pytest.raises(InvalidArgument, match=f"{name}: is a symbolic link"):
            settings.ensure_private_dir(tmp_path / name)


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="file: is not a directory"):
        settings.ensure_private_dir(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    foreign = settings.ensure_private_dir(tmp_path / "foreign")
    os.chown(foreign, 12345, -1)

    with pytest.raises(InvalidArgument, match="belongs to user 12345"):
        settings.ensure_private_dir(foreign)


def test_a_run_root_that_is_not_private_spoils_what_is_inside(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(InvalidArgument, match=r"root: mode 0777"):
        settings.ensure_private_dir(root / "app")


def test_socket_paths_have_limits_that_the_error_names() -> None:
    assert settings.check_socket_path("/tmp/x/0123456789abcdef.ipc") == "/tmp/x/0123456789abcdef.ipc"
    with pytest.raises(InvalidArgument, match="at most 60"):
        settings.check_socket_path("/" + "d" * 60 + "/s")
    with pytest.raises(InvalidArgument, match="at most 107"):
        settings.check_socket_path("/d/" + "s" * 105)


def test_a_key_is_made_once_and_only_we_can_read_it(tmp_path: Path) -> None:
    path = settings.make_key(tmp_path / "key")
    key = settings.read_key(path)

    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert settings.read_key(settings.make_key(path)) == key
    assert os.listdir(tmp_path) == ["key"]


def test_racing_makers_agree_on_one_key(tmp_path: Path) -> None:
    barrier, keys = Barrier(8), set()

    def make() -> None:
        barrier.wait()
        keys.add(settings.read_key(settings.make_key(tmp_path / "key")))

    threads = [Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 1
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_others_could_read_is_refused(tmp_path: Path) -> None:
    path = settings.make_key(tmp_path / "key")
    path.chmod(0o640)
    with pytest.raises(InvalidArgument, match="mode 0640"):
        settings.read_key(path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    settings.write_private(tmp_path / "key", b"short")
    with pytest.raises(InvalidArgument, match="not a key of 32 bytes"):
        settings.read_key(tmp_path / "key")
    with pytest.raises(FileNotFoundError):
        settings.read_key(tmp_path / "none")


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    a_record(epoch=1).write(path)
    a_record(epoch=2).write(path)

    assert StageRecord.read(path) == a_record(epoch=2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["stage.json"]


def test_a_record_of_a_newer_release_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    a_record().write(path)
    path.write_text(path.read_text().replace("{", '{"colour": "red",', 1))
    assert StageRecord.read(path) == a_record()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 1}', "\udcff"])
def test_what_is_no_record_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stage.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidArgument, match=r"stage\.json: is not a stage record"):
        StageRecord.read(path)


def test_running_apps_are_those_whose_very_process_lives(root: Path) -> None:
    for name in ("b", "a", "dead", "reused", "broken"):
        settings.ensure_private_dir(settings.app_dir(name))
    a_record(app="b").write(settings.record_path("b"))
    a_record(app="a").write(settings.record_path("a"))
    a_record(app="dead", pid=2**22 + 1).write(settings.record_path("dead"))
    a_record(app="reused", start_time=1).write(settings.record_path("reused"))
    settings.record_path("broken").write_text("{")

    assert [record.app for record in settings.running_apps()] == ["a", "b"]


def test_without_a_run_root_no_app_runs(root: Path) -> None:
    assert settings.running_apps() == []


def test_a_process_is_known_by_pid_and_start_time() -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    start_time = settings.process_start_time(child.pid)
    assert settings.is_alive(child.pid, start_time)
    assert not settings.is_alive(child.pid, (start_time or 0) - 1)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not settings.is_alive(child.pid, start_time), "a zombie is not alive"
    child.communicate()
    assert settings.process_start_time(child.pid) is None
    assert not settings.is_alive(child.pid, None)


def test_a_signal_reaches_the_very_process_it_is_meant_for_and_no_other() -> None:
    """Not the next owner of its pid, not this process's group, and not everybody."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    start_time = settings.process_start_time(process.pid)
    assert start_time is not None

    assert not settings.send_signal(process.pid, start_time + 1, signal.SIGKILL)
    assert not settings.send_signal(process.pid, None, signal.SIGKILL)
    assert process.poll() is None
    assert settings.send_signal(process.pid, start_time, signal.SIGKILL)

    assert process.wait(10) == -signal.SIGKILL
    assert not settings.send_signal(process.pid, start_time, signal.SIGKILL)
    for nobody in (0, -1):
        assert not settings.send_signal(nobody, start_time, signal.SIGTERM)


def test_a_command_name_with_parentheses_does_not_shift_the_fields(tmp_path: Path) -> None:
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/cat")
    child = subprocess.Popen([str(program)], stdin=subprocess.PIPE)
    try:
        started = settings.process_start_time(child.pid)
        own = settings.process_start_time(os.getpid())
        assert started is not None
        assert own is not None
        assert started >= own
    finally:
        child.communicate()


def test_importing_settings_loads_no_vendor() -> None:
    vendors = "{'ray', 'psutil', 'structlog', 'cloudpickle', 'pynng'}"
    program = f"import sys, supervisors.settings; sys.exit(' '.join({vendors} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])

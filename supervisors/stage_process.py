"""
The process of the stage: its system, its record in the run directory, its end.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from actors.errors import InvalidArgument
from actors.events import ActorExited, Event, log_sink
from actors.rundir import read_key, write_private
from actors.system import ActorSystem
from actors.transport import open_nng
from supervisors import evidence, memory, settings, vigil
from supervisors.registry import Registry
from supervisors.stage import Stage

STAGE_ACTOR = "stage"
"""Name of the control actor in it."""


def open_stage(config: Mapping[str, Any]) -> StageProcess:
    """Start the control actor and write the stage record; called once, on the main thread."""
    return StageProcess(config)


class StageProcess:
    """The stage's process: its system, its record, its end."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        sys.setswitchinterval(0.0005)
        evidence.leave_traces(config["run_dir"], vigil.NAME)
        memory.go_with_the_others()
        self.config = config
        before = self._record_before()
        self.is_return = before is not None
        """True for every life of the stage but the first: there is something to take over."""
        self.epoch = before.epoch + 1 if before is not None else 1
        self.registry = Registry(config["app_name"])
        self.system = ActorSystem(
            transport=open_nng(config["run_dir"]),
            key=read_key(config["key_path"]),
            directory=self.registry,
            sinks=(self._saw,),
        )
        self.system.__enter__()
        self.registry.attach(self.system)
        self._stage = self.system.options(name=STAGE_ACTOR).spawn(Stage, self)
        self._stage.wait_started().result(timeout=30)
        self._record().write(self._record_path)
        self._stage.tell("beat", self._record_path)

    @property
    def _record_path(self) -> str:
        return f"{self.config['run_dir']}/{settings.RECORD_NAME}"

    def _record_before(self) -> settings.StageRecord | None:
        try:
            return settings.StageRecord.read(self._record_path)
        except (OSError, InvalidArgument):
            return None

    def _saw(self, event: Event) -> None:
        if isinstance(event, ActorExited) and event.actor == STAGE_ACTOR and not event.exit.is_clean:
            # A control actor that crashed is a defect of ours; without it nobody is in charge.
            log_sink(event)
            self.fail()

    def _record(self) -> settings.StageRecord:
        pid = os.getpid()
        return settings.StageRecord(
            address=self.system.address,
            host_id=self.system.address.removesuffix(".ipc")[-16:],
            pid=pid,
            start_time=settings.process_start_time(pid) or 0,
            epoch=self.epoch,
            key_path=self.config["key_path"],
            app=self.config["app_name"],
            house_pid=self.config.get("house_pid"),
            house_start_time=self.config.get("house_start_time"),
        )

    def terminate(self) -> None:
        """SIGTERM: stop the app in order, then end."""
        self._stage.tell("stop_app")

    def end(self) -> None:
        """End the process; from a thread, since the loop is what runs this."""
        threading.Thread(target=self._end, name="stage-end", daemon=True).start()

    def leave_word(self, reason: str) -> None:
        """Tell the house why this app ends by itself."""
        write_private(f"{self.config['run_dir']}/{settings.LAST_WORD_NAME}", reason.encode())

    def _end(self) -> None:
        from supervisors import _ray

        # Without a record this end is one in order: the house goes on with its own, and Ray
        # is told not to bring the stage back.
        with contextlib.suppress(OSError):
            os.unlink(self._record_path)
        with contextlib.suppress(Exception):
            self.system.stop().result(timeout=2.0)
        with contextlib.suppress(Exception):
            _ray.kill_host(_ray.STAGE_NAME)
        os._exit(0)

    def close(self) -> None:
        """End at once."""
        os._exit(0)

    def fail(self) -> None:
        """End at once, for the next stage to do better."""
        os._exit(1)

"""pynng alone, the floor for a question between processes: Req0 and Rep0 over ipc, both blocking."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

import pynng

from tests.benchmarks.worker import PAYLOAD, serve


class Pynng:
    def __init__(self) -> None:
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._replier: subprocess.Popen[bytes] | None = None
        self._socket: pynng.Req0 | None = None

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._replier is not None:
            self._replier.kill()
            self._replier.wait()
        if self._scratch is not None:
            self._scratch.cleanup()

    async def ask(self, count: int) -> float:
        socket, payload = self._open(), PAYLOAD.encode()
        began_at = time.perf_counter()
        for _ in range(count):
            socket.send(payload)
            socket.recv()
        return (time.perf_counter() - began_at) / count * 1e6

    def _open(self) -> pynng.Req0:
        if self._socket is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="us-bench-nng-")
            url = f"ipc://{self._scratch.name}/echo.ipc"
            command = [sys.executable, "-m", "tests.benchmarks.peer_pynng", url]
            self._replier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._replier.stdout is not None
            self._replier.stdout.readline()
            self._socket = pynng.Req0(dial=url, recv_timeout=5000)
        return self._socket


def _reply(url: str) -> None:
    with pynng.Rep0(listen=url) as socket:
        print("listening", flush=True)
        while True:
            socket.send(socket.recv())


if __name__ == "__main__":
    if sys.argv[1:]:
        _reply(sys.argv[1])
    else:
        serve(Pynng())

"""A real persistence process: started, asked, stopped, stopped for a while, killed, started again. By its pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import TracebackType

import psutil

from persistence_proc.tools.admin_server import Connection
from protocol.endpoints import read_endpoint_file
from protocol.messages import Status, StatusReport
from protocol.notify import NOTIFY_VARIABLE


def start_server(folder: str, module: str = "persistence_proc") -> subprocess.Popen[bytes]:
    """A persistence process that is ready; `module` runs it."""
    ours, theirs = os.pipe()
    env = {**os.environ, NOTIFY_VARIABLE: str(theirs)}
    argv = [sys.executable, "-m", module, "--data-dir", folder, "--log-level", "error"]
    try:
        server = subprocess.Popen(argv, env=env, pass_fds=(theirs,))
    finally:
        os.close(theirs)
    with open(ours) as notes:
        if not any(line.strip() == "ready" for line in notes):
            raise SystemExit(f"the persistence process ended with {server.wait()}")
    return server


class Server:
    """The persistence process of one data directory. Started at once; ended with the block."""

    def __init__(self, folder: str, module: str = "persistence_proc") -> None:
        self.folder, self._module = folder, module
        self._process: subprocess.Popen[bytes] | None = None
        self.ready_after = 0.0
        """Seconds from its last start until it said that it is ready."""
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        began = time.perf_counter()
        self._process = start_server(self.folder, self._module)
        self.ready_after = time.perf_counter() - began

    def stop(self) -> None:
        """SIGTERM, and wait: it saves everything."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def halt(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait()
            self._process = None

    def status(self) -> StatusReport:
        """How it says it is."""
        found = read_endpoint_file(self.folder)
        assert found is not None, "it is ready, so it has an endpoint"
        report = Connection(found.address).ask(Status())
        assert isinstance(report, StatusReport)
        return report

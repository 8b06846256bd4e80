"""Real processes for tests: started, signalled by pid, read line by line, and gone when the block ends.

    with PersistenceProcess(data_dir) as persistence:
        with WorkerProcess(SCRIPT, env=persistence.env("bot")) as worker:
            assert worker.read_line() == "started"
            persistence.restart()
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO

from tests.waiting import LONG, wait_until

NOTIFY_VARIABLE = "OUTLIVE_NOTIFY_FD"


class LineReader:
    """Lines of a pipe, with a deadline. Owns the descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self.closed = False
        """Whether the other end has closed and everything was read."""

    def fileno(self) -> int:
        return self._fd

    def read_line(self, deadline: float = LONG) -> str | None:
        """The next line without its end, or None when the other end has closed. Raises TimeoutError."""
        end = time.monotonic() + deadline
        while (cut := self._buffer.find(b"\n")) < 0:
            if not select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no line within {deadline} s; so far {bytes(self._buffer)!r}")
            chunk = os.read(self._fd, 65536)
            if not chunk:
                self.closed = True
                return self._last_line()
            self._buffer += chunk
        line = bytes(self._buffer[:cut])
        del self._buffer[: cut + 1]
        return line.decode()

    def _last_line(self) -> str | None:
        """What a killed process wrote without an end is not a line it has finished: dropped."""
        self._buffer.clear()
        return None

    def close(self) -> None:
        os.close(self._fd)


class RealProcess:
    """A child process under our thumb. Its standard error goes to a file that `errors()` reads."""

    def __init__(self, argv: list[str], env: Mapping[str, str | None] | None = None) -> None:
        self.argv = argv
        self._env = dict(env or {})
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self):  # type: ignore[no-untyped-def]
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
        if kind is not None and (text := self.errors()):
            print(f"--- standard error of {' '.join(self.argv[:4])} ---\n{text}", file=sys.stderr)
        self._errors.close()

    def start(self) -> None:
        self._spawn({}, ())

    def _spawn(
        self, extra: Mapping[str, str], pass_fds: tuple[int, ...], **pipes: int
    ) -> subprocess.Popen[bytes]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("OUTLIVE_")}
        for name, value in {**self._env, **extra}.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        stdio = {"stdin": subprocess.DEVNULL, "stdout": self._errors.fileno(), **pipes}
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            self.argv, env=env, pass_fds=pass_fds, stderr=self._errors.fileno(), bufsize=0, **stdio
        )
        return self.process

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def errors(self) -> str:
        """Everything it has written to its standard error (and output, where that is not a pipe)."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal; a process that has already ended is no error."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(LONG)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: _state_of(self.pid) in "TZX", what="stopped")

    def cont(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def terminate(self, deadline: float = LONG) -> int:
        """SIGTERM, wait for the end; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def wait(self, deadline: float = LONG) -> int:
        """Wait for its end; the exit code (-9: killed by SIGKILL)."""
        return self.process.wait(deadline)


class PersistenceProcess(RealProcess):
    """`python -m persistence_proc --data-dir DIR`, ready when `start` returns."""

    def __init__(self, data_dir: str | os.PathLike[str], *arguments: str, **env: str) -> None:
        self.data_dir = os.fspath(data_dir)
        argv = [sys.executable, "-m", "persistence_proc", "--data-dir", self.data_dir, *arguments]
        super().__init__(argv, env)
        self._notes: LineReader | None = None

    def start(self, wait_ready: bool = True) -> None:
        """Start, and wait until it says that it has recovered and bound its sockets."""
        ours, theirs = os.pipe()
        try:
            self._spawn({NOTIFY_VARIABLE: str(theirs)}, (theirs,))
        finally:
            os.close(theirs)
        self._close_notes()
        self._notes = LineReader(ours)
        if wait_ready:
            self.wait_ready()

    def wait_ready(self, deadline: float = LONG) -> list[str]:
        """Wait for "ready"; the words that it said before."""
        assert self._notes is not None, "not started"
        said: list[str] = []
        while (word := self._notes.read_line(deadline)) != "ready":
            if word is None:
                code = self.wait()
                raise AssertionError(f"ended with {code} before it was ready:\n{self.errors()}")
            said.append(word)
        return said

    def restart(self) -> None:
        """Kill it if it is alive, and start it again on the same data."""
        self.kill()
        self.start()

    def env(self, namespace: str) -> dict[str, str]:
        """What a strategy of this store finds in its environment."""
        return {"OUTLIVE_NAMESPACE": namespace, "OUTLIVE_DATA_DIR": self.data_dir}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._close_notes()

    def _close_notes(self) -> None:
        if self._notes is not None:
            self._notes.close()
            self._notes = None


class WorkerProcess(RealProcess):
    """A Python script (its text), or with `module=` a module, that we talk to by lines."""

    def __init__(
        self,
        script: str = "",
        *arguments: str,
        module: str = "",
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        program = ["-m", module] if module else ["-c", script]
        super().__init__([sys.executable, "-u", *program, *arguments], env)
        self._lines: LineReader | None = None

    def start(self) -> None:
        process = self._spawn({}, (), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        self._close_pipes()
        self._lines = LineReader(os.dup(process.stdout.fileno()))
        process.stdout.close()

    @property
    def lines(self) -> LineReader:
        assert self._lines is not None, "not started"
        return self._lines

    def read_line(self, deadline: float = LONG) -> str:
        """Its next line. Raises AssertionError with its standard error when it has ended."""
        line = self.lines.read_line(deadline)
        if line is None:
            raise AssertionError(f"the worker ended with {self.wait()}:\n{self.errors()}")
        return line

    def read_to_end(self, deadline: float = LONG) -> list[str]:
        """All further whole lines until it closes its output."""
        found = []
        while (line := self.lines.read_line(deadline)) is not None:
            found.append(line)
        return found

    def write_line(self, line: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def restart(self) -> None:
        """Kill it if it is alive, and start it again."""
        self.kill()
        self.end_input()
        self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._close_pipes()

    def _close_pipes(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _state_of(pid: int) -> str:
    """The state letter of a process (T: stopped, Z: a zombie); X if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"

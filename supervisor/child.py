"""One process: started, watched, signalled, reaped.

* It stays unreaped until `reap`, the one place that waits for it; so its pid can't become another's while we hold it.
* `spawn` is called from the main thread only: the parent-death signal follows the thread that started the child.
* Its session is its own. What it leaves behind in its process group is killed when it is reaped: a helper that
  survived its bot would be half a bot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil

from protocol.notify import NOTIFY_VARIABLE
from supervisor.programs import Program

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
_READ_BYTES = 1 << 16


class Child:
    """A started process. Its descriptors are non-blocking and belong to this object until `close`."""

    def __init__(self, process: subprocess.Popen[bytes], notify_fd: int) -> None:
        self._process = process
        self.pid = process.pid
        self.notify_fd = notify_fd
        self.pidfd = open_pidfd(self.pid)
        self._words = b""
        self.exit_code: int | None = None
        try:
            self._watch: psutil.Process | None = psutil.Process(self.pid)
            self.created = self._watch.create_time()
        except psutil.Error:  # it is dead already
            self._watch, self.created = None, 0.0

    def signal(self, number: int) -> None:
        """To the process alone: it decides what its helpers are told."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process and its group."""
        if self.exit_code is None:
            self.signal(signal.SIGKILL)
            self.kill_helpers()

    def kill_helpers(self) -> None:
        """SIGKILL to what is in its process group. Not after `reap`: the number may be another's then."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it is dead, without reaping it."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def reap(self) -> int:
        """Its exit code, negative for a signal. Only when it has ended."""
        self.kill_helpers()
        self.exit_code = self._process.wait()
        return self.exit_code

    def read_words(self) -> tuple[list[str], bool]:
        """(whole lines said through the notify pipe, whether more can come)."""
        data = _read(self.notify_fd)
        if data is None:
            return [], False
        *lines, self._words = (self._words + data).split(b"\n")
        self._words = self._words[:_READ_BYTES]
        return [line.decode("utf-8", "replace").strip() for line in lines], True

    def usage(self) -> tuple[int, float]:
        """(resident bytes, CPU per cent since the last call); zeros when it is gone."""
        if self._watch is None:
            return 0, 0.0
        try:
            return int(self._watch.memory_info().rss), float(self._watch.cpu_percent())
        except psutil.Error:
            return 0, 0.0

    def descriptors(self) -> Iterator[int]:
        for fd in (self.pidfd, self.notify_fd):
            if fd is not None:
                yield fd

    def close(self) -> None:
        for fd in self.descriptors():
            os.close(fd)


def spawn(program: Program, output_fd: int) -> Child:
    """Start it through the launcher, printing to `output_fd` (-1: nowhere). Raises `OSError` when none can be made."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread only: their death signal follows the thread")
    with contextlib.ExitStack() as undo:
        notify = _pipe(undo)
        output = output_fd if output_fd >= 0 else subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), "--", *program.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=program.cwd,
            env=program.env | {NOTIFY_VARIABLE: str(notify[1])},
            pass_fds=[notify[1]],
            start_new_session=True,  # before the launcher runs: Ctrl-C in the terminal is the supervisor's alone
        )
        undo.pop_all()
    os.close(notify[1])
    return Child(process, notify[0])


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel refuses."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    undo.callback(os.close, read_end)
    undo.callback(os.close, write_end)
    os.set_blocking(read_end, False)
    return read_end, write_end


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, _READ_BYTES) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None

"""One process: started, watched, signalled, reaped.

* It stays unreaped until `reap`, the one place that waits for it; so its pid can't become another's while we hold it.
* `spawn` is called from the main thread only: the parent-death signal follows the thread that started the child.
* Its session is its own. What it leaves behind in it is killed when it is reaped (`sessions`).
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
from supervisor.descriptors import check_room
from supervisor.programs import Program
from supervisor.sessions import kill_session

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
_READ_BYTES = 1 << 16


class Child:
    """A started process. Its descriptors are non-blocking and belong to this object until `close`.

    `word_fd`: where a spare waits to be told.
    """

    def __init__(self, process: subprocess.Popen[bytes], notify_fd: int, word_fd: int | None = None) -> None:
        self._process = process
        self.pid = process.pid
        self.notify_fd, self._word_fd = notify_fd, word_fd
        self.pidfd = open_pidfd(self.pid)
        self._words = b""
        self.exit_code: int | None = None
        try:
            self._watch: psutil.Process | None = psutil.Process(self.pid)
            self.created = self._watch.create_time()
        except (psutil.Error, OSError):  # it is dead already, or no descriptor is left to look at it
            self._watch, self.created = None, 0.0

    def signal(self, number: int) -> None:
        """To the process alone: it decides what its helpers are told."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process and its session."""
        if self.exit_code is None:
            self.signal(signal.SIGKILL)
            self.kill_helpers()

    def kill_helpers(self) -> None:
        """SIGKILL to what it has started in its session. Not after `reap`: the number may be another's then."""
        kill_session(self.pid)

    def tell(self, word: bytes) -> bool:
        """Say a word to a spare, the only one it is ever told; False when it can't hear it."""
        fd, self._word_fd = self._word_fd, None
        if fd is None:
            return False
        try:
            os.write(fd, word)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def has_ended(self) -> bool:
        """Whether it is dead, without reaping it."""
        return has_ended(self.pid)

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
        except (psutil.Error, OSError):
            return 0, 0.0

    def descriptors(self) -> Iterator[int]:
        for fd in (self.pidfd, self.notify_fd, self._word_fd):
            if fd is not None:
                yield fd

    def close(self) -> None:
        for fd in self.descriptors():
            os.close(fd)


def spawn(program: Program, output: int, spare: bool = False) -> Child:
    """Start it through the launcher; it prints to the descriptor `output` (-1: nowhere). Raises `OSError`.

    A spare is told later that it is the strategy.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread only: their death signal follows the thread")
    with contextlib.ExitStack() as undo:
        notify, word = _pipe(undo), _pipe(undo) if spare else None
        check_room(notify[1])
        theirs = [notify[1], word[0]] if word else [notify[1]]
        os.set_blocking(notify[0], False)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), "--", *_argv(program, word)],
            stdin=subprocess.DEVNULL,
            stdout=output if output >= 0 else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=program.cwd,
            env=program.env | {NOTIFY_VARIABLE: str(notify[1])},
            pass_fds=theirs,
            start_new_session=True,  # before the launcher runs: Ctrl-C in the terminal is the supervisor's alone
        )
        undo.pop_all()
    for fd in theirs:
        os.close(fd)
    return Child(process, notify[0], word[1] if word else None)


def _argv(program: Program, word: tuple[int, int] | None) -> list[str]:
    return [*program.argv, "--spare", str(word[0]), *program.preload] if word else program.argv


def has_ended(pid: int) -> bool:
    """Whether a child of ours is dead; it stays unreaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel refuses."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        undo.callback(os.close, fd)
    return ends


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, _READ_BYTES) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None

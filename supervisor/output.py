"""What the children print: each into its own rotated log file, and prefixed to the console when somebody looks on."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import IO

_LONGEST_LINE = 64 * 1024
"""Bytes without an end of line that are kept before they are shown as a line of their own."""
_CONSOLE_BACKLOG = 1 << 20
"""Characters that wait for a slow terminal; what comes beyond them is left out."""


class LogFile:
    """NAME.log, NAME.log.1 ... in a folder. A full disk loses lines of the log, never the supervisor."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep
        self._fd = -1
        self._size = 0
        with contextlib.suppress(OSError):  # tried again at every write
            self._open()

    def write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        try:
            if self._fd < 0:
                self._open()
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        try:
            for number in range(self._keep - 1, 0, -1):
                if os.path.exists(f"{self.path}.{number}"):
                    os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            if self._keep > 0:
                os.replace(self.path, f"{self.path}.1")
            else:
                os.unlink(self.path)
        except OSError:
            pass


class Console:
    """The terminal, shared by all: whole lines, each with the name of who said it.

    * A terminal may stand still (Ctrl-S, a pipe that nobody reads). So a thread of its own writes, and what it can't
      keep up with is left out, which it says; the supervisor never waits for it, and the log files have everything.
    * It writes past the stream's buffer: an interpreter that leaves would wait for the lock of a buffer in use.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._waiting = 0
        self._left_out = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def line(self, name: str, text: str) -> None:
        if self._stream is None:
            return
        line = _console_line(name, text)
        with self._changed:
            if self._waiting + len(line) > _CONSOLE_BACKLOG:
                self._left_out += 1
                return
            self._lines.append(line)
            self._waiting += len(line)
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="console", daemon=True)
            self._thread.start()

    def close(self, patience: float = 1.0) -> None:
        """Show what is waiting; give up after `patience` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience)

    def _work(self) -> None:
        while text := self._next():
            try:
                self._write(text)
            except (OSError, ValueError):
                self._stream = None  # the terminal is gone; the log files go on
                return
            with self._changed:
                self._waiting -= len(text)

    def _next(self) -> str:
        """What is waiting, as one text; "" when no more comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            lines, self._lines = self._lines, []
            if self._left_out:
                lines.append(_console_line("outlive", f"{self._left_out} lines left out; the log files have them"))
                self._waiting += len(lines[-1])
                self._left_out = 0
        return "".join(lines)

    def _write(self, text: str) -> None:
        assert self._stream is not None
        fd = _descriptor(self._stream)
        if fd is None:
            self._stream.write(text)
            return
        data = memoryview(text.encode(getattr(self._stream, "encoding", None) or "utf-8", "replace"))
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # somebody who shares the terminal has made it so
                select.select([], [fd], [])


class Output:
    """One child's stdout and stderr."""

    def __init__(self, name: str, log: LogFile, console: Console) -> None:
        self.name, self.log, self._console = name, log, console
        self._rest = b""
        self.last_line = ""

    def feed(self, data: bytes) -> None:
        """Bytes as they came out of the pipe."""
        self.log.write(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._show(line)
        if len(self._rest) > _LONGEST_LINE:
            self.end()

    def end(self) -> None:
        """No more comes: show what has no end of line."""
        if self._rest:
            self._show(self._rest)
        self._rest = b""

    def say(self, text: str) -> None:
        """A line of the supervisor's own into this log."""
        self.log.write(f"outlive: {text}\n".encode())

    def _show(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if text.strip():
            self.last_line = text.strip()
        self._console.line(self.name, text)


def _console_line(name: str, text: str) -> str:
    return f"{name:<12} | {text}\n"


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None

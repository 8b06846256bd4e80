"""What the children print: each into its own rotated log file, and prefixed to the console when somebody looks on."""

from __future__ import annotations

import os
from typing import IO

_LONGEST_LINE = 64 * 1024
"""Bytes without an end of line that are kept before they are shown as a line of their own."""


class LogFile:
    """NAME.log, NAME.log.1 ... in a folder. A full disk loses lines of the log, never the supervisor."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep
        self._fd = -1
        self._size = 0
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
    """The terminal, shared by all: whole lines, each with the name of who said it."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream

    def line(self, name: str, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{name:<12} | {text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # the terminal is gone; the log files go on


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

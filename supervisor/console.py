"""The terminal, when somebody looks on: what the programs print, each line behind the name of who said it."""

from __future__ import annotations

import os
import select
import threading
from typing import IO

_CONSOLE_BACKLOG = 1 << 20
"""Characters that wait for a slow terminal; what comes beyond them is left out."""


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

    @property
    def listening(self) -> bool:
        """Whether anybody looks on."""
        return self._stream is not None

    def line(self, name: str, text: str) -> None:
        self.lines(name, [text])

    def lines(self, name: str, texts: list[str]) -> None:
        """Several at once: a program may print half a million in the time of one."""
        if self._stream is None or not texts:
            return
        block = _block(name, texts)
        with self._changed:
            if self._waiting + len(block) > _CONSOLE_BACKLOG:
                self._left_out += len(texts)
                return
            self._lines.append(block)
            self._waiting += len(block)
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
                lines.append(_block("outlive", [f"{self._left_out} lines left out; the log files have them"]))
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


def _block(name: str, texts: list[str]) -> str:
    start = f"{name:<12} | "
    between = "\n" + start
    return f"{start}{between.join(texts)}\n"


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None

"""What one program prints. It goes straight to the program's log; from there it is shown on the console."""

from __future__ import annotations

import datetime
import re

from supervisor.console import Console
from supervisor.log_files import ProgramLog

_READ_BYTES = 1 << 16
_READS = 16
"""In one go: the loop has others to look after."""
_BACKLOG = 1 << 20
"""Bytes behind a program that prints faster than a terminal shows; what is before them is left out there."""
_LONGEST_LINE = 64 * 1024
"""Bytes without an end of line that are kept before they are shown as a line of their own."""
_TAIL_BYTES = 4096
_OURS = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S* outlive: ")
"""How a line of the supervisor's own begins in a program's log; the console has it already."""
_OUR_WORD = b" outlive: "


class Output:
    """The stdout and stderr of a program, over all its lives."""

    def __init__(self, name: str, log: ProgramLog, console: Console) -> None:
        self.name, self.log, self._console = name, log, console
        self._position = log.end
        self._life = log.end
        self._rest = b""

    def begin(self) -> int:
        """A new life: the descriptor to print to; -1 where no log can be had."""
        fd = self.log.ready()
        self._life = self.log.end
        return fd

    def follow(self) -> None:
        """Show what has come since."""
        if not self._console.listening:
            self._position = self.log.end
            return
        behind = self.log.end - self._position
        if behind > _BACKLOG:
            self._position = self.log.end - _BACKLOG
            self._rest = b""
            self._console.line(self.name, f"... {behind - _BACKLOG} bytes left out; the log file has them")
        for _ in range(_READS):
            at, data = self.log.read(self._position, _READ_BYTES)
            if not data:
                return
            self._position = at + len(data)
            self._feed(data)

    def end(self) -> None:
        """A life has ended: show what has no end of line, too."""
        self.follow()
        if self._rest:
            self._show(self._rest)
        self._rest = b""

    def say(self, text: str) -> None:
        """A line of the supervisor's own into this log."""
        self.log.write(f"{timestamp()} outlive: {text}\n".encode())

    @property
    def last_line(self) -> str:
        """The last that this life has printed; "" if nothing."""
        start = max(self._life, self.log.end - _TAIL_BYTES)
        lines = [line for line in self.log.read(start, _TAIL_BYTES)[1].split(b"\n") if not _OURS.match(line)]
        return next((text for line in reversed(lines) if (text := _text(line).strip())), "")

    def _feed(self, data: bytes) -> None:
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            self._show(whole)
        if len(self._rest) > _LONGEST_LINE:
            self._show(self._rest)
            self._rest = b""

    def _show(self, lines: bytes) -> None:
        found = lines.split(b"\n")
        if _OUR_WORD in lines:
            found = [line for line in found if not _OURS.match(line)]
        self._console.lines(self.name, _text(b"\n".join(found)).replace("\r\n", "\n").split("\n") if found else [])


def timestamp() -> str:
    """Local time with milliseconds and offset: 2026-01-31T23:59:59.123+01:00."""
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")

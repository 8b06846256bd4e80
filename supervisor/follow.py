"""Know when a log grows: inotify, in a descriptor for the loop.

The standard library has no inotify, and a library for three system calls would be a dependency of every bot. Where
the kernel gives none (no more instances, not Linux), `Output.follow` at every weighing is what remains.
"""

from __future__ import annotations

import ctypes
import os

from supervisor.output import Output

_IN_MODIFY = 0x02
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK and IN_CLOEXEC are these
_EVENT_BYTES = 16  # an event of a watched file carries no name
_READ_EVENTS = 256


class Follower:
    """Shows what programs print, as it comes."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_FLAGS) if hasattr(self._libc, "inotify_init1") else -1
        self._watched: dict[int, Output] = {}

    def fileno(self) -> int:
        """-1 where there is none."""
        return int(self._fd)

    def watch(self, output: Output) -> None:
        """Call at every start: the log may be another file now."""
        watch = -1
        if self._fd >= 0:
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(output.log.path), _IN_MODIFY)
        if watch >= 0:
            self._watched[watch] = output

    def read(self) -> None:
        """Show what has grown."""
        try:
            events = os.read(self._fd, _READ_EVENTS * _EVENT_BYTES)
        except OSError:
            return
        grown = {
            int.from_bytes(events[at : at + 4], "little", signed=True) for at in range(0, len(events), _EVENT_BYTES)
        }
        for watch in grown & self._watched.keys():
            self._watched[watch].follow()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

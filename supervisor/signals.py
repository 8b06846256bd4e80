"""Signals as bytes to select on: a handler that did anything itself could meet the loop in the middle of a step.

SIGCHLD is set to its default first: inherited as ignored, the kernel would reap our children, and every exit code
would read as 0, "done, don't restart". Inherited blocked signals would never arrive.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType

_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Within the block these signals are ours; afterwards everything is as it was. Main thread only."""

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in _OURS}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def arrived(self) -> list[signal.Signals]:
        """What came since the last call."""
        try:
            return [signal.Signals(number) for number in self._reader.recv(4096)]
        except BlockingIOError:
            return []

    def wake_on_death(self) -> None:
        """Let SIGCHLD end the wait too: for kernels that give no pidfd."""
        signal.signal(signal.SIGCHLD, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The byte that the interpreter writes to the wake-up descriptor is all we need."""

"""How other threads wake the pump while it waits for its sockets."""

from __future__ import annotations

import contextlib
import os
import threading


class Bell:
    """A pipe that a poller can wait for. Any thread rings; one hears."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # no one rings when the descriptor may be somebody else's
        self.ear, self._bell = os.pipe()
        """The descriptor that is readable when it rings; -1 once closed."""
        os.set_blocking(self.ear, False)
        os.set_blocking(self._bell, False)

    def ring(self) -> None:
        """Never waits. Closed: does nothing."""
        with self._lock:
            if self._bell >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell, b"!")

    def heard(self) -> None:
        """Be silent again, after a poll that said it rings."""
        os.read(self.ear, 4096)

    def close(self) -> None:
        with self._lock:
            ends, self.ear, self._bell = (self.ear, self._bell), -1, -1
            for fd in ends:
                if fd >= 0:
                    os.close(fd)

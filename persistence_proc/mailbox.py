"""How threads hand values to the server's loop: a queue with a descriptor that its poller watches."""

from __future__ import annotations

import os
from collections import deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Any thread, also a signal handler, may `post`; one thread `take`s."""

    def __init__(self) -> None:
        self._items: deque[_T] = deque()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Readable while there may be something to take."""
        return self._read

    def post(self, item: _T) -> None:
        self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Make the loop turn once."""
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:  # full of wake-ups: it is awake
            pass

    def take(self) -> list[_T]:
        """Everything posted so far, oldest first. Never blocks."""
        try:
            while len(os.read(self._read, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        return [self._items.popleft() for _ in range(len(self._items))]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

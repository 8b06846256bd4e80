"""The thread that cuts the programs' logs: copying megabytes, and waiting for a disk, is nothing for the loop."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from supervisor.output import Output

_PATIENCE = 2.0
"""Seconds at the end for the file at hand; a copy that was not finished is made again."""


class Rotation:
    """Owns its thread, which begins with the first log that is too big."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Output | None] = SimpleQueue()
        self._waiting: set[Output] = set()
        self._thread: threading.Thread | None = None

    def look(self, output: Output) -> None:
        """Have its log cut if it is too big."""
        if output in self._waiting or not output.log.is_too_big:
            return
        self._waiting.add(output)
        self._jobs.put(output)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rotation", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _work(self) -> None:
        while (output := self._jobs.get()) is not None:
            if lost := output.log.cut():
                output.say(f"{lost} bytes of this log had to go: the disk is full")
            self._waiting.discard(output)

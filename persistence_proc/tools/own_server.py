"""A store that is served to nobody but us, in this process: what a person decides while no persistence process runs.

There is no socket and no ENDPOINT, so no bot comes to it, and no process of its own, so nothing outlives us. Killed at
any moment it leaves what a killed persistence process leaves.
"""

from __future__ import annotations

import logging
import select
import time
from typing import NoReturn

from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access, take_lock
from persistence_proc.service import Service
from protocol.disk import Disk, check_private
from protocol.errors import PersistenceUnavailable
from protocol.messages import Accept, Forget, Reply, decode_reply

PATIENCE = 60.0  # seconds for an answer, and until everything is saved: a disk may be slow, or full
TURN_SECONDS = 1.0  # longest pause between two turns

logging.getLogger("persistence").addHandler(logging.NullHandler())  # what goes wrong is said once, as an error


class OwnServer:
    """Locks and recovers the store; until `close` nobody else can. Raises `StoreInUse`, `StateRefused`, OSError."""

    def __init__(self, disk: Disk, paths: Paths) -> None:
        self._disk, self._paths = disk, paths
        check_private(paths.data_dir)
        self._lock = take_lock(disk, paths.lock, paths.data_dir)
        self._mailbox: Mailbox[object] = Mailbox()
        self._replies: list[Reply] = []
        try:
            recovered = recover(disk, paths.data_dir)
            self._service = Service(disk, paths, recovered, "", Access(), self._mailbox, self._take)
        except BaseException:
            self._let_go()
            raise

    def ask(self, request: Accept | Forget) -> Reply:
        """Its answer, with everything durable that it tells of. Raises `PersistenceUnavailable`, `CannotKeep`."""
        self._service.requests.handle(b"", "", request, time.monotonic())
        until = time.monotonic() + PATIENCE
        while not self._replies:
            self._turn(until)
        return self._replies.pop()

    def save(self) -> None:
        """Have every map in its file, as a persistence process that stops. Raises as `ask`."""
        until = time.monotonic() + PATIENCE
        while not self._service.is_saved:
            self._turn(until, hurry=True)

    def close(self) -> None:
        self._service.stop()
        self._let_go()

    def _let_go(self) -> None:
        self._mailbox.close()
        self._disk.close(self._lock)

    def _turn(self, until: float, hurry: bool = False) -> None:
        for report in self._mailbox.take():
            self._service.note(report)
        self._service.turn(hurry)
        if self._service.gives_up or time.monotonic() > until:
            self._give_up()
        wait = self._service.wait()
        if not self._replies:
            select.select([self._mailbox], [], [], TURN_SECONDS if wait is None else min(wait, TURN_SECONDS))

    def _give_up(self) -> NoReturn:
        why = f": {self._service.disk_full}" if self._service.disk_full else ""
        raise PersistenceUnavailable(f"not everything could be saved in {self._paths.data_dir}{why}; say it again")

    def _take(self, address: bytes, parts: list[bytes]) -> None:
        self._replies.append(decode_reply(parts[0]))

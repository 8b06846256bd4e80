"""A service without sockets, and a disk that fails on demand."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access
from persistence_proc.service import Service
from protocol.changes import Change, encode_changes
from protocol.disk import Disk
from protocol.frames import encode_record
from protocol.messages import Confirm, Confirmed, Delta, Open, decode_reply, encode
from tests.persistence_proc.raw_session import insert, open_request
from tests.waiting import wait_until


class FaultyDisk(Disk):
    """A disk that fails on demand."""

    def __init__(self) -> None:
        self.full = threading.Event()
        self.failing_syncs = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self.full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(fd)


class Harness:
    """A service without sockets: requests in, replies out."""

    def __init__(self, data_dir: Path, disk: Disk) -> None:
        self.mailbox: Mailbox[object] = Mailbox()
        self.replies: list[bytes] = []
        """All parts, whoever asked."""
        self.heads: dict[bytes, bytes] = {}
        """Address -> first part of its newest answer."""
        recovered = recover(disk, str(data_dir))
        self.service = Service(
            disk,
            Paths(str(data_dir)),
            recovered,
            "i",
            Access(),
            self.mailbox,
            self._answer,
        )
        self.applied = 0

    def _answer(self, address: bytes, parts: list[bytes]) -> None:
        self.replies.extend(parts)
        self.heads[address] = parts[0]

    def turn(self) -> None:
        for report in self.mailbox.take():
            self.service.note(report)
        self.service.turn()

    def ask(self, request: Open | Confirm) -> object:
        """The reply; turns the loop until it is there."""
        self.replies.clear()
        self.service.requests.handle(b"me", "", request, self.service._clock())

        def reply() -> bytes | None:
            self.turn()
            return self.replies[0] if self.replies else None

        return decode_reply(wait_until(reply))

    def open(self, life: int = 1) -> None:
        self.ask(open_request(life=life, last=self.applied))

    def put(self, key: int, name: str = "a") -> None:
        self.send(insert(name, key))

    def send(self, *changes: Change) -> None:
        self.applied += 1
        record = encode_record(self.applied, 1, 1, encode_changes(changes))
        delta = Delta(namespace="bot", epoch=1, base=self.applied - 1, upto=self.applied)
        self.service.receive_delta([encode(delta), record], "")
        self.turn()

    def confirm(self, wait: float) -> Confirmed:
        reply = self.ask(Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=self.applied, wait=wait))
        assert isinstance(reply, Confirmed)
        return reply

    def wait_saved(self) -> None:
        """Until every map's newest file holds everything."""

        def saved() -> bool:
            self.turn()
            return self.service.is_saved

        wait_until(saved)

    def close(self) -> None:
        self.service.stop()
        self.mailbox.close()

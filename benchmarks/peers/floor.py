"""The floors: the least that any store must do to keep its promise. Nothing can be found again in them by key."""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import dump

FILE_BYTES = 64 * 2**20
SLOW_SYNC = 0.001  # seconds more than this disk's: what many take


class _Floor(Peer):
    """A file that is written through, so that a put allocates nothing; at its end it begins again."""

    is_floor = True
    has_transactions = False

    def __init__(self, folder: str) -> None:
        self._fd = os.open(os.path.join(folder, "floor"), os.O_RDWR | os.O_CREAT, 0o600)
        zeros = bytes(2**20)
        for at in range(0, FILE_BYTES, len(zeros)):
            os.pwrite(self._fd, zeros, at)
        os.fsync(self._fd)
        self._at = 0

    def _room(self, size: int) -> int:
        at = self._at if self._at + size <= FILE_BYTES else 0
        self._at = at + size
        return at

    def close(self) -> None:
        os.close(self._fd)


class SyncedFile(_Floor):
    """Pickle, `pwrite`, `fdatasync`."""

    name = "floor: pwrite + fdatasync"
    promise = Promise.POWER
    setting = "a preallocated file"

    def put(self, key: str, value: Any) -> None:
        data = dump(value)
        os.pwrite(self._fd, data, self._room(len(data)))
        os.fdatasync(self._fd)


class SlowlySyncedFile(SyncedFile):
    """On a disk whose every sync takes a millisecond longer."""

    name = "floor: pwrite + fdatasync + 1 ms"

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        time.sleep(SLOW_SYNC)


class MappedFile(_Floor):
    """Pickle, and copy into a mapping."""

    name = "floor: pickle + copy"
    promise = Promise.KILL
    setting = "into a mapped file"

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._mapping = mmap.mmap(self._fd, FILE_BYTES)

    def put(self, key: str, value: Any) -> None:
        data = dump(value)
        at = self._room(len(data))
        self._mapping[at : at + len(data)] = data

    def close(self) -> None:
        self._mapping.close()
        super().close()

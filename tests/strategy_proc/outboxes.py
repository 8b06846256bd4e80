"""An outbox on a real disk that can be abandoned as SIGKILL would, and damaged as a power cut would."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from protocol.changes import DELETE, INSERT, Change, apply_change, decode_changes, encode_changes
from protocol.disk import Disk
from protocol.frames import Record, decode_records, record_at, record_bytes
from protocol.keys import encode_key
from protocol.outbox_files import OutboxContents, read_outbox
from protocol.segments import RECORDS_AT
from strategy_proc.outbox import Outbox

STORE = b"S" * 16
NAMESPACE = "bot"
BOOT, OTHER_BOOT = "this boot", "the boot after a power cut"


class FailingDisk(Disk):
    """Refuses to sync or to make room while told to."""

    def __init__(self) -> None:
        self.sync_fails = self.dir_sync_fails = self.full = False
        self.map_syncs = 0
        self.before_creating: Callable[[], object] | None = None
        """Called once, before the next new segment's file is there."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_EXCL:
            call, self.before_creating = self.before_creating, None
            if call is not None:
                call()
        return super().open(path, flags, mode)

    def sync_map(self, fd: int, mapping: mmap.mmap) -> None:
        self.map_syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().sync_map(fd, mapping)

    def fsync(self, fd: int) -> None:
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().fsync(fd)

    def fsync_dir(self, path: str) -> None:
        if self.dir_sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().fsync_dir(path)

    def preallocate(self, fd: int, length: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().preallocate(fd, length)


class Lives:
    """The lives of one outbox, and what reading its folder gives."""

    def __init__(self, data_dir: Path) -> None:
        self.disk = FailingDisk()
        self.folder = str(data_dir / NAMESPACE / "outbox")
        self.started: list[Outbox] = []
        self.epoch = 0

    def start(self, applied: int = 0, boot: str = BOOT) -> Outbox:
        """The next life. The one before is abandoned where it stands, mapping and all."""
        outbox = Outbox.load(self.disk, self.folder, NAMESPACE, boot)
        self.epoch = max(self.epoch, outbox.contents.epoch) + 1
        outbox.begin(STORE, self.epoch, applied, [r for r in outbox.contents.records if r.seq > applied])
        self.started.append(outbox)
        return outbox

    def read(self, boot: str = BOOT) -> OutboxContents:
        return read_outbox(Disk(), self.folder, NAMESPACE, boot)

    def segments(self) -> list[Path]:
        return sorted(Path(self.folder).glob("*.seg"))

    def close(self) -> None:
        for outbox in self.started:
            outbox.close()


def insert(key: str | int, value: bytes = b"v", name: str = "m") -> Change:
    return (INSERT, name, encode_key(key), value)


def delete(key: str | int, name: str = "m") -> Change:
    return (DELETE, name, encode_key(key), b"")


def payload(*changes: Change) -> bytes:
    return encode_changes(changes)


def put(outbox: Outbox, count: int = 1, size: int = 100) -> list[int]:
    """Insert keys named by their seq."""
    return [outbox.append(payload(insert(outbox.seq + 1, b"v" * size))) for _ in range(count)]


def ship(outbox: Outbox, from_seq: int, max_bytes: int = 2**30) -> list[Record]:
    """What the pump would send, decoded."""
    run = outbox.unshipped(from_seq, max_bytes)
    if run is None:
        return []
    base, upto, parts = run
    records = list(decode_records(b"".join(parts)))
    assert records[0].base == base
    assert records[-1].seq == upto
    return records


def seqs(records: list[Record]) -> list[int]:
    return [record.seq for record in records]


Items = list[tuple[bytes, bytes]]


def replay(records: list[Record], state: dict[str, dict[bytes, bytes]] | None = None) -> dict[str, Items]:
    """The maps after `records`, as lists of items: order counts, maps without items do not."""
    maps = {name: dict(items) for name, items in (state or {}).items()}
    for record in records:
        for op, name, key, value in decode_changes(record.payload):
            apply_change(maps.setdefault(name, {}), op, key, value)
    return {name: list(items.items()) for name, items in maps.items() if items}


def places(path: Path) -> list[int]:
    """Offsets of the records in a segment file, and behind the last."""
    data, offset = memoryview(path.read_bytes()), RECORDS_AT
    found = [offset]
    while (record := record_at(data, offset)) is not None:
        offset += record_bytes(len(record.payload))
        found.append(offset)
    return found


def overwrite(path: Path, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)

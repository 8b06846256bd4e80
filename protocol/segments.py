"""The format of one outbox segment file, for the session that writes it and for all who read it.

    offset  size
         0    16  magic, with the format's version
        16    16  store id: which store acknowledged what stands here
        32    16  outbox identity
        48    16  boot id of the kernel that owned the pages (md5 of its text)
        64     8  life: how often this outbox has been opened
        72     8  epoch: every record in the file carries it
        80     8  capacity: the file's length
        88    64  namespace, NUL-padded
       152     4  CRC-32 of the above
       256    16  mark: highest seq acknowledged        (u64 value, u32 CRC-32 of it, u32 zero)
       272    16  mark: highest seq synced
       288    16  mark: highest seq ever handed to a socket
       512     -  records (`protocol.frames`), each at a multiple of 8

The head is written once, before the file gets its name. The marks are stored through the mapping while the file is
in use; a stale or torn one is only ever less than the truth, which is safe. The chain of records ends at the first
that fails its CRC, carries another epoch, or does not continue the one before.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import NamedTuple, Protocol
from zlib import crc32

from protocol.errors import Damaged
from protocol.frames import ALIGNMENT, Record, record_at, record_bytes

MAGIC = b"outlive-outbox-1"
RECORDS_AT = 512
SEGMENT_BYTES = 2**20  # big enough that a switch is rare, small enough to be prepared in a millisecond

ACKED_AT, SYNCED_AT, SHIPPED_AT = 256, 272, 288

_HEAD = Struct("<16s16s16s16sQQQ64s")
_CRC = Struct("<I")
_MARK = Struct("<QII")
_VALUE = Struct("<Q")

_DAMAGED = "Keep the file; see 'outlive accept' and docs/recovery.md."


class Buffer(Protocol):
    """What a mapping and a bytearray have in common."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


class SegmentHead(NamedTuple):
    """The part of a segment that is written once. Ids are 16 bytes."""

    store_id: bytes
    identity: bytes
    boot: bytes
    life: int
    epoch: int
    capacity: int
    namespace: str

    def encode(self) -> bytes:
        """The first `RECORDS_AT` bytes of a new segment, marks and first record empty."""
        head = _HEAD.pack(
            MAGIC, self.store_id, self.identity, self.boot, self.life, self.epoch, self.capacity,
            self.namespace.encode(),
        )  # fmt: skip
        return (head + _CRC.pack(crc32(head))).ljust(RECORDS_AT, b"\0")


class Segment(NamedTuple):
    """A segment as it was read: its head, marks and unbroken records, and where the chain ended."""

    path: str
    head: SegmentHead
    acked: int
    synced: int
    shipped: int
    records: list[Record]
    end: int
    """Offset behind the last good record."""
    beyond: int | None
    """Offset of a valid later record of the same life behind the end: proof that something before it is damaged."""

    @property
    def base(self) -> int:
        return self.records[0].base

    @property
    def last(self) -> int:
        return self.records[-1].seq


def boot_mark(boot_id: str) -> bytes:
    """The 16 bytes that name a boot in the head."""
    return hashlib.md5(boot_id.encode(), usedforsecurity=False).digest()


def write_mark(mapping: memoryview, offset: int, value: int) -> None:
    """Store a mark through the mapping."""
    raw = _VALUE.pack(value)
    mapping[offset : offset + _MARK.size] = _MARK.pack(value, crc32(raw), 0)


def read_mark(data: memoryview, offset: int) -> int:
    """The mark at `offset`; 0, which claims nothing, when it is torn."""
    value, crc, _ = _MARK.unpack_from(data, offset)
    return int(value) if crc == crc32(_VALUE.pack(value)) else 0


def decode_segment(path: str, data: bytes) -> Segment:
    """Read one segment. Raises `Damaged` if its head is not whole or the file is shorter than the head says."""
    view = memoryview(data)
    if len(view) < RECORDS_AT:
        raise Damaged(path, len(view), "an outbox segment ends inside its head", _DAMAGED)
    magic, store_id, identity, boot, life, epoch, capacity, name = _HEAD.unpack_from(view)
    if magic != MAGIC or _CRC.unpack_from(view, _HEAD.size)[0] != crc32(view[: _HEAD.size]):
        raise Damaged(path, 0, "the head of an outbox segment fails its check", _DAMAGED)
    if len(view) < capacity:
        raise Damaged(path, len(view), f"an outbox segment of {capacity} bytes is cut short", _DAMAGED)
    head = SegmentHead(store_id, identity, boot, life, epoch, capacity, name.rstrip(b"\0").decode())
    records, end = _chain(view, epoch)
    last = records[-1].seq if records else 0
    return Segment(
        path, head, read_mark(view, ACKED_AT), read_mark(view, SYNCED_AT), read_mark(view, SHIPPED_AT),
        records, end, _valid_beyond(view, end, epoch, last),
    )  # fmt: skip


def _chain(view: memoryview, epoch: int) -> tuple[list[Record], int]:
    records: list[Record] = []
    offset = RECORDS_AT
    while (record := record_at(view, offset)) is not None:
        if record.epoch != epoch or (records and record.base != records[-1].seq):
            break
        records.append(record)
        offset += record_bytes(len(record.payload))
    return records, offset


def _valid_beyond(view: memoryview, end: int, epoch: int, last: int) -> int | None:
    """Look for a later record of this epoch behind `end`. A reused file holds older ones, which prove nothing."""
    if not any(view[end:]):
        return None
    wanted = _VALUE.size  # seq stands 8 bytes into a record, the epoch 16
    epochs = view[end:].tobytes()
    mark = _CRC.pack(epoch)
    at = epochs.find(mark)
    while at >= 0:
        start = at - 2 * wanted
        if start >= 0 and (end + start) % ALIGNMENT == 0:
            record = record_at(view, end + start)
            if record is not None and record.epoch == epoch and record.seq > last:
                return end + start
        at = epochs.find(mark, at + 1)
    return None

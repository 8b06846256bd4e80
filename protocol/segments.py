"""The format of one outbox segment file, for the session that writes it and for all who read it.

    offset  size
         0    16  magic, with the format's version
        16    16  store id: which store acknowledged what stands here
        32    16  outbox identity
        48    16  boot id of the kernel that owned the pages (md5 of its text)
        64     8  life: how often this outbox has been opened
        72     8  epoch: every record in the file carries it
        80     8  capacity: the file's length
        88     8  floor: a reused file may hold stale records up to this seq; 0 in a new file
        96    64  namespace, NUL-padded
       160     4  CRC-32 of the above
       256    16  mark: highest seq acknowledged        (u64 value, u32 CRC-32 of it, u32 zero)
       272    16  mark: highest seq synced
       288    16  mark: highest seq ever handed to a socket
       512     -  records (`protocol.frames`), each at a multiple of 8

The head is written once, before the file gets its name. The marks are stored through the mapping while the file is
in use; a stale or torn one is only ever less than the truth, which is safe (where it is not, for what was handed to a
socket, a torn one counts as "everything here"). The chain of records ends at the first
that fails its CRC, carries another epoch, or does not continue the one before.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import NamedTuple, Protocol

from protocol.crc import crc32
from protocol.errors import Damaged
from protocol.frames import ALIGNMENT, Record, record_at, record_bytes

MAGIC = b"outlive-outbox-1"
RECORDS_AT = 512
SEGMENT_BYTES = 2**20  # big enough that a switch is rare, small enough to be prepared in a millisecond

ACKED_AT, SYNCED_AT, SHIPPED_AT = 256, 272, 288

_HEAD = Struct("<16s16s16s16sQQQQ64s")
_CRC = Struct("<I")
_MARK = Struct("<QII")
_VALUE = Struct("<Q")

_MAX_EPOCH = 2**32 - 1  # a record has 32 bits for it
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
    floor: int = 0

    def encode(self) -> bytes:
        """The first `RECORDS_AT` bytes of a new segment, marks and first record empty."""
        head = _HEAD.pack(
            MAGIC, self.store_id, self.identity, self.boot, self.life, self.epoch, self.capacity,
            self.floor, self.namespace.encode(),
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
    """Offset of the newest valid record of the same life behind the end: proof that something before it is lost."""
    beyond_seq: int

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
    mapping[offset : offset + _MARK.size] = encode_mark(value)


def encode_mark(value: int) -> bytes:
    return _MARK.pack(value, crc32(_VALUE.pack(value)), 0)


def read_mark(data: memoryview, offset: int) -> int:
    """The mark at `offset`; 0, which claims nothing, when it is torn."""
    value, crc, _ = _MARK.unpack_from(data, offset)
    return int(value) if crc == crc32(_VALUE.pack(value)) else 0


def decode_segment(path: str, data: bytes) -> Segment:
    """Read one segment. Raises `Damaged` if its head is not whole or the file is shorter than the head says."""
    view = memoryview(data)
    if len(view) < RECORDS_AT:
        raise Damaged(path, len(view), "an outbox segment ends inside its head", _DAMAGED)
    magic, store_id, identity, boot, life, epoch, capacity, floor, name = _HEAD.unpack_from(view)
    whole = magic == MAGIC and _CRC.unpack_from(view, _HEAD.size)[0] == crc32(view[: _HEAD.size])
    if not whole or epoch > _MAX_EPOCH:
        raise Damaged(path, 0, "the head of an outbox segment fails its check", _DAMAGED)
    if len(view) < capacity:
        raise Damaged(path, len(view), f"an outbox segment of {capacity} bytes is cut short", _DAMAGED)
    head = SegmentHead(store_id, identity, boot, life, epoch, capacity, _name(name), floor)
    records, end = _chain(view, epoch, floor)
    last = records[-1].seq if records else 0
    return Segment(
        path, head, read_mark(view, ACKED_AT), read_mark(view, SYNCED_AT), _shipped(view, last),
        records, end, *_valid_beyond(view, end, epoch, max(last, floor)),
    )  # fmt: skip


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")


def _shipped(view: memoryview, last: int) -> int:
    """The mark of what reached a socket; torn, it counts as all that stands here: too low would be unsafe."""
    mark = read_mark(view, SHIPPED_AT)
    value = _VALUE.unpack_from(view, SHIPPED_AT)[0]
    return mark if mark == value else last


def _chain(view: memoryview, epoch: int, floor: int) -> tuple[list[Record], int]:
    records: list[Record] = []
    offset = RECORDS_AT
    while (record := record_at(view, offset)) is not None:
        if record.epoch != epoch or record.base < floor or (records and record.base != records[-1].seq):
            break
        records.append(record)
        offset += record_bytes(len(record.payload))
    return records, offset


def _valid_beyond(view: memoryview, end: int, epoch: int, last: int) -> tuple[int | None, int]:
    """Find the newest record of this epoch behind `end` that is newer than `last`: its offset and seq.

    A reused file holds older ones, which prove nothing.
    """
    tail = view[end:].tobytes()
    found, newest = None, last
    if not tail.strip(b"\0"):
        return None, 0
    mark = _CRC.pack(epoch)  # stands 16 bytes into a record, its seq 8
    at = tail.find(mark)
    while at >= 0:
        start = end + at - 2 * _VALUE.size
        if start >= end and start % ALIGNMENT == 0 and _VALUE.unpack_from(view, start + 8)[0] > newest:
            record = record_at(view, start)
            if record is not None:
                found, newest = start, record.seq
        at = tail.find(mark, at + 1)
    return found, newest if found is not None else 0

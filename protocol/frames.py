"""The record of the outbox, in the file and on the wire alike.

    offset  size
         0     4  CRC-32 of everything behind it (length .. payload)
         4     4  length of the payload
         8     8  seq: the newest change that the record covers
        16     4  epoch of the session that wrote it
        20     4  span: how many changes it covers, (seq - span, seq]; 1 except for a fold
        24     n  payload (`protocol.changes`)
      24+n   0-7  padding to a multiple of 8, not covered by the CRC

All numbers are little endian. A delta message carries the bytes of a run of records as they stand in the file.
"""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import NamedTuple

from protocol.crc import crc32
from protocol.errors import MalformedMessage

BODY = Struct("<IQII")  # length, seq, epoch, span: what the CRC covers before the payload
CRC = Struct("<I")
HEADER_BYTES = 24
ALIGNMENT = 8


class Record(NamedTuple):
    """One record: changes (seq - span, seq] of a namespace, written in `epoch`."""

    seq: int
    epoch: int
    span: int
    payload: bytes

    @property
    def base(self) -> int:
        return self.seq - self.span


def encode_record(seq: int, epoch: int, span: int, payload: bytes) -> bytes:
    """One record with its padding."""
    body = BODY.pack(len(payload), seq, epoch, span) + payload
    return CRC.pack(crc32(body)) + body + bytes(-len(payload) % ALIGNMENT)


def record_bytes(payload_length: int) -> int:
    """What a record of such a payload occupies."""
    return (HEADER_BYTES + payload_length + ALIGNMENT - 1) & -ALIGNMENT


def record_at(data: memoryview, offset: int) -> Record | None:
    """The record at `offset`, or None if there is none with a good CRC."""
    if offset + HEADER_BYTES > len(data):
        return None
    length, seq, epoch, span = BODY.unpack_from(data, offset + 4)
    end = offset + HEADER_BYTES + length
    if end > len(data) or CRC.unpack_from(data, offset)[0] != crc32(data[offset + 4 : end]):
        return None
    return Record(seq, epoch, span, bytes(data[offset + HEADER_BYTES : end]))


def decode_records(data: bytes) -> list[Record]:
    """All records of a message part. Raises `MalformedMessage` at the first that is cut or fails its CRC."""
    records, offset, size = [], 0, len(data)
    while offset < size:
        end = start = offset + HEADER_BYTES
        if start <= size:
            crc, length, seq, epoch, span = _HEADER(data, offset)
            end = start + length
        if end > size or start > size or crc != crc32(data[offset + 4 : end]):
            raise MalformedMessage(f"no record at byte {offset}", data[offset:start])
        records.append(_record((seq, epoch, span, data[start:end])))
        offset = (end + ALIGNMENT - 1) & -ALIGNMENT
    return records


_HEADER = Struct("<IIQII").unpack_from  # all of it at once
_record = partial(tuple.__new__, Record)  # `_make` without its check: a tenth of the decoding

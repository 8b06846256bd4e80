"""The format of a journal segment, for the writer and for all who read one.

    offset  size
         0     4  magic "OJF1"
         4     4  CRC-32 of everything behind it up to the payload's end
         8     8  nonce of the segment: random, the same in all its frames
        16     8  LSN: +1 from frame to frame, over segments too
        24     8  length of the payload
        32     n  payload: msgpack of a `Catalog` or a `Commit` (`persistence_proc.catalog`)
      32+n   0-7  zeros to a multiple of 8

All numbers are little endian. A segment is a file `<first LSN, 20 digits>.log`: a catalog frame, then commits, then
zeros (it is filled with them in advance). It gets its name when its catalog is durable. Frame N+1 is written only
after the sync of N, so at most one frame can be torn, and it is the last: a valid frame behind a bad one is damage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

import msgspec

from persistence_proc.catalog import Catalog, Commit
from protocol.crc import crc32
from protocol.errors import Damaged

MAGIC = b"OJF1"
HEADER_BYTES = 32
ALIGNMENT = 8
NONCE_BYTES = 8
SEGMENT_SUFFIX = ".log"
REMEDY = "Restore the data directory from a backup, or see 'What a refusal says' in docs/recovery.md."

_PREFIX = Struct("<4sI")
_BODY = Struct("<8sQQ")
_NONCE_AT = 8

encode_payload = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Catalog | Commit] = msgspec.msgpack.Decoder(Catalog | Commit)


class RawFrame(NamedTuple):
    """A frame whose CRC is good. Offsets in bytes from the start of the file."""

    offset: int
    end: int
    nonce: bytes
    lsn: int
    payload: memoryview


class Scan(NamedTuple):
    """How far a segment's chain of frames reaches."""

    first: int
    last: int
    """LSNs of its first and last frame."""
    end: int
    """Offset behind the last good frame."""
    dirty: int
    """Bytes behind `end` up to the last that is not zero; 0 for a clean end."""
    beyond: int | None
    """Offset of a later frame of this segment behind the end: proof of damage before it."""


def segment_name(first_lsn: int) -> str:
    return f"{first_lsn:020d}{SEGMENT_SUFFIX}"


def first_lsn_of(name: str) -> int | None:
    """The LSN in a segment's file name; None for other files."""
    stem, suffix = os.path.splitext(os.path.basename(name))
    return int(stem) if suffix == SEGMENT_SUFFIX and len(stem) == 20 and stem.isascii() and stem.isdigit() else None


def encode_frame(nonce: bytes, lsn: int, payload: bytes) -> bytes:
    """One frame with its padding."""
    body = _BODY.pack(nonce, lsn, len(payload))
    prefix = _PREFIX.pack(MAGIC, crc32(payload, crc32(body)))
    return b"".join((prefix, body, payload, bytes(-len(payload) % ALIGNMENT)))


def frame_at(data: memoryview, offset: int) -> RawFrame | None:
    """The frame at `offset`, or None if there is none with a good CRC."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, crc = _PREFIX.unpack_from(data, offset)
    nonce, lsn, length = _BODY.unpack_from(data, offset + _NONCE_AT)
    end = offset + HEADER_BYTES + length
    if magic != MAGIC or end > len(data) or crc32(data[offset + _NONCE_AT : end]) != crc:
        return None
    return RawFrame(offset, (end + ALIGNMENT - 1) & -ALIGNMENT, nonce, lsn, data[offset + HEADER_BYTES : end])


def frames_in(data: memoryview) -> Iterator[RawFrame]:
    """The unbroken chain of frames from the start of a segment."""
    frame = frame_at(data, 0)
    nonce = frame.nonce if frame else b""
    while frame is not None and frame.nonce == nonce:
        yield frame
        following = frame_at(data, frame.end)
        frame = following if following is not None and following.lsn == frame.lsn + 1 else None


def scan_segment(path: str, data: memoryview) -> Scan:
    """Check a segment's frames. Raises `Damaged` if not even its first is whole, or is not what the name says."""
    first = last = frame_at(data, 0)
    if first is None or last is None:
        raise Damaged(path, 0, "the first frame of a journal segment fails its check", REMEDY)
    if first.lsn != first_lsn_of(path):
        raise Damaged(path, 16, f"a journal segment begins with LSN {first.lsn}, not as its name says", REMEDY)
    for frame in frames_in(data):
        last = frame
    dirty = len(bytes(data[last.end :]).rstrip(b"\0"))
    beyond = _frame_beyond(data, last) if dirty else None
    return Scan(first.lsn, last.lsn, last.end, dirty, beyond)


def _frame_beyond(data: memoryview, last: RawFrame) -> int | None:
    rest = bytes(data[last.end :])
    at = rest.find(last.nonce)
    while at >= 0:
        offset = last.end + at - _NONCE_AT
        frame = frame_at(data, offset) if offset >= last.end and offset % ALIGNMENT == 0 else None
        if frame is not None and frame.lsn > last.lsn:
            return offset
        at = rest.find(last.nonce, at + 1)
    return None


def decode_frame(path: str, frame: RawFrame) -> Catalog | Commit:
    """What a frame says. Raises `Damaged` for a payload that nobody of ours wrote."""
    try:
        return _decoder.decode(frame.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(path, frame.offset, f"no catalog and no commit ({error})", REMEDY) from None

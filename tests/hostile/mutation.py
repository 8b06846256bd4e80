"""Bytes that are nearly right: mutations of a valid whole, and the checksums put right again behind them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from zlib import crc32

from protocol.frames import HEADER_BYTES, record_bytes
from protocol.segments import ACKED_AT, RECORDS_AT, SHIPPED_AT, SYNCED_AT

Step = tuple[int, int, int]
"""(what, where, how much): any numbers will do."""

KINDS = 8
LENGTHS = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
"""What a length field may claim."""


def mutate(whole: bytes, steps: Sequence[Step], other: bytes) -> bytes:
    """`whole` after these steps: bits flipped, lengths changed, parts cut, doubled, or taken from `other`."""
    data = bytearray(whole)
    for what, where, number in steps:
        _step(data, what % KINDS, where % (len(data) + 1), number, other)
    return bytes(data)


def _step(data: bytearray, what: int, at: int, number: int, other: bytes) -> None:
    size = number % 64 + 1
    if what == 0:
        for index in range(at, min(at + 1, len(data))):
            data[index] ^= 1 << number % 8
    elif what == 1:
        data[at : at + 1] = bytes([number % 256])
    elif what == 2:
        length = claim(number)
        data[at : at + len(length)] = length
    elif what == 3:
        del data[at : at + size]
    elif what == 4:
        data[at:at] = data[at : at + size]
    elif what == 5:
        start = number % (len(other) + 1)
        data[at:at] = other[start : start + size]
    elif what == 6:
        del data[at:]
    else:
        data[at:at] = random.Random(number).randbytes(size)


def claim(number: int) -> bytes:
    """A length field, of any of the widths and byte orders in use."""
    width, order = (4, 8, 2, 1)[number % 4], ("little", "big")[number // 4 % 2]
    length = LENGTHS[number // 8 % len(LENGTHS)]
    return (length % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]


def random_steps(chance: random.Random) -> list[Step]:
    return [(chance.randrange(KINDS), chance.randrange(2**16), chance.getrandbits(64)) for _ in range(_few(chance))]


def _few(chance: random.Random) -> int:
    return chance.choice((1, 1, 1, 2, 2, 3, 5, 9))


# Checksums put right, so that a mutation comes as far as what they guard


def mend_record(data: bytearray, at: int) -> int:
    """The CRC of the record at `at`, if one can be there; the offset behind it."""
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    end = at + HEADER_BYTES + length
    if at + HEADER_BYTES <= len(data) >= end and any(data[at : at + HEADER_BYTES]):
        data[at : at + 4] = crc32(data[at + 4 : end]).to_bytes(4, "little")
    return at + record_bytes(length)


def mend_records(data: bytes, start: int = 0) -> bytes:
    mended, at = bytearray(data), start
    while at + HEADER_BYTES <= len(mended):
        at = mend_record(mended, at)
    return bytes(mended)


def mend_segment(data: bytes) -> bytes:
    mended = bytearray(data)
    if len(mended) >= RECORDS_AT:
        mended[160:164] = crc32(mended[:160]).to_bytes(4, "little")
        for mark in (ACKED_AT, SYNCED_AT, SHIPPED_AT):
            if any(mended[mark : mark + 12]):
                mended[mark + 8 : mark + 12] = crc32(mended[mark : mark + 8]).to_bytes(4, "little")
    return mend_records(bytes(mended), RECORDS_AT)


def mend_front(data: bytes) -> bytes:
    """CRC-32 of the rest in the first four bytes."""
    return crc32(data[4:]).to_bytes(4, "little") + data[4:]


def mend_end(data: bytes) -> bytes:
    """CRC-32 of everything before them in the last four bytes."""
    return data[:-4] + crc32(data[:-4]).to_bytes(4, "little")


def mend_frames(data: bytes) -> bytes:
    """Frames of the journal."""
    mended, at = bytearray(data), 0
    while at + 32 <= len(mended):
        end = at + 32 + int.from_bytes(mended[at + 24 : at + 32], "little")
        if end > len(mended) or not any(mended[at : at + 32]):
            break
        mended[at + 4 : at + 8] = crc32(mended[at + 8 : end]).to_bytes(4, "little")
        at = (end + 7) & -8
    return bytes(mended)


def as_it_is(data: bytes) -> bytes:
    return data

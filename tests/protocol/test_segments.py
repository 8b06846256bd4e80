from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Damaged
from protocol.frames import encode_record, record_bytes
from protocol.segments import (
    ACKED_AT,
    RECORDS_AT,
    SHIPPED_AT,
    SYNCED_AT,
    SegmentHead,
    boot_mark,
    decode_segment,
    read_mark,
    write_mark,
)

CAPACITY = 4096
HEAD = SegmentHead(bytes(16), b"i" * 16, boot_mark("boot"), 3, 7, CAPACITY, "momentum")
PAYLOADS = [b"one", b"two two", b"", b"x" * 100]


def segment(payloads: list[bytes] = PAYLOADS, base: int = 10, epoch: int = 7) -> bytearray:
    """A segment file with one record for each payload, seqs behind `base`."""
    records = b"".join(encode_record(base + i, epoch, 1, payload) for i, payload in enumerate(payloads, 1))
    return bytearray((HEAD.encode() + records).ljust(CAPACITY, b"\0"))


def offset_of(index: int) -> int:
    return RECORDS_AT + sum(record_bytes(len(payload)) for payload in PAYLOADS[:index])


def test_a_segment_comes_back_as_it_was() -> None:
    data = segment()
    write_mark(memoryview(data), ACKED_AT, 11)
    write_mark(memoryview(data), SYNCED_AT, 12)
    write_mark(memoryview(data), SHIPPED_AT, 13)
    found = decode_segment("x.seg", bytes(data))
    assert found.head == HEAD
    assert [record.payload for record in found.records] == PAYLOADS
    assert (found.base, found.last) == (10, 14)
    assert (found.acked, found.synced, found.shipped) == (11, 12, 13)
    assert (found.end, found.beyond) == (offset_of(4), None)


@given(st.integers(0, 3), st.data())
def test_a_torn_last_record_is_ignored_and_one_before_it_is_proof_of_damage(torn: int, data: st.DataObject) -> None:
    whole = segment()
    length = record_bytes(len(PAYLOADS[torn])) if PAYLOADS[torn] else 24
    at = offset_of(torn) + data.draw(st.integers(0, min(length, 24 + len(PAYLOADS[torn])) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    found = decode_segment("x.seg", bytes(whole))
    assert [record.payload for record in found.records] == PAYLOADS[:torn]
    assert found.end == offset_of(torn)
    assert (found.beyond is None) == (torn == 3)


def test_records_of_another_epoch_behind_the_end_are_neither_data_nor_damage() -> None:
    whole = segment(PAYLOADS[:2])
    stale = encode_record(13, 6, 1, b"stale")
    whole[offset_of(2) : offset_of(2) + len(stale)] = stale
    found = decode_segment("x.seg", bytes(whole))
    assert len(found.records) == 2
    assert found.beyond is None


def test_what_a_reused_file_held_before_is_neither_data_nor_damage() -> None:
    data = segment()
    data[:RECORDS_AT] = HEAD._replace(floor=14).encode()
    found = decode_segment("x.seg", bytes(data))
    assert (found.records, found.end, found.beyond) == ([], RECORDS_AT, None)


def test_a_record_that_does_not_continue_the_one_before_ends_the_chain() -> None:
    whole = segment(PAYLOADS[:2])
    later = encode_record(20, 7, 1, b"later")
    whole[offset_of(2) : offset_of(2) + len(later)] = later
    found = decode_segment("x.seg", bytes(whole))
    assert len(found.records) == 2
    assert found.beyond == offset_of(2)


@given(st.integers(0, 170), st.integers(0, 7))
def test_a_flipped_bit_in_the_head_is_damage_or_changes_nothing(at: int, bit: int) -> None:
    whole = segment()
    whole[at] ^= 1 << bit
    try:
        found = decode_segment("x.seg", bytes(whole)).head
    except Damaged:
        return
    assert found == HEAD


@given(st.integers(0, CAPACITY - 1))
def test_a_cut_segment_is_damage(length: int) -> None:
    with pytest.raises(Damaged, match=r"x\.seg"):
        decode_segment("x.seg", bytes(segment()[:length]))


@given(st.data())
def test_any_mutation_gives_a_first_part_of_the_records_or_damage(data: st.DataObject) -> None:
    whole = segment()
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, offset_of(4)))] = data.draw(st.integers(0, 255))
    try:
        found = decode_segment("x.seg", bytes(whole))
    except Damaged:
        return
    payloads = [record.payload for record in found.records]
    assert payloads == PAYLOADS[: len(payloads)]


@given(st.binary(max_size=2000))
def test_random_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_segment("x.seg", data)


def test_a_torn_mark_claims_nothing() -> None:
    data = bytearray(RECORDS_AT)
    write_mark(memoryview(data), ACKED_AT, 2**40)
    assert read_mark(memoryview(data), ACKED_AT) == 2**40
    data[ACKED_AT] ^= 1
    assert read_mark(memoryview(data), ACKED_AT) == 0


def test_boots_are_told_apart() -> None:
    assert len(boot_mark("")) == 16
    assert boot_mark("a") != boot_mark("b")


def test_a_namespace_that_is_no_text_is_read_as_another_name() -> None:
    head = bytearray(HEAD.encode())
    head[96] = 0xFF
    head[160:164] = crc32(head[:160]).to_bytes(4, "little")
    assert decode_segment("x.seg", bytes(head.ljust(CAPACITY, b"\0"))).head.namespace != HEAD.namespace


def test_an_epoch_that_no_record_can_carry_is_damage() -> None:
    head = HEAD._replace(epoch=2**32).encode()
    with pytest.raises(Damaged, match="head"):
        decode_segment("x.seg", head.ljust(CAPACITY, b"x"))

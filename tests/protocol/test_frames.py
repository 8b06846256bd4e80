from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedMessage
from protocol.frames import ALIGNMENT, HEADER_BYTES, Record, decode_records, encode_record, record_at, record_bytes

records = st.builds(
    Record, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40)
)


@given(st.lists(records, max_size=6))
def test_records_come_back_as_they_were(many: list[Record]) -> None:
    data = b"".join(encode_record(*record) for record in many)
    assert list(decode_records(data)) == many
    assert len(data) == sum(record_bytes(len(record.payload)) for record in many)
    assert len(data) % ALIGNMENT == 0


def test_the_documented_layout() -> None:
    data = encode_record(7, 3, 1, b"abc")
    assert data[4:24].hex() == "03000000" + "0700000000000000" + "03000000" + "01000000"
    assert data[24:] == b"abc" + bytes(5)
    assert Record(7, 3, 2, b"").base == 5


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_flipped_bit_is_noticed(many: list[Record], data: st.DataObject) -> None:
    whole = bytearray(b"".join(encode_record(*record) for record in many))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = list(decode_records(whole))
    except MalformedMessage:
        return
    assert found == many  # it was padding


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_truncated_last_record_is_malformed(many: list[Record], data: st.DataObject) -> None:
    whole = b"".join(encode_record(*record) for record in many)
    last = len(whole) - record_bytes(len(many[-1].payload))
    cut = data.draw(st.integers(last + 1, last + HEADER_BYTES + len(many[-1].payload) - 1))
    with pytest.raises(MalformedMessage, match=f"byte {last}"):
        list(decode_records(whole[:cut]))


@given(st.binary(max_size=200))
def test_random_bytes_raise_malformed_only(data: bytes) -> None:
    try:
        list(decode_records(data))
    except MalformedMessage:
        pass


def test_zeros_are_no_record() -> None:
    assert record_at(memoryview(bytes(100)), 0) is None


def test_a_length_beyond_the_end_is_no_record() -> None:
    assert record_at(memoryview(b"\0" * 4 + b"\xff" * 40), 0) is None

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.changes import (
    CLEAR,
    DELETE,
    DROP,
    INSERT,
    REPLACE,
    apply_change,
    decode_changes,
    encode_changes,
    put_starts,
    value_heads,
)
from protocol.errors import MalformedMessage
from protocol.keys import encode_key
from tests.naming import shown

A, B = encode_key("a"), encode_key(("b", 1))
ONE_OF_EACH = [
    (INSERT, "m", A, b"1"), (REPLACE, "m", A, b"2"), (DELETE, "other-map", B, b""), (CLEAR, "m", b"", b""),
    (DROP, "m", b"", b""),
]  # fmt: skip


def test_changes_come_back_as_they_were() -> None:
    assert decode_changes(encode_changes(ONE_OF_EACH)) == ONE_OF_EACH
    assert decode_changes(memoryview(encode_changes([]))) == []


@pytest.mark.parametrize(
    "change",
    [
        (0, "m", A, b"1"), (6, "m", A, b"1"), (INSERT, "", A, b"1"), (INSERT, "../x", A, b"1"), (INSERT,
        "a" * 64, A, b"1"),
        (INSERT, "m", b"", b"1"), (INSERT, "m", b"junk", b"1"), (INSERT, "m", A, b""), (DELETE, "m", A, b"1"),
        (DELETE, "m", b"", b""), (CLEAR, "m", A, b""), (CLEAR, "m", b"", b"1"), (DROP, "m", A, b"1"), (True, "m",
        A, b"1"),
        (INSERT, "m", A), (INSERT, "m", A, b"1", b"2"), (INSERT, "m", "text", b"1"), (INSERT, 5, A, b"1"),
        "change", None,
        (-1, "m", A, b"1"),
    ],
    ids=shown,
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_malformed(change: object) -> None:
    data = msgspec.msgpack.encode([ONE_OF_EACH[0], change])
    with pytest.raises(MalformedMessage) as caught:
        decode_changes(data)
    assert caught.value.data == data


@given(st.binary(max_size=100))
def test_random_bytes_raise_malformed_only(data: bytes) -> None:
    try:
        decode_changes(data)
    except MalformedMessage:
        pass


@given(st.data())
def test_mutated_and_truncated_payloads_raise_malformed_only(data: st.DataObject) -> None:
    payload = bytearray(encode_changes(ONE_OF_EACH))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        changes = decode_changes(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    except MalformedMessage:
        return
    assert decode_changes(encode_changes(changes)) == changes


def test_deep_nesting_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode_changes(b"\x91" * 100_000)


def test_an_insert_goes_to_the_end_and_a_replace_keeps_its_place() -> None:
    items = {b"a": b"1", b"b": b"2"}
    apply_change(items, REPLACE, b"a", b"3")
    assert list(items.items()) == [(b"a", b"3"), (b"b", b"2")]
    apply_change(items, INSERT, b"a", b"4")
    assert list(items.items()) == [(b"b", b"2"), (b"a", b"4")]
    apply_change(items, DELETE, b"missing", b"")
    apply_change(items, DELETE, b"b", b"")
    assert list(items) == [b"a"]
    apply_change(items, CLEAR, b"", b"")
    assert items == {}


@pytest.mark.parametrize("op", [INSERT, REPLACE])
@pytest.mark.parametrize("name", ["m", "a-map-with-a-name-of-more-than-31-bytes"])
@given(key=st.one_of(st.text(), st.binary(max_size=900), st.integers()), size=st.sampled_from([1, 255, 256, 2**16]))
def test_a_put_is_written_by_hand_as_the_encoder_would(op: int, name: str, key: str | bytes | int, size: int) -> None:
    encoded, value = encode_key(key), bytes(size)
    payload = b"".join((put_starts(op, name)[len(encoded)], encoded, value_heads[size], value))
    assert payload == encode_changes([(op, name, encoded, value)])

from __future__ import annotations

import pickle
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import ChangeTooLarge, KeyRefused, MalformedMessage
from protocol.keys import decode_key, decode_keys, encode_key, is_key, join_keys
from protocol.limits import MAX_KEY_BYTES
from tests.naming import shown


class Word(StrEnum):
    YES = "yes"


class Text(str):
    """A subclass that compares equal to its text."""


class Number(int):
    """A subclass that compares equal to its number."""


any_text = st.text(st.characters())  # lone surrogates too
atoms = any_text | st.integers(-(2**80), 2**80) | st.binary()
keys = st.recursive(atoms, lambda inner: st.lists(inner, max_size=5).map(tuple), max_leaves=8)

EDGES = [
    "", "a", "ä", "\ud800", "x" * 63, "x" * 64, "x" * 255, "x" * 256, b"", b"x" * 256, 0, 255, 256, 65535, 65536, -1,
    2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**64), 2**2050, (), ((),), (1,), (1, 2), (1, 2, 3), (1,
    2, 3, 4),
    ("BTC/USDT", 5, (b"x", ("y",))),
]  # fmt: skip


@pytest.mark.parametrize("key", EDGES, ids=lambda k: ascii(k)[:20])
def test_keys_at_the_edges_of_their_encoding_come_back(key: Any) -> None:
    data = encode_key(key)
    assert decode_key(data) == key
    assert is_key(data)
    assert pickle.loads(b"\x80\x05" + data + b".") == key


@given(keys)
def test_every_key_comes_back_equal_and_of_its_type(key: Any) -> None:
    back = decode_key(encode_key(key))
    assert repr(back) == repr(key)


@given(keys, keys)
def test_keys_are_equal_exactly_if_their_bytes_are(a: Any, b: Any) -> None:
    assert (a == b) == (encode_key(a) == encode_key(b))


@given(st.lists(keys, max_size=20))
def test_keys_joined_are_told_apart_again(many: list[Any]) -> None:
    assert decode_keys(join_keys(encode_key(key) for key in many)) == many


@pytest.mark.parametrize(
    "key",
    [True, False, 1.0, None, [], {}, Word.YES, Text("a"), Number(1), bytearray(b"a"), frozenset(), ("a", True),
     ("a", ("b", 1.5)), (Text("a"),), object(), memoryview(b"a")],
    ids=shown,
)  # fmt: skip
def test_other_types_and_subclasses_are_refused_by_name(key: Any) -> None:
    with pytest.raises(KeyRefused, match="must be a str, int, bytes or a tuple"):
        encode_key(key)
    with pytest.raises(TypeError):  # what a dict raises for an unhashable key
        encode_key(key)


def test_a_key_over_the_limit_is_refused() -> None:
    for key in ("x" * MAX_KEY_BYTES, 2 ** (8 * MAX_KEY_BYTES), ("ab",) * MAX_KEY_BYTES):
        with pytest.raises(ChangeTooLarge):
            encode_key(key)


def test_a_tuple_nested_too_deep_is_refused() -> None:
    key: Any = "a"
    for _ in range(16):
        key = (key,)
    assert decode_key(encode_key(key)) == key
    with pytest.raises(KeyRefused, match="deeper"):
        encode_key((key,))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"\x8c", b"\x8c\x05ab", b"X\xff\xff\xff\xffab", b"\x8b\xff\xff\xff\xff", b"C\x02a", b"K", b"M\x01",
        b"\x8c\x01a\x8c\x01b", b"(", b"t", b"\x85", b"\x87\x85", b"(((", b")" * 3, b"(" * 40 + b")" + b"t" * 40,
        b"M\x05\x00", b"J\x05\x00\x00\x00", b"X\x01\x00\x00\x00a", b"\x8a\x01\x05", b"\x8a\x00", b"(K\x01t",
        b"N", b"\x88", b"G" + bytes(8), b"}", b"]", b"cos\nsystem\n", b"\x8c\x01\xff", b"\x8c\x01a.", b")\x94",
    ],
    ids=shown,
)  # fmt: skip
def test_what_is_no_key_or_not_its_canonical_form_is_malformed(data: bytes) -> None:
    assert not is_key(data)
    with pytest.raises(MalformedMessage) as caught:
        decode_key(data)
    assert caught.value.data == data


pieces = st.sampled_from([b"\x8c\x01a", b"(", b"t", b"\x85", b")", b"K\x01"])


@given(st.binary(max_size=60) | st.lists(pieces).map(b"".join))
def test_random_bytes_are_a_key_or_malformed(data: bytes) -> None:
    try:
        key = decode_key(data)
    except MalformedMessage:
        assert not is_key(data)
    else:
        assert is_key(data)
        assert encode_key(key) == data


@given(st.binary(max_size=100))
@example(b"M\x00")  # leaves something else than a list
def test_random_bytes_as_many_keys_raise_malformed_only(data: bytes) -> None:
    try:
        decode_keys(data)
    except MalformedMessage:
        pass


def test_joined_keys_resolve_no_global() -> None:
    for data in (b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"P1\n"):
        with pytest.raises(MalformedMessage):
            decode_keys(data)

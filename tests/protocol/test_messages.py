from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedMessage
from protocol.messages import (
    Accept,
    Close,
    Confirm,
    Confirmed,
    Delta,
    Done,
    Forget,
    NamespaceStatus,
    Open,
    Opened,
    OpenedMap,
    Refused,
    RefusedCode,
    Status,
    StatusReport,
    decode_delta,
    decode_items,
    decode_reply,
    decode_request,
    encode,
    encode_items,
)
from tests.naming import shown

OPEN = Open(
    namespace="n", identity=bytes(16), life=1, attempt=2, boot_id="b", host="h", pid=3, store_id=b"", epoch=4,
    acked=5,
    last=6,
)  # fmt: skip
REPORT = StatusReport(
    instance="i", pid=1, data_dir="/d", state="serving", uptime=1.5, lsn=3, commits=4, saves=5, journal_bytes=6,
    lag_last=0.001, lag_p99=0.002, stale_refused=0, malformed=0,
    namespaces=[NamespaceStatus(name="n", epoch=1, applied=2, durable=2, maps={"m": 3}, session="open",
    heard_ago=None,
                                received=4, coalesced=0)],
)  # fmt: skip
REQUESTS = [
    OPEN, Confirm(namespace="n", epoch=1, store_id=b"s", acked=2, upto=3, wait=0.5), Close(namespace="n",
    epoch=1, upto=2),
    Status(), Accept(namespace="n"), Forget(namespace="n"),
]  # fmt: skip
REPLIES = [
    Opened(store_id=b"s", instance="i", epoch=1, since=1, applied=2, new=True, closed=False, ts_last=3,
           maps=[OpenedMap(name="m", entries=4, previous_used=False)]),
    Confirmed(instance="i", applied=1, durable=2, gap=True), Done(message="done"), REPORT,
    Refused(code=RefusedCode.RECOVERING, message="wait", number=40),
]  # fmt: skip
DELTA = Delta(namespace="n", epoch=1, base=2, upto=3)
EVERYTHING = [*((decode_request, m) for m in REQUESTS), *((decode_reply, m) for m in REPLIES), (decode_delta, DELTA)]


def check_decodes_or_is_malformed(decode: Any, data: bytes) -> None:
    carried = data
    try:
        decode(data)
    except MalformedMessage as error:
        carried = error.data
    assert carried == data


@pytest.mark.parametrize(("decode", "message"), EVERYTHING, ids=lambda x: type(x).__name__)
def test_messages_come_back_as_they_were(decode: Any, message: Any) -> None:
    assert decode(encode(message)) == message
    assert decode(memoryview(encode(message))) == message


@pytest.mark.parametrize(("decode", "message"), EVERYTHING, ids=lambda x: type(x).__name__)
@given(data=st.data())
def test_mutated_messages_are_messages_or_malformed(decode: Any, message: Any, data: st.DataObject) -> None:
    whole = bytearray(encode(message))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    check_decodes_or_is_malformed(decode, cut)


@pytest.mark.parametrize("decode", [decode_request, decode_reply, decode_delta])
@given(data=st.binary(max_size=80))
def test_random_bytes_raise_malformed_only(decode: Any, data: bytes) -> None:
    check_decodes_or_is_malformed(decode, data)


@pytest.mark.parametrize("decode", [decode_request, decode_reply, decode_delta])
def test_deep_nesting_and_wrong_kinds_are_malformed(decode: Any) -> None:
    strange = [b"", b"\x91" * 50_000, b"\x81\xa4type\x81" * 20_000, b"\xc1", b"\xc7\xff\x01", encode("text")]
    for data in strange:
        with pytest.raises(MalformedMessage):
            decode(data)


def test_a_message_of_the_other_direction_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode_request(encode(REPLIES[2]))
    with pytest.raises(MalformedMessage):
        decode_reply(encode(OPEN))


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    newer = {**msgspec.to_builtins(Close(namespace="n", epoch=1, upto=2), builtin_types=[bytes]), "extra": 1}
    assert decode_request(encode(newer)) == Close(namespace="n", epoch=1, upto=2)


# The items of a map


pairs = st.dictionaries(st.binary(max_size=20), st.binary(max_size=300), max_size=30)


@given(pairs)
def test_items_come_back_as_they_were(items: dict[bytes, bytes]) -> None:
    keys, values = decode_items(encode_items(items), len(items))
    assert keys == b"".join(items)
    assert list(values) == list(items.values())


@given(pairs, st.data())
def test_mutated_items_raise_malformed_only(items: dict[bytes, bytes], data: st.DataObject) -> None:
    parts = [bytearray(part) for part in encode_items(items)]
    part = parts[data.draw(st.sampled_from([i for i in range(3) if parts[i]]))]
    at = data.draw(st.integers(0, len(part) - 1))
    part[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(MalformedMessage):
        decode_items([bytes(p) for p in parts], len(items))


@pytest.mark.parametrize(
    ("parts", "entries"),
    [((), 0), ((b"",), 0), ((b"", b""), 0), ((b"", b"", b""), 0), ((b"", b"", b"123"), 1), ((b"", b"", b"1234"), 0),
     ((b"", b"", bytes(8)), -1), ((b"a", b"b", bytes(8)), 1), ((b"", b"", bytes(4), b"more"), 0)],
    ids=shown,
)  # fmt: skip
def test_parts_that_do_not_fit_together_are_malformed(parts: tuple[bytes, ...], entries: int) -> None:
    with pytest.raises(MalformedMessage):
        decode_items(parts, entries)

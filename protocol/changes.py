"""What a mutation of a map is, and how a record's payload says it.

A change is a plain tuple `(op, map, key, value)`: `key` is an encoded key (`protocol.keys`), `value` a pickle,
each empty where the op has none. A payload is the msgpack array of one record's changes: one for a put, all of a
transaction's for a transaction. It is applied whole or not at all.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from protocol.errors import MalformedMessage
from protocol.keys import is_key
from protocol.names import is_map_name

INSERT: Final = 1
"""`key` was absent: it goes to the end of the order. Applied as pop, then put, so that a repeat is harmless."""
REPLACE: Final = 2
"""`key` was there: it keeps its place in the order."""
DELETE: Final = 3
CLEAR: Final = 4
"""The map is empty; with INSERTs behind it in the same record this is "map := items"."""
DROP: Final = 5
"""The map is gone for good; what comes later under its name is another incarnation."""

OP_NAMES: Final = {INSERT: "insert", REPLACE: "replace", DELETE: "delete", CLEAR: "clear", DROP: "drop"}

Change = tuple[int, str, bytes, bytes]

encode_changes = msgspec.msgpack.Encoder().encode
"""Sequence of changes -> payload."""

_decode = msgspec.msgpack.Decoder(list[Change]).decode


class _BinHeads(dict[int, bytes]):
    """Length -> `before` and msgpack's head of so many raw bytes (bin 8, 16, 32)."""

    def __init__(self, before: bytes = b"") -> None:
        self._before = before

    def __missing__(self, length: int) -> bytes:
        head = b"\xc4%c" % length if length < 2**8 else _BIN16(0xC5, length) if length < 2**16 else _BIN32(0xC6, length)
        if length < _KEPT_HEADS:
            self[length] = self._before + head
        return self._before + head


_BIN16, _BIN32 = Struct(">BH").pack, Struct(">BI").pack
_KEPT_HEADS = 2048

value_heads: dict[int, bytes] = _BinHeads()


def put_starts(op: int, name: str) -> dict[int, bytes]:
    """Length of the encoded key -> how the payload of one INSERT or REPLACE in map `name` begins.

    With `value_heads` it is what `encode_changes` would give, without building the change:
    starts[len(key)] + key + value_heads[len(value)] + value.
    """
    whole = encode_changes([(op, name, b"", b"")])
    return _BinHeads(whole[: -len(_TWO_EMPTY)])


_TWO_EMPTY: Final = b"\xc4\x00\xc4\x00"


def decode_changes(payload: bytes | memoryview) -> list[Change]:
    """Payload -> changes. Raises `MalformedMessage` for anything that `encode_changes` would not make."""
    try:
        changes = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"no changes: {error}", bytes(payload)) from None
    for op, name, key, value in changes:
        if name in _seen_names and INSERT <= op <= REPLACE and value and is_key(key):
            continue  # what nearly all are
        if op not in OP_NAMES or not is_map_name(name):
            raise MalformedMessage(f"no change: op {op!r} on map {name!r}", bytes(payload))
        if (op <= DELETE) != is_key(key) or (op <= REPLACE) != bool(value):
            raise MalformedMessage(f"{OP_NAMES[op]} of map {name!r}: bad key or value", bytes(payload))
        if len(_seen_names) < _KEPT_NAMES:
            _seen_names.add(name)
    return changes


_seen_names: set[str] = set()  # good ones, so that each is looked at once; bounded, as a peer may send any
_KEPT_NAMES = 10_000


def apply_change(target: dict[bytes, bytes], op: int, key: bytes, value: bytes) -> None:
    """Apply one change to the encoded items of its map."""
    if op == REPLACE:
        target[key] = value
    elif op == INSERT:
        target.pop(key, None)
        target[key] = value
    elif op == DELETE:
        target.pop(key, None)
    else:
        target.clear()

"""What a mutation of a map is, and how a record's payload says it.

A change is a plain tuple `(op, map, key, value)`: `key` is an encoded key (`protocol.keys`), `value` a pickle,
each empty where the op has none. A payload is the msgpack array of one record's changes: one for a put, all of a
transaction's for a transaction. It is applied whole or not at all.
"""

from __future__ import annotations

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


def decode_changes(payload: bytes | memoryview) -> list[Change]:
    """Payload -> changes. Raises `MalformedMessage` for anything that `encode_changes` would not make."""
    try:
        changes = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"no changes: {error}", bytes(payload)) from None
    for op, name, key, value in changes:
        if op not in OP_NAMES or not is_map_name(name):
            raise MalformedMessage(f"no change: op {op!r} on map {name!r}", bytes(payload))
        if (op <= DELETE) != is_key(key) or (op <= REPLACE) != bool(value):
            raise MalformedMessage(f"{OP_NAMES[op]} of map {name!r}: bad key or value", bytes(payload))
    return changes


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

"""The recovered state before its values are decoded: map name -> key -> pickle, in the order of the dict."""

from __future__ import annotations

from protocol.changes import CLEAR, DELETE, INSERT, REPLACE, decode_changes
from protocol.errors import MalformedMessage
from protocol.frames import Record
from protocol.keys import Key, decode_key, decode_keys
from protocol.messages import Opened, decode_items

State = dict[str, dict[Key, bytes]]


def decode_state(opened: Opened, parts: list[bytes]) -> State:
    """Map name -> key -> pickle. Raises `MalformedMessage`."""
    if len(parts) != 3 * len(opened.maps):
        raise MalformedMessage(f"{len(parts)} parts for {len(opened.maps)} maps", b"")
    state: State = {}
    for index, found in enumerate(opened.maps):
        keys, values = decode_items(parts[3 * index : 3 * index + 3], found.entries)
        state[found.name] = dict(zip(decode_keys(keys), values, strict=True))
    return state


def apply_record(state: State, record: Record) -> None:
    """Apply a leftover record to the recovered state. Raises `MalformedMessage`."""
    for op, name, key, value in decode_changes(record.payload):
        items = state.setdefault(name, {})
        if op == REPLACE:
            items[decode_key(key)] = value
        elif op == INSERT:
            items.pop(decode_key(key), None)
            items[decode_key(key)] = value
        elif op == DELETE:
            items.pop(decode_key(key), None)
        elif op == CLEAR:
            items.clear()
        else:
            del state[name]

"""The changes that bots of the model make, as the code itself encodes, applies and folds them.

A program is a list of changes as text: `"a+"` puts the one key of map a, `"b-"` deletes that of map b, `"a+b-"` is a
transaction of both. A value says which change wrote it, so a state tells which changes are in it.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from protocol.changes import DELETE, INSERT, REPLACE, Change, apply_change, decode_changes, encode_changes
from protocol.keys import encode_key

Items: TypeAlias = tuple[tuple[bytes, bytes], ...]
State: TypeAlias = tuple[tuple[str, Items], ...]
"""(map, its items in order), sorted by map; maps without items do not count."""

KEY = encode_key("k")


@cache
def applied_to(state: State, payload: bytes) -> State:
    """The state after one more record."""
    maps = {name: dict(items) for name, items in state}
    for op, name, key, value in decode_changes(payload):
        apply_change(maps.setdefault(name, {}), op, key, value)
    return state_of(maps)


def state_of(maps: dict[str, dict[bytes, bytes]]) -> State:
    return tuple((name, tuple(items.items())) for name, items in sorted(maps.items()) if items)


@cache
def replay(payloads: tuple[bytes, ...]) -> State:
    """The state after these changes, from nothing."""
    return applied_to(replay(payloads[:-1]), payloads[-1]) if payloads else ()


@cache
def payload_of(text: str, number: int, state: State) -> bytes:
    """What a bot whose maps are `state` records for change `number`; nothing when there is nothing to delete."""
    present = {name for name, items in state if items}
    changes: list[Change] = []
    for name, what in zip(text[::2], text[1::2], strict=True):
        if what == "+":
            changes.append((REPLACE if name in present else INSERT, name, KEY, b"%d" % number))
        elif name in present:
            changes.append((DELETE, name, KEY, b""))
    return encode_changes(changes) if changes else b""


def shown(state: State) -> str:
    """For people: `{a: 1, b: 2}`."""
    return "{" + ", ".join(f"{name}: {items[0][1].decode()}" for name, items in state) + "}"

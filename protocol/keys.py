"""Keys as bytes: equal keys have equal bytes, and the bytes are pickle opcodes without PROTO and STOP.

So a key is comparable on the persistence side without being understood, and stands in a pickle file as it is.
Pickle itself is not canonical (its memo depends on object identity), hence the few opcodes are emitted here.

    str    SHORT_BINUNICODE len8 utf8 | BINUNICODE len32 utf8      (utf-8 with surrogatepass, as pickle does)
    bytes  SHORT_BINBYTES len8 raw    | BINBYTES len32 raw
    int    BININT1 u8 | BININT2 u16 | BININT i32 | LONG1 len8 two's-complement | LONG4 len32 two's-complement
    tuple  EMPTY_TUPLE | items TUPLE1/2/3 | MARK items TUPLE
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from struct import pack, unpack_from
from typing import Any, TypeAlias

from protocol.errors import ChangeTooLarge, KeyRefused, MalformedMessage
from protocol.limits import MAX_KEY_BYTES
from protocol.list_pickle import list_pickle

Key: TypeAlias = str | int | bytes | tuple[Any, ...]

_MAX_DEPTH = 16  # a tuple deeper than this is a mistake, and recursion must end
_SHORT_STR = [b"\x8c%c" % n for n in range(64)]
_TUPLE_OF = {1: b"\x85", 2: b"\x86", 3: b"\x87"}


def encode_key(key: object) -> bytes:
    """Encode a key. Raises `KeyRefused` for other types (subclasses too), `ChangeTooLarge` above the limit."""
    if type(key) is str and len(key) < 64 and key.isascii():
        return _SHORT_STR[len(key)] + key.encode()  # what nearly all keys look like
    encoded = _encode(key, 0)
    if len(encoded) > MAX_KEY_BYTES:
        raise ChangeTooLarge(f"a key of {len(encoded)} bytes is over the limit of {MAX_KEY_BYTES}")
    return encoded


def decode_key(data: bytes) -> Key:
    """The key that `data` encodes. Raises `MalformedMessage` for anything else, also for a non-canonical form."""
    if len(data) > MAX_KEY_BYTES:
        raise MalformedMessage("a key over the limit", data)
    try:
        key: Key = _decode(data)
        canonical = _encode(key, 0)
    except Exception as error:  # whatever hostile bytes make of the stack machine, it is no key
        raise MalformedMessage(f"no key: {error}", data) from None
    if canonical != data:
        raise MalformedMessage("not the canonical form of a key", data)
    return key


def is_key(data: bytes) -> bool:
    """Whether `data` is an encoded key."""
    if len(data) > 1 and data[0] == 0x8C and data[1] == len(data) - 2 and data[2:].isascii():
        return True  # what nearly all keys look like
    try:
        decode_key(data)
    except MalformedMessage:
        return False
    return True


def decode_keys(joined: bytes | memoryview) -> list[Key]:
    """Decode many keys, encoded one behind the other. Raises `MalformedMessage`; no global is ever resolved."""
    try:
        keys = _NoGlobals(list_pickle((joined,))).load()
    except Exception as error:
        raise MalformedMessage(f"no keys: {error}", bytes(joined[:64])) from None
    if not isinstance(keys, list):  # hostile bytes may leave anything on the stack
        raise MalformedMessage("no list of keys", bytes(joined[:64]))
    return keys


def _encode(key: Any, depth: int) -> bytes:
    kind = type(key)
    if kind is str:
        raw: bytes = key.encode("utf-8", "surrogatepass")
        return (b"\x8c%c" % len(raw) if len(raw) < 256 else b"X" + pack("<I", len(raw))) + raw
    if kind is int:
        return _encode_int(key)
    if kind is bytes:
        raw = key
        return (b"C%c" % len(raw) if len(raw) < 256 else b"B" + pack("<I", len(raw))) + raw
    if kind is tuple and depth < _MAX_DEPTH:
        items = [_encode(item, depth + 1) for item in key]
        if not items:
            return b")"
        if len(items) in _TUPLE_OF:
            return b"".join(items) + _TUPLE_OF[len(items)]
        return b"(" + b"".join(items) + b"t"
    if kind is tuple:
        raise KeyRefused(f"a key nested deeper than {_MAX_DEPTH} tuples")
    raise KeyRefused(
        f"a key must be a str, int, bytes or a tuple of these, of exactly these types, not {kind.__qualname__}: {key!r}"
    )


def _encode_int(n: int) -> bytes:
    if 0 <= n <= 0xFF:
        return pack("<BB", 0x4B, n)
    if 0 <= n <= 0xFFFF:
        return pack("<BH", 0x4D, n)
    if -0x80000000 <= n <= 0x7FFFFFFF:
        return pack("<Bi", 0x4A, n)
    raw = n.to_bytes((n.bit_length() >> 3) + 1, "little", signed=True)
    if len(raw) > MAX_KEY_BYTES:
        raise ChangeTooLarge(f"an int key of {len(raw)} bytes is over the limit of {MAX_KEY_BYTES}")
    return (b"\x8a%c" % len(raw) if len(raw) < 256 else b"\x8b" + pack("<i", len(raw))) + raw


def _decode(data: bytes) -> Any:
    """A stack machine for exactly the opcodes above; what it accepts wrongly, re-encoding finds."""
    stack: list[Any] = []
    marks: list[int] = []
    at = 0
    while at < len(data):
        op = data[at]
        at += 1
        if op in _LENGTHS:
            layout, width = _LENGTHS[op]
            end = at + width + unpack_from(layout, data, at)[0]
            raw = data[at + width : end]
            if end > len(data) or end < at + width:
                raise ValueError("cut short")
            stack.append(_from_raw(op, raw))
            at = end
        elif op in _FIXED:
            layout, width = _FIXED[op]
            stack.append(unpack_from(layout, data, at)[0])
            at += width
        elif op == 0x28:
            marks.append(len(stack))
        else:
            count = 0 if op == 0x29 else {0x85: 1, 0x86: 2, 0x87: 3}.get(op)
            start = marks.pop() if op == 0x74 else len(stack) - count  # type: ignore[operator]
            if start < 0:
                raise ValueError("too few items")
            stack[start:] = [tuple(stack[start:])]
    if marks or len(stack) != 1:
        raise ValueError("not one key")
    return stack[0]


def _from_raw(op: int, raw: bytes) -> str | bytes | int:
    if op in (0x8C, 0x58):
        return raw.decode("utf-8", "surrogatepass")
    return raw if op in (0x43, 0x42) else int.from_bytes(raw, "little", signed=True)


_LENGTHS = {0x8C: ("<B", 1), 0x58: ("<I", 4), 0x43: ("<B", 1), 0x42: ("<I", 4), 0x8A: ("<B", 1), 0x8B: ("<i", 4)}
_FIXED = {0x4B: ("<B", 1), 0x4D: ("<H", 2), 0x4A: ("<i", 4)}


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a key names {module}.{name}")


def join_keys(encoded: Iterable[bytes]) -> bytes:
    """The inverse of `decode_keys`."""
    return b"".join(encoded)

"""The pickle of a list, made of its items' opcodes."""

from __future__ import annotations

import io
from collections.abc import Iterable


def list_pickle(items: Iterable[bytes | memoryview]) -> io.BytesIO:
    """A file with the pickle of a list whose items' opcodes (no PROTO, no STOP needed) are given.

    It is one frame: what is in none is read from the file piece by piece, at twice the price.
    """
    parts = [b"](", *items, b"e."]  # EMPTY_LIST MARK .. APPENDS STOP
    length = sum(map(len, parts))
    return io.BytesIO(b"".join((b"\x80\x05\x95", length.to_bytes(8, "little"), *parts)))  # PROTO 5, FRAME

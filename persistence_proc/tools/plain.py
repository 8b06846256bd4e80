"""Values as JSON can say them. Nothing is lost that a person would miss; classes show as a field "type"."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import Any

from persistence_proc.tools.foreign_values import Placeholder, Unreadable
from protocol.records import Record

_DEPTH = 50  # nobody reads on


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """None, bool, int, float, str, list or dict. `above`: ids of the values that this one is a part of."""
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if len(above) > _DEPTH or id(value) in above:
        return "..."
    inside = (*above, id(value))
    if isinstance(value, Record):
        fields = {name: plain(getattr(value, name), inside) for name in value.__struct_fields__}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Placeholder):
        return _placeholder(value, inside)
    if isinstance(value, Unreadable):
        return {"type": "unreadable", "why": value.why, "bytes": value.size}
    if isinstance(value, dict):
        return {k if type(k) is str else repr(k): plain(v, inside) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, inside) for item in value]
    if isinstance(value, bytes | bytearray):
        return {"type": type(value).__name__, "hex": value.hex()}
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _placeholder(value: Placeholder, inside: tuple[int, ...]) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": type(value).named}
    if value.given or value.held:
        shown["items"] = [plain(item, inside) for item in (*value.given, *value.held)]
    shown.update((str(name), plain(item, inside)) for name, item in value.fields.items())
    return shown

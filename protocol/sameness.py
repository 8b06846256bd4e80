"""Whether a value that was read back is what was written, also where `==` can't say so.

NaN is not equal to itself, many classes have no `==`, a list that holds itself has one that never ends, and some
have one that returns an array. For these the parts are compared: what a container holds, the attributes of a class
with an `==` that said no, and else what the class itself gives pickle as its state (it may leave out a lock).
"""

from __future__ import annotations

import copyreg
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest
from math import isnan
from typing import Any

_NOTHING = object()
_ATOMS = (int, str, bytes, bytearray, complex, type)


def same(a: Any, b: Any) -> bool:
    """Whether `a` and `b` have the same type and are equal, or consist of parts of which this is true."""
    return _same(a, b, set())


def _same(a: Any, b: Any, met: set[tuple[int, int]]) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    equal = _equal(a, b)
    if equal or (id(a), id(b)) in met:  # met inside itself: the same as far as the rest of it is
        return True
    met.add((id(a), id(b)))
    has_parts = False
    for x, y in zip_longest(_parts(a, equal), _parts(b, equal), fillvalue=_NOTHING):
        has_parts = True
        if not _same(x, y, met):
            return False
    return has_parts


def _equal(a: Any, b: Any) -> bool | None:
    """None where nobody can say: there is no `==`, or it returns no bool."""
    kind: Any = type(a)
    if kind.__eq__ is object.__eq__:
        return None
    try:
        return bool(a == b)
    except Exception:
        return None


def _parts(value: Any, equal: bool | None) -> Iterator[Any]:
    """What `value` consists of; nothing for what is then only the same if it is equal."""
    if isinstance(value, float | Decimal):
        if value.is_nan() if isinstance(value, Decimal) else isnan(value):
            yield str(value)
    elif isinstance(value, list | tuple | deque | set | frozenset | dict):
        yield type(value)  # so that an empty one has a part, too
        yield from sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        if isinstance(value, dict):
            yield from value.values()
        yield from _attributes(value)
    elif isinstance(value, _ATOMS):
        return
    elif equal is None:
        yield from _state(value)
    else:
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).items()
    for name in (*copyreg._slotnames(type(value)), *getattr(value, "__struct_fields__", ())):  # type: ignore[attr-defined]
        yield getattr(value, name, _NOTHING)


def _state(value: Any) -> Iterator[Any]:
    try:
        reduced = value.__reduce_ex__(5)
    except Exception:
        return
    if not isinstance(reduced, str):
        for part in reduced:
            yield list(part) if isinstance(part, Iterator) else part

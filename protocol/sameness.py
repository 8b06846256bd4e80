"""Whether a value that was read back is what was written, also where `==` can't say so.

NaN is not equal to itself, many classes have no `==`, a list that holds itself has one that never ends, and some
have one that returns an array. For these the parts are compared, as pickle takes them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

_NOTHING = object()


def same(a: Any, b: Any) -> bool:
    """Whether `a` and `b` have the same type and are equal, or consist of parts of which this is true."""
    return _same(a, b, set())


def _same(a: Any, b: Any, open_pairs: set[tuple[int, int]]) -> bool:
    if type(a) is not type(b):
        return False
    if a is b or _equal(a, b):
        return True
    if (id(a), id(b)) in open_pairs:  # met inside itself: the same as far as the rest of it is
        return True
    open_pairs.add((id(a), id(b)))
    pairs = zip_longest(_parts(a), _parts(b), fillvalue=_NOTHING)
    parts = 0
    for x, y in pairs:
        parts += 1
        if not _same(x, y, open_pairs):
            return False
    return parts > 0


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # it contains itself, or has an == that returns no bool
        return False


def _parts(value: Any) -> Iterator[Any]:
    """What `value` consists of; nothing for an atom, which is then only the same if it is equal."""
    kind = type(value)
    if kind is float:
        if value != value:
            yield "NaN"
    elif kind in (list, tuple):
        yield kind  # so that two empty ones, and nested ones without other parts, have a part
        yield from value
    elif kind is dict:
        yield kind
        for pair in value.items():
            yield from pair
    elif kind in (set, frozenset):
        yield from sorted(value, key=repr)
    elif kind not in (int, str, bytes, bytearray, bool, complex) and not isinstance(value, type):
        yield from _reduced(value)


def _reduced(value: Any) -> Iterator[Any]:
    try:
        reduced = value.__reduce_ex__(5)
    except Exception:
        return
    if isinstance(reduced, str):
        return
    for part in reduced:
        if isinstance(part, Iterator):
            yield list(part)
        else:
            yield part

"""Which records msgpack surely gives back as they were, told from the types of their values alone.

Building a record checks no types, so a field declared `Decimal` may hold a str, which would come back as a Decimal.
Reading back what was written finds that; but where each field holds exactly a type that its declaration means, and
that type has one msgpack form which that declaration reads as it was, nothing can be found, and a look at the types is
a third of the work. Constraints, hooks and types beyond these few are left to reading back.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import Flag
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import astuple

_EXACT: list[tuple[inspect.Type, type]] = [  # declared so, without constraints: a value of exactly this type is kept
    (inspect.StrType(), str),
    (inspect.IntType(), int),
    (inspect.FloatType(), float),
    (inspect.BoolType(), bool),
    (inspect.NoneType(), type(None)),
    (inspect.BytesType(), bytes),
    (inspect.DecimalType(), Decimal),
]

Vouch = Callable[[Any], bool]

_known: dict[type, FieldTypes] = {}


def field_types(kind: type[msgspec.Struct]) -> FieldTypes:
    """The rule for one kind of struct."""
    return _known.get(kind) or FieldTypes(kind)


class FieldTypes:
    """What the fields of one kind of struct may hold; made once, by `field_types`."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        _known[kind] = self  # first: it may hold its like
        self._usual: set[tuple[type, ...]] = set()  # types of all fields, found to be right before
        self._allowed: list[dict[type, Vouch | None]] = []
        self._applies = _has_no_hooks(kind)
        if self._applies:
            try:
                self._allowed = [_exact_types(field.type) for field in _fields(kind)]
            except (TypeError, NameError):  # what msgspec can't look into, it can still read and write
                self._applies = False
        self._deep = [(at, vouches) for at, vouches in enumerate(self._allowed) if any(vouches.values())]

    def vouch(self, record: msgspec.Struct) -> bool:
        """Whether `record` surely comes back as it is. False: nobody knows without trying."""
        values = astuple(record)
        types = tuple(map(type, values))
        if types not in self._usual and not self._is_right(types):
            return False
        for at, vouches in self._deep:
            value = values[at]
            if value:  # nothing is in an empty tuple or in None
                look = vouches[type(value)]
                if look is not None and not look(value):
                    return False
        return True

    def _is_right(self, types: tuple[type, ...]) -> bool:
        if not self._applies or not all(t in allowed for t, allowed in zip(types, self._allowed, strict=True)):
            return False
        self._usual.add(types)
        return True


def _exact_types(declared: inspect.Type) -> dict[type, Vouch | None]:
    """The types whose values a field declared so keeps, each with what looks into them; empty: no type is sure."""
    if isinstance(declared, inspect.UnionType):
        found = [_exact_types(one) for one in declared.types]
        return {kind: look for one in found for kind, look in one.items()} if all(found) else {}
    if isinstance(declared, inspect.EnumType):
        return {} if issubclass(declared.cls, Flag) else {declared.cls: None}  # a Flag may be none of its members
    if isinstance(declared, inspect.StructType):
        return {declared.cls: field_types(declared.cls).vouch}
    if isinstance(declared, inspect.VarTupleType) and declared.min_length is declared.max_length is None:
        items = _exact_types(declared.item_type)
        plain = items.keys() if items and not any(items.values()) else frozenset()
        return {tuple: lambda value: plain >= set(map(type, value))}
    return {kind: None for one, kind in _EXACT if one == declared}


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found.fields


def _has_no_hooks(kind: type[msgspec.Struct]) -> bool:
    return not hasattr(kind, "__post_init__") and not kind.__struct_config__.omit_defaults



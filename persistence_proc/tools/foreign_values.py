"""Decode stored values for people to look at, without importing or running anything of the bot that wrote them.

Plain types and the shipped records come back as they are. Every other global that a pickle names, class or function,
becomes a `Placeholder` that shows its name and what it was given.
"""

from __future__ import annotations

import io
import pickle
from collections import deque
from fractions import Fraction
from reprlib import recursive_repr
from typing import Any

import msgspec

from protocol.errors import MalformedMessage, UntrustedType
from protocol.keys import decode_key
from protocol.records import Record, restore_record
from protocol.values import Trust

# How much text one value may make: its characters, and so much for each of its parts
_ROOM = 4 * 2**20
_PER_BYTE = 32  # of its pickle: names of fields stand there once, and in the text again and again
_PART = 8
_DEPTH = 100
_INT_BITS = 14_000  # Python writes no longer number in decimal


class _Named(type):
    """The class itself may be a value, or part of one."""

    named: str = "?"

    def __repr__(cls) -> str:
        return f"<{cls.named}>"


class Placeholder(metaclass=_Named):
    """Stands for an object of a class that is not loaded here. Takes whatever a pickle does to it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        self = super().__new__(cls)
        self.__dict__["given"] = args
        self.__dict__["fields"] = dict(kwargs)
        self.__dict__["held"] = []
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Everything was taken by __new__, which is all that some pickles call."""

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update(part)
            elif part is not None:
                self.__dict__["given"] += (part,)

    @property
    def given(self) -> tuple[Any, ...]:
        """Arguments of its construction."""
        return tuple(self.__dict__["given"])

    @property
    def fields(self) -> dict[str, Any]:
        """Attributes by name."""
        found: dict[str, Any] = self.__dict__["fields"]
        return found

    @property
    def held(self) -> list[Any]:
        """What was appended to it, or set in it (as pairs)."""
        found: list[Any] = self.__dict__["held"]
        return found

    def append(self, item: Any) -> None:
        self.held.append(item)

    def extend(self, items: Any) -> None:
        self.held.extend(items)

    def add(self, item: Any) -> None:
        self.held.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held.append((key, value))

    @recursive_repr()
    def __repr__(self) -> str:
        name = type(self).named
        parts = [repr(item) for item in (*self.given, *self.held)]
        parts += [f"{field}={value!r}" for field, value in self.fields.items()]
        return f"<{name}{' ' if parts else ''}{', '.join(parts)}>"


class Unreadable:
    """Stands for what can't be shown: bytes that are no pickle, a number without end."""

    def __init__(self, why: str, size: int) -> None:
        self.why, self.size = why, size

    def __repr__(self) -> str:
        return f"<unreadable, {self.size} bytes: {self.why}>"


def show_value(data: bytes) -> Any:
    """The value, with placeholders for what is not plain. Raises nothing: at worst it is `Unreadable`.

    What comes back can be printed: in time, and in about as much memory as its pickle suggests.
    """
    try:
        value = _Reader(io.BytesIO(data)).load()
        _check_printable(value, _ROOM + _PER_BYTE * len(data))
        return value
    except Exception as error:  # a pickle can fail in as many ways as there are types in it
        return Unreadable(f"{type(error).__name__}: {error}", len(data))


def show_key(data: bytes) -> Any:
    """The key; what is no key as it is, and one that can't be printed as `Unreadable`. Raises nothing."""
    try:
        key = decode_key(data)
        _check_printable(key, _ROOM)
    except MalformedMessage:
        return data
    except ValueError as error:
        return Unreadable(str(error), len(data))
    return key


def _check_printable(value: Any, room: int) -> None:
    """Raise ValueError for a value that has no end as text: a few bytes can nest deeply, and share their parts."""
    above: set[int] = set()
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        item, left = stack.pop()
        if left:
            above.discard(id(item))
            continue
        room -= _weight(item)
        parts = [] if id(item) in above else _parts(item)
        if room < 0 or len(above) > _DEPTH:
            raise ValueError("too large, or nested too deeply, to be shown")
        if parts:
            above.add(id(item))
            stack.append((item, True))
            stack.extend((part, False) for part in parts)


def _weight(item: Any) -> int:
    if isinstance(item, int) and item.bit_length() > _INT_BITS:
        raise ValueError(f"an int of {item.bit_length()} bits")
    return _PART + (len(item) if isinstance(item, str | bytes | bytearray) else 0)


def _parts(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple | set | frozenset | deque):
        return list(item)
    if isinstance(item, Placeholder):
        return [*item.given, *item.held, *item.fields.values()]
    if isinstance(item, Record):
        return [getattr(item, name) for name in item.__struct_fields__]
    return [item.numerator, item.denominator] if isinstance(item, Fraction) else []


_plain = Trust()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _INSTEAD:
            return _INSTEAD[module, name]
        try:
            return _plain.find_class(module, name)
        except (UntrustedType, AttributeError, ImportError):
            named = f"{module}.{name}"  # whoever wrote the pickle chose it: nothing that a terminal would obey
            return _Named("Unknown", (Placeholder,), {"named": named if named.isprintable() else repr(named)})


def _restore_record(kind: Any, data: bytes) -> Any:
    if not issubclass(kind, Placeholder):
        return restore_record(kind, data)
    record = kind()
    record.fields.update(msgspec.msgpack.decode(data))
    return record


def _reconstruct(kind: Any, base: Any, state: Any) -> Any:
    if issubclass(kind, Placeholder):
        return kind() if state is None else kind(state)
    return base.__new__(kind, state) if base is not object else kind.__new__(kind)


_INSTEAD = {
    ("protocol.records", "restore_record"): _restore_record,
    ("copyreg", "_reconstructor"): _reconstruct,
}

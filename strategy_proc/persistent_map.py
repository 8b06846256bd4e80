"""A dict whose every change is recorded before the mutating call returns.

* Reads are the dict's own: no method that only reads is overridden.
* `_recorded[key]` is the pickle that was recorded last for `key`; it has exactly the keys of the dict, except between
  the two halves of a change (`Recorder.half` names it then).
* A change is recorded first and shown second, so a refused one (full disk, wrong type) leaves the dict as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import msgspec

from protocol.changes import CLEAR, DELETE, INSERT, REPLACE, Change, put_starts, value_heads
from protocol.errors import ChangeTooLarge, ValueRefused
from protocol.keys import encode_key
from protocol.records import Record
from protocol.sameness import same
from strategy_proc.recorder import MISSING, Recorder

K = TypeVar("K")
V = TypeVar("V")

_join = b"".join
_set_item = dict.__setitem__

class PersistentMap(dict[K, V]):
    """A durable dict of a session, made by `session.map(name)`. Thread-safe for changes.

    Keys are str, int, bytes or tuples of these (else `KeyRefused`), values what pickles with trusted types (else
    `ValueRefused`). A refused change changes nothing. Every mutating method may also raise `Fenced`,
    `SessionClosed`, `SessionForked`, `OutboxFull`, `TransactionInProgress` and `ReentrantChange`.
    """

    __slots__ = ("__weakref__", "_inserts", "_name", "_recorded", "_recorder", "_replaces")

    _recorder: Recorder
    _name: str
    _recorded: dict[K, bytes]
    _inserts: dict[int, bytes]
    _replaces: dict[int, bytes]
    _encode_key: Callable[[object], bytes] = staticmethod(encode_key)

    def __new__(cls, *args: Any, **kwargs: Any) -> PersistentMap[K, V]:
        raise TypeError("a PersistentMap is made by session.map(name)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a PersistentMap can't be initialised again; use update()")

    @classmethod
    def _make(cls, recorder: Recorder, name: str, items: dict[K, V], recorded: dict[K, bytes]) -> PersistentMap[K, V]:
        self: PersistentMap[K, V] = dict.__new__(cls)
        dict.update(self, items)
        self._recorder, self._name, self._recorded = recorder, name, recorded
        self._inserts, self._replaces = put_starts(INSERT, name), put_starts(REPLACE, name)
        return self

    @property
    def name(self) -> str:
        """The map's name; its file is `<name>.pkl`."""
        return self._name

    # Changing

    def __setitem__(self, key: K, value: V) -> None:
        encoded = self._encode_key(key)
        recorder = self._recorder
        data = recorder.dump(value)
        with recorder.lock:
            if recorder.attention or recorder.half is not None:
                recorder.check_may_change()
            recorded = self._recorded
            recorder.half = half = (self, key, value, data, recorder.outbox.tail)
            try:
                if recorder.transaction is None:
                    starts = self._replaces if key in recorded else self._inserts
                    recorder.outbox.append(_join((starts[len(encoded)], encoded, value_heads[len(data)], data)))
                else:
                    op = REPLACE if key in recorded else INSERT
                    recorder.transaction.keep((op, self._name, encoded, data), half)
                _set_item(self, key, value)
                recorded[key] = data
            except BaseException:
                recorder.unwind(half)
                raise
            recorder.half = None

    def __delitem__(self, key: K) -> None:
        recorder = self._recorder
        with recorder.lock:
            if recorder.attention or recorder.half is not None:
                recorder.check_may_change()
            if not dict.__contains__(self, key):
                raise KeyError(key)
            encoded = self._encode_key(key)
            recorder.half = half = (self, key, MISSING, b"", recorder.outbox.tail)
            try:
                recorder.record((DELETE, self._name, encoded, b""), half)
                dict.__delitem__(self, key)
                self._recorded.pop(key, None)
            except BaseException:
                recorder.unwind(half)
                raise
            recorder.half = None

    def clear(self) -> None:
        """Remove all items, as one change."""
        self._remove_all(CLEAR)

    def _remove_all(self, op: int) -> None:
        """Remove all items, by CLEAR or DROP."""
        recorder = self._recorder
        with recorder.lock:
            if recorder.attention or recorder.half is not None:
                recorder.check_may_change()
            recorder.half = half = (self, MISSING, MISSING, b"", recorder.outbox.tail)
            try:
                recorder.record((op, self._name, b"", b""), half)
                dict.clear(self)
                self._recorded.clear()
            except BaseException:
                recorder.unwind(half)
                raise
            recorder.half = None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As `dict.update`, but all or nothing: one transaction, or part of the one that is open."""
        items: dict[Any, Any] = {}
        items.update(*args, **kwargs)
        if not items:
            return
        # Refused here, before the first is put: an open block may catch it and go on.
        encode, dump = self._encode_key, self._recorder.dump
        encoded = [(key, value, encode(key), dump(value)) for key, value in items.items()]
        with self._recorder.block(joins=True):
            for each in encoded:
                self._put_in_block(*each)

    def _put_in_block(self, key: K, value: V, encoded: bytes, data: bytes) -> None:
        """The second half of `__setitem__`, for `update`."""
        recorder = self._recorder
        with recorder.lock:
            recorder.check_may_change()
            recorded = self._recorded
            recorder.half = half = (self, key, value, data, recorder.outbox.tail)
            try:
                recorder.record((REPLACE if key in recorded else INSERT, self._name, encoded, data), half)
                _set_item(self, key, value)
                recorded[key] = data
            except BaseException:
                recorder.unwind(half)
                raise
            recorder.half = None

    def __ior__(self, other: Any) -> PersistentMap[K, V]:  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """As `dict.setdefault`; recorded when it inserts."""
        with self._recorder.lock:
            self._recorder.settle()
            if key not in self:
                self[key] = default
            return dict.__getitem__(self, key)

    def pop(self, key: K, default: Any = MISSING) -> Any:
        """As `dict.pop`."""
        with self._recorder.lock:
            self._recorder.settle()
            value = dict.get(self, key, MISSING)
            if value is MISSING:
                if default is MISSING:
                    raise KeyError(key)
                return default
            del self[key]
            return value

    def popitem(self) -> tuple[K, V]:
        """Remove and return the newest item."""
        with self._recorder.lock:
            self._recorder.settle()
            for key in reversed(self):
                return key, self.pop(key)
            raise KeyError("popitem(): map is empty")

    def modify(self, key: K, **changes: Any) -> V:
        """Replace fields of the record stored under `key`, and return the new one.

        Takes a `Record`, any msgspec Struct or a dataclass. Raises KeyError; AttributeError or TypeError for a field
        that is not there; `ValueRefused` for a value without fields.
        """
        with self._recorder.lock:
            self._recorder.settle()
            old: Any = self[key]
            new: Any
            if isinstance(old, Record):
                new = old.replace(**changes)
            elif isinstance(old, msgspec.Struct):
                new = msgspec.structs.replace(old, **changes)
            elif dataclasses.is_dataclass(old) and not isinstance(old, type):
                new = dataclasses.replace(old, **changes)
            else:
                raise ValueRefused(f"modify() needs a record, not {type(old).__qualname__}; use edit()")
            self[key] = new
            return new  # type: ignore[no-any-return]

    @contextmanager
    def edit(self, key: K) -> Iterator[V]:
        """A copy of the value to change in place; stored when the block ends without an exception.

        Raises KeyError. A change of the same key by others inside the block is overwritten.
        """
        with self._recorder.lock:
            self._recorder.settle()
            if key not in self:
                raise KeyError(key)
            data = self._recorded[key]
        value: V = self._recorder.load(data)
        yield value
        self[key] = value

    # Looking

    def snapshot(self) -> dict[K, V]:
        """A plain dict of one moment, also while other threads change the map."""
        with self._recorder.lock:
            self._recorder.settle()
            return dict(self)

    def unsaved(self) -> list[K]:
        """Keys whose value is no longer what was recorded: it was changed in place, or behind the map's back.

        A change that the value's own `==` does not see is not seen here either, such as one in a dataclass field with
        `compare=False`: equal values may pickle to different bytes, so the bytes alone can't tell.
        """
        with self._recorder.lock:
            self._recorder.settle()
            items, recorded = dict(self), dict(self._recorded)
        changed = [key for key, value in items.items() if not self._is_recorded(value, recorded.get(key))]
        return changed + [key for key in recorded if key not in items]

    def _is_recorded(self, value: V, data: bytes | None) -> bool:
        """Equal bytes, or equal values: the same value may pickle differently (the memo knows object identity)."""
        if data is None:
            return False
        try:
            return self._recorder.dump(value) == data or same(self._recorder.load(data), value)
        except (ValueRefused, ChangeTooLarge):
            return False

    # Copies are plain dicts: a twin that is not connected would look durable and not be

    def copy(self) -> dict[K, V]:
        """A plain dict."""
        return dict(self)

    def __copy__(self) -> dict[K, V]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[K, V]:
        import copy

        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> NoReturn:
        """Refused: a map belongs to a session."""
        raise TypeError("a PersistentMap is made by session.map(name); use dict.fromkeys and update()")


def items_as_changes(name: str, items: Mapping[Any, bytes], encode: Callable[[Any], bytes]) -> list[Change]:
    """A whole map as changes: "map := items"."""
    changes: list[Change] = [(CLEAR, name, b"", b"")]
    changes.extend((INSERT, name, encode(key), data) for key, data in items.items())
    return changes

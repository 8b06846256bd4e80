"""Pickling values so that what is written can be read back, and reading runs no stranger's code.

Writing checks every global while it is pickled by the reader's own rule, `protocol.trust` (`reducer_override` sees
each one; `dispatch_table` does not see functions, classes as values, or the callable a `__reduce__` returns). The
first value of each new type is read back and compared; a `Record` always is, as building one checks no types. So a
value that would be refused at three in the morning is refused when it is written.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from struct import Struct
from types import BuiltinFunctionType, FunctionType
from typing import Any
from zoneinfo import ZoneInfo

from protocol.errors import ChangeTooLarge, OutliveError, ValueRefused, ValueUnreadable
from protocol.limits import MAX_CHANGE_BYTES
from protocol.list_pickle import list_pickle
from protocol.records import Record, encode_record, restore_record
from protocol.sameness import same
from protocol.trust import Trust

__all__ = ["PROTOCOL", "Trust", "ValueCodec", "restore_path"]

PROTOCOL = 5

_PLAIN = frozenset({dict, list, tuple, set, frozenset, str, int, float, bool, bytes, bytearray, type(None)})
_STACK_GLOBAL = 0x93  # the opcode by which a pickle of this protocol names a class or function
_NAMED = b"\x94\x93"  # how it mostly stands there, behind a name that was just memoized
_UNSURE = bytes([_STACK_GLOBAL])
_GET, _BINGET, _LONG_BINGET = b"ghj"  # the opcodes that get something from the memo
_STOP = b"."
_RUN, _RUN_BYTES = 256, 2**20  # values that are loaded together
_DETOUR, _FOR_EVER = 100, 2**63
_LONG = 4096
_extensions: dict[Any, int] = copyreg._extension_registry  # type: ignore[attr-defined]
"""copyreg's short codes: the other way to name a class."""

Reducer = Callable[[Any], Any]
_dumps = pickle.dumps


class ValueCodec:
    """Value <-> bytes under one `Trust`. Thread-safe; a pickler that is busy (threads, re-entry) is not shared."""

    def __init__(self, trust: Trust, verify: bool = False) -> None:
        self.trust = trust
        self._verify = verify
        self._known: dict[type, Reducer | None] = {}  # types whose first value was read back; None: by themselves
        self._shapes: dict[type, _RecordShape] = {}
        self._idle: list[_Writer] = []
        self._detour = _FOR_EVER if verify else 0  # so many values go the general way, without a try
        self._reader = type("_TrustingReader", (pickle.Unpickler,), {"find_class": staticmethod(trust.find_class)})

    def dump(self, value: Any) -> bytes:
        """Pickle a value. Raises `UntrustedType`, `ValueRefused` or `ChangeTooLarge`; nothing is kept then.

        A value of plain types is tried the short way: where the opcode that names a class does not occur, none is
        named. (It may stand in a text or a number, then nobody knows.)
        """
        kind = type(value)
        if kind in _PLAIN and not self._detour and not _extensions:
            try:
                data = _dumps(value, PROTOCOL)
            except Exception:
                data = _UNSURE  # the general way says why
            if _STACK_GLOBAL not in data and len(data) <= MAX_CHANGE_BYTES:
                return data
            self._take_detour(data)
        try:
            shape = self._shapes.get(kind)
            data = self._write(value) if shape is None else shape.encode(value)
            if self._verify:
                self._read_back(value, data)
        except OutliveError:
            raise
        except Exception as error:
            raise ValueRefused(f"{_name(value)} can't be pickled: {type(error).__name__}: {error}") from error
        if len(data) > MAX_CHANGE_BYTES:
            raise ChangeTooLarge(f"a value of {len(data)} bytes is over the limit of {MAX_CHANGE_BYTES}")
        return data

    def load(self, data: bytes | memoryview) -> Any:
        """The value. Raises `UntrustedType` or `ValueUnreadable`."""
        try:
            return self._reader(io.BytesIO(data)).load()
        except OutliveError:
            raise
        except Exception as error:
            raise ValueUnreadable(f"{type(error).__name__}: {error}") from error

    def load_many(self, values: Iterable[bytes]) -> list[Any]:
        """All the values, as `load` gives them, by the shortest way that is safe for each.

        Each has a memo of its own, so each gets a reader of its own, but for two cases: neighbours that can't ask
        their memo for anything share one, and neighbouring records of one type need none.
        """
        loaded: list[Any] = []
        run: list[bytes] = []  # values, not loaded yet, that need no memo; they belong at `places`
        places: list[int] = []
        size, shape = 0, None
        for data in values:
            packed = None if shape is None else shape.packed(data)
            if shape is not None and packed is not None:
                try:
                    loaded.append(restore_record(shape.kind, packed))
                except Exception as error:
                    raise ValueUnreadable(f"{type(error).__name__}: {error}") from error
            elif (
                shape is None and data.endswith(_STOP)
                and _GET not in data and _BINGET not in data and _LONG_BINGET not in data
            ):  # fmt: skip
                run.append(data)
                places.append(len(loaded))
                loaded.append(None)
                size += len(data)
                if len(run) == _RUN or size > _RUN_BYTES:
                    self._load_run(run, places, loaded)
                    shape = self._shape_of(type(loaded[places[-1]]))
                    run, places, size = [], [], 0
            else:
                loaded.append(self.load(data))
                shape = self._shape_of(type(loaded[-1]))
        self._load_run(run, places, loaded)
        return loaded

    def _load_run(self, values: Sequence[bytes], places: Sequence[int], loaded: list[Any]) -> None:
        """Put values without an opcode that gets something from the memo where they belong.

        They are read as the items of one list, each without its STOP. What is no list of as many, or leaves anything
        over (a value may have bytes behind its end), is read one by one. (Opcodes made by hand could reach for a
        neighbour on the stack; but who can write them can write the neighbour too.)
        """
        load = self._reader(list_pickle(data[:-1] for data in values)).load
        found = None
        with suppress(Exception):  # whatever it is, the value alone shows it again
            items = load()
            with suppress(EOFError):
                load()
                items = None
            found = items
        if type(found) is not list or len(found) != len(values):
            found = [self.load(data) for data in values]
        for place, value in zip(places, found, strict=True):
            loaded[place] = value

    def _take_detour(self, data: bytes) -> None:
        """A value of plain types that may name a class is pickled again; where its like will too, at once."""
        if len(data) > _LONG or _NAMED in data:
            self._detour = _DETOUR

    def _write(self, value: Any) -> bytes:
        """The general way. A writer that fails half-way is dropped, with whatever it holds."""
        if self._detour:
            self._detour -= 1
        try:
            writer = self._idle.pop()
        except IndexError:
            writer = _Writer(self.trust, self._known)
        writer.dump(value)
        chunks = writer.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        writer.clear_memo()
        if writer.new_kinds:
            self._read_back(value, data)
            for kind in writer.new_kinds:
                self._known[kind] = _reducer_of(kind)
            writer.new_kinds.clear()
            self._shape_of(type(value))
        self._idle.append(writer)
        return data

    def _read_back(self, value: Any, data: bytes) -> None:
        try:
            unchanged = same(self.load(data), value)
        except OutliveError as error:
            raise ValueRefused(f"{_name(value)} can be written but not read back: {error}") from error
        if not unchanged:
            raise ValueRefused(f"{_name(value)} would not be read back equal")

    def _shape_of(self, kind: type) -> _RecordShape | None:
        """How records of `kind`, whose first one passed, look as a pickle."""
        if kind not in self._shapes and _reducer_of(kind) is _reduce_record and self.trust.allows(kind):
            prefix = b"\x80\x05" + _global(restore_record) + _global(kind)
            self._shapes[kind] = _RecordShape(kind, prefix)
        return self._shapes.get(kind)


class _Writer(pickle.Pickler):
    """Checks every global on its way into a pickle. Used by one thread at a time."""

    def __init__(self, trust: Trust, known: dict[type, Reducer | None]) -> None:
        self.chunks: list[bytes] = []
        self.new_kinds: set[type] = set()  # types in this value of which none has been read back yet
        self._trust = trust
        self._known = known
        super().__init__(_Sink(self.chunks.append), PROTOCOL)

    def reducer_override(self, obj: Any) -> Any:
        # Called for everything but exact plain types; a known type costs one look-up.
        reducer = self._known.get(type(obj), _unknown)
        if reducer is None:
            return NotImplemented
        return reducer(obj) if reducer is not _unknown else self._meet(obj)

    def _meet(self, obj: Any) -> Any:
        kind = type(obj)
        if isinstance(obj, type | FunctionType | BuiltinFunctionType):
            self._known[kind] = self._trust.check
            return self._trust.check(obj)
        self.new_kinds.add(kind)
        reducer = _reducer_of(kind)
        return NotImplemented if reducer is None else reducer(obj)


class _Sink:
    """A file whose write is list.append."""

    __slots__ = ("write",)

    def __init__(self, append: Callable[[bytes], None]) -> None:
        self.write = append


class _RecordShape:
    """The pickle of a record of one type, without a pickler: prefix, its msgpack as bytes, TUPLE2 REDUCE STOP."""

    __slots__ = ("_at", "_prefix", "kind")

    _SHORT, _LONG = Struct("<BB"), Struct("<BI")  # SHORT_BINBYTES len8, BINBYTES len32
    _END = b"\x86R."

    def __init__(self, kind: type[Record], prefix: bytes) -> None:
        self.kind = kind
        self._prefix = prefix
        self._at = len(prefix)

    def encode(self, record: Record) -> bytes:
        packed = encode_record(record)
        n = len(packed)
        head = self._SHORT.pack(0x43, n) if n < 256 else self._LONG.pack(0x42, n)
        return b"".join((self._prefix, head, packed, self._END))

    def packed(self, data: bytes) -> bytes | None:
        """The msgpack in `data`, or None if it is anything but exactly what `encode` makes."""
        if not (data.startswith(self._prefix) and data.endswith(self._END)):
            return None
        packed = len(data) - self._at - len(self._END)
        if packed >= 2 and data[self._at] == 0x43 and data[self._at + 1] == packed - 2:
            return data[self._at + 2 : -3]
        if packed >= 5 and self._LONG.unpack_from(data, self._at) == (0x42, packed - 5):
            return data[self._at + 5 : -3]
        return None


def restore_path(text: str, concrete: bool) -> PurePath:
    """What a pickled path calls to come back: the classes behind pathlib moved between Python versions."""
    return Path(text) if concrete else PurePath(text)


def _reducer_of(kind: type) -> Reducer | None:
    """How to take apart a value of a type that can't be left to take itself apart."""
    if kind is ZoneInfo:
        return _reduce_zone
    if issubclass(kind, PurePath) and kind.__module__.partition(".")[0] == "pathlib":
        return _reduce_path
    if issubclass(kind, Record) and kind.__reduce__ is Record.__reduce__:
        return _reduce_record
    return None


def _reduce_zone(zone: Any) -> Any:
    """Its own __reduce__ needs builtins.getattr, which nobody may trust."""
    if zone.key is None:
        raise ValueRefused(f"{zone!r} has no key to be found by again")
    return ZoneInfo, (zone.key,)


def _reduce_path(path: Any) -> Any:
    return restore_path, (str(path), isinstance(path, Path))


def _reduce_record(record: Any) -> Any:
    return restore_record, (type(record), encode_record(record))


def _unknown(obj: Any) -> Any:
    """Stands for "not looked up yet"."""


def _global(obj: Any) -> bytes:
    """The opcodes that name a class or function (BINUNICODE, BINUNICODE, STACK_GLOBAL)."""
    names = [text.encode() for text in (obj.__module__, obj.__qualname__)]
    return b"".join(b"X" + len(name).to_bytes(4, "little") + name for name in names) + b"\x93"


def _name(value: Any) -> str:
    kind = type(value)
    return f"a value of type {kind.__module__}.{kind.__qualname__}"

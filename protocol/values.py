"""Pickling values so that what is written can be read back, and reading runs no stranger's code.

One rule for both directions, `Trust`: a pickle may name the globals of a fixed list of plain types, classes of the
modules a map was declared with, and what the bot named by `trust=`. Writing checks every global while it is pickled
(`reducer_override` sees each one; `dispatch_table` does not see functions, classes as values, or the callable a
`__reduce__` returns), and the first value of each new type is read back and compared. So a value that would be
refused at three in the morning is refused when it is written.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any
from zoneinfo import ZoneInfo

from protocol.errors import ChangeTooLarge, OutliveError, UntrustedType, ValueRefused, ValueUnreadable
from protocol.limits import MAX_CHANGE_BYTES

PROTOCOL = 5

_PLAIN: frozenset[tuple[str, str]] = frozenset(
    {
        *(("builtins", n) for n in ("bytearray", "complex", "range", "slice", "set", "frozenset", "object")),
        *(("builtins", n) for n in ("int", "float", "str", "bytes", "bool", "list", "tuple", "dict")),
        *(("collections", n) for n in ("OrderedDict", "deque", "Counter", "defaultdict")),
        *(("datetime", n) for n in ("date", "time", "datetime", "timedelta", "timezone")),
        *(("ipaddress", n) for n in ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network")),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("uuid", "SafeUUID"),
        ("zoneinfo", "ZoneInfo"),
        ("zoneinfo._zoneinfo", "ZoneInfo"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("protocol.records", "restore_record"),
        ("protocol.values", "restore_path"),
    }
)
_SHIPPED = "protocol.records"


def restore_path(text: str, concrete: bool) -> PurePath:
    """What a pickled path calls to come back: the classes behind pathlib moved between Python versions."""
    return Path(text) if concrete else PurePath(text)


class Trust:
    """Which globals a pickle may name. Grows by declaration only; never by what a pickle says."""

    def __init__(self, trusted: Iterable[type | FunctionType | str | ModuleType] = ()) -> None:
        self._modules: set[str] = {_SHIPPED}
        self._globals: set[tuple[str, str]] = set(_PLAIN)
        self._found: dict[tuple[str, str], Any] = {}
        self._seen: set[Any] = set()  # objects already allowed: one look-up for what is written again and again
        for item in trusted:
            self.add(item)

    def add(self, item: type | FunctionType | str | ModuleType) -> None:
        """Trust one class or function, or all classes of a module (by name or itself). Raises `ValueRefused`."""
        if isinstance(item, ModuleType):
            item = item.__name__
        if item == "__main__" or getattr(item, "__module__", None) == "__main__":
            raise ValueRefused(
                f"{item!r} lives in __main__, which is another module after a restart: "
                "move it to a module of its own and import it"
            )
        if isinstance(item, str):
            self._modules.add(item)
        elif isinstance(item, type | FunctionType):
            self._globals.add((item.__module__, item.__qualname__))
        else:
            raise ValueRefused(f"trust= takes classes, functions and module names, not {item!r}")

    def add_module_of(self, declared: object) -> None:
        """Trust the module of a map's declared type; of every class in a generic or union such as dict[str, Tag]."""
        for part in getattr(declared, "__args__", ()):
            self.add_module_of(part)
        if isinstance(declared, type) and declared.__module__ != "builtins":
            self.add(declared.__module__)

    def allows(self, obj: Any) -> bool:
        """Whether a pickle may name `obj`, a class or a function."""
        try:
            if obj in self._seen:
                return True
        except TypeError:
            return False
        module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str) or not self._allows(module, name, obj):
            return False
        self._seen.add(obj)
        return True

    def _allows(self, module: str, name: str, obj: Any) -> bool:
        if (module, name) in self._globals:
            return True
        return isinstance(obj, type) and module in self._modules and obj.__module__ == module

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global for a reader. Imports nothing that is not trusted. Raises `UntrustedType`."""
        found = self._found.get((module, name))
        if found is None:
            if (module, name) not in self._globals and module not in self._modules:
                raise UntrustedType(_untrusted(module, name))
            __import__(module)
            found = sys.modules[module]
            for part in name.split("."):
                found = getattr(found, part)
            if not ((module, name) in self._globals or self.allows(found)):
                raise UntrustedType(_untrusted(module, name))
            self._found[module, name] = found
        return found


def _untrusted(module: str, name: str) -> str:
    if module == "__main__":
        return (
            f"{module}.{name} lives in the program itself, which is another module after a restart: "
            "move it to a module of its own"
        )
    hint = " (for a numpy number store float(x) or int(x))" if module.startswith("numpy") else ""
    return (
        f"{module}.{name} is not trusted: declare the map with its type, state.map(name, {name.split('.')[-1]}), "
        f'or connect(..., trust=["{module}"]){hint}'
    )


class _Writer(pickle.Pickler):
    """Checks every global on its way into a pickle. Used by one thread at a time."""

    def __init__(self, trust: Trust, kinds: set[type]) -> None:
        self._chunks: list[bytes] = []
        self._trust = trust
        self._kinds = kinds
        self.fresh = False  # a type was pickled whose first value has not been read back yet
        super().__init__(_Sink(self._chunks.append), PROTOCOL)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if isinstance(obj, type | FunctionType | BuiltinFunctionType):
            if self._trust.allows(obj):
                return NotImplemented
            raise UntrustedType(_untrusted(str(obj.__module__), obj.__qualname__))
        if kind not in self._kinds:
            self.fresh = True
        if kind is ZoneInfo:  # its own __reduce__ needs builtins.getattr, which nobody may trust
            if obj.key is None:
                raise ValueRefused(f"{obj!r} has no key to be found by again")
            return ZoneInfo, (obj.key,)
        return _by_module.get(kind.__module__, _default)(obj)

    def write_value(self, value: Any) -> bytes:
        self.dump(value)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.reset()
        return data

    def reset(self) -> None:
        self._chunks.clear()
        self.clear_memo()


class _Sink:
    """A file whose write is list.append."""

    __slots__ = ("write",)

    def __init__(self, append: Callable[[bytes], None]) -> None:
        self.write = append


def _default(obj: Any) -> Any:
    return NotImplemented


def _reduce_path(obj: Any) -> Any:
    return restore_path, (str(obj), isinstance(obj, Path))


_by_module: dict[str, Callable[[Any], Any]] = {"pathlib": _reduce_path, "pathlib._local": _reduce_path}


class _Reader(pickle.Unpickler):
    """Loads what `Trust` allows."""

    def __init__(self, file: io.BytesIO, find_class: Callable[[str, str], Any]) -> None:
        super().__init__(file)
        self.find_class = find_class  # type: ignore[method-assign]


class ValueCodec:
    """Value <-> bytes under one `Trust`. Thread-safe; a pickler that is busy (threads, re-entry) is not shared."""

    def __init__(self, trust: Trust, verify: bool = False) -> None:
        self.trust = trust
        self._verify = verify
        self._kinds: set[type] = set()  # types whose first value was read back
        self._idle: list[_Writer] = []

    def dump(self, value: Any) -> bytes:
        """Pickle a value. Raises `UntrustedType`, `ValueRefused` or `ChangeTooLarge`; nothing is kept then."""
        try:
            writer = self._idle.pop()
        except IndexError:
            writer = _Writer(self.trust, self._kinds)
        try:
            data = writer.write_value(value)
            if writer.fresh or self._verify:
                writer.fresh = False
                self._read_back(value, data)
        except OutliveError:
            writer.reset()
            raise
        except Exception as error:
            writer.reset()
            raise ValueRefused(f"{_name(value)} can't be pickled: {type(error).__name__}: {error}") from error
        self._idle.append(writer)
        if len(data) > MAX_CHANGE_BYTES:
            raise ChangeTooLarge(f"a value of {len(data)} bytes is over the limit of {MAX_CHANGE_BYTES}")
        return data

    def load(self, data: bytes) -> Any:
        """The value. Raises `UntrustedType` or `ValueUnreadable`."""
        return self.load_stream(data, 1)[0]

    def load_stream(self, joined: bytes | memoryview, count: int) -> list[Any]:
        """`count` values whose pickles stand one behind the other. Raises `UntrustedType` or `ValueUnreadable`."""
        load = _Reader(io.BytesIO(joined), self.trust.find_class).load
        try:
            return [load() for _ in range(count)]
        except OutliveError:
            raise
        except Exception as error:
            raise ValueUnreadable(f"{type(error).__name__}: {error}") from error

    def _read_back(self, value: Any, data: bytes) -> None:
        kinds: set[type] = set()
        _collect_kinds(value, kinds)
        try:
            same = _same(self.load(data), value)
        except OutliveError as error:
            raise ValueRefused(f"{_name(value)} can be written but not read back: {error}") from error
        if not same:
            raise ValueRefused(f"{_name(value)} would not be read back equal")
        self._kinds |= kinds


def _collect_kinds(value: Any, kinds: set[type]) -> None:
    """The types in `value` that the pickler asks about, found by pickling once more and listening."""
    _Listener(kinds).dump(value)


class _Listener(pickle.Pickler):
    def __init__(self, kinds: set[type]) -> None:
        super().__init__(_Sink(_forget), PROTOCOL)
        self._kinds = kinds

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, type | FunctionType | BuiltinFunctionType):
            self._kinds.add(type(obj))
        if type(obj) is ZoneInfo:
            return ZoneInfo, (obj.key,)
        return _by_module.get(type(obj).__module__, _default)(obj)


def _forget(chunk: bytes) -> None:
    """The listener keeps nothing."""


def _same(a: Any, b: Any) -> bool:
    """Equal, of the same type, or at least of the same pickle (NaN is not equal to itself; some types have no ==)."""
    try:
        if type(a) is type(b) and bool(a == b):
            return True
    except Exception:  # a value that contains itself, or an == that returns an array
        pass
    try:
        return type(a) is type(b) and pickle.dumps(a, PROTOCOL) == pickle.dumps(b, PROTOCOL)
    except Exception:
        return False


def _name(value: Any) -> str:
    kind = type(value)
    return f"a value of type {kind.__module__}.{kind.__qualname__}"

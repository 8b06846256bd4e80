"""Which globals a pickle may name: one rule for writing and for reading.

Trusted are a fixed list of plain types, the classes of the modules that maps were declared with, and what the bot
named by `trust=`. Nothing is trusted because it happens to be imported, or because a pickle names it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from protocol.errors import UntrustedType, ValueRefused

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
        """Trust the module of a map's declared type; of every class in a generic or union such as dict[str, Tag].

        Of the standard library's modules only the class itself: nobody who writes `Any` means all of typing.
        """
        for part in getattr(declared, "__args__", ()):
            self.add_module_of(part)
        if isinstance(declared, type) and declared.__module__ != "builtins":
            of_stdlib = declared.__module__.partition(".")[0] in sys.stdlib_module_names
            by_itself = of_stdlib or declared.__module__ == "__main__"  # the latter is refused by its name
            self.add(declared if by_itself else declared.__module__)

    def allows(self, obj: Any) -> bool:
        """Whether a pickle may name `obj`, a class or a function."""
        if obj in self._seen:
            return True
        module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            return False
        if (module, name) not in self._globals and not (isinstance(obj, type) and module in self._modules):
            return False
        self._seen.add(obj)
        return True

    def check(self, obj: Any) -> Any:
        """NotImplemented ("pickle it as usual") for a class or function that is trusted. Raises `UntrustedType`."""
        if obj in self._seen or self.allows(obj):
            return NotImplemented
        raise UntrustedType(_untrusted(str(obj.__module__), obj.__qualname__, isinstance(obj, type)))

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global for a reader. Imports nothing that is not trusted. Raises `UntrustedType`."""
        found = self._found.get((module, name))
        if found is None:
            named = (module, name) in self._globals
            if not named and module not in self._modules:
                raise UntrustedType(_untrusted(module, name, True))
            __import__(module)
            found = sys.modules[module]
            for part in name.split("."):
                found = getattr(found, part)
            # A trusted module's namespace also holds what it imported: its own classes only.
            if not named and not (isinstance(found, type) and self.allows(found)):
                raise UntrustedType(_untrusted(module, name, isinstance(found, type)))
            self._found[module, name] = found
        return found


def _untrusted(module: str, name: str, is_class: bool) -> str:
    if module == "__main__":
        return (
            f"{module}.{name} lives in the program itself, which is another module after a restart: "
            "move it to a module of its own"
        )
    if not is_class:
        return f"{module}.{name} is a function, not data; if it must be stored: connect(..., trust=[{name}])"
    hint = " (for a numpy number store float(x) or int(x))" if module.partition(".")[0] == "numpy" else ""
    return (
        f"{module}.{name} is not trusted: declare the map with its type, state.map(name, {name.split('.')[-1]}), "
        f'or connect(..., trust=["{module}"]){hint}'
    )

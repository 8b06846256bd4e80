"""Arm kill points in this process: the environment names them, an import hook wraps the places they stand for.

    CHAOS_KILL_POINTS="journal.after_append=0.02,recovery.after_sync=0.3;seed=7"
    CHAOS_KILL_LOG=FILE         gets a line "name pid" before the process kills itself

The names have no OUTLIVE_ before them: the supervisor takes those variables from its children.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from tests.chaos.kill_points import POINTS, Point

POINTS_VARIABLE, LOG_VARIABLE = "CHAOS_KILL_POINTS", "CHAOS_KILL_LOG"
_DISK_MODULE = "protocol.disk"


def install() -> None:
    """Wrap what the environment names, as its modules are imported."""
    spec = os.environ.get(POINTS_VARIABLE)
    if spec:
        odds, seed = parse(spec)
        armed = {name: POINTS[name]._replace(odds=one) for name, one in odds.items()}
        sys.meta_path.insert(0, _ImportHook(Injector(armed, random.Random(f"{seed}/{os.getpid()}"), _die)))


def parse(spec: str) -> tuple[dict[str, float], str]:
    """ "a=0.5,b=1;seed=7" -> ({"a": 0.5, "b": 1.0}, "7"). Raises ValueError, KeyError for a name not in the table."""
    points, _, seed = spec.partition(";seed=")
    odds = {name: float(one) for name, _, one in (item.partition("=") for item in points.split(",") if item)}
    for name in odds:
        POINTS[name]
    return odds, seed


def _die(name: str) -> None:
    fd = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, f"{name} {os.getpid()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """A function with a point at a disk call is running; `calls` of that method so far."""

    def __init__(self, name: str, point: Point) -> None:
        self.name, self.point, self.calls = name, point, 0


class Injector:
    """Wraps functions, and calls `die(name)` where and when a point says so."""

    def __init__(self, armed: Mapping[str, Point], chance: random.Random, die: Callable[[str], None]) -> None:
        self._armed, self._chance, self._die = armed, chance, die
        self._here = threading.local()
        self._anywhere: list[Watch] = []

    @property
    def modules(self) -> set[str]:
        modules = {point.module for point in self._armed.values()}
        return modules | {_DISK_MODULE} if any(point.call for point in self._armed.values()) else modules

    def wrap_module(self, module: ModuleType) -> None:
        """Wrap what is armed in a module that was just imported."""
        by_function: dict[str, list[str]] = {}
        for name, point in self._armed.items():
            if point.module == module.__name__:
                by_function.setdefault(point.function, []).append(name)
        for function, names in by_function.items():
            replace(module, function, lambda original, names=names: self._around(original, names))
        if module.__name__ == _DISK_MODULE:
            for call in {point.call for point in self._armed.values() if point.call}:
                replace(module, f"Disk.{call}", lambda original, call=call: self._counted(original, call))

    def _around(self, original: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
        plain = [name for name in names if not self._armed[name].call]
        inside = [name for name in names if self._armed[name].call]

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._reach(plain, "before")
            watches = [Watch(name, self._armed[name]) for name in inside]
            lists = [self._anywhere if watch.point.any_thread else self._mine() for watch in watches]
            for watch, where in zip(watches, lists, strict=True):
                where.append(watch)
            try:
                result = original(*arguments, **named)
            finally:
                for watch, where in zip(watches, lists, strict=True):
                    where.remove(watch)
            self._reach(plain, "after")
            return result

        return wrapped

    def _counted(self, original: Callable[..., Any], call: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            reached = [watch.name for watch in self._watching() if self._is_due(watch, call)]
            self._reach(reached, "before")
            result = original(*arguments, **named)
            self._reach(reached, "after")
            return result

        return wrapped

    def _is_due(self, watch: Watch, call: str) -> bool:
        if watch.point.call != call:
            return False
        watch.calls += 1
        return watch.calls == watch.point.nth

    def _reach(self, names: Sequence[str], when: str) -> None:
        for name in names:
            point = self._armed[name]
            if point.when == when and self._chance.random() < point.odds:
                self._die(name)

    def _mine(self) -> list[Watch]:
        if not hasattr(self._here, "watches"):
            self._here.watches = []
        return self._here.watches  # type: ignore[no-any-return]

    def _watching(self) -> Iterator[Watch]:
        yield from list(self._mine())
        yield from list(self._anywhere)


def replace(module: ModuleType, function: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `make(original)` in the place of a function or method. Raises AttributeError, KeyError if it is not there."""
    *classes, name = function.split(".")
    owner: Any = functools.reduce(getattr, classes, module)
    original = vars(owner)[name]
    if isinstance(original, classmethod | staticmethod):
        setattr(owner, name, type(original)(make(original.__func__)))
    else:
        setattr(owner, name, make(original))


class _ImportHook(importlib.abc.MetaPathFinder):
    """Finds the modules of the armed points as everybody does, and has them wrapped when they are there."""

    def __init__(self, injector: Injector) -> None:
        self._injector, self._modules = injector, injector.modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader, self._injector)
        return spec


class _Wrapping(importlib.abc.Loader):
    def __init__(self, loader: Any, injector: Injector) -> None:
        self._loader, self._injector = loader, injector

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._injector.wrap_module(module)

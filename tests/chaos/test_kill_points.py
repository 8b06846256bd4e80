"""The kill points name real code, and kill where they say."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.disk import Disk
from tests.chaos.injection import LOG_VARIABLE, POINTS_VARIABLE, Injector, parse, replace
from tests.chaos.kill_points import POINTS, Point
from tests.chaos.lives import HOOK, ROOT

OURS = ("protocol.", "strategy_proc.", "persistence_proc.")


@pytest.mark.parametrize("name", POINTS)
def test_a_kill_point_stands_for_code_that_is_there(name: str) -> None:
    point = POINTS[name]
    module = importlib.import_module(point.module)
    found: list[Callable[..., Any]] = []
    replace(module, point.function, lambda original: found.append(original) or original)
    assert callable(found[0])
    assert not point.call or point.any_thread or point.call in reachable(module, point.function), (
        f"{name}: {point.function} makes no call of Disk.{point.call}"
    )


@functools.cache
def called_by(function: Callable[..., Any]) -> frozenset[str]:
    """The names that a function calls."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return frozenset(call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls)


def reachable(module: ModuleType, function: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Names that a function calls, also through its own module's functions, its class and `Disk`'s short runs."""
    owner: Any = module
    for part in function.split("."):
        holder, owner = owner, getattr(owner, part)
    names = called_by(getattr(owner, "__func__", owner))
    found = set(names)
    for name in names - seen:
        for place in (holder, module, Disk, *_attributes(module)):
            known = inspect.getattr_static(place, name, None)
            known = getattr(known, "__func__", known)
            if inspect.isfunction(known) and known.__module__.startswith(OURS):
                found |= reachable(sys.modules[known.__module__], known.__qualname__, seen | names)
    return found


def _attributes(module: ModuleType) -> list[type]:
    """Classes that a module uses by their methods."""
    return [
        one for one in vars(module).values() if inspect.isclass(one) and one.__module__.startswith("strategy_proc.")
    ]


class Work:
    """What the tests wrap."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self) -> None:
        for n in range(3):
            self.call(n)

    def call(self, n: int) -> None:
        self.done.append(str(n))


def died_at(**settings: Any) -> list[str]:
    """What `Work.run` had done when it died at this point."""

    class Dead(Exception):
        pass

    def die(name: str) -> None:
        raise Dead

    module = ModuleType("a_module")
    module.Work = type("Work", (Work,), dict(vars(Work)))  # type: ignore[attr-defined]
    point = Point("a_module", "Work.run", odds=1.0, **settings)
    injector = Injector({"here": point}, random.Random(1), die)
    injector.wrap_module(module)
    replace(module, "Work.call", lambda original: injector._counted(original, "call"))
    work = module.Work()
    with pytest.raises(Dead):
        work.run()
    return work.done  # type: ignore[no-any-return]


def test_a_point_is_before_or_after_a_function_or_its_nth_call() -> None:
    assert died_at(when="before") == []
    assert died_at(when="after") == ["0", "1", "2"]
    assert died_at(when="before", call="call", nth=2) == ["0"]
    assert died_at(when="after", call="call", nth=2) == ["0", "1"]
    assert died_at(when="after", call="call", any_thread=True) == ["0"]


def test_a_specification_names_points_odds_and_a_seed() -> None:
    assert parse("journal.after_append=0.02,recovery.after_sync=1;seed=7") == (
        {"journal.after_append": 0.02, "recovery.after_sync": 1.0},
        "7",
    )
    with pytest.raises(KeyError):
        parse("journal.after_lunch=1;seed=7")


def test_a_process_kills_itself_where_its_environment_says_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = os.environ | {
        "PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}",
        POINTS_VARIABLE: "recovery.store_written=1;seed=1",
        LOG_VARIABLE: str(log),
    }
    script = "import sys; from protocol.disk import Disk; from persistence_proc.recovery import recover; "
    command = [sys.executable, "-c", script + "recover(Disk(), sys.argv[1])", str(tmp_path / "state")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert log.read_text().split()[0] == "recovery.store_written"
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["STORE.tmp", "journal"]

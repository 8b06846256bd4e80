"""From the configuration to what is started: one `Program` each, in the stages in which they are started.

A stage waits for the one before it: persistence, services, strategies. They are stopped in the opposite order, so
that strategies can still flush while persistence is there.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Literal

import msgspec

from protocol.errors import ConfigError
from supervisor.config import (
    PERSISTENCE,
    Config,
    PersistenceSettings,
    ProgramSettings,
    ServiceSettings,
    StrategySettings,
    size_in_bytes,
)

MARK_VARIABLE = "OUTLIVE_SUPERVISOR"
"""In the environment of every child and its children: the id of the run directory; what the sweep looks for."""

_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})
"""By these systemd speaks with the supervisor; a child that used them would speak in its name."""

OUR_PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of ours. -P: the user's directory is not searched, so a `protocol.py` that lies there is not taken
for ours, and looking at a directory executes nothing that is in it."""

Kind = Literal["persistence", "service", "strategy"]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to start, and how to treat it. Times in seconds, sizes in bytes."""

    name: str
    kind: Kind
    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    namespace: str | None = None
    restart: Literal["always", "on-failure", "never"] = "always"
    done_exit_codes: frozenset[int] = frozenset()
    memory_limit: int | None = None
    watchdog: float | None = None
    start_timeout: float | None = None
    spare: bool = False
    """Whether its next process is started ahead; and what that has imported when it waits."""
    preload: list[str] = []
    stop_timeout: float
    says_ready: bool
    """Whether it counts as running only when it says so."""
    holds_up_start: bool
    """Whether the next stage waits until it is ready."""

    def is_done(self, exit_code: int) -> bool:
        """Whether a process that ended so, unasked, is not to be started again."""
        if self.restart == "never" or exit_code in self.done_exit_codes:
            return True
        return self.restart == "on-failure" and exit_code == 0


def stages(config: Config, mark: str, environ: Mapping[str, str] = os.environ) -> list[list[Program]]:
    """[[persistence], services, strategies]. Raises `ConfigError` for a command that does not exist."""
    base = base_environment(mark, environ)
    built = [
        [_persistence(config.persistence, base)],
        [_service(config, name, settings, base) for name, settings in config.services.items()],
        [_strategy(config, name, settings, base) for name, settings in config.strategies.items()],
    ]
    for program in [program for stage in built for program in stage]:
        _check_command(program)
    if config.hooks.command and _which(config.hooks.command[0], None, base["PATH"]) is None:
        raise ConfigError(f"hooks.command: there is no program {config.hooks.command[0]!r} that can be executed")
    return built


def base_environment(mark: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Ours, without what is meant for the supervisor alone."""
    base = {k: v for k, v in environ.items() if k not in _SYSTEMD and not k.startswith("OUTLIVE_")}
    base |= {MARK_VARIABLE: mark, "PYTHONFAULTHANDLER": "1"}  # stacks of a hung child go to its log
    base.setdefault("PYTHONUNBUFFERED", "1")  # the last words of a killed child are in its log too
    base["PATH"] = _with_our_interpreter(base.get("PATH", os.defpath))
    return base


def _persistence(settings: PersistenceSettings, base: dict[str, str]) -> Program:
    argv = [*(settings.command or [*OUR_PYTHON, "persistence_proc"]), "--data-dir", settings.data_dir]
    for option in ("runtime_dir", "endpoint", "curve_dir", "log_level"):
        value = getattr(settings, option)
        if option == "runtime_dir" and settings.endpoint is not None:
            continue  # then it holds the supervisor's sockets only
        if value is not None:
            argv += [f"--{option.replace('_', '-')}", value]
    return Program(
        name=PERSISTENCE,
        kind="persistence",
        argv=argv,
        env=base | settings.env,
        cwd=None,
        start_timeout=settings.start_timeout,
        stop_timeout=settings.stop_timeout,
        says_ready=True,
        holds_up_start=True,
    )


def _service(config: Config, name: str, settings: ServiceSettings, base: dict[str, str]) -> Program:
    ours = _locations(config.persistence)
    return _program(name, "service", settings, base | settings.env | ours, waits=settings.wait_ready)


def _strategy(config: Config, name: str, settings: StrategySettings, base: dict[str, str]) -> Program:
    namespace = settings.namespace or name
    ours = _locations(config.persistence) | {"OUTLIVE_NAMESPACE": namespace}
    program = _program(name, "strategy", settings, base | settings.env | ours, waits=False)
    spare = settings.entry is not None and settings.spare is not False and settings.restart != "never"
    return msgspec.structs.replace(
        program, namespace=namespace, says_ready=True, spare=spare, preload=settings.preload if spare else []
    )


def _locations(settings: PersistenceSettings) -> dict[str, str]:
    """Where a child finds the persistence process; without an endpoint its data directory tells."""
    found = {"OUTLIVE_DATA_DIR": settings.data_dir}
    if settings.endpoint is not None:
        found["OUTLIVE_ENDPOINT"] = settings.endpoint
    if settings.curve_dir is not None:
        found["OUTLIVE_CURVE_DIR"] = settings.curve_dir
    return found


def _program(name: str, kind: Kind, settings: ProgramSettings, env: dict[str, str], *, waits: bool) -> Program:
    limit = settings.memory_limit
    return Program(
        name=name,
        kind=kind,
        argv=settings.command or [*OUR_PYTHON, "supervisor.entry", str(settings.entry)],
        env=env,
        cwd=settings.cwd,
        restart=settings.restart,
        done_exit_codes=frozenset(settings.done_exit_codes),
        memory_limit=None if limit is None else size_in_bytes(f"{kind} {name}: memory_limit", limit),
        watchdog=settings.watchdog,
        start_timeout=settings.start_timeout,
        stop_timeout=settings.stop_timeout,
        says_ready=waits,
        holds_up_start=waits,
    )


def _check_command(program: Program) -> None:
    """Better one line before the start than a program that dies ten times. Raises `ConfigError`."""
    key = PERSISTENCE if program.kind == "persistence" else _table(program)
    if program.cwd is not None and not os.path.isdir(program.cwd):
        raise ConfigError(f"{key}.cwd: there is no directory {program.cwd}")
    command = program.argv[0]
    if _which(command, program.cwd, program.env.get("PATH")) is None:
        raise ConfigError(f"{key}.command: there is no program {command!r} that can be executed")
    script = script_of(program.argv)
    if script is not None and not os.path.isfile(os.path.join(program.cwd or ".", script)):
        raise ConfigError(f"{key}.command: there is no script {script!r} in {program.cwd or os.getcwd()}")


def script_of(argv: list[str]) -> str | None:
    """["python", "-u", "bot.py", ...] -> "bot.py"; None where Python is not asked to run a .py file."""
    if not re.fullmatch(r"(python|pypy)[\d.]*", os.path.basename(argv[0])):
        return None
    for argument in argv[1:]:
        if argument.endswith(".py"):
            return argument
        if re.fullmatch(r"-[A-Za-z]*[cm].*", argument) and not re.match(r"-[WX]", argument):
            return None  # code or a module: what follows is its own
    return None


def _with_our_interpreter(path: str) -> str:
    """So that "python" in a command is the one that has Outlive, although no virtual environment is activated."""
    folder = os.path.dirname(sys.executable)
    return path if folder in path.split(os.pathsep) else folder + os.pathsep + path


def _table(program: Program) -> str:
    return f"{'services' if program.kind == 'service' else 'strategies'}.{program.name}"


def _which(command: str, cwd: str | None, path: str | None) -> str | None:
    if os.path.dirname(command):
        return shutil.which(os.path.join(cwd or ".", command))
    return shutil.which(command, path=path)

"""outlive.toml: what the user writes. Everything is checked before anything is started.

    [persistence]              # where the state is
    data_dir = "state"         # relative paths are relative to this file

    [services.exchange]        # other processes, started before the strategies
    command = ["python", "-m", "demo.exchange"]

    [strategies.momentum]      # one table a bot; the namespace is its name unless it says otherwise
    command = ["python", "momentum.py"]     # or: entry = "bots.momentum:main"
    watchdog = 30

An unknown key, a wrong type or an impossible value raises `ConfigError`: one line that names the key.
Times are seconds, sizes bytes or text such as "512MiB".
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal, TypeVar, get_args

import msgspec

from protocol.endpoints import parse_endpoint
from protocol.errors import BadName, ConfigError, SocketPathTooLong
from protocol.names import check_namespace
from supervisor.hook_settings import HookEvent, HookSettings, check_hooks, hooks_in
from supervisor.toml_lines import line_of

PERSISTENCE = "persistence"
"""The name of the persistence process among the programs; no strategy or service may have it."""
SUPERVISOR = "outlive"
EVENTS = "events"
"""The names of the supervisor's own logs; no program may have them either."""

LogLevel = Literal["debug", "info", "warning", "error"]
Restart = Literal["always", "on-failure", "never"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "log_level": get_args(LogLevel),
    "restart": get_args(Restart),
    "on": get_args(HookEvent),
}
"""What can be chosen for the keys of these names: msgspec does not say it."""

RUN_DIR_NAME = "supervisor.d"
_ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SIZE = re.compile(r"(\d{1,18})\s*([KMG]i?B|B)?")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1, None: 1}


class PersistenceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The persistence process."""

    data_dir: str = "state"
    runtime_dir: str | None = None
    """Where sockets live, if not in the data directory (a socket path may have 107 bytes)."""
    endpoint: str | None = None
    """ipc:///directory or tcp://host:port, if not sockets in the runtime directory."""
    curve_dir: str | None = None
    log_level: LogLevel | None = None
    command: list[str] = []
    """Another program than `python -m persistence_proc`; gets the same arguments."""
    env: dict[str, str] = {}
    start_timeout: float | None = None
    """Longest silence before it is ready; a recovery says how far it is."""
    stop_timeout: float = 60.0
    """It writes everything that is dirty before it leaves."""


class ProgramSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What strategies and services have in common."""

    command: list[str] = []
    entry: str | None = None
    """"module:function", instead of a command."""
    restart: Restart = "on-failure"
    done_exit_codes: list[int] = []
    """Exit codes that mean "done, don't restart me"; with "on-failure" 0 is always one."""
    env: dict[str, str] = {}
    cwd: str | None = None
    memory_limit: int | str | None = None
    """Resident bytes above which it is stopped and started again."""
    watchdog: float | None = None
    """Longest silence of `beat` once it is ready."""
    start_timeout: float | None = None
    """Longest silence before it is ready. Not for programs that never say so."""
    stop_timeout: float = 10.0
    """From SIGTERM to SIGKILL."""


S = TypeVar("S", bound=ProgramSettings)


class StrategySettings(ProgramSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bot."""

    namespace: str | None = None
    preload: list[str] = []
    """Libraries that its spare has imported, beside Outlive's own; never modules of its own."""
    spare: bool | None = None
    """Whether the next process of an entry is started ahead. Default: yes."""


class ServiceSettings(ProgramSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another process that the strategies need."""

    wait_ready: bool = False
    """It says `ready` (`protocol.notify`); the strategies wait for it."""


class RestartSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How eagerly a dead program is started again; see `supervisor.restart_policy`."""

    backoff_first: float = 0.5
    backoff_max: float = 30.0
    stable_after: float = 10.0
    """A life of so many seconds forgives the deaths before it: the next restart is at once."""
    limit: int = 10
    """So many deaths within `window` are FATAL."""
    window: float = 60.0
    fatal_retry: float = 300.0
    """Between tries of a program that is FATAL."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The supervisor itself."""

    log_dir: str | None = None
    """Default: DATA_DIR/supervisor.d/logs."""
    log_bytes: int = 10 * 2**20
    """A log file is rotated at this size."""
    log_files: int = 5
    """Old log files kept of each program."""
    exit_when_done: bool = False
    """Leave when every strategy is done."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of outlive.toml; its directories are absolute."""

    persistence: PersistenceSettings = PersistenceSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    restart: RestartSettings = RestartSettings()
    hooks: HookSettings = HookSettings()
    services: dict[str, ServiceSettings] = {}
    strategies: dict[str, StrategySettings] = {}

    @property
    def run_dir(self) -> str:
        """The supervisor's own folder; the dot keeps its name from being a namespace's."""
        return os.path.join(self.persistence.runtime_dir or self.persistence.data_dir, RUN_DIR_NAME)

    @property
    def log_dir(self) -> str:
        return self.supervisor.log_dir or os.path.join(self.run_dir, "logs")


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read and check a file. Raises `ConfigError`."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: {error.strerror}") from None
    try:
        return parse_config(data, os.path.dirname(os.path.abspath(path)))
    except ConfigError as error:
        line = line_of(data.decode("utf-8", "replace"), str(error))
        raise ConfigError(f"{os.fspath(path)}{f', line {line}' if line else ''}: {error}") from None


def parse_config(data: bytes | str, folder: str) -> Config:
    """Check the text of a configuration whose relative paths start at `folder`. Raises `ConfigError`."""
    try:
        tables = msgspec.toml.decode(data)
        _check_texts(tables, "")
        _check_types_of_programs(tables)
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_with_key(str(error))) from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes that are no text, a number without end
        raise ConfigError(f"no TOML: {error}") from None
    except RecursionError:
        raise ConfigError("no configuration: it is nested too deeply") from None
    return check_config(config, folder)


def check_config(config: Config, folder: str) -> Config:
    """The same with absolute directories. Raises `ConfigError` for what types alone don't tell."""
    _check_persistence(config.persistence)
    _check_numbers("restart", config.restart, ("backoff_first", "backoff_max", "limit", "window", "fatal_retry"))
    _check_numbers("supervisor", config.supervisor, ("log_bytes",))
    check_hooks(config.hooks)
    namespaces: dict[str, str] = {}
    for name, strategy in config.strategies.items():
        key = f"strategies.{name}"
        _check_program(key, name, strategy)
        _check_spare(key, strategy)
        namespace = _checked_namespace(f"{key}.namespace", strategy.namespace or name)
        if namespace in namespaces:
            raise ConfigError(f"{key}.namespace: {namespace!r} belongs to strategies.{namespaces[namespace]} already")
        namespaces[namespace] = name
    for name, service in config.services.items():
        _check_program(f"services.{name}", name, service)
        if name in config.strategies:
            raise ConfigError(f"services.{name}: there is a strategy of this name; names must differ")
    return _with_absolute_paths(config, folder)


def size_in_bytes(key: str, size: int | str) -> int:
    """1048576, "1048576" or "1MiB" -> 1048576. Raises `ConfigError`."""
    match = _SIZE.fullmatch(str(size).strip())
    bytes_ = int(match[1]) * _UNITS[match[2]] if match else 0
    if bytes_ <= 0:
        raise ConfigError(f'{key}: {size!r} is no size; write bytes or text such as "512MiB"')
    return bytes_


def _check_persistence(settings: PersistenceSettings) -> None:
    _check_numbers(PERSISTENCE, settings, ("start_timeout", "stop_timeout"))
    if not settings.data_dir:
        raise ConfigError("persistence.data_dir: must not be empty")
    if settings.endpoint is not None:
        try:
            parse_endpoint(settings.endpoint)
        except (ConfigError, SocketPathTooLong) as error:
            raise ConfigError(f"persistence.endpoint: {error}") from None


def _check_program(key: str, name: str, settings: ProgramSettings) -> None:
    _checked_namespace(key, name)
    if name == PERSISTENCE:
        raise ConfigError(f"{key}: {PERSISTENCE!r} is the name of the persistence process")
    if name in (SUPERVISOR, EVENTS):
        raise ConfigError(f"{key}: {name!r} is the name of the supervisor's own log")
    if settings.command and settings.entry:
        raise ConfigError(f"{key}: has both a command and an entry; it needs one of them, not both")
    if not settings.command and not settings.entry:
        raise ConfigError(f'{key}: needs either a command (["python", "bot.py"]) or an entry ("module:function")')
    if settings.command and not settings.command[0]:
        raise ConfigError(f"{key}.command: the program's name is empty")
    if settings.entry is not None and not _ENTRY.fullmatch(settings.entry):
        raise ConfigError(f'{key}.entry: {settings.entry!r} is not of the form "module:function"')
    if settings.memory_limit is not None:
        size_in_bytes(f"{key}.memory_limit", settings.memory_limit)
    for variable in settings.env:
        if not variable or "=" in variable:
            raise ConfigError(f"{key}.env: {variable!r} can't name a variable")
        if variable.startswith("OUTLIVE_"):
            raise ConfigError(f"{key}.env.{variable}: OUTLIVE_ variables are the supervisor's to set")
    _check_numbers(key, settings, ("watchdog", "start_timeout", "stop_timeout"))


def _check_spare(key: str, settings: StrategySettings) -> None:
    """A spare that had imported anything of the strategy would be half a second bot, with code of yesterday."""
    if settings.entry is None:
        for field, value in (("preload", settings.preload), ("spare", settings.spare)):
            if value:
                raise ConfigError(f'{key}.{field}: only an entry ("module:function") can have a spare, not a command')
        return
    package = settings.entry.partition(":")[0].partition(".")[0]
    for library in settings.preload:
        if not _MODULE.fullmatch(library):
            raise ConfigError(f"{key}.preload: {library!r} is not the name of a module")
        if library.partition(".")[0] == package:
            raise ConfigError(f"{key}.preload: {library!r} belongs to the strategy itself; preload is for libraries")


def _check_numbers(key: str, settings: msgspec.Struct, positive: tuple[str, ...]) -> None:
    for field in positive:
        value = getattr(settings, field)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{key}.{field}: {value} must be more than 0, and finite")


def _checked_namespace(key: str, name: str) -> str:
    try:
        return check_namespace(name)
    except BadName as error:
        raise ConfigError(f"{key}: {error}") from None


def _with_absolute_paths(config: Config, folder: str) -> Config:
    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.normpath(os.path.join(folder, os.path.expanduser(path)))

    persistence = msgspec.structs.replace(
        config.persistence,
        data_dir=absolute(config.persistence.data_dir),
        runtime_dir=absolute(config.persistence.runtime_dir),
        curve_dir=absolute(config.persistence.curve_dir),
    )
    return msgspec.structs.replace(
        config,
        persistence=persistence,
        supervisor=msgspec.structs.replace(config.supervisor, log_dir=absolute(config.supervisor.log_dir)),
        hooks=hooks_in(config.hooks, folder),
        services={name: _in_folder(service, folder) for name, service in config.services.items()},
        strategies={name: _in_folder(strategy, folder) for name, strategy in config.strategies.items()},
    )


def _in_folder(settings: S, folder: str) -> S:
    return msgspec.structs.replace(settings, cwd=os.path.normpath(os.path.join(folder, settings.cwd or ".")))


def _check_texts(value: Any, key: str) -> None:
    """Argument, variable or path: none can hold a zero byte, and the system says so only when it is used."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name, f"{key}.{name}".lstrip("."))
            _check_texts(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, key)
    elif isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{key!r}: a text with a zero byte in it")


def _check_types_of_programs(tables: dict[str, Any]) -> None:
    """One by one: for a table in a table msgspec tells the path, but not the name."""
    for kind, type_ in (("services", ServiceSettings), ("strategies", StrategySettings)):
        programs = tables.get(kind)
        for name, settings in programs.items() if isinstance(programs, dict) else ():
            try:
                msgspec.convert(settings, type_)
            except msgspec.ValidationError as error:
                raise ConfigError(_with_key(str(error), f"{kind}.{name}")) from None


def _with_key(message: str, prefix: str = "") -> str:
    """msgspec's "Expected `int`, got `str` - at `$.restart.limit`" -> "restart.limit: Expected `int`, got `str`"."""
    what, _, path = message.partition(" - at `$")
    key = (prefix + path.rstrip("`")).lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"{key + '.' if key else ''}{unknown[1]}: unknown key"
    no_choice = re.fullmatch(r"Invalid enum value ('.*')", what, re.DOTALL)
    choices = _CHOICES.get(key.rpartition(".")[2].partition("[")[0])
    if no_choice and choices:
        what = f"{no_choice[1]} is none of {', '.join(choices)}"
    return f"{key or 'the file'}: {what}"

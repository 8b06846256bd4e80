"""Which supervisor is meant: the options, configuration and answer that all commands of the command line share."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from typing import Any

import click

from protocol.errors import ConfigError
from supervisor.config import (
    Config,
    PersistenceSettings,
    StrategySettings,
    SupervisorSettings,
    check_config,
    load_config,
)
from supervisor.control import Answer, Command, Refused, RunDir, ask
from supervisor.elsewhere import running

CONFIG_FILE = "outlive.toml"


def place(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which supervisor is meant."""
    command = click.option("--config", "config_path", help=f"default: {CONFIG_FILE}, if there is one")(command)
    return click.option("--data-dir", help="instead of a configuration; default: state")(command)


def ask_at(config_path: str | None, data_dir: str | None, command: Command) -> Answer:
    """Its answer. Raises `ClickException` for a refusal, `PersistenceUnavailable` when none runs there."""
    return ask_in(run_dir_at(config_path, data_dir), command)


def ask_in(run_dir: RunDir, command: Command) -> Answer:
    """The same of the supervisor in `run_dir`."""
    answer = ask(run_dir, command)
    if isinstance(answer, Refused):
        raise click.ClickException(answer.message)
    return answer


def run_dir_at(config_path: str | None, data_dir: str | None) -> RunDir:
    """Where the supervisor is that the options mean: one that was started before the data directory was changed in its
    configuration serves the old place. Raises `ConfigError`."""
    run_dir = RunDir(config_at(config_path, data_dir).run_dir)
    file = config_path or CONFIG_FILE
    if data_dir is None and os.path.exists(file) and run_dir.is_free():
        return running(file) or run_dir
    return run_dir


def config_at(config_path: str | None, data_dir: str | None) -> Config:
    """What the options mean. Raises `ConfigError`."""
    if config_path is not None and data_dir is not None:
        raise click.UsageError("either --config or --data-dir, not both")
    if config_path is not None or (data_dir is None and os.path.exists(CONFIG_FILE)):
        return load_config(config_path or CONFIG_FILE)
    return check_config(Config(persistence=PersistenceSettings(data_dir=_default_data_dir(data_dir))), os.getcwd())


def single(argv: list[str], data_dir: str | None, namespace: str | None) -> Config:
    """The configuration of `outlive run -- argv`. Raises `ConfigError`."""
    if not argv:
        raise ConfigError("there is no command behind --")
    name = namespace or script_name(argv)
    config = Config(
        persistence=PersistenceSettings(data_dir=_default_data_dir(data_dir)),
        supervisor=SupervisorSettings(exit_when_done=True),
        strategies={name: StrategySettings(command=argv)},
    )
    return check_config(config, os.getcwd())


def script_name(argv: list[str]) -> str:
    """["python", "-u", "bots/my bot.py"] -> "my_bot"; the module after -m; else the program's own name."""
    name = os.path.basename(argv[0])
    for before, argument in itertools.pairwise(argv):
        if argument.endswith(".py") or before == "-m":
            name = os.path.basename(argument).removesuffix(".py").rpartition(".")[2]
            break
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-")[:63] or "bot"


def _default_data_dir(data_dir: str | None) -> str:
    return data_dir or os.environ.get("OUTLIVE_DATA_DIR") or "state"

"""Where the state lies: in `--data-dir`, or where the configuration of a supervisor says (`--config`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import msgspec
from click.core import ParameterSource

from protocol.errors import ConfigError


class Place(NamedTuple):
    """A data directory, and the folder of our CURVE keys if there is one."""

    data_dir: str
    curve_dir: str | None


class _Persistence(msgspec.Struct, frozen=True):
    data_dir: str = "state"
    curve_dir: str | None = None


class _Config(msgspec.Struct, frozen=True):
    """The part of a configuration that we need; the supervisor checks all of it."""

    persistence: _Persistence = _Persistence()


def place(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where the state lies; `find_place` reads them."""
    command = click.option(
        "--config", "config_path", metavar="FILE", help="Where the state lives is said there, as in outlive.toml."
    )(command)
    return click.option("--data-dir", envvar="OUTLIVE_DATA_DIR", metavar="DIR", help="Where the state lives.")(command)


def find_place(data_dir: str | None, config_path: str | None, curve_dir: str | None = None) -> Place:
    """What was typed comes first, then a configuration that was named, then the environment.

    Of the command that click is running. Raises `ConfigError`, and click's UsageError for two places: which one is
    meant nobody knows, and `forget` deletes for good.
    """
    if config_path is None:
        if data_dir is None:
            raise click.UsageError("Missing option '--data-dir' (or '--config').")
        return Place(data_dir, curve_dir)
    if _was_typed("data_dir"):
        raise click.UsageError("either --config or --data-dir, not both")
    found = _read(config_path).persistence
    folder = os.path.dirname(os.path.abspath(config_path))
    keys = None if _was_typed("curve_dir") else found.curve_dir
    return Place(_under(folder, found.data_dir), curve_dir if keys is None else _under(folder, keys))


def _was_typed(parameter: str) -> bool:
    """Whether it was among the arguments, not in the environment. (`outlive` adds no `--data-dir` to a `--config`.)"""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def _read(path: str) -> _Config:
    try:
        with open(path, "rb") as file:
            return msgspec.toml.decode(file.read(), type=_Config)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: no text, a number without end
        raise ConfigError(f"{path}: {error}") from None


def _under(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))

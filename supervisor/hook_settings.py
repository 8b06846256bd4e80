"""[hooks] of outlive.toml: who is told when something happens that a person should know.

[hooks]
command = ["notify-send", "a bot is in trouble"]      # and/or:
webhook = "https://example.org/alert"
on = ["fatal", "hang"]
"""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from protocol.errors import ConfigError

HookEvent = Literal[
    "fatal",
    "hang",
    "degraded",
    "persistence-down",
    "persistence-up",
    "persistence-refused",
    "disk-full",
    "exit",
    "restart",
    "memory-warning",
    "overweight",
    "start-timeout",
    "start-failed",
]


class HookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command, a webhook, both or neither."""

    command: list[str] = []
    """Gets the event as JSON on its standard input, and in OUTLIVE_EVENT_ variables."""
    webhook: str | None = None
    """An URL to which the event is POSTed as JSON."""
    on: tuple[HookEvent, ...] = ("fatal", "hang", "degraded", "persistence-down", "disk-full")
    timeout: float = 10.0
    """Seconds after which a hook is killed."""
    interval: float = 10.0
    """Seconds between two hooks for the same event of the same program; what comes between is counted."""


def check_hooks(settings: HookSettings) -> None:
    """Raises `ConfigError`."""
    for field in ("timeout", "interval"):
        value = getattr(settings, field)
        if not 0 < value < float("inf"):
            raise ConfigError(f"hooks.{field}: {value} must be more than 0, and finite")
    if settings.command and not settings.command[0]:
        raise ConfigError("hooks.command: the program's name is empty")
    if settings.webhook is not None and not _is_url(settings.webhook):
        raise ConfigError(f"hooks.webhook: {settings.webhook!r} is no http:// or https:// URL")


def hooks_in(settings: HookSettings, folder: str) -> HookSettings:
    """The same with a command that is found from anywhere: "./page-me" is beside the configuration."""
    if not settings.command or not os.path.dirname(settings.command[0]):
        return settings
    program = os.path.normpath(os.path.join(folder, os.path.expanduser(settings.command[0])))
    return msgspec.structs.replace(settings, command=[program, *settings.command[1:]])


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False

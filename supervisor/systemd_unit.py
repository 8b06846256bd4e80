"""`outlive systemd`: a unit by which systemd starts a configuration at boot, watches it and starts it again.

docs/supervision.md gives the reason of each line.
"""

from __future__ import annotations

import os
import pwd
import re
import sys

from protocol.errors import ConfigError
from supervisor.config import Config

_SPARE_SECONDS = 30
"""Beyond the sum of all stop waits: the supervisor itself, a disk that is slow to sync."""
_NAME = re.compile(r"[^A-Za-z0-9_-]")

_UNIT = """\
# Made by `outlive systemd`; the reason of each line is in docs/supervision.md.
[Unit]
Description=Outlive: {description}
{order}StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={folder}
{user}Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2
WatchdogSec=30
TimeoutStartSec=90
TimeoutStopSec={stop}
KillMode=mixed
OOMPolicy=continue
LimitNOFILE=65536
TasksMax=infinity
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
{hardening}
[Install]
WantedBy={wanted}
"""
_SYSTEM_HARDENING = """\
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
"""


def unit_text(config: Config, path: str, *, system: bool, user: str | None = None) -> str:
    """The unit for the configuration in the file `path`. Raises `ConfigError`."""
    path = os.path.abspath(path)
    for text in (path, sys.executable):
        if any(not letter.isprintable() for letter in text):
            raise ConfigError(f"{text!r}: a unit can't name a path with a control character in it")
    command = " ".join(quoted(part) for part in (sys.executable, "-P", "-m", "supervisor", "run", path))
    return _UNIT.format(
        description=_percent(path),
        order="Wants=network-online.target\nAfter=network-online.target\n" if system else "",
        command=command,
        folder=_percent(os.path.dirname(path)),
        user=f"User={user or _owner(path)}\n" if system else "",
        stop=stop_seconds(config),
        hardening=_SYSTEM_HARDENING if system else "",
        wanted="multi-user.target" if system else "default.target",
    )


def stop_seconds(config: Config) -> int:
    """More than the sum of all stop waits: a stop that is in order is never cut short by systemd."""
    programs = [*config.strategies.values(), *config.services.values()]
    waits = config.persistence.stop_timeout + sum(program.stop_timeout for program in programs)
    return int(waits) + 1 + _SPARE_SECONDS


def save(text: str, path: str, *, force: bool) -> None:
    """Raises `ConfigError` for a file that is there, `OSError`."""
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(path, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; --force overwrites it") from None


def unit_name(path: str) -> str:
    """/home/x/my bots/outlive.toml -> "outlive-my_bots.service"; another file's own name comes with it."""
    folder, file = os.path.split(os.path.abspath(path))
    stem = file.removesuffix(".toml")
    words = [os.path.basename(folder) or "root"] if stem == "outlive" else [os.path.basename(folder) or "root", stem]
    return _NAME.sub("_", "-".join(["outlive", *words]))[:200] + ".service"


def unit_path(name: str, *, system: bool) -> str:
    """Where systemd looks for it."""
    return f"/etc/systemd/system/{name}" if system else os.path.expanduser(f"~/.config/systemd/user/{name}")


def steps(name: str, *, system: bool) -> list[str]:
    """What a person does with it, once it is in its place."""
    how = "sudo systemctl" if system else "systemctl --user"
    found = [f"{how} daemon-reload", f"{how} enable --now {name}"]
    return found if system else [*found, "loginctl enable-linger    # so that it also runs while nobody is logged in"]


def quoted(text: str) -> str:
    """An argument of ExecStart: percent and dollar doubled, quoted in systemd's way."""
    return '"' + _percent(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _owner(path: str) -> str:
    """Whose configuration it is. Raises `ConfigError`."""
    try:
        return pwd.getpwuid(os.stat(path).st_uid).pw_name
    except KeyError:
        raise ConfigError(f"{path}: its owner has no name here; say --user-name") from None

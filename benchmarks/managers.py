"""Managers that start a killed worker again: ours, circus and supervisord, each as its own process.

Each runs the same command, and writes into a folder of its own. None outlives us, however we end. supervisord lives
in a virtual environment of its own, as its package has the name of one of ours.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

from benchmarks.child import ROOT
from benchmarks.restarted import NOTES_VARIABLE, RECORDS_VARIABLE
from strategy_proc.connecting import DATA_DIR_VARIABLE, NAMESPACE_VARIABLE
from supervisor import launcher

COMMAND = [sys.executable, "-m", "benchmarks.restarted"]
ENTRY = "benchmarks.restarted:main"
PATIENCE = 60.0  # seconds for a manager to end its worker and itself
LOG = "output.log"
OF_ITS_OWN = Path(sys.prefix, "supervisord")
"""The virtual environment in which `make bench` installs supervisord."""


class Bot(NamedTuple):
    """The worker of one row."""

    name: str
    """Its namespace, too."""
    records: int
    notes: str
    """The socket where it says that it has put."""

    @property
    def env(self) -> dict[str, str]:
        return {NOTES_VARIABLE: self.notes, RECORDS_VARIABLE: str(self.records)}

    def full_env(self, data_dir: str) -> dict[str, str]:
        """With what our supervisor would set."""
        return {**self.env, NAMESPACE_VARIABLE: self.name, DATA_DIR_VARIABLE: data_dir}


class Manager:
    """A running one. Ended with the block, and whatever it has started with it."""

    def __init__(self, argv: Sequence[str], folder: str, **env: str) -> None:
        self._log = Path(folder, LOG)
        dies_with_us = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), "--"]
        with open(self._log, "wb") as log:  # a session of its own: Ctrl-C is ours, and we end it in order
            self._process = subprocess.Popen(
                [*dies_with_us, *argv], cwd=folder, env=plain_env(env), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.process = psutil.Process(self._process.pid)

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.family()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            family += self.family()
        finally:
            kill(family)
            self._process.kill()
            self._process.wait()

    def family(self) -> list[psutil.Process]:
        """All that it has started and that live."""
        try:
            return list(self.process.children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def said(self) -> str:
        """Its last words, for an error."""
        return self._log.read_text(errors="replace")[-2000:]


def kill(processes: Iterable[psutil.Process]) -> None:
    """Those that are still there; psutil looks at the creation time, so a reused pid is never hit."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


def plain_env(more: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what would lead a manager to our packages, or a worker to another state."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and name[:8] != "OUTLIVE_"}
    return {**kept, **more}


# Ours


def outlive(folder: str, text: str) -> Manager:
    """`outlive run` of a configuration."""
    path = Path(folder, "outlive.toml")
    path.write_text(text)
    return Manager([sys.executable, "-m", "supervisor", "run", str(path)], folder, PYTHONPATH=str(ROOT))


def strategy(bot: Bot, has_spare: bool) -> str:
    """Its table in an outlive.toml. Without a spare it has the command that the others run."""
    program = f"entry = {json.dumps(ENTRY)}" if has_spare else f"command = {json.dumps(COMMAND)}"
    env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in bot.env.items())
    return f"\n[strategies.{bot.name}]\n{program}\ncwd = {json.dumps(str(ROOT))}\nenv = {{ {env} }}\n"


# circus


def no_circus() -> str:
    """Why it can't take part here; empty if it can."""
    return "" if find_spec("circus") else "not installed: circus"


def circus(folder: str, bot: Bot, data_dir: str, check_delay: float | None = None) -> Manager:
    path = Path(folder, "circus.ini")
    path.write_text(circus_ini(folder, bot, data_dir, check_delay))
    return Manager([sys.executable, "-m", "circus.circusd", str(path)], folder)


def circus_ini(folder: str, bot: Bot, data_dir: str, check_delay: float | None) -> str:
    """Its default settings but for the sockets, which are files; None: its own `check_delay`."""
    delay = "" if check_delay is None else f"check_delay = {check_delay}\n"
    env = "".join(f"{name} = {value}\n" for name, value in bot.full_env(data_dir).items())
    return (
        f"[circus]\nendpoint = ipc://{folder}/ask\npubsub_endpoint = ipc://{folder}/events\n{delay}\n"
        f"[watcher:{bot.name}]\ncmd = {shlex.join(COMMAND)}\nworking_dir = {ROOT}\ncopy_env = True\n\n"
        f"[env:{bot.name}]\n{env}"
    )


# supervisord


def supervisord_command() -> str | None:
    """The one of `make bench`, or the one on the PATH if it works; None without."""
    for found in (str(OF_ITS_OWN / "bin" / "supervisord"), shutil.which("supervisord")):
        if found and os.path.exists(found) and supervisord_version(found):
            return found
    return None


def supervisord_version(command: str) -> str:
    """Empty if it does not work: beside our packages it finds ours in the place of its own."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, env=plain_env({}))
    return done.stdout.strip() if done.returncode == 0 else ""


def no_supervisord() -> str:
    """Why it can't take part here; empty if it can."""
    return "" if supervisord_command() else "not installed: supervisord"


def supervisord(folder: str, bot: Bot, data_dir: str) -> Manager:
    command = supervisord_command()
    assert command is not None, "it was looked for"
    path = Path(folder, "supervisord.conf")
    path.write_text(supervisord_conf(folder, bot, data_dir))
    return Manager([command, "--nodaemon", "--configuration", str(path)], folder)


def supervisord_conf(folder: str, bot: Bot, data_dir: str) -> str:
    """Its default settings; a percent sign means something to it."""
    env = ",".join(f'{name}="{value}"' for name, value in bot.full_env(data_dir).items())
    text = (
        f"[supervisord]\nlogfile = {folder}/supervisord.log\npidfile = {folder}/supervisord.pid\n"
        f"childlogdir = {folder}\n\n"
        f"[program:{bot.name}]\ncommand = {shlex.join(COMMAND)}\ndirectory = {ROOT}\nenvironment = {env}\n"
    )
    return text.replace("%", "%%")

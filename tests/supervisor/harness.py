"""A real supervisor for tests: a folder with an outlive.toml, `outlive run` on it, and its status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from supervisor.control import Command, ProgramStatus, RunDir, SupervisorStatus, ask
from tests.processes import RealProcess
from tests.waiting import LONG, wait_until

STAND_IN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stand_in.py")

Tables = dict[str, dict[str, Any]]


def program(verb: str, *arguments: object, **settings: Any) -> dict[str, Any]:
    """The table of a program that runs the stand-in."""
    return {"command": ["python", STAND_IN, verb, *map(str, arguments)], **settings}


def write_config(folder: Path, tables: Tables) -> Path:
    """outlive.toml with a stand-in for persistence, unless `tables` has another."""
    path = folder / "outlive.toml"
    tables = {"persistence": program("serve"), **tables}
    path.write_text("".join(f"[{name}]\n{_lines(table)}\n" for name, table in tables.items()))
    return path


def outlive(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`."""
    command = [sys.executable, "-m", "supervisor", *arguments]
    env = {key: value for key, value in os.environ.items() if not key.startswith("OUTLIVE_")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LONG)


class SupervisorProcess(RealProcess):
    """`outlive run outlive.toml` in a folder; `prelude` is Python that runs in its process before."""

    def __init__(self, folder: Path, tables: Tables, prelude: str = "", **env: str) -> None:
        self.folder = folder
        self.config = write_config(folder, tables)
        script = f"{prelude}\nfrom supervisor.cli import main; main()"
        super().__init__([sys.executable, "-c", script, "run", str(self.config)], env)

    def start_at(self, terminal: int) -> None:
        """Start it with this descriptor as its standard output."""
        self._spawn({}, (), stdout=terminal)

    def status(self) -> SupervisorStatus:
        answer = ask(RunDir(str(self.folder / "state" / "supervisor.d")), Command(verb="status"))
        assert isinstance(answer, SupervisorStatus)
        return answer

    def program(self, name: str) -> ProgramStatus:
        return next(program for program in self.status().programs if program.name == name)

    def wait_for(self, name: str, state: str, but_not: int | None = -1) -> ProgramStatus:
        """Wait until a program is in this state, with another pid than `but_not`."""

        def is_so() -> ProgramStatus | None:
            found = self.program(name) if self.serves() else None
            return found if found and found.state == state and found.pid != but_not else None

        return wait_until(is_so, what=f"{name} {state}")  # type: ignore[return-value]

    def serves(self) -> bool:
        """Whether its control socket answers."""
        try:
            return bool(self.status().pid)
        except (ConnectionError, FileNotFoundError):
            assert self.alive, self.errors()
            return False

    def happenings(self, name: str) -> list[str]:
        """What happened to a program, in order."""
        return [happening.what for happening in self.status().happenings if happening.name == name]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What events.jsonl says of a program, in order."""
        file = self.folder / "state" / "supervisor.d" / "logs" / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["name"] == name]

    def log(self, name: str) -> str:
        return (self.folder / "state" / "supervisor.d" / "logs" / f"{name}.log").read_text()


def is_gone(pid: int) -> bool:
    """Whether no process of this pid works any more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)

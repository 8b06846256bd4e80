"""A supervisor, a persistence process and two or three bots: any of them is killed, the supervisor too.

After each strike: the right set of processes, each once and a child of the present supervisor, none of a former one;
one owner of each namespace; and each bot's state whole.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from protocol.disk import lock_holders
from protocol.errors import OutliveError
from supervisor.control import RunDir
from supervisor.sweep import marked, sweep
from tests.chaos.bot import ARGUMENTS_VARIABLE
from tests.chaos.kill_points import PERSISTENCE, SUPERVISOR, WORKER
from tests.chaos.lives import BOT, Arsenal, Life, bot_arguments, fired_in, new_ear
from tests.chaos.oracle import PIPES_VARIABLE, Ear, Lost
from tests.supervisor.harness import SupervisorProcess, Tables, write_config
from tests.waiting import LONG, wait_until

LOOK = 0.01  # seconds between two looks while something is waited for
IMPATIENT = 8.0  # seconds until a return in which somebody armed dies again and again goes on without kill points
WITHOUT_SPARE = "bot0"
SPARES_AT_ONCE = "import supervisor.spare as s; s.SETTLE = 0.0"
EAGER = {"limit": 1_000_000, "backoff_first": 0.02, "backoff_max": 0.1}


class Supervisor(Life, SupervisorProcess):
    """`outlive run` under chaos."""

    name = "supervisor"


class SupervisedWorld:
    """Use as a context manager: what was started ends with it. `counted` is the tally."""

    def __init__(self, folder: Path, chance: random.Random, arsenal: Arsenal, counted: Counter[str]) -> None:
        self._folder, self._chance, self._arsenal, self.counted = folder, chance, arsenal, counted
        self._ears: dict[str, Ear] = {}
        self._arguments: dict[str, list[str]] = {}
        self._wanted: list[str] = []
        self._fired_before = fired_in(arsenal.log).total()

    def __enter__(self) -> SupervisedWorld:
        for number in range(3):
            name = f"bot{number}"
            weight, self._arguments[name] = bot_arguments(self._chance)
            self._ears[name] = new_ear(self._folder, name, weight)
        self._wanted = self._choose_wanted()
        self.supervisor = Supervisor(self._folder, self._tables(calm=True), SPARES_AT_ONCE)
        return self

    def __exit__(self, *exception: object) -> None:
        self.supervisor.__exit__(None, None, None)
        if mark := self._mark():
            sweep(mark)  # when the death of a supervisor has failed to end its children, we do
        for ear in self._ears.values():
            ear.close()
        self.counted["kills"] += fired_in(self._arsenal.log).total() - self._fired_before

    def _choose_wanted(self) -> list[str]:
        return sorted(self._chance.sample(list(self._arguments), self._chance.choice((2, 3))))

    def _tables(self, calm: bool) -> Tables:
        tables: dict[str, dict[str, Any]] = {
            "restart": EAGER,
            "persistence": {
                "command": [sys.executable, "-m", "persistence_proc"],
                "env": self._arsenal.environment(PERSISTENCE, calm, most=0.3),
            },
        }
        for name in self._wanted:
            tables[f"strategies.{name}"] = self._bot(name, calm)
        return tables

    def _bot(self, name: str, calm: bool) -> dict[str, Any]:
        """As a command, or as an entry with a spare."""
        arguments = self._arguments[name]
        env = self._arsenal.environment(WORKER, calm, most=0.3) | {PIPES_VARIABLE: self._ears[name].pipes}
        if name == WITHOUT_SPARE:
            return {"command": [*BOT, *arguments], "env": env, "restart": "always"}
        env[ARGUMENTS_VARIABLE] = " ".join(arguments)
        return {"entry": "tests.chaos.bot:entry", "env": env, "restart": "always"}

    # Time passes

    def round(self) -> None:
        """Everybody up and where they belong, a while of work, a strike."""
        self.bring_up()
        self.work(self._chance.uniform(0, 0.3))
        if self.supervisor.armed_at in FITTING and self._chance.random() < 0.7:
            FITTING[self.supervisor.armed_at](self)
        else:
            self._chance.choices(list(STRIKES), list(STRIKES.values()))[0](self)
        self.counted["strikes"] += 1

    def bring_up(self) -> None:
        """Start the supervisor if it is dead, and wait until everything is as it should be. Raises `Lost`."""
        began, calm = time.monotonic(), False
        while not self._is_whole():
            self._look()
            if not self.supervisor.running:
                self._start(calm)
            elif not calm and time.monotonic() > began + IMPATIENT:
                calm = True
                self.kill_supervisor()
            elif time.monotonic() > began + 3 * LONG:
                raise Lost(
                    f"not up within {3 * LONG:.0f} s; wanted {self._wanted}:\n{self.supervisor.errors()[-6000:]}"
                )
            time.sleep(LOOK)
        self.counted["sets of processes checked"] += 1

    def _start(self, calm: bool) -> None:
        write_config(self._folder, self._tables(calm))
        for ear in self._ears.values():
            ear.up = False
        self.supervisor.begin(self._arsenal.environment(SUPERVISOR, calm))

    def work(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._look()
            time.sleep(LOOK)

    def _look(self) -> None:
        for ear in self._ears.values():
            ear.listen()
        if self.supervisor.running and not self.supervisor.alive:
            self._bury()

    def _bury(self) -> None:
        """The supervisor's death is everybody's: nobody is left who would be a second owner."""
        self.supervisor.bury()
        self._all_gone()
        for ear in self._ears.values():
            ear.listen()

    def _all_gone(self) -> None:
        mark = self._mark()
        wait_until(lambda: not mark or not list(marked(mark)), what="no orphan of a dead supervisor")

    def _mark(self) -> str:
        """What all its processes carry; empty before its first start."""
        folder = self.data_dir / "supervisor.d"
        return RunDir(str(folder)).mark if (folder / "ID").exists() else ""

    @property
    def data_dir(self) -> Path:
        return self._folder / "state"

    # Looking

    def _is_whole(self) -> bool:
        """Whether the right processes run, each once, each namespace with its one owner, each state right."""
        if not self.supervisor.running or not self.supervisor.alive:
            return False
        children = self._children()
        pids = {child.pid for child in children}
        ears = [self._ears[name] for name in self._wanted]
        if len(pids) <= len(self._wanted) or not all(ear.up and ear.pid in pids for ear in ears):
            return False
        try:
            status = self.supervisor.status()
        except (OSError, OutliveError):
            return False
        running = {one.name: one.pid for one in status.programs if one.state == "running"}
        spares = {one.spare_pid for one in status.programs if one.spare_pid is not None}
        if sorted(running) != sorted(["persistence", *self._wanted]) or {*running.values(), *spares} != pids:
            return False
        self.counted["spares seen"] += len(spares)
        return all(self._has_one_owner(name) for name in self._wanted)

    def _has_one_owner(self, name: str) -> bool:
        """One that was killed a moment ago may still be leaving while its successor waits with the file open."""
        lock = str(self.data_dir / name / "outbox" / "LOCK")
        holders = lock_holders(lock)
        deadline = time.monotonic() + LONG
        while len(holders) > 1 and set(holders) <= set(lock_holders(lock)):
            if time.monotonic() > deadline:
                raise Lost(f"namespace {name} has the owners {holders}")
            time.sleep(LOOK)
        return holders == [self._ears[name].pid]

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.supervisor.pid).children()
        except psutil.Error:
            return []

    # Strikes

    def kill_supervisor(self) -> None:
        if self.supervisor.alive:
            self.supervisor.process.kill()
            self.counted["kills"] += 1
            self.counted["kills of supervisors"] += 1
        self._bury()

    def _kill_children(self, victims: list[psutil.Process]) -> None:
        """psutil compares the creation time: nobody else is hit."""
        for child in victims:
            try:
                child.kill()
            except psutil.Error:
                continue
            self.counted["kills"] += 1
            self.counted["kills of supervised children"] += 1

    def strike_children(self) -> None:
        """Some of them, the supervisor lives on."""
        children = self._children()
        self._kill_children(self._chance.sample(children, self._chance.randint(0, len(children))))
        for ear in self._ears.values():
            ear.listen()

    def strike_supervisor(self) -> None:
        """Alone, or in one instant with some children, or with one that stands still and could not leave."""
        children = self._children()
        if children and self._chance.random() < 0.3:
            self._chance.choice(children).suspend()
        if self._chance.random() < 0.5:
            self.strike_children()
        self.kill_supervisor()

    def strike_stop(self) -> None:
        """SIGTERM, and SIGKILL while everybody leaves; or it is let go: then exit code 0, and nobody is left."""
        self.supervisor.leave()
        if self._chance.random() < 0.5:
            self.work(self._chance.uniform(0, 0.4))
            if self.supervisor.running:
                self.kill_supervisor()
            return
        deadline = time.monotonic() + LONG
        while self.supervisor.running:
            self.work(LOOK)
            if time.monotonic() > deadline:
                raise Lost(f"the supervisor does not leave:\n{self.supervisor.errors()[-6000:]}")

    def strike_reload(self) -> None:
        """Other bots, other kill points; SIGHUP, and perhaps a kill in the middle of it."""
        self._wanted = self._choose_wanted()
        write_config(self._folder, self._tables(calm=False))
        self.supervisor.signal(signal.SIGHUP)
        if self._chance.random() < 0.5:
            self.work(self._chance.uniform(0, 0.2))
            self.strike_children()


STRIKES: dict[Callable[[SupervisedWorld], None], int] = {
    SupervisedWorld.strike_children: 5,
    SupervisedWorld.strike_supervisor: 3,
    SupervisedWorld.strike_stop: 2,
    SupervisedWorld.strike_reload: 3,
}
FITTING = {"stop": SupervisedWorld.strike_stop, "reload": SupervisedWorld.strike_reload}
"""Strikes that lead a supervisor to where it is armed."""

"""Processes that are killed: started with or without kill points, buried with a look at how they ended."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.injection import LOG_VARIABLE, POINTS_VARIABLE
from tests.chaos.kill_points import POINTS, Point
from tests.chaos.oracle import PIPES_VARIABLE, Ear, Lost, Truth
from tests.processes import PersistenceProcess, RealProcess

ROOT = Path(__file__).resolve().parents[2]
HOOK = Path(__file__).resolve().parent / "hook"
BOT = [sys.executable, "-m", "tests.chaos.bot"]
ARMED = 0.85  # of all starts
HEAVY_WEIGHT = 600


class Arsenal:
    """Chooses kill points, those that have fired least before others.

    Each has a log of its own in `folder`; all that run at once see what has fired in any.
    """

    def __init__(self, folder: Path, name: str, chance: random.Random) -> None:
        self.log, self._chance = folder / f"{name}.fired", chance

    def fired(self) -> Counter[str]:
        """Name of each point -> how often a process killed itself there."""
        return sum((fired_in(log) for log in self.log.parent.glob("*.fired")), Counter())

    def missing(self) -> list[str]:
        """Points at which nobody has died yet."""
        fired = self.fired()
        return [name for name in POINTS if not fired[name]]

    def environment(self, points: dict[str, Point], calm: bool = False, most: float = 1.0) -> dict[str, str]:
        """For the next life of a process that has these points. `calm`: none is armed. `most`: no higher odds."""
        env = {"PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}", LOG_VARIABLE: str(self.log), POINTS_VARIABLE: ""}
        if not calm and self._chance.random() < ARMED:
            fired, names = self.fired(), list(points)
            chosen = self._chance.choices(names, [1 / (1 + fired[name]) ** 2 for name in names])[0]
            odds = min(most, points[chosen].odds * self._chance.choice((0.5, 1)))
            env[POINTS_VARIABLE] = f"{chosen}={odds};seed={self._chance.randrange(10**6)}"
        return env


def fired_in(log: Path) -> Counter[str]:
    """What has fired, by name."""
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


class Life:
    """What a process under chaos adds to `RealProcess`: its end is judged. Mixed in before it."""

    name: str
    asked_to_leave = False
    """Then exit code 0 is as good as SIGKILL."""
    running = False

    def begin(self: RealProcess, env: dict[str, str]) -> None:
        """Start the next life."""
        self._env.update(env)
        self.asked_to_leave = False  # type: ignore[attr-defined]
        if isinstance(self, PersistenceProcess):
            self.start(wait_ready=False)
        else:
            self.start()
        self.running = True  # type: ignore[attr-defined]

    @property
    def armed_at(self: RealProcess) -> str:
        """The part of its life in which this process will kill itself: "shutdown" of "shutdown.saved"; or nothing."""
        return (self._env.get(POINTS_VARIABLE) or "").partition(".")[0]

    def leave(self: RealProcess) -> None:
        """SIGTERM, for a process that has come so far that it listens to signals."""
        self.asked_to_leave = True  # type: ignore[attr-defined]
        self.signal(signal.SIGTERM)

    def bury(self: RealProcess) -> int:
        """Its exit code. Raises `Lost` when nobody killed it and nobody asked it to leave."""
        code = self.wait()
        self.running = False  # type: ignore[attr-defined]
        if code != -signal.SIGKILL and not (code == 0 and self.asked_to_leave):  # type: ignore[attr-defined]
            raise Lost(f"{self.name} ended by itself with {code}:\n{self.errors()[-4000:]}")  # type: ignore[attr-defined]
        return code


class Server(Life, PersistenceProcess):
    """The persistence process."""

    name = "persistence"

    def serves(self) -> bool:
        """Whether it has said that it is ready."""
        try:
            while self._notes is not None and (word := self._notes.read_line(0)) is not None:
                self._is_ready = self._is_ready or word == "ready"
        except TimeoutError:
            pass
        return self._is_ready

    def begin(self, env: dict[str, str]) -> None:
        self._is_ready = False
        super().begin(env)


class Strategy(Life, RealProcess):
    """A bot, and the ear that hears all its lives."""

    def __init__(self, name: str, persistence: PersistenceProcess, ear: Ear, arguments: list[str]) -> None:
        super().__init__([*BOT, *arguments], {**persistence.env(name), PIPES_VARIABLE: ear.pipes})
        self.name, self.ear = name, ear

    @property
    def is_heavy(self) -> bool:
        return self.ear.truth.weight >= HEAVY_WEIGHT


def bot_arguments(chance: random.Random) -> tuple[int, list[str]]:
    """(weight, arguments): bots with small values, and such that fill segments, fold outboxes and rotate journals."""
    weight, burst, pause = chance.choice(((1, 100, 0.02), (1, 7, 0.004), (40, 100, 0.02), (HEAVY_WEIGHT, 60, 0.02)))
    return weight, [str(weight), str(burst), str(pause), str(chance.randrange(10**6))]


def new_ear(folder: Path, name: str, weight: int) -> Ear:
    """The pipes lie in `folder`, which no process of the product looks at."""
    return Ear(folder / name, Truth(name, weight))

"""Kills processes at random, as kill -9 does: bots, the persistence process, or several in the same instant.

The same seed gives the same sequence of moments and victims; what the victims are doing then is up to the scheduler,
and the verdict must not depend on it.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from supervisor.config import PERSISTENCE
from supervisor.control import ProgramStatus

SHORTEST, LONGEST = 1.0, 2.0  # seconds between kills


class Kill(NamedTuple):
    """Processes that died together."""

    at: float
    """Seconds since the start of the chaos."""
    victims: tuple[tuple[str, int], ...]
    """(name, pid)"""


class Chaos:
    """Ask it often: it strikes when the time has come."""

    def __init__(self, seed: int, names: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._groups = _groups(names)
        self._next = self._pause()
        self.kills: list[Kill] = []

    @property
    def victims(self) -> int:
        """Processes killed so far."""
        return sum(len(kill.victims) for kill in self.kills)

    def is_due(self, now: float) -> bool:
        return now >= self._next

    def strike(self, now: float, programs: Sequence[ProgramStatus]) -> Kill | None:
        """Kill the next group, those of it that are alive. `programs` must be fresh: pids are used once and at once."""
        group = self._random.choice(self._groups)
        self._next = now + self._pause()
        targets = [found for program in programs if program.name in group and (found := _open(program))]
        victims = []
        for name, pid, handle in targets:  # opened before the first dies, so that they die in the same instant
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                victims.append((name, pid))
            except ProcessLookupError:
                pass
        for _, _, handle in targets:
            os.close(handle)
        if not victims:
            return None
        self.kills.append(Kill(now, tuple(victims)))
        return self.kills[-1]

    def _pause(self) -> float:
        return self._random.uniform(SHORTEST, LONGEST)


def _groups(names: Sequence[str]) -> list[frozenset[str]]:
    """Who may die together; one bot alone is the commonest case."""
    bots = [name for name in names if name != PERSISTENCE]
    alone = [frozenset({name}) for name in bots]
    with_persistence = [frozenset({name, PERSISTENCE}) for name in bots]
    return [*alone, *alone, frozenset({PERSISTENCE}), *with_persistence, frozenset(bots), frozenset(names)]


def _open(program: ProgramStatus) -> tuple[str, int, int] | None:
    """(name, pid, pidfd) of a program's process; None if it is gone: a pid says nothing without its creation time."""
    if program.pid is None:
        return None
    try:
        handle = os.pidfd_open(program.pid)
    except OSError:
        return None
    try:
        process = psutil.Process(program.pid)
        same = program.created is not None and abs(process.create_time() - program.created) < 0.1
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return program.name, program.pid, handle
    except psutil.Error:
        pass
    os.close(handle)
    return None

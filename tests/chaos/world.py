"""One data directory, its persistence process and one to three bots; strikes against any of them.

An `Episode` is a fresh directory and some rounds: everybody is up and right, they work, they are struck, the dead are
started again. Strikes are chosen by the seed; what their victims are doing then is up to the scheduler.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from protocol.errors import NamespaceInUse
from strategy_proc import connect
from tests.chaos.kill_points import HEAVY, PERSISTENCE, WORKER, Point
from tests.chaos.lives import Arsenal, Life, Server, Strategy, bot_arguments, new_ear
from tests.chaos.offline import read_pickles, recovered_without_outboxes, tear_the_tail
from tests.chaos.oracle import Lost
from tests.waiting import LONG

LOOK = 0.005  # seconds between two looks while something is waited for
CALM_AFTER = 6  # deaths in one return: then nobody is armed any more


class World:
    """Use as a context manager: what was started ends with it. `counted` is the tally."""

    def __init__(self, folder: Path, chance: random.Random, arsenal: Arsenal, counted: Counter[str]) -> None:
        self.data_dir = folder / "state"
        self._folder, self._chance, self._arsenal, self.counted = folder, chance, arsenal, counted
        self.bots: list[Strategy] = []
        self._seen: set[Path] = set()
        self._torn = False
        self._undo = ExitStack()

    def __enter__(self) -> World:
        self.data_dir.mkdir(mode=0o700)
        self.server = Server(self.data_dir, "--log-level", "warning")
        self._undo.callback(self._end)
        for number in range(self._chance.choice((1, 1, 2, 3))):
            name = f"bot{number}"
            weight, arguments = bot_arguments(self._chance)
            self.bots.append(Strategy(name, self.server, new_ear(self._folder, name, weight), arguments))
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def _end(self) -> None:
        for process in self.everybody:
            process.__exit__(None, None, None)
        for bot in self.bots:
            bot.ear.close()

    @property
    def everybody(self) -> list[Server | Strategy]:
        return [self.server, *self.bots]

    @property
    def living(self) -> list[Server | Strategy]:
        return [process for process in self.everybody if process.running]

    # Time passes

    def round(self) -> None:
        """Everybody up, a while of work, a strike."""
        self.bring_up()
        self.work(self._chance.uniform(0, 0.15))
        if self._chance.random() < 0.8:
            heavy = any(process.armed_at in HEAVY for process in self.living)
            self.work(1.5 if heavy else 0.5, until_death=True)
        fitting = [FITTING[one.armed_at] for one in self.living if one.armed_at in FITTING]
        if fitting and self._chance.random() < 0.7:
            self._chance.choice(fitting)(self)
        else:
            self._chance.choices(list(STRIKES), list(STRIKES.values()))[0](self)
        self.counted["strikes"] += 1
        if not self.server.running:
            self._at_rest()

    def bring_up(self) -> None:
        """Start who is dead, until all bots have recovered what they must. Raises `Lost`."""
        deaths, deadline = 0, time.monotonic() + 2 * LONG
        while True:
            for process in self.everybody:
                if not process.running:
                    self.start(process, calm=deaths > CALM_AFTER)
            deaths += self.look(LOOK)
            if self.server.running and all(bot.running and bot.ear.up for bot in self.bots):
                return
            if time.monotonic() > deadline:
                raise Lost(f"not up within {2 * LONG:.0f} s: {[b.errors()[-2000:] for b in self.everybody]}")

    def start(self, process: Server | Strategy, calm: bool = False) -> None:
        points = self._points_of_server() if process is self.server else WORKER
        heavy = any(bot.is_heavy for bot in self.bots if process in (bot, self.server))
        points = {name: point for name, point in points.items() if heavy or not name.startswith(HEAVY)}
        if isinstance(process, Strategy):
            process.ear.up = False
        process.begin(self._arsenal.environment(points, calm))

    def _points_of_server(self) -> dict[str, Point]:
        """Those that are reached only now, if it finds no STORE or a torn tail."""
        part = "" if (self.data_dir / "STORE").exists() else "recovery.store"
        part, self._torn = "recovery.quarantine" if self._torn else part, False
        return {name: point for name, point in PERSISTENCE.items() if name.startswith(part)}

    def work(self, seconds: float, until_death: bool = False) -> None:
        """Let them work; a reader looks at their files now and then. `until_death`: of any of them."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.look(LOOK) and until_death:
                return
            if self._chance.random() < 0.1:
                self.read_files()

    def look(self, seconds: float) -> int:
        """Hear what is said, bury who has died; how many have."""
        ends = [os.pidfd_open(process.pid) for process in self.living if process.alive]
        try:
            select.select([*ends, *(bot.ear for bot in self.bots)], [], [], seconds)
            dead = [process for process in self.living if not process.alive]
        finally:
            for fd in ends:
                os.close(fd)
        for process in dead:
            self.bury(process)
        for bot in self.bots:
            bot.ear.listen()
        return len(dead)

    def bury(self, process: Server | Strategy) -> int:
        """Its exit code; what it said last is heard."""
        code = process.bury()
        if code == -signal.SIGKILL:
            self.counted["kills"] += 1
            self.counted[f"kills of {'persistence' if process is self.server else 'workers'}"] += 1
        if isinstance(process, Strategy):
            process.ear.listen()
            process.ear.up = False
        return code

    def kill(self, *victims: Life) -> None:
        """In one instant, as far as one process can."""
        for victim in victims:
            victim.process.kill()  # type: ignore[attr-defined]
        for victim in victims:
            self.bury(victim)  # type: ignore[arg-type]

    # Looking

    def read_files(self) -> None:
        for bot in self.bots:
            found = read_pickles(self.data_dir, bot.name, self._seen)
            bot.ear.listen()  # afterwards: what is in a file had returned, or nearly
            for side, items in found.items():
                bot.ear.truth.in_the_file(side, items)
            self.counted["pickle files read"] += len(found)

    def _at_rest(self) -> None:
        """The server is dead: recover a copy without outboxes; leave a torn frame; lose STORE as a first start may."""
        if self._chance.random() < 0.15:
            self.check_journal()
        if self._chance.random() < 0.15 and tear_the_tail(self.data_dir, self._chance.randbytes(50)):
            self._torn = True
            self.counted["torn tails"] += 1
        if self._chance.random() < 0.05 and (self.data_dir / "STORE").exists():
            (self.data_dir / "STORE").unlink()

    def check_journal(self) -> None:
        """What was flushed is in the journal, whatever becomes of the outboxes."""
        if not any((self.data_dir / "journal").glob("*.log")):
            return
        found = recovered_without_outboxes(self.data_dir, [bot.name for bot in self.bots])
        for bot in self.bots:
            bot.ear.listen()
            bot.ear.truth.in_the_journal(found[bot.name])
        self.counted["journals recovered without outboxes"] += 1

    # Strikes

    def strike_any(self) -> None:
        """Any of them, in one instant. There may be nobody: all of them met a kill point."""
        living = self.living
        self.kill(*self._chance.sample(living, self._chance.randint(min(1, len(living)), len(living))))

    def strike_recovery(self) -> None:
        """The server again and again, mostly while it recovers."""
        for _ in range(self._chance.randint(1, 4)):
            if self.server.running:
                self.kill(self.server)
            self.start(self.server, calm=self._chance.random() < 0.3)
            self.work(self._chance.uniform(0.1, 0.4))
        if self.server.running:
            self.kill(self.server)

    def strike_outage(self) -> None:
        """The server is dead or stands still while bots work on, fold their outboxes, and may die too."""
        if not self.server.running:
            return
        if self._chance.random() < 0.5:
            self.kill(self.server)
        else:
            self.server.stop()
        self.work(self._chance.uniform(0.1, 0.6), until_death=True)
        bots = [bot for bot in self.living if bot is not self.server]
        self.kill(*self._chance.sample(bots, self._chance.randint(0, len(bots))))
        if self.server.running:
            if self._chance.random() < 0.5:
                self.kill(self.server)
            else:
                self.server.cont()

    def strike_frozen(self) -> None:
        """A bot stands still: nobody else gets its namespace. It wakes up, or is killed as it stands."""
        bots = [bot for bot in self.bots if bot.running]
        if not bots:
            return
        bot = self._chance.choice(bots)
        bot.stop()
        if bot.alive and bot.ear.up:
            with pytest.raises(NamespaceInUse):
                connect(bot.name, data_dir=self.data_dir, timeout=1)
            self.counted["replacements refused"] += 1
        if self._chance.random() < 0.5:
            bot.cont()
        else:
            self.kill(bot)

    def strike_shutdown(self) -> None:
        """SIGTERM, and SIGKILL while it saves; or it is let go, and its word "everything is saved" is checked."""
        if self.server.running and self.server.serves():
            self.server.leave()
            self._kill_or_let_go(self.server)

    def strike_leaving(self) -> None:
        """Bots leave in order; some are killed while they do."""
        for bot in [bot for bot in self.bots if bot.running and bot.ear.up]:
            bot.leave()
            self._kill_or_let_go(bot)

    def _kill_or_let_go(self, process: Server | Strategy) -> None:
        if self._chance.random() < 0.5:
            self.work(self._chance.uniform(0, 0.05))
            if process.running:
                self.kill(process)
            return
        deadline = time.monotonic() + LONG
        while process.running:
            self.look(LOOK)
            if not self.server.running and process is not self.server:
                self.start(self.server)
            if time.monotonic() > deadline:
                raise Lost(f"{process.name} does not leave within {LONG} s:\n{process.errors()[-4000:]}")
        self.counted["orderly ends"] += 1


STRIKES: dict[Callable[[World], None], int] = {
    World.strike_any: 6,
    World.strike_recovery: 3,
    World.strike_outage: 3,
    World.strike_frozen: 2,
    World.strike_shutdown: 3,
    World.strike_leaving: 2,
}
FITTING: dict[str, Callable[[World], None]] = {
    "shutdown": World.strike_shutdown,
    "close": World.strike_leaving,
    "compaction": World.strike_outage,
}
"""Strikes that lead a process to where it is armed."""

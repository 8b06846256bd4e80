"""The worker of the chaos tests: `python -m tests.chaos.bot WEIGHT BURST PAUSE SEED`.

It talks through two named pipes, which outlive it: what it says there stays said (a write of a line is atomic).

    life PID                    the first word of each life
    recovered PID DIGEST        of the maps that `connect` brought back; answered by "PID FIRST_STEP"
    12                          step 12 has returned
    synced 12, flushed 12       and so have `sync` and `flush` behind it

A line "PID leave" or SIGTERM ends it through its `with` block.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys

from protocol.errors import FlushTimeout
from strategy_proc import connect
from strategy_proc.session import Session
from tests.chaos.oracle import PIPES_VARIABLE, SAYS, TOLD, digest
from tests.promises.workload import Maps, step

ARGUMENTS_VARIABLE = "CHAOS_BOT"
PATIENCE = 60.0  # seconds; a persistence process that is killed in its recovery again and again is waited for
FLUSH_PATIENCE = 0.5  # seconds; one that is dead is not


class Bot:
    """One life."""

    def __init__(self, weight: int, burst: int, pause: float, seed: str) -> None:
        self._weight, self._burst, self._pause = weight, burst, pause
        self._chance = random.Random(f"{seed}/{os.getpid()}")
        pipes = os.environ[PIPES_VARIABLE]
        self._says = os.open(pipes + SAYS, os.O_WRONLY)
        self._told = os.open(pipes + TOLD, os.O_RDONLY)
        self._heard = b""
        self.say(f"life {os.getpid()}")

    def say(self, line: str | int) -> None:
        os.write(self._says, b"%s\n" % str(line).encode())

    def run(self) -> None:
        with connect(timeout=PATIENCE) as state:
            maps: Maps = (state.map("left"), state.map("right"))
            self.say(f"recovered {os.getpid()} {digest(maps)}")
            if (word := self._listen(None)) is not None and word != "leave":
                self._work(state, maps, int(word))

    def _work(self, state: Session, maps: Maps, n: int) -> None:
        while True:
            for _ in range(self._burst):
                step(n, maps, state.transaction, self._weight)
                self.say(n)
                n += 1
            self._make_durable(state, n - 1)
            state.beat()
            if self._listen(self._pause * self._chance.random()) == "leave":
                return

    def _make_durable(self, state: Session, n: int) -> None:
        what = self._chance.random()
        if what < 0.1:
            state.sync()
            self.say(f"synced {n}")
        elif what < 0.2:
            try:
                state.flush(FLUSH_PATIENCE)
            except FlushTimeout:
                return
            self.say(f"flushed {n}")

    def _listen(self, seconds: float | None) -> str | None:
        """The next word meant for this life; None when there is none in time. An oracle that is gone: leave."""
        while True:
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                pid, word = line.decode().split()
                if int(pid) == os.getpid():
                    return word
            if not select.select([self._told], [], [], seconds)[0]:
                return None
            chunk = os.read(self._told, 4096)
            if not chunk:
                return "leave"
            self._heard += chunk


def _leave(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def entry() -> None:
    """The same as an entry of a supervisor, which gives no arguments: they are in the environment."""
    main(os.environ[ARGUMENTS_VARIABLE].split())


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGTERM, _leave)
    weight, burst, pause, seed = arguments
    Bot(int(weight), int(burst), float(pause), seed).run()


if __name__ == "__main__":
    main(sys.argv[1:])

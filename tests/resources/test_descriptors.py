"""No descriptors left: who trades goes on trading, and what is down comes back by itself."""

from __future__ import annotations

from pathlib import Path

from strategy_proc import connect
from tests.lab.effort import Effort
from tests.processes import PersistenceProcess, WorkerProcess
from tests.resources.scarce import flushed, no_more_descriptors
from tests.waiting import wait_until

WORKER = """
import sys
from strategy_proc import connect

with connect(timeout=20) as state:
    positions = state.map("m")
    print("connected", flush=True)
    for line in sys.stdin:
        first, last = map(int, line.split())
        for n in range(first, last):
            positions[n] = "x" * 1000
        state.sync()
        print("synced", flush=True)
"""


def test_a_bot_without_descriptors_puts_and_syncs(data_dir: Path, lab: Effort) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with WorkerProcess(WORKER, env=persistence.env("bot")) as worker:
            assert worker.read_line() == "connected"
            with no_more_descriptors(worker.pid):
                worker.write_line("0 500")
                assert worker.read_line() == "synced"
            worker.write_line("500 600")
            assert worker.read_line() == "synced"
            worker.kill()
        with connect("bot", data_dir=data_dir) as state:
            assert list(state.map("m")) == list(range(600))
    lab.count("shortages of descriptors")


def test_a_persistence_process_without_descriptors_loses_nothing(data_dir: Path, lab: Effort) -> None:
    """It serves who is connected. A new connection ends it (libzmq asserts in accept); then it is started again."""
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        positions = state.map("m")
        state.flush(10)
        with no_more_descriptors(persistence.pid):
            for n in range(2000):
                positions[n] = n
            wait_until(lambda: flushed(state) or not persistence.alive, what="everything durable, or the end")
        positions["after"] = 1
        expected = positions.snapshot()
        if persistence.alive:
            state.flush(20)
            saved = data_dir / "bot" / "m.pkl"
            wait_until(saved.exists, what="a map file, now that files can be opened")
        persistence.restart()
        wait_until(lambda: flushed(state), what="everything durable after a restart")
    with PersistenceProcess(data_dir), connect("bot", data_dir=data_dir) as state:
        assert state.map("m") == expected
    lab.count("shortages of descriptors")

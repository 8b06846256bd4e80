"""An hour's traffic in minutes: memory, descriptors and threads are flat at the end."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.effort import Effort
from tests.processes import PersistenceProcess, WorkerProcess
from tests.resources.scarce import Usage

WORKER = """
import sys
from strategy_proc import connect

with connect(timeout=60) as state:
    print("connected", flush=True)
    positions, orders, ticks = state.map("positions"), state.map("orders"), state.map("ticks")
    for line in sys.stdin:
        first, last = map(int, line.split())
        for n in range(first, last, 10):
            with state.transaction():
                orders[f"order-{n}"] = {"symbol": f"S{n % 50}", "amount": n}
                positions[f"S{n % 50}"] = {"amount": n, "price": n * 0.25}
            del orders[f"order-{n}"]
            for tick in range(6):
                ticks[tick] = n
            positions[f"S{n % 20}"] = {"amount": -n, "price": n * 0.5}
        state.flush(120)
        print("flushed", flush=True)
"""
RATE = 1000  # changes a second, for the hour
STRATEGIES = 3


def test_an_hour_of_traffic_leaves_nothing_behind(data_dir: Path, lab: Effort) -> None:
    changes, pieces = lab.pick(30_000, 3600 * RATE), lab.pick(6, 40)
    piece = changes // STRATEGIES // pieces
    with PersistenceProcess(data_dir) as persistence:
        usage: list[list[Usage]] = []
        workers = [WorkerProcess(WORKER, env=persistence.env(f"bot{n}")) for n in range(STRATEGIES)]
        try:
            for worker in workers:
                worker.start()
                assert worker.read_line() == "connected"
            for number in range(pieces):
                do_piece(workers, number * piece, (number + 1) * piece)
                if number == pieces // 2:
                    restart(workers[0])
                usage.append([Usage(process.pid) for process in (persistence, *workers)])
        finally:
            for worker in workers:
                worker.__exit__(None, None, None)
        bytes_on_disk = sum(os.path.getsize(path) for path in data_dir.rglob("*") if path.is_file())
    check_flat(usage[pieces // 4], usage[-1])
    assert bytes_on_disk < 100 * 2**20, f"{bytes_on_disk} bytes of files for a few hundred keys"
    lab.count("changes of an hour's traffic", piece * pieces * STRATEGIES)


def do_piece(workers: list[WorkerProcess], first: int, last: int) -> None:
    for worker in workers:
        worker.write_line(f"{first} {last}")
    for worker in workers:
        assert worker.read_line(120) == "flushed"


def restart(worker: WorkerProcess) -> None:
    """A bot is killed now and then, and comes back."""
    worker.restart()
    assert worker.read_line() == "connected"


def check_flat(early: list[Usage], late: list[Usage]) -> None:
    for before, after in zip(early, late, strict=True):
        assert after.memory < before.memory * 1.25 + 16, f"from {before} to {after}"
        assert after.descriptors <= before.descriptors + 4, f"from {before} to {after}"
        assert after.threads <= before.threads + 1, f"from {before} to {after}"

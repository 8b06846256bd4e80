"""Much at once: 200 strategies, a million keys, values of ten megabytes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from strategy_proc import connect
from tests.lab.effort import Effort
from tests.processes import PersistenceProcess, WorkerProcess

WORKER = """
from strategy_proc import connect

with connect(timeout=120) as state:
    orders = state.map("orders")
    for n in range(300):
        orders[n % 20] = {"n": n}
    state.flush(120)
    print("flushed", flush=True)
    for n in range(300, 400):
        orders[n % 20] = {"n": n}
    print("done", flush=True)
    input()
"""
EXPECTED = {n % 20: {"n": n} for n in range(380, 400)}


def test_many_strategies_at_once_each_get_their_own_state_back(data_dir: Path, lab: Effort) -> None:
    number = lab.pick(8, 200)
    names = [f"bot{n}" for n in range(number)]
    with PersistenceProcess(data_dir) as persistence:
        with ExitStack() as running:
            workers = [running.enter_context(WorkerProcess(WORKER, env=persistence.env(name))) for name in names]
            for word in ("flushed", "done"):
                for worker in workers:
                    assert worker.read_line(300) == word
            for worker in workers:
                worker.kill()
        persistence.restart()
        for name in names:
            with connect(name, data_dir=data_dir, timeout=60) as state:
                assert dict(sorted(state.map("orders").items())) == EXPECTED, name
    lab.count("strategies at once", number)


def test_a_large_map_comes_back_whole_and_in_order(data_dir: Path, lab: Effort) -> None:
    number = lab.pick(20_000, 1_000_000)
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir, timeout=60) as state:
            ticks = state.map("ticks")
            for n in range(number):
                ticks[n] = n
            for n in range(0, number, 1000):
                del ticks[n]
                ticks[n] = -n
            state.flush(300)
            expected = ticks.snapshot()
        persistence.restart()
        with connect("bot", data_dir=data_dir, timeout=120) as state:
            assert list(state.map("ticks").items()) == list(expected.items())
    lab.count("keys in one map", number)


def test_values_of_ten_megabytes(data_dir: Path, lab: Effort) -> None:
    number = lab.pick(2, 12)
    values = {n: bytes([n]) * 10_000_000 for n in range(number)}
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir, timeout=60) as state:
            books = state.map("books")
            for n, value in values.items():
                books[n] = value
            state.sync()
            persistence.restart()
            state.flush(120)
        persistence.restart()
        with connect("bot", data_dir=data_dir, timeout=60) as state:
            assert state.map("books") == values
    lab.count("values of 10 MB", number)

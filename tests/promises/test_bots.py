"""Bots on asyncio and with several threads: killed in the middle of it, the promises hold for them too."""

from __future__ import annotations

from pathlib import Path

from strategy_proc import connect
from tests.processes import PersistenceProcess, WorkerProcess

ASYNCIO = """
import asyncio, os
from strategy_proc import connect

async def trader(name, state, a, b):
    n = 0
    while True:
        n += 1
        with state.transaction():
            a[name] = n
            b[name] = n
        os.write(1, b"%s %d\\n" % (name.encode(), n))
        await asyncio.sleep(0)

async def main():
    with connect() as state:
        a, b = state.map("a"), state.map("b")
        await asyncio.gather(*(trader(f"t{i}", state, a, b) for i in range(3)))

asyncio.run(main())
"""

THREADS = """
import os, threading
from strategy_proc import connect

state = connect()
a, b = state.map("a"), state.map("b")

def trader(name):
    n = 0
    while True:
        n += 1
        with state.transaction():
            a[name] = n
            b[name] = n
        os.write(1, b"%s %d\\n" % (name.encode(), n))

for i in range(3):
    threading.Thread(target=trader, args=(f"t{i}",)).start()
"""


def run_until_killed(script: str, data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with WorkerProcess(script, env=persistence.env("bot")) as worker:
            lines = [worker.read_line() for _ in range(600)]
            worker.kill()
            lines += worker.read_to_end()
        returned: dict[str, int] = {}
        for line in lines:
            name, n = line.split()
            assert int(n) == returned.get(name, 0) + 1
            returned[name] = int(n)
        with connect("bot", data_dir=data_dir) as state:
            a, b = state.map("a").snapshot(), state.map("b").snapshot()
            assert a == b, "a transaction was seen half"
            assert a.keys() == returned.keys()
            assert all(returned[name] <= a[name] <= returned[name] + 1 for name in a)


def test_an_asyncio_bot_loses_nothing_and_no_half_transaction(data_dir: Path) -> None:
    run_until_killed(ASYNCIO, data_dir)


def test_a_bot_with_threads_loses_nothing_and_no_half_transaction(data_dir: Path) -> None:
    run_until_killed(THREADS, data_dir)

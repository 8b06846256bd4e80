"""Supervisor, persistence process and bots, all real."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from tests.supervisor.harness import SupervisorProcess, is_gone, outlive
from tests.waiting import wait_until

COUNTER = """
from strategy_proc import connect

with connect() as state:
    numbers = state.map("numbers")
    count = numbers.get("count", 0)
    print(f"found {count}", flush=True)
    while True:
        count += 1
        numbers["count"] = count
        if count % 1000 == 0:
            print(f"put {count}", flush=True)
            state.beat()
"""
PERSISTENCE = {"command": [sys.executable, "-m", "persistence_proc"]}


def system(folder: Path) -> SupervisorProcess:
    (folder / "counter.py").write_text(COUNTER)
    counter = {"command": ["python", "counter.py"]}
    return SupervisorProcess(folder, {"persistence": PERSISTENCE, "strategies.a": counter, "strategies.b": counter})


def said(supervisor: SupervisorProcess, name: str, word: str) -> list[int]:
    """The numbers behind `word` in the whole lines of a bot's log."""
    return [int(number) for number in re.findall(rf"^{word} (\d+)\b.*\n", supervisor.log(name), re.MULTILINE)]


def test_what_a_bot_had_put_is_there_after_everything_was_killed(data_dir: Path) -> None:
    with system(data_dir) as supervisor:
        pids = [supervisor.wait_for(name, "running").pid for name in ("persistence", "a", "b")]
        wait_until(lambda: said(supervisor, "a", "put") and said(supervisor, "b", "put"))
        supervisor.kill()
        wait_until(lambda: all(pid is not None and is_gone(pid) for pid in pids), what="no orphans")
        last = {name: said(supervisor, name, "put")[-1] for name in "ab"}
        supervisor.start()
        for name in "ab":
            wait_until(lambda name=name: len(said(supervisor, name, "found")) == 2)  # type: ignore[misc]
            assert said(supervisor, name, "found")[1] >= last[name]
        assert outlive(data_dir, "stop").returncode == 0


def test_a_bot_does_not_notice_that_persistence_was_killed(data_dir: Path) -> None:
    with system(data_dir) as supervisor:
        bot = supervisor.wait_for("a", "running").pid
        persistence = supervisor.program("persistence").pid
        assert persistence is not None
        os.kill(persistence, signal.SIGKILL)
        supervisor.wait_for("persistence", "running", but_not=persistence)
        before = len(said(supervisor, "a", "put"))
        wait_until(lambda: len(said(supervisor, "a", "put")) > before + 3)
        assert supervisor.program("a").pid == bot
        assert '"name": "a"' in wait_until(lambda: namespaces(data_dir), what="a report of persistence")
        assert supervisor.terminate() == 0


def namespaces(folder: Path) -> str:
    """What `outlive status --json` shows behind "namespaces"."""
    return outlive(folder, "status", "--json").stdout.partition('"namespaces"')[2]

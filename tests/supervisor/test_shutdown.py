"""Every way to leave: the order is kept, nobody is left, and the state is whole."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.injection import LOG_VARIABLE, POINTS_VARIABLE
from tests.chaos.lives import HOOK, ROOT
from tests.supervisor.harness import SupervisorProcess, is_gone, outlive, program
from tests.waiting import wait_until

BOT = """
import os, signal, time
from strategy_proc import connect

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with connect() as state:
    numbers = state.map("numbers")
    print(f"found {dict(numbers)}", flush=True)  # one write: the supervisor may say something behind each
    for n in range(100):
        numbers[n] = n
    signal.sigwait({signal.SIGTERM})
    print("asked", flush=True)
    while os.path.exists("wait"):
        time.sleep(0.01)
    numbers["last"] = "word"
    state.flush(60)
    print("flushed", flush=True)
"""
WHOLE = str({**{n: n for n in range(100)}, "last": "word"})
PERSISTENCE: dict[str, Any] = {"command": [sys.executable, "-m", "persistence_proc"]}


def three(folder: Path, **settings: Any) -> SupervisorProcess:
    """Persistence, a service and a strategy, each of which says when it leaves."""
    left = {"LEFT": str(folder / "left")}
    return SupervisorProcess(
        folder,
        {
            "persistence": program("serve", env=left),
            "services.exchange": program("serve", wait_ready=True, env={**left, "NAME": "exchange"}),
            "strategies.a": program("serve", env={**left, "NAME": "a"}),
            **settings,
        },
    )


def real(folder: Path, **persistence: Any) -> SupervisorProcess:
    (folder / "bot.py").write_text(BOT)
    bot = {"command": ["python", "bot.py"], "stop_timeout": 60}
    return SupervisorProcess(folder, {"persistence": {**PERSISTENCE, **persistence}, "strategies.a": bot})


def ctrl_c(supervisor: SupervisorProcess) -> None:
    supervisor.signal(signal.SIGINT)


def sigterm(supervisor: SupervisorProcess) -> None:
    supervisor.signal(signal.SIGTERM)


def outlive_stop(supervisor: SupervisorProcess) -> None:
    assert outlive(supervisor.folder, "stop").returncode == 0


WAYS = [ctrl_c, sigterm, outlive_stop]


@pytest.mark.parametrize("leave", WAYS)
def test_each_way_to_leave_keeps_the_order_and_ends_with_0(data_dir: Path, leave: Any) -> None:
    with three(data_dir) as supervisor:
        pids = [supervisor.wait_for(name, "running").pid for name in ("persistence", "exchange", "a")]
        leave(supervisor)
        assert supervisor.wait() == 0
        assert (data_dir / "left").read_text().split() == ["a", "exchange", "persistence"]
        assert all(pid is not None and is_gone(pid) for pid in pids)


@pytest.mark.parametrize("leave", WAYS)
def test_the_state_is_whole_whichever_way(data_dir: Path, leave: Any) -> None:
    with real(data_dir) as supervisor:
        supervisor.wait_for("a", "running")
        leave(supervisor)
        assert supervisor.wait() == 0
        assert_whole_at_the_next_start(supervisor)


def test_a_second_ctrl_c_waits_for_nobody_that_is_deaf_and_persistence_still_leaves_in_order(data_dir: Path) -> None:
    with three(data_dir, **{"strategies.b": program("deaf", stop_timeout=600)}) as supervisor:
        deaf = supervisor.wait_for("b", "running").pid
        supervisor.wait_for("a", "running")
        ctrl_c(supervisor)
        supervisor.wait_for("b", "stopping")
        wait_until(lambda: supervisor.program("a").state == "stopped")
        assert supervisor.program("persistence").state == "running"
        ctrl_c(supervisor)
        assert supervisor.wait() == 0
        assert (data_dir / "left").read_text().split() == ["a", "exchange", "persistence"]
        assert deaf is not None
        assert is_gone(deaf)


def test_persistence_that_dies_while_the_strategies_leave_comes_back_for_them(data_dir: Path) -> None:
    with real(data_dir) as supervisor:
        supervisor.wait_for("a", "running")
        (data_dir / "wait").touch()
        ctrl_c(supervisor)
        wait_until(lambda: "asked\n" in supervisor.log("a"))
        pid = supervisor.program("persistence").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        (data_dir / "wait").unlink()
        assert supervisor.wait() == 0
        assert "flushed\n" in supervisor.log("a")
        assert supervisor.errors().count("persistence started") == 2
        assert_whole_at_the_next_start(supervisor)


@pytest.mark.parametrize("point", ["shutdown.asked", "shutdown.saved", "shutdown.threads_ended"])
def test_persistence_that_dies_around_its_last_save_loses_nothing(data_dir: Path, point: str) -> None:
    env = {
        "PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}",
        POINTS_VARIABLE: f"{point}=1;seed=1",
        LOG_VARIABLE: str(data_dir / "fired"),
    }
    with real(data_dir, env=env) as supervisor:
        supervisor.wait_for("a", "running")
        sigterm(supervisor)
        assert supervisor.wait() == 0
        assert (data_dir / "fired").read_text().split()[0] == point
        assert "SIGKILL" in supervisor.errors()
        assert_whole_at_the_next_start(supervisor)


def assert_whole_at_the_next_start(supervisor: SupervisorProcess) -> None:
    supervisor.start()
    lines = wait_until(lambda: re.findall(r"^found (.*)\n", supervisor.log("a"), re.MULTILINE)[1:])
    assert lines == [WHOLE]
    supervisor.kill()

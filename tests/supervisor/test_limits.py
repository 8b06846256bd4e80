"""What a program may not do for ever: hang, start, grow."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from tests.supervisor.harness import SupervisorProcess, program
from tests.waiting import wait_until

STUCK = """
import signal, threading
from strategy_proc import connect

def send_the_order():
    with state.transaction():
        threading.Event().wait()  # an exchange that never answers

with connect() as state:
    threading.Thread(target=send_the_order, daemon=True).start()
    while True:
        state.beat()
        threading.Event().wait(0.05)
"""
PERSISTENCE = {"command": [sys.executable, "-m", "persistence_proc"]}


def test_a_bot_that_beats_while_its_puts_are_stuck_is_hung_and_all_its_threads_are_in_the_log(data_dir: Path) -> None:
    (data_dir / "bot.py").write_text(STUCK)
    bot = {"command": ["python", "bot.py"], "watchdog": 1.0}
    with SupervisorProcess(data_dir, {"persistence": PERSISTENCE, "strategies.a": bot}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        again = supervisor.wait_for("a", "running", but_not=pid)
        assert again.last_exit == -signal.SIGABRT
        stacks = supervisor.log("a")
        assert "in send_the_order" in stacks
        assert re.search(r'bot\.py", line \d+ in <module>', stacks)
        assert "again after: hung (no beat for" in stacks
        supervisor.kill()


def test_a_bot_that_is_deaf_to_sigabrt_too_is_killed(data_dir: Path) -> None:
    prelude = "import supervisor.unit; supervisor.unit._ABORT_PATIENCE = 0.1"
    with SupervisorProcess(data_dir, {"strategies.a": program("numb", watchdog=0.3)}, prelude) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        again = supervisor.wait_for("a", "running", but_not=pid)
        assert again.last_exit == -signal.SIGKILL
        assert "again after: hung (no beat for" in supervisor.log("a")
        supervisor.kill()


def test_a_program_that_is_never_ready_is_started_again_which_says_why(data_dir: Path) -> None:
    tables = {"strategies.a": program("mute", start_timeout=0.5)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        wait_until(lambda: supervisor.serves() and supervisor.program("a").restarts > 0)
        assert supervisor.happenings("a")[:5] == ["started", "late", "SIGTERM", "ended", "started"]
        assert "again after: late (not ready, and not a word for" in supervisor.log("a")
        supervisor.kill()


def test_a_program_that_grows_is_warned_of_before_it_is_stopped(data_dir: Path) -> None:
    with SupervisorProcess(
        data_dir, {"strategies.a": program("grow", 115_000_000, memory_limit="150MB")}
    ) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        wait_until(lambda: "heavy" in supervisor.happenings("a"))
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        supervisor.wait_for("a", "running", but_not=pid)
        assert supervisor.happenings("a")[:5] == ["started", "ready", "heavy", "overweight", "SIGTERM"]
        assert "again after: overweight (" in supervisor.log("a")
        supervisor.kill()

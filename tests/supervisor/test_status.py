"""`outlive status`: at a glance, for programs, and whatever state everything is in."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from protocol.messages import NamespaceStatus, StatusReport
from supervisor.control import ProgramStatus, SupervisorStatus
from supervisor.status_view import duration, exit_code, milliseconds, show, size, strategy_figures
from tests.supervisor.harness import SupervisorProcess, outlive
from tests.waiting import wait_until


def a_program(name: str = "bot", state: str = "running", **fields: Any) -> ProgramStatus:
    given = {
        "name": name, "kind": "strategy", "namespace": name, "state": state, "pid": 5, "created": 1.0,
        "rss": 50 * 2**20, "uptime": 3700.0, "starts": 2, "restarts": 1, "last_exit": -9, "cpu": 3.0,
        "recovering": None, "retry_in": None, "log": "bot.log",
    }  # fmt: skip
    return msgspec.convert({**given, **fields}, ProgramStatus)


def a_supervisor(*programs: ProgramStatus, data_dir: str = "/data") -> SupervisorStatus:
    return SupervisorStatus(
        pid=4, created=1.0, state="up", uptime=61.0, run_dir="/data/supervisor.d", data_dir=data_dir, endpoint=None,
        curve_dir=None, programs=list(programs), happenings=[],
    )  # fmt: skip


def a_report(**namespace: Any) -> StatusReport:
    given = {
        "name": "bot", "epoch": 1, "applied": 9, "durable": 8, "maps": {"book": 3}, "session": "open",
        "heard_ago": 0.1, "received": 100, "coalesced": 25, "lag": 0.0123,
    }  # fmt: skip
    return StatusReport(
        instance="i", pid=1, data_dir="/data", state="serving", uptime=1.0, lsn=1, commits=7, saves=2,
        journal_bytes=2**20, lag_last=0.001, lag_p99=0.002, fsync_last=0.0005, fsync_p99=0.0031, disk_free=5 * 2**30,
        stale_refused=0, malformed=0, namespaces=[msgspec.convert({**given, **namespace}, NamespaceStatus)],
    )  # fmt: skip


def shown(status: SupervisorStatus, report: StatusReport | None) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(status, report, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_everything_is_there_at_a_glance() -> None:
    text = shown(a_supervisor(a_program(heard_ago=2.0, last_reason="hung (no beat), SIGABRT after 9.0 s")), a_report())
    for words in (
        "1h01m", "50.0 MiB", "3 %", "12.3 ms", "hung (no beat), SIGABRT after 9.0 s", "7 commits", "25 %",
        "append and fsync 0.5 ms (99th percentile 3.1 ms)", "2 pickle files", "disk free 5.0 GiB",
    ):  # fmt: skip
        assert words in text


def test_names_and_reasons_can_not_break_the_table() -> None:
    evil = "[red]\x1b[2J\n[/red][/]"
    status = a_supervisor(a_program(last_reason=evil), data_dir=f"/data/{evil}")
    text = shown(status, a_report(name=evil, refused=evil, session=evil, degraded=[evil]))
    assert "\x1b" not in text
    assert text.count("[red]\ufffd[2J\ufffd[/red][/]") >= 5


def test_without_an_answer_the_programs_are_shown_all_the_same() -> None:
    text = shown(a_supervisor(a_program(recovering=40)), None)
    assert "recovering 40 %" in text
    assert "the persistence process does not answer" in text


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["running", "done", "stopped"], 0),
        (["running", "starting"], 4),
        (["backoff"], 4),
        (["aborting", "fatal"], 1),
    ],
)
def test_exit_codes_for_scripts(states: list[str], code: int) -> None:
    assert exit_code(a_supervisor(*(a_program(state=state) for state in states))) == code


def test_figures_of_a_strategy_come_from_both_processes_and_the_disk(tmp_path: Path) -> None:
    (tmp_path / "bot" / "outbox").mkdir(parents=True)
    (tmp_path / "bot" / "outbox" / "segment").write_bytes(b"x" * 1000)
    status = a_supervisor(a_program(), a_program("other"), data_dir=str(tmp_path))
    bot, other = strategy_figures(status, a_report())
    assert (bot.lag, bot.outbox_bytes, bot.durable, bot.entries) == (0.0123, 1000, 8, 3)
    assert (other.lag, other.outbox_bytes, other.session) == (None, 0, None)


def test_times_and_sizes_are_short() -> None:
    assert [duration(seconds) for seconds in (None, 5.9, 65, 3700)] == ["-", "5s", "1m05s", "1h01m"]
    assert [size(count) for count in (0, 1024, 3 * 2**20, 2**31)] == ["0 KiB", "1 KiB", "3.0 MiB", "2.0 GiB"]
    assert [milliseconds(seconds) for seconds in (None, 0.0015)] == ["-", "1.5 ms"]


def test_status_works_with_real_persistence_and_while_it_is_stopped(data_dir: Path) -> None:
    script = data_dir / "bot.py"
    script.write_text(
        "import signal, strategy_proc\n"
        "state = strategy_proc.connect()\n"
        "book = state.map('book')\n"
        "book['a'] = 1\n"
        "state.flush(30)\n"
        "signal.pause()\n"
    )
    tables = {"persistence": {}, "strategies.bot": {"command": [sys.executable, str(script)]}}
    with SupervisorProcess(data_dir, tables) as supervisor:
        supervisor.wait_for("bot", "running")
        wait_until(lambda: figures(data_dir)["strategies"][0]["session"] == "open")
        found = figures(data_dir)
        assert found["strategies"][0]["outbox_bytes"] > 0
        assert found["persistence"]["fsync_last"] > 0
        assert found["persistence"]["disk_free"] > 0
        assert outlive(data_dir, "status").returncode == 0
        pid = supervisor.program("persistence").pid
        os.kill(pid, signal.SIGSTOP)
        assert figures(data_dir)["persistence"] is None
        os.kill(pid, signal.SIGCONT)
        assert supervisor.terminate() == 0
    result = outlive(data_dir, "status", "--json")
    assert (result.returncode, result.stdout) == (3, "")


def figures(folder: Path) -> Any:
    return json.loads(outlive(folder, "status", "--json").stdout)

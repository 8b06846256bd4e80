"""The managers of `restart`: what they are told, and that none of them is left. Nothing is timed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from configparser import ConfigParser
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from benchmarks import managers
from benchmarks.managers import Bot, Manager
from benchmarks.results import Row, our_row
from benchmarks.scenarios import Bench, restart
from supervisor.config import load_config
from tests.waiting import wait_until

BOT = Bot("bot7", 10, "/folder/bot7")
HAS_A_CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def read(text: str, path: Path) -> ConfigParser:
    path.write_text(text)
    found = ConfigParser()
    found.read(path)
    return found


@pytest.mark.parametrize(("given", "written"), [(None, None), (0.1, "0.1")])
def test_circus_has_its_own_settings_but_the_delay_that_is_compared(
    given: float | None, written: str | None, tmp_path: Path
) -> None:
    found = read(managers.circus_ini("/folder", BOT, "/state", given), tmp_path / "circus.ini")
    assert found.get("circus", "check_delay", fallback=None) == written
    assert found["watcher:bot7"]["cmd"].endswith("-m benchmarks.restarted")
    assert found["env:bot7"]["OUTLIVE_NAMESPACE"] == "bot7"


def test_supervisord_gets_every_percent_sign_as_it_is(tmp_path: Path) -> None:
    text = managers.supervisord_conf("/50%", BOT, "/state/100%")
    found = read(text, tmp_path / "supervisord.conf")
    assert found["supervisord"]["pidfile"] == "/50%/supervisord.pid"
    assert 'OUTLIVE_DATA_DIR="/state/100%"' in found["program:bot7"]["environment"]


def test_without_a_spare_ours_runs_the_command_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "outlive.toml"
    path.write_text(managers.strategy(BOT, True) + managers.strategy(BOT._replace(name="bot8"), False))
    found = load_config(path).strategies
    assert (found["bot7"].entry, found["bot7"].command) == (managers.ENTRY, [])
    assert (found["bot8"].entry, found["bot8"].command) == (None, managers.COMMAND)
    assert found["bot8"].env == BOT.env


def test_a_supervisord_that_does_not_work_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "supervisord"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(managers, "OF_ITS_OWN", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert managers.no_supervisord() == "not installed: supervisord"


def lines(folder: Path) -> list[str]:
    log = folder / managers.LOG
    return log.read_text().splitlines() if log.exists() else []


def test_a_manager_that_does_not_leave_is_killed_with_all_that_it_has_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managers, "PATIENCE", 0.05)
    with Manager([sys.executable, "-c", HAS_A_CHILD], str(data_dir)) as manager:
        wait_until(lambda: lines(data_dir), what="its child")
        family = [manager.process, *manager.family()]
        assert len(family) == 2
    wait_until(lambda: not any(process.is_running() for process in family), what="the end of both")


def test_a_manager_ends_with_a_benchmark_that_is_killed(data_dir: Path) -> None:
    code = f"""
import sys
from benchmarks.managers import Manager
with Manager([sys.executable, "-c", "import time; time.sleep(600)"], {str(data_dir)!r}) as manager:
    print(manager.process.pid, flush=True)
    manager.process.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=managers.ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        process = psutil.Process(int(bench.stdout.readline()))
        bench.send_signal(signal.SIGKILL)
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, what="its end")


def test_the_tail_is_of_all_kills_and_more_than_the_floor_is_taken_kill_by_kill() -> None:
    ours, floor = our_row("g"), Row(name="no manager", group="g", kind="floor")
    ours.rounds = [{"p50": 30.0}, {"p50": 90.0}, {"p50": 50.0}]
    floor.rounds = [{"p50": 20.0}, {"p50": 60.0}, {"p50": 45.0}]
    restart.add_figures([ours, floor])
    assert [ours.figure(metric) for metric in ("p50", "p99", "max", "beyond")] == [50.0, 90.0, 90.0, 10.0]


def test_only_a_life_that_began_after_the_kill_counts(data_dir: Path) -> None:
    with ExitStack() as stack:
        row, bot = our_row("g"), Bot("a", 1, str(data_dir / "a"))
        killed = restart.Killed(row, bot, stack)
        with restart.socket.socket(restart.socket.AF_UNIX, restart.socket.SOCK_DGRAM) as worker:
            for accepted in (100, 300):
                worker.sendto(f"{os.getpid()} {accepted}".encode(), bot.notes)
        assert killed.notes.life(since=200).accepted == 300


def test_killed_strategies_put_again_and_who_is_not_installed_has_a_row_that_says_so(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "QUICK_KILLS", 1)
    monkeypatch.setattr(managers, "no_circus", lambda: "not installed: circus")
    monkeypatch.setattr(managers, "no_supervisord", lambda: "not installed: supervisord")
    (table,) = restart.restart(Bench(str(data_dir), quick=True))
    assert {row.name: row.missing for row in table.rows if row.missing} == {
        "circus": "not installed: circus",
        "circus, check_delay 0.1": "not installed: circus",
        "supervisord": "not installed: supervisord",
    }
    assert all(row.figure("p50") for row in table.rows if not row.missing)
    assert not list(data_dir.iterdir())

"""Chaos, view and verdict of the demo, and a short run of all of it with real processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import psutil
import pytest
from rich.console import Console

import demo.__main__
from demo.bot import STRATEGIES
from demo.chaos import Chaos, Kill
from demo.observe import Sight, Totals
from demo.scene import Scene
from demo.verdict import Run, judge, show_verdict, undisturbed_run
from demo.view import PlainView, picture, plain_line
from supervisor.config import PERSISTENCE
from supervisor.control import ProgramStatus
from tests.waiting import wait_until

NAMES = [PERSISTENCE, *STRATEGIES]


def a_program(name: str, pid: int | None, created: float | None = None) -> ProgramStatus:
    return ProgramStatus(
        name=name,
        kind="strategy",
        namespace=name,
        state="running",
        pid=pid,
        created=created,
        uptime=1.0,
        starts=1,
        restarts=0,
        last_exit=None,
        rss=10**7,
        cpu=0.0,
        recovering=None,
        retry_in=None,
        log="",
    )


@pytest.fixture
def sleepers() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A process of ours for each name, waiting to be killed."""
    processes = {name: subprocess.Popen(["sleep", "600"]) for name in NAMES}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def statuses(processes: dict[str, subprocess.Popen[bytes]]) -> list[ProgramStatus]:
    return [a_program(name, p.pid, psutil.Process(p.pid).create_time()) for name, p in processes.items()]


def test_the_same_seed_gives_the_same_victims(sleepers: dict[str, subprocess.Popen[bytes]]) -> None:
    def victims(seed: int) -> list[str]:
        chaos = Chaos(seed, NAMES)
        kill = chaos.strike(0.0, statuses(sleepers))
        assert kill is not None
        wait_until(lambda: all(sleepers[name].poll() == -9 for name, _ in kill.victims))
        for name, _ in kill.victims:
            sleepers[name] = subprocess.Popen(["sleep", "600"])
        return [name for name, _ in kill.victims]

    found = [victims(seed) for seed in range(8)]
    assert found == [victims(seed) for seed in range(8)]
    assert {len(names) for names in found} >= {1, 2}


def test_a_pid_of_another_process_is_left_alone(sleepers: dict[str, subprocess.Popen[bytes]]) -> None:
    reused = [a_program(name, process.pid, created=1.0) for name, process in sleepers.items()]
    chaos = Chaos(1, NAMES)
    assert chaos.strike(0.0, reused) is None
    assert all(process.poll() is None for process in sleepers.values())


def test_programs_without_a_process_are_no_victims() -> None:
    chaos = Chaos(1, NAMES)
    assert chaos.strike(0.0, [a_program(name, None) for name in NAMES]) is None
    assert chaos.victims == 0


def test_a_directory_that_is_not_the_demos_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(RuntimeError, match="was not made by the demo"), Scene(tmp_path, keep=False):
        pass
    assert (tmp_path / "precious").exists()


def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Scene(folder, keep=False):
        (folder / "precious").write_text("the first one's")
        with pytest.raises(RuntimeError, match="another demo is running in"), Scene(folder, keep=False):
            pass
        assert (folder / "precious").exists()
    with Scene(folder, keep=False):
        assert not (folder / "precious").exists()


def test_a_supervisor_that_leaves_by_itself_ends_the_demo(tmp_path: Path) -> None:
    with Scene(tmp_path / "run", keep=False) as scene:
        scene.start_exchange()
        scene.start_supervisor(seconds=600)
        assert scene.status() is not None
        scene._supervisor.kill()  # type: ignore[union-attr]
        scene._supervisor.wait()  # type: ignore[union-attr]
        with pytest.raises(RuntimeError, match="the supervisor left with -9"):
            scene.check_supervisor()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_an_impossible_time_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--seconds", seconds])
    with pytest.raises(SystemExit) as caught:
        demo.__main__.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["demo", "--fast"], ["demo.exchange"], ["demo.bot"], ["demo.bot", "gambler"]])
def test_a_wrong_use_is_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.fixture(scope="module")
def trend_run() -> Run:
    return undisturbed_run("trend")


def broken(checks_of: Run, expected: Run) -> set[str]:
    return {check.what for check in judge({"trend": checks_of}, {"trend": expected}, [], {}) if not check.holds}


def test_an_undisturbed_run_passes_its_own_verdict(trend_run: Run) -> None:
    assert broken(trend_run, trend_run) == set()


def test_a_duplicate_breaks_the_verdict(trend_run: Run) -> None:
    books = msgspec.structs.replace(trend_run.books, duplicates=1)
    assert broken(trend_run._replace(books=books), trend_run) == {"duplicates"}


def test_another_trade_breaks_the_verdict(trend_run: Run) -> None:
    trades = [*trend_run.books.trades[:-1], trend_run.books.trades[-1].replace(price=Decimal(1))]
    run = trend_run._replace(books=msgspec.structs.replace(trend_run.books, trades=trades))
    assert "trend: trades equal to the undisturbed run" in broken(run, trend_run)
    assert "trend: state equal to the exchange's" in broken(run, trend_run)


def test_lost_state_breaks_the_verdict(trend_run: Run) -> None:
    run = trend_run._replace(maps={**trend_run.maps, "active_positions": {}})
    assert broken(run, trend_run) == {
        "trend: state equal to the exchange's",
        "trend: state equal to the undisturbed run",
    }


def test_a_kill_without_a_restart_breaks_the_verdict(trend_run: Run) -> None:
    runs = {"trend": trend_run}
    checks = judge(runs, runs, [Kill(1.0, (("trend", 1),))], restarts={"trend": 0})
    assert [check.what for check in checks if not check.holds] == ["kills survived"]
    assert not show_verdict(checks, Console(file=io.StringIO()))


def test_a_death_that_nobody_caused_breaks_the_verdict(trend_run: Run) -> None:
    runs = {"trend": trend_run}
    checks = judge(runs, runs, [Kill(1.0, (("trend", 1),))], restarts={"trend": 2})
    assert [check.what for check in checks if not check.holds] == ["other deaths"]


def test_a_run_is_shown_as_a_picture_and_as_plain_lines(trend_run: Run) -> None:
    sight = Sight(None, None, Totals(saves=3), {"trend": trend_run.books})
    kills = [Kill(1.0, (("trend", 17), ("persistence", 18)))]
    console = Console(file=io.StringIO(), width=150)
    console.print(picture(2.0, sight, kills))
    with PlainView(console) as view:
        view.show(2.0, sight, kills)
        view.show(2.1, sight, kills)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("kill -9 trend (17) and persistence (18)") == 2
    assert "2018-12-31" in text
    assert "3 saves" in plain_line(sight)


@pytest.mark.timeout(240)
def test_a_short_run_with_real_processes_and_real_kills_ends_with_the_verdict(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--seconds", "6", "--seed", "3", "--dir", str(tmp_path / "run"), "--keep"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=230)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
    assert "duplicates" in done.stdout


@pytest.mark.timeout(240)
def test_a_demo_that_is_told_to_leave_takes_its_processes_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--seconds", "600", "--dir", str(tmp_path / "run")]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)})
    config = tmp_path / "run" / "outlive.toml"
    wait_until(lambda: config.exists() and len(psutil.Process(started.pid).children(recursive=True)) >= 5, 120.0)
    children = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(signal.SIGTERM)
    assert started.wait(120) == 128 + signal.SIGTERM
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

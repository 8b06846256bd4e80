"""`outlive logs`: whether anything runs or not, and over everything that happens to a log."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from supervisor.log_files import LogFile, ProgramLog
from supervisor.logs_view import LogReader
from tests.processes import RealProcess
from tests.supervisor.harness import SupervisorProcess, outlive, program, write_config
from tests.waiting import LONG, wait_until


def test_the_newest_lines_are_shown_although_nothing_runs(data_dir: Path) -> None:
    tables = {"supervisor": {"exit_when_done": True}, "strategies.a": program("exit", 0)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        assert supervisor.wait() == 0
    assert outlive(data_dir, "logs", "a", "-n", "1").stdout.endswith("outlive: a done\n")
    assert outlive(data_dir, "logs", "a", "-n", "0").stdout == ""
    assert '"event":"supervisor-stop"' in outlive(data_dir, "logs", "events").stdout
    assert "everything has left" in outlive(data_dir, "logs", "outlive").stdout


def test_a_log_that_nobody_has_is_one_line_with_those_there_are(data_dir: Path) -> None:
    write_config(data_dir, {"strategies.a": program("serve")})
    result = outlive(data_dir, "logs", "../a")
    words = "outlive: there is no log '../a'; there are outlive, events, persistence, a\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", words)


def test_a_log_is_followed_over_a_restart_until_ctrl_c(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        command = [sys.executable, "-m", "supervisor", "logs", "a", "-f", "--config", str(data_dir / "outlive.toml")]
        with RealProcess(command) as reader:
            wait_until(lambda: f"a ready (pid {pid})" in reader.errors())
            assert outlive(data_dir, "kill", "a").returncode == 0
            again = supervisor.wait_for("a", "running", but_not=pid).pid
            wait_until(lambda: f"a ready (pid {again})" in reader.errors())
            reader.signal(signal.SIGINT)
            assert reader.wait(LONG) == 130
            assert reader.errors() == supervisor.log("a")
        assert supervisor.terminate() == 0


def test_a_reader_misses_nothing_when_the_log_is_cut(tmp_path: Path) -> None:
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=10_000, keep=5)
    reader, seen = LogReader(log.path), b""
    for number in range(2_000):
        os.write(log.ready(), b"%09d\n" % number)
        if number % 7 == 0:
            seen += reader.news()
        if number % 100 == 0:
            log.cut()
    while data := reader.news():
        seen += data
    log.close()
    assert [int(line) for line in seen.split()] == list(range(2_000))


def test_a_reader_misses_nothing_when_the_file_is_another(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=1_000, keep=5)
    reader, seen = LogReader(log.path), b""
    for number in range(500):
        log.write(b"%09d\n" % number)
        seen += reader.news()
    log.close()
    assert [int(line) for line in seen.split()] == list(range(500))


def test_the_newest_lines_come_from_rotated_files_too(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=1_000, keep=5)
    for number in range(250):
        log.write(b"%09d\n" % number)
    log.close()
    assert [int(line) for line in LogReader(log.path).last_lines(180).split()] == list(range(70, 250))


def test_a_reader_goes_on_when_its_place_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"one\n")
    reader = LogReader(str(tmp_path / "a.log"))
    assert reader.news() == b"one\n"
    (tmp_path / "a.log").write_bytes(b"two\nthree\n")
    assert reader.news() == b"two\nthree\n"
    assert reader.news() == b""

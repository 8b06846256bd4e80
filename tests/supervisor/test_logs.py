"""What programs print: in their own files, whatever happens to them, to the supervisor and to the disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import log_files
from supervisor.log_files import LogFile, ProgramLog
from tests.supervisor.harness import SupervisorProcess, program
from tests.waiting import LONG, wait_until

COUNTS = "import os\nfor number in range({}): os.write(1, b'%099d\\n' % number)"


def everything(path: Path) -> bytes:
    """The log with all that was rotated, oldest first."""
    files = [*path.parent.glob(f"{path.name}.[0-9]*"), path]
    files.sort(key=lambda file: -int(file.suffix[1:]) if file != path else 0)
    return b"".join(file.read_bytes() for file in files)


def test_who_prints_does_not_wait_for_a_supervisor_that_stands_still(data_dir: Path) -> None:
    lines = 40_000  # more than any pipe holds
    with SupervisorProcess(data_dir, {"strategies.a": program("count", lines)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        supervisor.stop()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: supervisor.log("a").endswith(f"{lines - 1:099}\n"))
        supervisor.cont()
        assert supervisor.terminate() == 0


def test_what_was_printed_before_everybody_was_killed_is_in_the_log(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("count", 1)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        supervisor.stop()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: f"{0:099}" in supervisor.log("a"))
        supervisor.kill()
        assert supervisor.log("a").endswith(f"{0:099}\n")


def test_a_log_is_kept_over_restarts_and_rotated_by_size(data_dir: Path) -> None:
    tables = {"supervisor": {"log_bytes": 50_000, "log_files": 3}, "strategies.a": program("count", 5_000)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        logs = data_dir / "state" / "supervisor.d" / "logs"
        wait_until(lambda: (logs / "a.log.3").exists() and (logs / "a.log").stat().st_size <= 50_000)
        os.kill(pid, signal.SIGKILL)
        supervisor.wait_for("a", "running", but_not=pid)
        assert f"{4_999:099}" in everything(logs / "a.log").decode()
        assert not (logs / "a.log.4").exists()
        assert supervisor.terminate() == 0


def test_no_line_is_lost_or_doubled_while_a_log_is_cut_under_a_program_that_prints(tmp_path: Path) -> None:
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=100_000, keep=1000)
    writer = subprocess.Popen([sys.executable, "-c", COUNTS.format(50_000)], stdout=log.ready())
    while writer.poll() is None:
        log.cut()
    log.cut()  # however seldom this had its turn
    log.close()
    assert [int(line) for line in everything(tmp_path / "a.log").split()] == list(range(50_000))
    assert (tmp_path / "a.log.1").exists()


def test_where_a_file_can_not_be_cut_at_its_front_it_is_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "_fallocate", lambda *_: False)
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=1_000, keep=1000)
    for begin in range(0, 400, 20):
        os.write(log.ready(), b"".join(b"%099d\n" % number for number in range(begin, begin + 20)))
        log.cut()
    log.close()
    assert [int(line) for line in everything(tmp_path / "a.log").split()] == list(range(400))


@pytest.mark.parametrize("collapses", [True, False])
def test_a_log_stays_bounded_under_a_program_that_prints_faster_than_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapses: bool
) -> None:
    piece, rounds, sizes = bytes(100_000), iter(range(30)), []
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=50_000, keep=2)
    really_copied = log_files._copy

    def copy_while_it_prints(fd: int, path: str, start: int = 0, end: int | None = None) -> int:
        if next(rounds, None) is not None:
            os.write(log.ready(), piece)
        sizes.append((tmp_path / "a.log").stat().st_size)
        return really_copied(fd, path, start, end)

    monkeypatch.setattr(log_files, "_copy", copy_while_it_prints)
    if not collapses:
        monkeypatch.setattr(log_files, "_fallocate", lambda *arguments: False)
    os.write(log.ready(), piece)
    log.cut()
    assert max(sizes) <= 4 * 50_000 + 3 * len(piece)
    assert (tmp_path / "a.log").stat().st_size <= 50_000


def test_a_log_that_somebody_has_emptied_is_shown_from_its_beginning(tmp_path: Path) -> None:
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=1_000_000, keep=2)
    os.write(log.ready(), b"old\n" * 100)
    position = log.end
    os.truncate(tmp_path / "a.log", 0)
    os.write(log.ready(), b"new\n")
    assert log.read(position, 100) == (0, b"new\n")


def test_on_a_full_disk_the_oldest_lines_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=10_000, keep=2)
    (tmp_path / "a.log.2").write_bytes(b"old")
    os.write(log.ready(), b"x" * 30_000)
    monkeypatch.setattr(log_files, "_copy", full)
    assert log.cut() > 0
    assert not log.is_too_big
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
    log.close()


def test_the_size_of_a_log_is_reserved_where_the_disk_can_do_it(tmp_path: Path) -> None:
    with open(tmp_path / "probe", "wb") as probe:
        can = log_files._fallocate(probe.fileno(), log_files._KEEP_SIZE, 0, 1_000_000)
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=1_000_000, keep=2)
    for _ in range(3):
        status = os.stat(log.path)
        assert (status.st_blocks * 512 >= 1_000_000) == can
        os.write(log.ready(), b"x" * 1_500_000)
        log.cut()
    log.close()


def test_a_line_torn_by_a_full_disk_spoils_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = LogFile(str(tmp_path / "a.log"), max_bytes=1_000, keep=1), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    log.write(b"first\n")
    monkeypatch.setattr(os, "write", write)
    log.write(b"second\n")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"fir\nsecond\n"


def test_a_log_that_somebody_has_moved_is_begun_anew(tmp_path: Path) -> None:
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=10_000, keep=2)
    log.write(b"before\n")
    (tmp_path / "a.log").rename(tmp_path / "moved")
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"after\n"


def test_a_program_starts_although_its_log_can_not_be_opened(data_dir: Path) -> None:
    logs = data_dir / "state" / "supervisor.d" / "logs"
    os.makedirs(logs / "a.log")
    for folder in (data_dir / "state", data_dir / "state" / "supervisor.d"):
        folder.chmod(0o700)
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        supervisor.wait_for("a", "running")
        assert supervisor.terminate() == 0


def test_a_line_of_ours_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    log = ProgramLog(str(tmp_path / "a.log"), max_bytes=10_000, keep=2)
    os.write(log.ready(), b"no end of line")
    log.write(b"ours\n")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"no end of line\nours\n"


def test_the_console_follows_a_log_that_is_cut(data_dir: Path) -> None:
    lines = 3_000
    tables = {"supervisor": {"log_bytes": 20_000}, "strategies.a": program("count", lines)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: f"{lines - 1:099}" in supervisor.errors())
        shown = [line for line in supervisor.errors().splitlines() if line.startswith("a            | 0")]
        assert [int(line.split("|")[1]) for line in shown] == list(range(lines))
        assert supervisor.terminate(LONG) == 0

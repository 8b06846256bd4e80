"""Nothing left behind, nothing doubled: whoever dies, whenever."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import supervisor.launcher
import supervisor.sessions as sessions
import supervisor.sweep as sweeping
from supervisor.control import AlreadyRunning, RunDir
from supervisor.sessions import kill_session, members
from tests.processes import WorkerProcess
from tests.supervisor.harness import SupervisorProcess, is_gone, outlive, program
from tests.waiting import LONG, wait_until

STANDS_STILL = f"""
import os, runpy, signal, sys
launcher = runpy.run_path({supervisor.launcher.__file__!r})
if "STAND_STILL" in os.environ:
    if os.environ["STAND_STILL"] == "after":
        launcher["die_with"](int(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGSTOP)
launcher["main"](sys.argv[1:])
"""
"""A launcher that stops itself before, or after, it has asked to die with its parent."""
SESSION = """
import os, sys
os.setsid()
print(os.getpid(), flush=True)
for line in sys.stdin:
    print("here", flush=True)
"""
FAMILY = """
import os, signal, subprocess, sys
os.setsid()
one = [sys.executable, "-c", "import signal; signal.pause()"]
for group in (None, 0):
    print(subprocess.Popen(one, process_group=group, stdout=subprocess.DEVNULL).pid, flush=True)
signal.pause()
"""


# The supervisor is killed


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_child_that_is_being_started_when_the_supervisor_is_killed_never_runs(data_dir: Path, where: str) -> None:
    (data_dir / "launcher.py").write_text(STANDS_STILL)
    prelude = f"import supervisor.child as c; c._LAUNCHER = {str(data_dir / 'launcher.py')!r}"
    tables = {"strategies.a": program("serve", env={"STAND_STILL": where})}
    with SupervisorProcess(data_dir, tables, prelude) as outlive_run:
        child = wait_until(lambda: next(iter(standing_still(outlive_run.pid)), None))
        outlive_run.kill()
        if where == "before":
            child.resume()
        wait_until(lambda: is_gone(child.pid), what="the end of what was being started")
        assert "serve in" not in outlive_run.log("a")


def standing_still(parent: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(parent).children() if one.status() == psutil.STATUS_STOPPED]


def test_started_again_at_once_after_a_kill_at_any_step_nothing_runs_twice(data_dir: Path) -> None:
    tables = {"strategies.a": program("only", data_dir / "a"), "strategies.b": program("only", data_dir / "b")}
    with SupervisorProcess(data_dir, tables) as outlive_run:
        for steps in (0, 1, 2, 3, 4, 5, 6, 6):
            said = outlive_run.errors().count("outlive      | ")
            wait_until(lambda: outlive_run.errors().count("outlive      | ") >= said + steps)  # noqa: B023
            outlive_run.kill()
            outlive_run.start()
        for name in "ab":
            outlive_run.wait_for(name, "running")
        assert not list(data_dir.glob("*.twice"))
        assert outlive_run.terminate() == 0


def test_the_lock_of_a_dead_supervisor_that_a_starting_child_still_has_is_waited_for(data_dir: Path) -> None:
    run_dir = RunDir(str(data_dir / "run"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    run_dir.lock()
    (data_dir / "run" / "LOCK").write_text(f"{dead.pid}\n")
    released = iter((False, False, True))

    def look(seconds: float) -> None:
        if next(released):
            run_dir.unlock()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supervisor.control.time.sleep", look)
        other = RunDir(run_dir.path)
        other.lock()
    other.unlock()


def test_a_second_supervisor_is_refused_with_the_pid_of_the_first(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as first:
        pid = first.wait_for("a", "running").pid
        second = outlive(data_dir, "run", "outlive.toml")
        assert second.returncode == 1, second
        assert f"a supervisor (pid {first.pid}) is running in" in second.stderr
        assert first.program("a").pid == pid
        assert first.terminate() == 0


def test_a_lock_without_a_name_is_not_taken_for_nobodys(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.control._LAST_BREATH", 0.0)
    run_dir = RunDir(str(data_dir / "run"))
    run_dir.lock()
    (data_dir / "run" / "LOCK").write_text("")
    with pytest.raises(AlreadyRunning):
        RunDir(run_dir.path).lock()
    with open(data_dir / "run" / "LOCK") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    run_dir.unlock()


def test_a_supervisor_on_a_copy_of_a_data_directory_leaves_the_programs_of_the_original_alone(data_dir: Path) -> None:
    for name in ("one", "two"):
        (data_dir / name).mkdir(mode=0o700)
    with SupervisorProcess(data_dir / "one", {"strategies.a": program("helper")}) as original:
        original.wait_for("a", "running")
        wait_until(lambda: original.log("a").count("helper ") > 0)
        helper = int(re.findall(r"^helper (\d+)$", original.log("a"), re.MULTILINE)[0])
        before = {name: original.program(name).pid for name in ("persistence", "a")}
        subprocess.run(["cp", "-a", data_dir / "one" / "state", data_dir / "two" / "state"], check=True, timeout=LONG)
        with SupervisorProcess(data_dir / "two", {"strategies.b": program("serve")}) as copy:
            copy.wait_for("b", "running")
            assert "left behind by an earlier run" not in copy.errors()
            assert copy.terminate() == 0
        assert {name: original.program(name).pid for name in ("persistence", "a")} == before
        assert not is_gone(helper)
        assert original.terminate() == 0
        os.kill(helper, signal.SIGKILL)


def test_a_run_directory_that_was_moved_keeps_its_mark_and_a_copy_has_its_own(data_dir: Path) -> None:
    (data_dir / "run").mkdir(mode=0o700)
    mark = RunDir(str(data_dir / "run")).mark
    (data_dir / "run").rename(data_dir / "moved")
    shutil.copytree(data_dir / "moved", data_dir / "copy")
    marks = [RunDir(str(data_dir / name)).mark for name in ("moved", "copy", "copy", "moved")]
    assert marks == [mark, marks[1], marks[1], mark]
    assert marks[1] != mark


def test_a_directory_put_in_the_place_of_a_locked_one_never_gets_its_mark(data_dir: Path) -> None:
    """Its number would be free again, and maybe the next directory's, if nobody held it."""
    first = RunDir(str(data_dir / "run"))
    first.lock()
    mark = first.mark
    shutil.copytree(first.path, data_dir / "backup")
    removed = os.stat(first.path)
    shutil.rmtree(first.path)
    assert any(os.path.samestat(os.fstat(fd), removed) for fd in open_descriptors())
    shutil.copytree(data_dir / "backup", first.path)
    assert RunDir(first.path).mark != mark
    first.unlock()


def open_descriptors() -> list[int]:
    return [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]


# A program ends


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_helpers_in_the_session_of_a_program_end_with_it(data_dir: Path, how: str) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("family")}) as outlive_run:
        bot = outlive_run.wait_for("a", "running").pid
        wait_until(lambda: re.search(r"^helper (\d+)\n", outlive_run.log("a"), re.MULTILINE))
        helper = int(re.findall(r"^helper (\d+)$", outlive_run.log("a"), re.MULTILINE)[0])
        assert bot is not None
        assert (os.getsid(helper), os.getpgid(helper)) == (bot, helper)
        if how == "killed":
            os.kill(bot, signal.SIGKILL)
            outlive_run.wait_for("a", "running", but_not=bot)
        else:
            outlive(data_dir, "stop", "a")
            outlive_run.wait_for("a", "stopped")
        wait_until(lambda: is_gone(helper), what="the end of the helper")
        outlive_run.terminate()


def test_a_session_is_killed_whole_and_no_other() -> None:
    with WorkerProcess(FAMILY) as leader, WorkerProcess(SESSION) as stranger:
        family = [int(leader.read_line()) for _ in range(2)]
        assert int(stranger.read_line()) == stranger.pid
        assert sorted(members(leader.pid)) == sorted(family)
        leader.process.kill()  # a zombie until somebody waits for it, as the supervisor's children are
        kill_session(leader.pid)
        wait_until(lambda: all(is_gone(pid) for pid in family))
        assert answers(stranger)


def test_a_pid_that_became_a_strangers_between_two_looks_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerProcess(SESSION) as leader, WorkerProcess(SESSION) as stranger:
        leader.read_line()
        stranger.read_line()
        monkeypatch.setattr(sessions, "members", lambda pid: iter([stranger.pid]))
        leader.process.kill()
        kill_session(leader.pid)
        assert answers(stranger)


def test_the_sweep_does_not_hit_a_process_that_has_inherited_a_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerProcess(SESSION) as stranger:
        stranger.read_line()
        orphan = psutil.Process(stranger.pid)
        orphan._ident = (orphan.pid, 1.0)  # type: ignore[attr-defined]  # made long before the stranger
        monkeypatch.setattr(sweeping, "marked", lambda mark: [orphan])
        sweeping.sweep("mark")
        assert answers(stranger)


def answers(process: WorkerProcess) -> bool:
    """Whether it works: one that a SIGKILL is on its way to does not."""
    process.write_line("are you there?")
    return process.read_line() == "here"

"""Spares as real processes: what they are before the word, and after it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.control import ProgramStatus
from tests.supervisor.harness import SupervisorProcess, is_gone, outlive, write_config
from tests.waiting import wait_until

BOT = """
import os, signal, sys
with open("imported", "a") as file:
    print(os.getpid(), "colorsys" in sys.modules, sys.path[0] == os.getcwd(), sys.argv[1:], file=file)

def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(int(os.environ["OUTLIVE_NOTIFY_FD"]), b"ready\\n")
    while True:
        signal.pause()
"""
CONNECTED = """
import signal
from strategy_proc import connect

def main():
    with connect() as state:
        numbers = state.map("numbers")
        numbers["lives"] = numbers.get("lives", 0) + 1
        state.sync()
        print(f"life {numbers['lives']}", flush=True)
        signal.pause()
"""


def tables(**settings: Any) -> dict[str, dict[str, Any]]:
    return {"strategies.a": {"entry": "bot:main", "preload": ["colorsys"], **settings}}


def supervised(folder: Path, text: str = BOT, **settings: Any) -> SupervisorProcess:
    (folder / "bot.py").write_text(text)
    return SupervisorProcess(folder, tables(**settings))


def with_spare(supervisor: SupervisorProcess, but_not: int | None = -1) -> ProgramStatus:
    """Wait until the strategy runs and has a spare that is ready, another than `but_not`."""

    def has_one() -> ProgramStatus | None:
        found = supervisor.program("a") if supervisor.serves() else None
        ready = found is not None and (found.state, found.spare) == ("running", "ready")
        return found if ready and found is not None and found.spare_pid != but_not else None

    return wait_until(has_one, what="a spare")  # type: ignore[return-value]


def imports(folder: Path) -> list[list[str]]:
    return [line.split(maxsplit=3) for line in (folder / "imported").read_text().splitlines()]


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_strategy_that_dies_goes_on_in_its_spare_as_if_it_had_been_started_anew(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        first = with_spare(supervisor)
        kill(first.pid)
        second = supervisor.wait_for("a", "running", but_not=first.pid)
        assert second.pid == first.spare_pid
        assert (second.restarts, second.last_exit) == (1, -signal.SIGKILL)
        assert imports(data_dir) == [
            [str(first.pid), "False", "True", "['bot:main']"],
            [str(second.pid), "True", "True", "['bot:main']"],
        ]
        assert with_spare(supervisor, but_not=first.spare_pid).pid == second.pid
        assert supervisor.terminate() == 0


def test_a_spare_is_nobody_before_the_word(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        status = with_spare(supervisor)
        spare = psutil.Process(status.spare_pid)
        assert "running, spare ready" in outlive(data_dir, "status").stdout
        assert [file.path for file in spare.open_files()] in ([], [status.log], [status.log] * 2)
        assert spare.net_connections(kind="all") == []
        assert spare.num_threads() == 1
        assert len(imports(data_dir)) == 1, "it has imported the strategy"
        assert os.getsid(spare.pid) == spare.pid
        assert supervisor.terminate() == 0


def test_a_spare_that_can_not_import_is_said_once_and_the_strategy_is_started_without_it(data_dir: Path) -> None:
    with supervised(data_dir, preload=["no_such_library"]) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        wait_until(lambda: "spare failed" in supervisor.happenings("a"))
        assert "no spare: preload 'no_such_library': ModuleNotFoundError" in supervisor.log("a")
        kill(pid)
        assert supervisor.wait_for("a", "running", but_not=pid).restarts == 1
        assert supervisor.happenings("a").count("spare failed") == 1
        assert supervisor.terminate() == 0


def test_a_library_that_imports_the_strategy_makes_no_spare(data_dir: Path) -> None:
    (data_dir / "lib").mkdir()
    (data_dir / "lib" / "helpful.py").write_text("import bot")
    path = os.pathsep.join([str(data_dir), str(data_dir / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with supervised(data_dir, preload=["helpful"], env={"PYTHONPATH": path}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        wait_until(lambda: "spare failed" in supervisor.happenings("a"))
        assert "which is the strategy itself" in supervisor.log("a")
        assert supervisor.program("a").pid == pid
        assert supervisor.terminate() == 0


def test_the_death_of_a_spare_is_none_of_the_strategy(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        status = with_spare(supervisor)
        kill(status.spare_pid)
        wait_until(lambda: "spare failed" in supervisor.happenings("a"))
        after = supervisor.program("a")
        assert (after.pid, after.restarts) == (status.pid, 0)
        kill(status.pid)
        assert supervisor.wait_for("a", "running", but_not=status.pid).restarts == 1
        assert supervisor.terminate() == 0


RELEASE = """
import os, signal, helpers

def main():
    with open(os.environ["LIVES"], "a") as file:
        print({release!r}, helpers.RELEASE, os.path.basename(os.getcwd()), file=file)
    os.write(int(os.environ["OUTLIVE_NOTIFY_FD"]), b"ready\\n")
    while True:
        signal.pause()
"""


def released(folder: Path, release: str) -> None:
    """A release of the bot, with a module of its own in lib/, and `current` that points at it."""
    (folder / release / "lib").mkdir(parents=True)
    (folder / release / "bot.py").write_text(RELEASE.format(release=release))
    (folder / release / "lib" / "helpers.py").write_text(f"RELEASE = {release!r}")
    (folder / "new").symlink_to(release)
    (folder / "new").rename(folder / "current")


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_spare_of_before_a_deployment_by_symlink_runs_the_code_of_after_it(data_dir: Path, is_removed: bool) -> None:
    released(data_dir, "r1")
    path = os.pathsep.join(["lib", *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"cwd": "current", "env": {"PYTHONPATH": path, "LIVES": str(data_dir / "lives")}}
    with SupervisorProcess(data_dir, tables(**settings)) as supervisor:
        before = with_spare(supervisor)
        released(data_dir, "r2")
        if is_removed:
            shutil.rmtree(data_dir / "r1")
        kill(before.pid)
        assert supervisor.wait_for("a", "running", but_not=before.pid).pid == before.spare_pid
        assert (data_dir / "lives").read_text().splitlines() == ["r1 r1 r1", "r2 r2 r2"]
        supervisor.terminate()


def test_a_spare_whose_working_directory_has_gone_is_a_start_that_fails_and_says_why(data_dir: Path) -> None:
    (data_dir / "work").mkdir()
    (data_dir / "bot.py").write_text(BOT)
    path = os.pathsep.join([str(data_dir), *filter(None, [os.environ.get("PYTHONPATH")])])
    with SupervisorProcess(data_dir, tables(cwd="work", env={"PYTHONPATH": path})) as supervisor:
        before = with_spare(supervisor)
        (data_dir / "work").rename(data_dir / "elsewhere")
        kill(before.pid)
        wait_until(lambda: "not started" in supervisor.happenings("a"))
        assert f"outlive: {data_dir / 'work'}: No such file or directory\n" in supervisor.log("a")
        assert f"a not started: {data_dir / 'work'}: No such file or directory" in supervisor.errors()
        (data_dir / "elsewhere").rename(data_dir / "work")
        supervisor.wait_for("a", "running", but_not=before.pid)
        assert supervisor.terminate() == 0


def test_both_killed_in_one_instant_are_one_death(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        status = with_spare(supervisor)
        kill(status.spare_pid)
        kill(status.pid)
        after = supervisor.wait_for("a", "running", but_not=status.pid)
        assert after.restarts in (1, 2)  # 2: the word was said to one that had just died
        assert after.pid != status.spare_pid
        assert supervisor.terminate() == 0


def test_sighup_renews_the_spare_and_leaves_the_strategy_alone(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        before = with_spare(supervisor)
        supervisor.signal(signal.SIGHUP)
        after = with_spare(supervisor, but_not=before.spare_pid)
        assert (after.pid, after.restarts) == (before.pid, 0)
        assert before.spare_pid is not None
        assert is_gone(before.spare_pid)
        assert supervisor.terminate() == 0


def test_a_spare_of_a_former_configuration_is_not_used(data_dir: Path) -> None:
    with supervised(data_dir) as supervisor:
        before = with_spare(supervisor)
        write_config(data_dir, tables(env={"X": "1"}))
        supervisor.signal(signal.SIGHUP)
        after = supervisor.wait_for("a", "running", but_not=before.pid)
        assert after.pid != before.spare_pid
        write_config(data_dir, tables(spare=False))
        supervisor.signal(signal.SIGHUP)
        last = supervisor.wait_for("a", "running", but_not=after.pid)
        assert (last.spare, last.spare_pid) == (None, None)
        assert supervisor.terminate() == 0


@pytest.mark.parametrize("way", ["kill", "terminate"])
def test_a_spare_leaves_with_its_supervisor(data_dir: Path, way: str) -> None:
    with supervised(data_dir) as supervisor:
        spare = with_spare(supervisor).spare_pid
        getattr(supervisor, way)()
        assert spare is not None
        wait_until(lambda: is_gone(spare), what="no orphan")


def test_the_state_goes_on_in_the_spare(data_dir: Path) -> None:
    (data_dir / "bot.py").write_text(CONNECTED)
    wanted = {"persistence": {"log_level": "info"}, **tables(preload=[])}
    with SupervisorProcess(data_dir, wanted) as supervisor:
        before = with_spare(supervisor)
        kill(before.pid)
        assert supervisor.wait_for("a", "running", but_not=before.pid).pid == before.spare_pid
        wait_until(lambda: "life 2\n" in supervisor.log("a"))
        assert supervisor.terminate() == 0

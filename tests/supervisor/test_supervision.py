"""A real supervisor and real processes: starts, deaths, restarts, stops."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.supervisor.harness import SupervisorProcess, Tables, is_gone, outlive, program, write_config
from tests.waiting import wait_until

WITHOUT_PIDFD = "import supervisor.child as c; c.open_pidfd = lambda pid: None"
STOPPED_AT_A_DEATH = """
from supervisor.loop import Supervisor
ended = Supervisor._ended
Supervisor._ended = lambda self, unit, child: (ended(self, unit, child), self.stop())
"""
SIGCHLD_IGNORED = """
import os, signal, sys
if signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execv(sys.executable, sys.orig_argv)
"""


@pytest.mark.parametrize("prelude", ["", WITHOUT_PIDFD], ids=["pidfd", "SIGCHLD"])
def test_a_child_that_dies_is_restarted_at_once_and_the_others_are_left_alone(data_dir: Path, prelude: str) -> None:
    tables = {"strategies.a": program("serve"), "strategies.b": program("serve")}
    with SupervisorProcess(data_dir, tables, prelude) as supervisor:
        a, b = supervisor.wait_for("a", "running"), supervisor.wait_for("b", "running")
        assert a.pid is not None
        os.kill(a.pid, signal.SIGKILL)
        again = supervisor.wait_for("a", "running", but_not=a.pid)
        assert (again.restarts, again.last_exit) == (1, -signal.SIGKILL)
        assert supervisor.program("b").pid == b.pid
        assert "waiting" not in supervisor.happenings("a")
        assert supervisor.terminate() == 0


def test_persistence_comes_back_while_the_strategies_keep_running(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        a, persistence = supervisor.wait_for("a", "running"), supervisor.program("persistence")
        assert persistence.pid is not None
        os.kill(persistence.pid, signal.SIGKILL)
        supervisor.wait_for("persistence", "running", but_not=persistence.pid)
        assert supervisor.program("a").pid == a.pid
        assert supervisor.terminate() == 0


def test_start_is_persistence_services_strategies_and_stop_is_the_reverse(data_dir: Path) -> None:
    left = str(data_dir / "left")
    tables = {
        "persistence": program("serve", env={"LEFT": left}),
        "services.exchange": program("serve", wait_ready=True, env={"LEFT": left, "NAME": "exchange"}),
        "strategies.a": program("serve", env={"LEFT": left, "NAME": "a"}),
    }
    with SupervisorProcess(data_dir, tables) as supervisor:
        supervisor.wait_for("a", "running")
        story = [(happening.name, happening.what) for happening in supervisor.status().happenings]
        assert story == [(name, what) for name in ("persistence", "exchange", "a") for what in ("started", "ready")]
        assert supervisor.terminate() == 0
    assert Path(left).read_text().split() == ["a", "exchange", "persistence"]


def test_strategies_wait_until_persistence_is_ready(data_dir: Path) -> None:
    waits = ["python", "-c", "import signal; signal.pause()"]
    tables = {"persistence": {"command": waits}, "strategies.a": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        supervisor.wait_for("persistence", "starting")
        assert supervisor.program("a").state == "stopped"
        assert supervisor.status().state == "starting"
        supervisor.terminate()


def test_a_child_that_ignores_sigterm_is_killed(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("deaf", stop_timeout=0.2)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert supervisor.terminate() == 0
        assert pid is not None
        assert is_gone(pid)


@pytest.mark.parametrize("verb", ["flood", "chatter", "silent"])
def test_a_child_that_says_too_much_or_nothing_any_more_disturbs_nobody(data_dir: Path, verb: str) -> None:
    reader, writer = os.pipe()  # the supervisor's terminal; nobody reads it
    tables = {
        "supervisor": {"log_bytes": 200_000, "log_files": 2},
        "strategies.a": program(verb),
        "strategies.b": program("serve"),
    }
    supervisor = SupervisorProcess(data_dir, tables)
    try:
        supervisor.start_at(writer)
        supervisor.wait_for("a", "running")
        b = supervisor.wait_for("b", "running").pid
        if verb == "flood":
            wait_until((data_dir / "state" / "supervisor.d" / "logs" / "a.log.2").exists)
        assert b is not None
        os.kill(b, signal.SIGKILL)
        supervisor.wait_for("b", "running", but_not=b)
        assert supervisor.terminate() == 0
        logs = (data_dir / "state" / "supervisor.d" / "logs").glob("a.log*")  # a running one rotates while we look
        assert sum(path.stat().st_size for path in logs) < 3 * 300_000
    finally:
        supervisor.__exit__(None, None, None)
        os.close(reader)
        os.close(writer)


def test_bytes_that_are_no_protocol_do_not_end_the_supervisor(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        supervisor.wait_for("a", "running")
        noise = random.Random(1)
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionError):
                client.connect(str(data_dir / "state" / "supervisor.d" / "control"))
                client.send(noise.randbytes(noise.randint(1, 3000)))
        assert supervisor.program("a").state == "running"
        assert supervisor.terminate() == 0


def test_many_that_die_at_once_all_come_back(data_dir: Path) -> None:
    names = [f"bot{number}" for number in range(20)]
    with SupervisorProcess(data_dir, {f"strategies.{name}": program("serve") for name in names}) as supervisor:
        before = {name: supervisor.wait_for(name, "running").pid for name in names}
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        for name in names:
            assert supervisor.wait_for(name, "running", but_not=before[name]).restarts == 1
        assert supervisor.terminate() == 0


def test_the_supervisor_killed_leaves_no_orphan(data_dir: Path) -> None:
    tables = {"strategies.a": program("deaf"), "strategies.b": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        pids = [supervisor.wait_for(name, "running").pid for name in ("persistence", "a", "b")]
        supervisor.kill()
        wait_until(lambda: all(pid is not None and is_gone(pid) for pid in pids), what="no orphans")


def test_the_next_start_ends_the_helpers_that_slipped_through(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("helper")}) as supervisor:
        supervisor.wait_for("a", "running")
        wait_until(lambda: helpers(supervisor))
        helper = helpers(supervisor)[0]
        supervisor.kill()
        assert not is_gone(helper)
        supervisor.start()
        supervisor.wait_for("a", "running")
        assert is_gone(helper)
        assert f"(pid {helper}), left behind" in supervisor.log("outlive")
        wait_until(lambda: len(helpers(supervisor)) == 2)
        supervisor.terminate()
        os.kill(helpers(supervisor)[1], signal.SIGKILL)


def helpers(supervisor: SupervisorProcess) -> list[int]:
    """Pids that the program `helper` has printed."""
    return [int(pid) for pid in re.findall(r"^helper (\d+)$", supervisor.log("a"), re.MULTILINE)]


def test_an_ignored_sigchld_does_not_turn_exit_7_into_0(data_dir: Path) -> None:
    tables = {
        "supervisor": {"exit_when_done": True},
        "strategies.a": program("exit", 7, restart="never"),
    }
    with SupervisorProcess(data_dir, tables, SIGCHLD_IGNORED) as supervisor:
        assert supervisor.wait() == 7


def test_dying_too_often_is_fatal_and_loud(data_dir: Path) -> None:
    tables = {
        "restart": {"limit": 3, "backoff_first": 0.01, "backoff_max": 0.02},
        "strategies.a": program("exit", 1),
        "strategies.b": program("serve"),
    }
    with SupervisorProcess(data_dir, tables) as supervisor:
        fatal = supervisor.wait_for("a", "fatal")
        assert fatal.starts == 3
        assert fatal.retry_in is not None
        assert fatal.retry_in > 60
        assert "FATAL: it died too often" in supervisor.errors()
        assert supervisor.wait_for("b", "running").restarts == 0
        assert outlive(data_dir, "status").returncode == 1
        assert supervisor.terminate() == 0


def test_a_child_that_stops_beating_leaves_its_stacks_and_is_started_again(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("hang", watchdog=0.3)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        again = supervisor.wait_for("a", "running", but_not=pid)
        assert again.last_exit == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in supervisor.log("a")
        assert "hung" in supervisor.happenings("a")
        supervisor.terminate()


def test_a_persistence_process_that_refuses_to_start_ends_the_run_with_its_reason(data_dir: Path) -> None:
    tables = {"persistence": program("refuse"), "strategies.a": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        assert supervisor.wait() == 2
        assert "refuses to start: no, I do not want this data" in supervisor.errors()
        assert "a started" not in supervisor.errors()
        assert [event["event"] for event in supervisor.events("persistence")] == ["start", "exit", "persistence-down"]


def test_a_program_that_dies_in_the_moment_of_the_stop_is_not_started_once_more(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}, STOPPED_AT_A_DEATH) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert supervisor.wait() == 0
        assert [event["event"] for event in supervisor.events("a")] == ["start", "ready", "exit", "stop"]


def test_children_know_nothing_of_systemd(data_dir: Path) -> None:
    with SupervisorProcess(
        data_dir, {"strategies.a": program("serve")}, NOTIFY_SOCKET="@x", WATCHDOG_USEC="1"
    ) as supervisor:
        supervisor.wait_for("a", "running")
        wait_until(lambda: "environment" in supervisor.log("a"))
        environment = supervisor.log("a").partition("environment ")[2].splitlines()[0].split()
        assert {"OUTLIVE_NAMESPACE", "OUTLIVE_DATA_DIR", "OUTLIVE_NOTIFY_FD"} <= set(environment)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(environment)
        supervisor.terminate()


def test_sighup_touches_only_what_changed(data_dir: Path) -> None:
    tables = {name: program("serve") for name in ("strategies.same", "strategies.changed", "strategies.gone")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        names = ("persistence", "same", "changed", "gone")
        before = {name: supervisor.wait_for(name, "running").pid for name in names}
        del tables["strategies.gone"]
        tables["strategies.changed"]["env"] = {"X": "1"}
        write_config(data_dir, tables | {"strategies.new": program("serve")})
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("new", "running")
        supervisor.wait_for("changed", "running", but_not=before["changed"])
        wait_until(lambda: "gone" not in [program.name for program in supervisor.status().programs])
        assert [supervisor.program(name).pid for name in ("persistence", "same")] == [
            before["persistence"],
            before["same"],
        ]
        assert supervisor.terminate() == 0


def test_sighup_leaves_the_data_directory_where_it_is(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        moved = {"persistence": program("serve", data_dir="elsewhere"), "strategies.a": program("serve")}
        write_config(data_dir, moved)
        supervisor.signal(signal.SIGHUP)
        wait_until(lambda: "the settings of persistence have changed: they take effect when" in supervisor.errors())
        assert supervisor.program("a").pid == pid
        assert not (data_dir / "elsewhere").exists()
        assert supervisor.terminate() == 0


def test_sighup_tries_what_is_fatal_again_at_once(data_dir: Path) -> None:
    tables = {"restart": {"limit": 2, "backoff_first": 0.01}, "strategies.a": program("exit", 1)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        supervisor.wait_for("a", "fatal")
        write_config(data_dir, tables | {"strategies.a": program("serve")})
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("a", "running")
        assert supervisor.terminate() == 0


def test_a_program_that_is_wanted_again_while_it_leaves_is_never_there_twice(data_dir: Path) -> None:
    tables = {"strategies.a": program("deaf", stop_timeout=600), "strategies.b": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        write_config(data_dir, {"strategies.b": program("serve")})
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("a", "stopping")
        write_config(data_dir, tables)
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("a", "restarting")
        assert [program.name for program in supervisor.status().programs] == ["persistence", "a", "b"]
        os.kill(pid, signal.SIGKILL)
        supervisor.wait_for("a", "running", but_not=pid)
        supervisor.kill()


@pytest.mark.parametrize(
    ("new", "table"),
    [("renamed", {"strategies.renamed": {"namespace": "a"}}), ("a", {"services.a": {}})],
    ids=["another name", "another kind"],
)
def test_what_takes_the_place_of_one_that_is_leaving_waits_for_it(data_dir: Path, new: str, table: Tables) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("deaf", stop_timeout=600)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        write_config(data_dir, {name: program("serve") | settings for name, settings in table.items()})
        assert outlive(data_dir, "reload").stdout == f"{new} is new\na is gone\n"
        found = [(one.name, one.state, one.starts) for one in supervisor.status().programs]
        assert sorted(found[1:]) == sorted([("a", "stopping", 1), (new, "backoff", 0)])
        os.kill(pid, signal.SIGKILL)
        assert supervisor.wait_for(new, "running", but_not=pid).starts == 1
        assert len(supervisor.status().programs) == 2
        assert supervisor.terminate() == 0


def test_two_that_change_places_wait_for_each_other(data_dir: Path) -> None:
    def places(first: str, second: str) -> Tables:
        return {
            f"strategies.{name}": program("deaf", stop_timeout=600, namespace=namespace)
            for name, namespace in zip("ab", (first, second), strict=True)
        }

    with SupervisorProcess(data_dir, places("one", "two")) as supervisor:
        pids = {name: supervisor.wait_for(name, "running").pid for name in "ab"}
        write_config(data_dir, places("two", "one"))
        outlive(data_dir, "reload")
        outlive(data_dir, "kill", "a")
        assert supervisor.wait_for("a", "backoff").pid is None
        outlive(data_dir, "kill", "b")
        for name, pid in pids.items():
            assert supervisor.wait_for(name, "running", but_not=pid).starts == 2
        supervisor.kill()


def test_what_is_no_longer_wanted_can_not_be_asked_back(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("deaf", stop_timeout=600)}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        write_config(data_dir, {})
        assert outlive(data_dir, "reload").stdout == "a is gone\n"
        result = outlive(data_dir, "restart", "a")
        assert (result.returncode, result.stderr) == (
            1,
            "outlive: a is no longer in the configuration, and is leaving\n",
        )
        assert outlive(data_dir, "kill", "a").returncode == 0
        wait_until(lambda: [program.name for program in supervisor.status().programs] == ["persistence"])
        assert supervisor.terminate() == 0


@pytest.mark.parametrize("text", ['[strategies.b]\ncomand = ["x"]', '[strategies.a]\ncommand = ["x\\u0000"]', "x = [["])
def test_a_mistake_in_a_reloaded_configuration_changes_nothing(data_dir: Path, text: str) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        (data_dir / "outlive.toml").write_text(text)
        supervisor.signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP: nothing is changed" in supervisor.errors())
        assert supervisor.program("a").pid == pid
        assert supervisor.terminate() == 0

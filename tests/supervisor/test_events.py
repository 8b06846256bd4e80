"""What is told of everything that happens: events for machines, a line in the log of the program concerned."""

from __future__ import annotations

import datetime
import os
import signal
from pathlib import Path

import pytest

from supervisor.events import code_and_signal, event_name, iso
from tests.supervisor.harness import SupervisorProcess, outlive, program, write_config
from tests.waiting import wait_until


def test_a_life_is_told_in_events_and_in_lines(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        again = supervisor.wait_for("a", "running", but_not=pid).pid
        assert supervisor.terminate() == 0
        told = [(event["event"], event.get("pid"), event.get("signal")) for event in supervisor.events("a")]
        assert told == [
            ("start", pid, None),
            ("ready", pid, None),
            ("exit", pid, "SIGKILL"),
            ("restart", again, None),
            ("ready", again, None),
            ("terminate", again, None),
            ("exit", again, None),
            ("stop", None, None),
        ]
        restart, last = supervisor.events("a")[3], supervisor.events("a")[6]
        assert restart["reason"].startswith("SIGKILL after ")
        assert last["code"] == 0
        for words in (
            f"a started (pid {pid})",
            f"a ended (pid {pid}): SIGKILL",
            f"a started (pid {again}): again after",
        ):
            assert f" outlive: {words}" in supervisor.log("a")


def test_a_hang_and_an_exit_code_are_told_by_name(data_dir: Path) -> None:
    tables = {"strategies.a": program("hang", watchdog=0.2), "strategies.b": program("exit", 7)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        wait_until(lambda: {"hang", "abort", "restart"} <= {event["event"] for event in supervisor.events("a")})
        wait_until(lambda: [e["code"] for e in supervisor.events("b") if e["event"] == "exit"][:1] == [7])
        wait_until(lambda: any("hung" in e["reason"] for e in supervisor.events("a") if e["event"] == "restart"))
        assert "outlive: a hung (pid " in supervisor.log("a")
        assert "outlive: b ended (pid " in supervisor.log("b")
        assert ": exit code 7 after " in supervisor.log("b")
        supervisor.kill()


def test_giving_up_is_an_event(data_dir: Path) -> None:
    tables = {"restart": {"limit": 2, "backoff_first": 0.01}, "strategies.a": program("exit", 1)}
    with SupervisorProcess(data_dir, tables) as supervisor:
        supervisor.wait_for("a", "fatal")
        assert supervisor.events("a")[-1]["event"] == "fatal"
        assert supervisor.terminate() == 0


def test_the_supervisor_tells_of_itself(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        supervisor.wait_for("a", "running")
        write_config(data_dir, {"strategies.b": program("serve")})
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("b", "running")
        (data_dir / "outlive.toml").write_text("x = [[")
        supervisor.signal(signal.SIGHUP)
        wait_until(lambda: any(event["event"] == "reload-refused" for event in supervisor.events("outlive")))
        (data_dir / "outlive.toml").unlink()
        assert outlive(data_dir, "stop").returncode == 0
        told = [event["event"] for event in supervisor.events("outlive")]
        assert [*dict.fromkeys(told)] == [
            "supervisor-start",
            "reload",
            "reload-refused",
            "supervisor-stopping",
            "supervisor-stop",
        ]


def test_events_are_numbered_stamped_and_rotated(data_dir: Path) -> None:
    tables = {"supervisor": {"log_bytes": 2_000}, "strategies.a": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        pid = None
        for _ in range(6):
            pid = supervisor.wait_for("a", "running", but_not=pid).pid
            assert outlive(data_dir, "kill", "a").returncode == 0
        supervisor.wait_for("a", "running", but_not=pid)
        event = supervisor.events("a")[-1]
        assert event["supervisor"] == supervisor.pid
        assert datetime.datetime.fromisoformat(event["time"]).timestamp() == pytest.approx(event["ts"] / 1e9, abs=1e-3)
        assert (data_dir / "state" / "supervisor.d" / "logs" / "events.jsonl.1").exists()
        assert supervisor.terminate() == 0


def test_persistence_that_dies_unasked_is_an_event_of_its_own(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("persistence", "running").pid
        supervisor.wait_for("a", "running")
        assert outlive(data_dir, "restart", "persistence").returncode == 0
        again = supervisor.wait_for("persistence", "running", but_not=pid).pid
        assert again is not None
        assert "persistence-down" not in [event["event"] for event in supervisor.events("persistence")]
        os.kill(again, signal.SIGKILL)
        wait_until(lambda: "persistence-up" in [event["event"] for event in supervisor.events("persistence")])
        told = [event["event"] for event in supervisor.events("persistence")]
        assert [what for what in told if what.startswith("persistence")] == ["persistence-down", "persistence-up"]
        assert supervisor.terminate() == 0


@pytest.mark.parametrize(
    ("what", "starts", "event"),
    [("started", 1, "start"), ("started", 2, "restart"), ("hung", 1, "hang"), ("spare failed", 1, "spare-failed")],
)
def test_every_word_of_the_log_has_a_name_for_machines(what: str, starts: int, event: str) -> None:
    assert event_name(what, starts) == event


def test_a_code_is_a_code_or_a_signal_by_name() -> None:
    assert [code_and_signal(code) for code in (None, 0, 7, -9, -250)] == [
        (None, None),
        (0, None),
        (7, None),
        (None, "SIGKILL"),
        (None, "signal 250"),
    ]


def test_a_time_is_written_to_the_nanosecond() -> None:
    assert iso(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"

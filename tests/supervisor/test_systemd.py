"""systemd: what the supervisor tells it, and the unit that `outlive systemd` writes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.config import parse_config
from supervisor.service_manager import ServiceManager, summary
from supervisor.systemd_unit import quoted, stop_seconds, unit_name, unit_text
from tests.supervisor.harness import SupervisorProcess, outlive, program, write_config
from tests.waiting import LONG, wait_until

VERIFY = shutil.which("systemd-analyze")


class FakeManager:
    """What systemd's end of NOTIFY_SOCKET would get."""

    def __init__(self, address: str) -> None:
        self.name = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.lines: list[str] = []

    def heard(self) -> list[str]:
        while True:
            try:
                self.lines += self.socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self.lines

    def news(self) -> bool:
        """Whether anything has come since the last look."""
        before = len(self.lines)
        return len(self.heard()) > before

    def wait_for(self, line: str) -> None:
        wait_until(lambda: any(heard.startswith(line) for heard in self.heard()), what=line)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[FakeManager]:
    fake = FakeManager(f"{data_dir}/notify" if request.param == "path" else f"@outlive-{os.getpid()}-{data_dir.name}")
    with fake.socket:
        yield fake


def falls_silent(manager: FakeManager, seconds: float) -> bool:
    """Whether nothing came for so long."""
    manager.heard()
    return not select.select([manager.socket], [], [], seconds)[0]


def supervised(folder: Path, manager: FakeManager, tables: dict[str, Any], **env: str) -> SupervisorProcess:
    return SupervisorProcess(folder, tables, NOTIFY_SOCKET=manager.name, **env)


def test_ready_status_reload_and_stop_are_told_in_order(data_dir: Path, manager: FakeManager) -> None:
    with supervised(data_dir, manager, {"strategies.a": program("serve")}) as supervisor:
        manager.wait_for("STATUS=2 of 2 up")
        supervisor.signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        wait_until(lambda: manager.heard().count("READY=1") == 2)
        assert supervisor.terminate() == 0
        heard = [line.partition("=")[0] for line in manager.heard()]
        order = [
            "EXTEND_TIMEOUT_USEC",
            "READY",
            "RELOADING",
            "MONOTONIC_USEC",
            "READY",
            "STOPPING",
            "EXTEND_TIMEOUT_USEC",
        ]
        assert [word for word in heard if word in order][: len(order)] == order
        assert "NOTIFY_SOCKET" not in supervisor.log("a")


def test_the_loop_itself_beats_and_one_that_stands_still_is_silent(data_dir: Path) -> None:
    manager, stuck = FakeManager(f"{data_dir}/notify"), data_dir / "stuck"
    prelude = (
        "import os, time, supervisor.unit\n"
        f"def weigh(unit):\n    while os.path.exists({str(stuck)!r}): time.sleep(0.01)\n"
        "supervisor.unit.Unit.weigh = weigh\n"
    )
    env = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000"}
    with manager.socket, SupervisorProcess(data_dir, {"strategies.a": program("serve")}, prelude, **env) as supervisor:
        wait_until(lambda: manager.heard().count("WATCHDOG=1") > 5)
        stuck.touch()
        wait_until(lambda: falls_silent(manager, 5 * 0.1))
        stuck.unlink()
        wait_until(manager.news)
        assert supervisor.terminate() == 0


def test_a_socket_that_is_gone_or_full_costs_nothing(data_dir: Path) -> None:
    address = f"{data_dir}/notify"
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"})
    manager.turn(0.0, "up", False, "nobody listens")
    with FakeManager(address).socket:
        for number in range(5_000):  # nobody reads
            manager.turn(float(number), "up", True, f"status {number}")
    assert manager.deadline is not None


def test_a_watchdog_for_another_process_is_not_ours(data_dir: Path) -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000"}
    assert ServiceManager(environ).deadline is not None
    assert ServiceManager({**environ, "WATCHDOG_PID": str(os.getpid())}).deadline is not None
    assert ServiceManager({**environ, "WATCHDOG_PID": "1"}).deadline is None
    assert ServiceManager({**environ, "WATCHDOG_USEC": "soon"}).deadline is None
    assert ServiceManager({}).deadline is None


def test_a_status_is_one_short_line(data_dir: Path) -> None:
    with FakeManager(f"{data_dir}/notify").socket as listener:
        ServiceManager({"NOTIFY_SOCKET": f"{data_dir}/notify"}).turn(0.0, "starting", False, "x\nREADY=1 " * 100)
        assert b"\n" not in listener.recv(65536)
    assert summary([("a", "running"), ("b", "backoff")]) == "1 of 2 up; b backoff"


def config_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return write_config(folder, {"strategies.a": {"command": ["python", "bot.py"], "stop_timeout": 25}})


@pytest.mark.parametrize("kind", ["--user", "--system"])
@pytest.mark.parametrize("folder", ["plain", "my bots", "100%h \"q\" $HOME 'x' \\n"])
def test_systemd_finds_nothing_wrong_with_the_unit(data_dir: Path, kind: str, folder: str) -> None:
    config = config_in(data_dir / folder)
    unit = data_dir / "outlive-test.service"
    assert outlive(data_dir, "systemd", str(config), kind, "--output", str(unit)).returncode == 0
    assert "outlive-test" not in complaints(unit, kind)


def complaints(unit: Path, kind: str) -> str:
    """Of systemd-analyze; none where it is not installed."""
    if VERIFY is None:
        return ""
    command = [VERIFY, "verify", *(["--user"] if kind == "--user" else []), str(unit)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(unit.parent), "HOME": str(unit.parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=env).stderr


def test_the_unit_waits_longer_than_all_stops_together() -> None:
    config = parse_config("[persistence]\nstop_timeout = 60\n[strategies.a]\nentry = 'a:b'\nstop_timeout = 25", "/")
    assert stop_seconds(config) > 85
    assert f"TimeoutStopSec={stop_seconds(config)}\n" in unit_text(config, "/x/outlive.toml", system=False)


def test_an_argument_survives_systemds_quoting() -> None:
    assert quoted('a b%h$X"\\') == '"a b%%h$$X\\"\\\\"'


def test_a_unit_is_written_once_and_says_how_to_enable_it(data_dir: Path) -> None:
    write_config(data_dir, {})
    shown = outlive(data_dir, "systemd")
    assert shown.stdout == outlive(data_dir, "systemd", "--user").stdout
    assert "User=" not in shown.stdout
    assert "Type=notify" in shown.stdout
    assert "systemctl --user daemon-reload" in shown.stderr
    assert f"systemctl --user enable --now {unit_name(str(data_dir / 'outlive.toml'))}" in shown.stderr
    assert outlive(data_dir, "systemd", "--system", "--user-name", "bot", "--output", "x.service").returncode == 0
    assert "User=bot\n" in (data_dir / "x.service").read_text()
    again = outlive(data_dir, "systemd", "--output", "x.service")
    assert (again.returncode, again.stderr) == (2, "outlive: x.service is there already; --force overwrites it\n")
    assert outlive(data_dir, "systemd", "--user", "--output", "x.service", "--force").returncode == 0
    assert "User=" not in (data_dir / "x.service").read_text()


def test_a_configuration_with_a_mistake_gets_no_unit(data_dir: Path) -> None:
    (data_dir / "outlive.toml").write_text("[persistense]\n")
    result = outlive(data_dir, "systemd")
    assert (result.returncode, result.stdout) == (2, "")

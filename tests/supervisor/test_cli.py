"""`outlive ...` as people use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.place import script_name
from tests.supervisor.harness import SupervisorProcess, is_gone, outlive, program, write_config
from tests.waiting import LONG

OUTLIVE = [sys.executable, "-P", "-m", "supervisor"]
STRUCK_WHILE_IT_IMPORTS = """
import os, signal, sys

class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == "MODULE":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Strike())
from supervisor.cli import main
main()
"""
"""`outlive`, with Ctrl-C at the moment in which it begins to import MODULE."""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "nowhere.toml"), 2, "nowhere.toml: No such file"),
        (("run", "--"), 2, "there is no command behind --"),
        (("run", "--", "no-such-program"), 2, "there is no program 'no-such-program'"),
        (("run", "x.toml", "--", "python"), 2, "not both"),
        (("run", "--", "python", "no.py"), 2, "there is no script 'no.py' in "),
        (("run", "--data-dir", "/dev/null/x", "--", "python"), 1, "/dev/null: Not a directory"),
        (("run", "--data-dir", "d" * 120, "--", "python"), 1, "a socket path may have 107"),
        (("status", "--data-dir", "/dev/null"), 3, "no supervisor is running"),
        (("status",), 3, "no supervisor is running"),
        (("stop",), 3, "no supervisor is running"),
        (("restart", "a"), 3, "no supervisor is running"),
        (("kill",), 2, "Missing argument 'NAME'"),
        (("status", "--config", "nowhere.toml"), 2, "nowhere.toml: No such file"),
        (("fly",), 2, "No such command 'fly'"),
    ],
)
def test_an_error_is_one_line(data_dir: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = outlive(data_dir, *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert result.stderr.startswith("outlive: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr + result.stdout


def test_a_control_socket_that_can_not_be_had_is_an_error_like_another(data_dir: Path) -> None:
    write_config(data_dir, {})
    (data_dir / "state" / "supervisor.d" / "control").mkdir(mode=0o700, parents=True)
    for folder in ("state", "state/supervisor.d"):
        (data_dir / folder).chmod(0o700)
    result = outlive(data_dir, "run", "--quiet")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert f"ipc://{data_dir}/state/supervisor.d/control: Address already in use" in result.stderr


@pytest.mark.parametrize("module", ["click", "msgspec", "psutil", "zmq", "supervisor.loop"])
def test_ctrl_c_before_the_first_step_is_no_traceback(data_dir: Path, module: str) -> None:
    write_config(data_dir, {})
    script = STRUCK_WHILE_IT_IMPORTS.replace("MODULE", module)
    ran = subprocess.run([sys.executable, "-c", script, "run"], cwd=data_dir, capture_output=True, timeout=LONG)
    assert (ran.returncode, ran.stdout, ran.stderr.strip()) == (130, b"", b"")


def test_what_lies_in_the_working_directory_is_not_taken_for_ours(data_dir: Path) -> None:
    for name in ("protocol", "persistence_proc", "zmq"):
        (data_dir / f"{name}.py").write_text("raise SystemExit('executed')")
    shown = subprocess.run([*OUTLIVE, "show", "--data-dir", "."], cwd=data_dir, capture_output=True, timeout=LONG)
    assert b"executed" not in shown.stdout + shown.stderr
    (data_dir / "outlive.toml").write_text("[supervisor]\nexit_when_done = true\n[strategies.a]\nentry = 'bot:main'\n")
    (data_dir / "bot.py").write_text("def main():\n    print('my own module')\n")
    ran = subprocess.run([*OUTLIVE, "run"], cwd=data_dir, capture_output=True, timeout=LONG)
    assert b"executed" not in ran.stdout + ran.stderr
    assert b"my own module" in ran.stdout
    assert ran.returncode == 0


def test_a_mistake_in_the_configuration_is_one_line_with_file_and_key(data_dir: Path) -> None:
    write_config(data_dir, {"strategies.a": {"comand": ["x"]}})
    result = outlive(data_dir, "run")
    assert result.returncode == 2
    assert result.stderr == "outlive: outlive.toml, line 5: strategies.a.comand: unknown key\n"


def test_a_directory_open_to_others_is_refused(data_dir: Path) -> None:
    write_config(data_dir, {})
    (data_dir / "state").mkdir(mode=0o755)
    (data_dir / "state").chmod(0o755)
    result = outlive(data_dir, "run")
    assert result.returncode == 1
    assert "has mode 0755" in result.stderr


def test_a_second_supervisor_of_the_same_data_is_refused(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        result = outlive(data_dir, "run")
        assert result.returncode == 1
        assert f"a supervisor (pid {supervisor.pid}) is running" in result.stderr
        assert supervisor.program("a").pid == pid
        supervisor.terminate()


def test_a_socket_path_that_is_too_long_is_refused(data_dir: Path) -> None:
    result = outlive(data_dir, "status", "--data-dir", "x" * 120)
    assert result.returncode == 1
    assert "a socket path may have 107" in result.stderr


def test_status_shows_every_program(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        shown = outlive(data_dir, "status")
        assert shown.returncode == 0
        assert str(pid) in shown.stdout
        assert "persistence" in shown.stdout
        found = json.loads(outlive(data_dir, "status", "--json").stdout)
        assert [program["name"] for program in found["supervisor"]["programs"]] == ["persistence", "a"]
        assert found["persistence"] is None
        supervisor.terminate()


@pytest.mark.parametrize("verb", ["restart", "kill"])
def test_restart_and_kill_concern_one_program(data_dir: Path, verb: str) -> None:
    tables = {"strategies.a": program("serve"), "strategies.b": program("serve")}
    with SupervisorProcess(data_dir, tables) as supervisor:
        a, b = supervisor.wait_for("a", "running"), supervisor.wait_for("b", "running")
        assert outlive(data_dir, verb, "a").returncode == 0
        again = supervisor.wait_for("a", "running", but_not=a.pid)
        assert again.last_exit == {"restart": 0, "kill": -9}[verb]
        assert supervisor.program("b").pid == b.pid
        supervisor.terminate()


def test_one_program_can_be_stopped_and_started_again(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        supervisor.wait_for("a", "running")
        assert outlive(data_dir, "stop", "a").returncode == 0
        supervisor.wait_for("a", "stopped")
        assert outlive(data_dir, "kill", "a").stderr == "outlive: a is stopped, there is nothing to kill\n"
        assert outlive(data_dir, "restart", "a").returncode == 0
        supervisor.wait_for("a", "running")
        supervisor.terminate()


def test_stop_returns_when_everything_has_left(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pids = [supervisor.wait_for(name, "running").pid for name in ("persistence", "a")]
        result = outlive(data_dir, "stop")
        assert (result.returncode, result.stdout) == (0, "stopped\n")
        assert all(pid is not None and is_gone(pid) for pid in pids)
        assert supervisor.wait() == 0


def test_a_name_that_nobody_has_is_refused_with_those_there_are(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        supervisor.wait_for("a", "running")
        result = outlive(data_dir, "kill", "z")
        assert (result.returncode, result.stderr) == (1, "outlive: there is no program 'z'; there are persistence, a\n")
        supervisor.terminate()


def one_life(data_dir: Path, module: str) -> SupervisorProcess:
    """A supervisor that ends with the only life of an entry, `main` of this module."""
    (data_dir / "bots.py").write_text(module)
    bot = {"entry": "bots:main", "restart": "never"}
    return SupervisorProcess(data_dir, {"supervisor": {"exit_when_done": True}, "strategies.a": bot})


def test_an_entry_is_called_in_its_own_module(data_dir: Path) -> None:
    with one_life(data_dir, "def main():\n    print('I am', main.__module__)\n    return 5\n") as supervisor:
        assert supervisor.wait() == 5
        assert "I am bots" in supervisor.log("a")


def test_an_entry_that_is_a_coroutine_function_is_no_success(data_dir: Path) -> None:
    with one_life(data_dir, "async def main():\n    pass\n") as supervisor:
        assert supervisor.wait() == 1
        assert "outlive: entry 'bots:main': main is a coroutine function; name one that runs it" in supervisor.log("a")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["python", "bot.py"], "bot"),
        (["python", "-u", "bots/my bot.py", "x.py"], "my_bot"),
        (["python", "-m", "bots.momentum"], "momentum"),
        (["./trader", "--fast"], "trader"),
        (["/usr/bin/-"], "bot"),
    ],
)
def test_a_single_command_is_named_after_its_script(argv: list[str], name: str) -> None:
    assert script_name(argv) == name


def test_reload_says_what_it_did_and_a_mistake_changes_nothing(data_dir: Path) -> None:
    with SupervisorProcess(data_dir, {"strategies.a": program("serve")}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        assert outlive(data_dir, "reload").stdout == "nothing has changed\n"
        write_config(data_dir, {"strategies.a": program("serve"), "strategies.b": program("serve")})
        assert outlive(data_dir, "reload").stdout == "b is new\n"
        supervisor.wait_for("b", "running")
        good = (data_dir / "outlive.toml").read_text()
        (data_dir / "outlive.toml").write_text(good + "\n[strategies.c\n")
        result = outlive(data_dir, "reload", "--data-dir", "state")
        assert result.returncode == 1
        assert result.stderr.startswith("outlive: nothing is changed: ")
        assert f"line {good.count(chr(10)) + 2}" in result.stderr
        assert supervisor.program("a").pid == pid
        assert supervisor.terminate() == 0


def test_a_data_directory_changed_in_the_file_neither_hides_the_supervisor_nor_doubles_its_bots(data_dir: Path) -> None:
    bot = program("serve")
    with SupervisorProcess(data_dir, {"strategies.a": bot}) as supervisor:
        pid = supervisor.wait_for("a", "running").pid
        write_config(data_dir, {"persistence": program("serve", data_dir="elsewhere"), "strategies.a": bot})
        second = outlive(data_dir, "run")
        assert second.returncode == 1
        assert f"a supervisor (pid {supervisor.pid}) runs {data_dir / 'outlive.toml'} already, in " in second.stderr
        assert not (data_dir / "elsewhere").exists()
        assert str(pid) in outlive(data_dir, "status").stdout
        assert "the settings of persistence have changed: they take effect" in outlive(data_dir, "reload").stdout
        assert supervisor.program("a").pid == pid
        assert outlive(data_dir, "stop").stdout == "stopped\n"
        assert supervisor.wait() == 0
        assert outlive(data_dir, "status").returncode == 3


def test_a_copy_of_a_configuration_is_another_one(data_dir: Path) -> None:
    (data_dir / "copy").mkdir(mode=0o700)
    with SupervisorProcess(data_dir, {}) as one, SupervisorProcess(data_dir / "copy", {}) as other:
        for supervisor in (one, other):
            supervisor.wait_for("persistence", "running")
        for supervisor in (one, other):
            assert supervisor.terminate() == 0


def test_a_script_that_knows_nothing_of_outlive_runs_with_one_command(data_dir: Path) -> None:
    (data_dir / "bot.py").write_text("print('hello from', __file__)\n")
    ran = outlive(data_dir, "run", "--", "python", "bot.py")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "bot          | hello from " in ran.stdout
    assert "hello from" in outlive(data_dir, "logs", "bot").stdout

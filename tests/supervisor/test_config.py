"""outlive.toml: what is wrong is named by its key, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import ConfigError
from supervisor.config import load_config, parse_config
from supervisor.programs import script_of, stages

TWO = "[strategies.a]\nentry = 'm:f'\n[strategies.b]\nentry = 'm:f'\n"

WRONG = [
    ("[persistance]", "persistance: unknown key"),
    ("[persistence]\ndatadir = 'x'", "persistence.datadir: unknown key"),
    ("[persistence]\ndata_dir = 5", "persistence.data_dir: Expected `str`, got `int`"),
    ("[persistence]\ndata_dir = ''", "persistence.data_dir: must not be empty"),
    ("[persistence]\nendpoint = 'udp://x'", "persistence.endpoint: "),
    ("[persistence]\nendpoint = 'ipc:///" + "x" * 120 + "'", "persistence.endpoint: "),
    ("[persistence]\nlog_level = 'loud'", "persistence.log_level: 'loud' is none of debug, info,"),
    ("[restart]\nlimit = 0", "restart.limit: 0 must be more than 0"),
    ("[restart]\nwindow = inf", "restart.window: inf must be"),
    ("[strategies.a]", "strategies.a: needs either a command"),
    ("[strategies.a]\ncommand = ['x']\nentry = 'm:f'", "strategies.a: has both a command and an entry; it needs one"),
    ("[strategies.a]\ncommand = 'python bot.py'", "strategies.a.command: Expected `array`, got `str`"),
    ("[strategies.a]\ncommand = ['']", "strategies.a.command: the program's name is empty"),
    ("[strategies.a]\nentry = 'module'", "strategies.a.entry: 'module' is not of the form"),
    ("[strategies.a]\nentry = 'm:f'\nwatchdog = -1", "strategies.a.watchdog: -1"),
    ("[strategies.a]\nentry = 'm:f'\nstart_timeout = 0", "strategies.a.start_timeout: 0"),
    ("[persistence]\nstart_timeout = -1", "persistence.start_timeout: -1"),
    ("[strategies.a]\ncommand = ['x']\npreload = ['numpy']", "strategies.a.preload: only an entry"),
    ("[strategies.a]\ncommand = ['x']\nspare = true", "strategies.a.spare: only an entry"),
    ("[strategies.a]\nentry = 'bots.m:f'\npreload = ['bots.m']", "strategies.a.preload: 'bots.m' belongs to the strat"),
    ("[strategies.a]\nentry = 'bots.m:f'\npreload = ['bots']", "strategies.a.preload: 'bots' belongs to the strategy"),
    ("[strategies.a]\nentry = 'm:f'\npreload = ['m.more']", "strategies.a.preload: 'm.more' belongs to the strategy"),
    ("[strategies.a]\nentry = 'm:f'\npreload = ['num py']", "strategies.a.preload: 'num py' is not the name of a m"),
    ("[services.a]\nentry = 'm:f'\nspare = true", "services.a.spare: unknown key"),
    ("[strategies.a]\nentry = 'm:f'\nrestart = 'sometimes'", "strategies.a.restart: 'sometimes' is none of always,"),
    ("[strategies.a]\nentry = 'm:f'\nmemory_limit = 'much'", "strategies.a.memory_limit: 'much' is no size"),
    ("[strategies.a]\nentry = 'm:f'\nenv = {OUTLIVE_DATA_DIR = 'x'}", "strategies.a.env.OUTLIVE_DATA_DIR: "),
    ("[strategies.'a b']\nentry = 'm:f'", "strategies.a b: 'a b' is no namespace"),
    ("[strategies.a]\nentry = 'm:f'\nnamespace = 'journal'", "strategies.a.namespace: 'journal' is no namespace"),
    (TWO + "namespace = 'a'", "strategies.b.namespace: 'a' belongs to strategies.a already"),
    (TWO + "colour = 'red'", "strategies.b.colour: unknown key"),
    (TWO + "env = {X = 1}", "strategies.b.env[...]: Expected `str`, got `int`"),
    ("strategies = 5", "strategies: Expected `object`, got `int`"),
    ("[strategies.a]\nentry = 'm:f'\n[services.a]\nentry = 'm:f'", "services.a: there is a strategy of this name"),
    ("[services.persistence]\nentry = 'm:f'", "services.persistence: 'persistence' is the name of"),
    ("[strategies.a]\ncommand = ['x', \"a\\u0000b\"]", "'strategies.a.command': a text with a zero byte"),
    ("[strategies.a]\nentry = 'm:f'\nenv = {X = \"\\u0000\"}", "'strategies.a.env.X': a text with a zero byte"),
    ('[strategies.a]\nentry = "m:f"\nenv = {"X\\u0000" = ""}', "'strategies.a.env.X\\x00': a text with a zero"),
    ('[persistence]\ndata_dir = "a\\u0000b"', "'persistence.data_dir': a text with a zero byte"),
    ("[strategies.outlive]\nentry = 'm:f'", "strategies.outlive: 'outlive' is the name of the supervisor's own log"),
    ("[strategies.events]\nentry = 'm:f'", "strategies.events: 'events' is the name of the supervisor's own log"),
    ("[restart]\nlimit = " + "9" * 5000, "no TOML: "),
    ("[strategies.a]\nentry = 'm:f'\nmemory_limit = '" + "9" * 5000 + "'", "strategies.a.memory_limit: "),
    ("x = " + "[" * 5000, "no configuration: it is nested too deeply"),
    ("[strategies.a\n", "no TOML: "),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_mistake_is_named_by_its_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "/")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"outlive\.toml: No such file"):
        load_config(tmp_path / "outlive.toml")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outlive.toml"
    path.write_text("[persistence]\ndata_dir = 'd'\n[strategies.a]\nentry = 'm:f'\ncwd = 'bots'\n")
    config = load_config(path)
    assert config.persistence.data_dir == str(tmp_path / "d")
    assert config.strategies["a"].cwd == str(tmp_path / "bots")
    assert config.run_dir == str(tmp_path / "d" / "supervisor.d")


def test_a_command_that_does_not_exist_is_named_before_anything_is_started(tmp_path: Path) -> None:
    config = parse_config("[strategies.a]\ncommand = ['no-such-program']", str(tmp_path))
    with pytest.raises(ConfigError, match=r"strategies\.a\.command: there is no program 'no-such-program'"):
        stages(config, "mark")


@pytest.mark.parametrize("command", [["python", "no.py"], ["python3.12", "-u", "-W", "error", "bots/no.py", "x.py"]])
def test_a_script_that_does_not_exist_is_named_before_anything_is_started(tmp_path: Path, command: list[str]) -> None:
    found = script_of(command)
    assert found is not None
    text = f"[strategies.a]\ncommand = {['python', *command[1:]]}"
    with pytest.raises(ConfigError, match=r"strategies\.a\.command: there is no script '.*no\.py' in "):
        stages(parse_config(text, str(tmp_path)), "mark")
    (tmp_path / "bots").mkdir()
    (tmp_path / found).touch()
    stages(parse_config(text, str(tmp_path)), "mark")


@pytest.mark.parametrize(
    "command",
    [["python"], ["python", "-m", "bot", "x.py"], ["python", "-uc", "1", "x.py"], ["./bot", "x.py"]],
)
def test_what_is_no_script_is_not_looked_for(command: list[str]) -> None:
    assert script_of(command) is None


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    config = parse_config("[services.x]\ncommand = ['python']\ncwd = 'nowhere'", str(tmp_path))
    with pytest.raises(ConfigError, match=r"services\.x\.cwd: there is no directory"):
        stages(config, "mark")


def test_a_strategy_finds_its_state_by_its_environment(tmp_path: Path) -> None:
    text = (
        "[persistence]\nendpoint = 'tcp://127.0.0.1:7000'\n"
        "[strategies.a]\nentry = 'm:f'\nenv = {X = '1'}\nnamespace = 'n'"
    )
    program = stages(parse_config(text, str(tmp_path)), "mark", {"PATH": "/bin", "NOTIFY_SOCKET": "@systemd"})[2][0]
    assert program.env["OUTLIVE_NAMESPACE"] == "n"
    assert program.env["OUTLIVE_DATA_DIR"] == str(tmp_path / "state")
    assert program.env["OUTLIVE_ENDPOINT"] == "tcp://127.0.0.1:7000"
    assert program.env["X"] == "1"
    assert "NOTIFY_SOCKET" not in program.env


def test_persistence_gets_its_settings_as_arguments(tmp_path: Path) -> None:
    config = parse_config("[persistence]\nruntime_dir = 'r'\nlog_level = 'debug'", str(tmp_path))
    argv = stages(config, "mark")[0][0].argv
    assert argv[1:] == [
        *["-P", "-m", "persistence_proc", "--data-dir", str(tmp_path / "state")],
        *["--runtime-dir", str(tmp_path / "r"), "--log-level", "debug"],
    ]


@pytest.mark.parametrize(
    ("restart", "code", "done"),
    [
        ("on-failure", 0, True),
        ("on-failure", 1, False),
        ("on-failure", 7, True),
        ("always", 0, False),
        ("always", 7, True),
        ("never", 1, True),
        ("never", -9, True),
    ],
)
def test_which_exit_codes_mean_done(tmp_path: Path, restart: str, code: int, done: bool) -> None:
    text = f"[strategies.a]\nentry = 'm:f'\nrestart = '{restart}'\ndone_exit_codes = [7]"
    assert stages(parse_config(text, str(tmp_path)), "mark")[2][0].is_done(code) is done


def test_an_entry_has_a_spare_unless_it_is_switched_off_or_never_started_again() -> None:
    text = """
    [strategies.a]
    entry = "m:f"
    preload = ["numpy", "os.path"]
    [strategies.b]
    entry = "m:f"
    spare = false
    [strategies.c]
    entry = "m:f"
    restart = "never"
    [strategies.d]
    command = ["python", "-c", ""]
    """
    found = {program.name: program for program in stages(parse_config(text, "/"), "mark")[2]}
    assert [name for name, program in found.items() if program.spare] == ["a"]
    assert found["a"].preload == ["numpy", "os.path"]

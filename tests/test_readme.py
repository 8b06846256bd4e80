"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from protocol.records import Position, Side
from strategy_proc import Session
from supervisor.config import parse_config
from tests.waiting import LONG

README = (Path(__file__).parent.parent / "README.md").read_text()
BOT, MEMORY = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(CONFIGURATION,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def outlive(folder: Path, *arguments: str) -> str:
    """What `outlive` prints when it is called in `folder`."""
    command = [sys.executable, "-P", "-m", "supervisor", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_bot_runs_and_finds_its_state_again(data_dir: Path) -> None:
    (data_dir / "bot.py").write_text(BOT)
    assert "NEW: no maps" in outlive(data_dir, "run", "--", "python", "bot.py")
    assert "CLEAN: active_positions 1" in outlive(data_dir, "run", "--", "python", "bot.py")
    assert "Decimal('61250')" in outlive(data_dir, "show", "momentum", "active_positions", "BTC/USDT")


def test_a_bot_that_leaves_at_sigterm_is_clean_at_its_next_start(data_dir: Path) -> None:
    (handler,) = re.findall(r"`(signal\.signal\(.*?\))`", README)
    stopped = "\n    import os\n    os.kill(os.getpid(), signal.SIGTERM)\n    print('never said')\n"
    (data_dir / "bot.py").write_text(f"import signal, sys\n{handler}\n{BOT}{stopped}")
    assert "never said" not in outlive(data_dir, "run", "--", "python", "bot.py")
    assert "CLEAN: active_positions 1" in outlive(data_dir, "run", "--", "python", "bot.py")


def test_the_test_of_a_bot_runs() -> None:
    position = Position(symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("0.5"), entry_price=Decimal(61250))

    def open_a_position(state: Session) -> None:
        state.map("active_positions", Position)["BTC/USDT"] = position

    exec(MEMORY, {"open_a_position": open_a_position, "Position": Position})


def test_the_configuration_is_one_and_says_the_defaults_that_are() -> None:
    config = parse_config(CONFIGURATION, "/bots")
    assert list(config.strategies) == ["momentum", "reversion"]
    default = config.strategies["momentum"].restart
    assert f"{default} (default" in CONFIGURATION
    assert config.strategies["reversion"].restart != default

"""Run the programs that people run, and stores to run them on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import PersistenceProcess, WorkerProcess

BOT = """
import sys
from decimal import Decimal
from protocol.records import Position, Side
from strategy_proc import connect
from tests.protocol import shapes

state = connect(trust=[shapes])
print(state.recovered, file=sys.stderr)
positions, misc = state.map("positions", Position), state.map("misc")
if "BTC/USDT" not in positions:
    positions["BTC/USDT"] = Position(symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("1.5"), entry_price=Decimal(9))
    misc.update({5: 1, "5": [1, 2], ("a", 1): shapes.Bar(1.0, ["x"])})
    misc.update({"fill": shapes.Fill(symbol="z", price=Decimal(3))})
    state.flush(30)
print("stored", flush=True)
for line in sys.stdin:
    misc[line.strip()] = "typed"
    print("put", flush=True)
state.close()
"""


def run(module: str, data_dir: Path, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m persistence_proc.MODULE ...`; every failure must be one line without a traceback."""
    argv = [sys.executable, "-m", f"persistence_proc.tools.{module}", *arguments, "--data-dir", str(data_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, input=input, check=False)
    assert "Traceback" not in done.stderr
    return done


def bot(persistence: PersistenceProcess, namespace: str = "bot") -> WorkerProcess:
    """A bot that stores its maps, says so, and puts every line that it is told."""
    return WorkerProcess(BOT, env=persistence.env(namespace))


def put(worker: WorkerProcess, key: str) -> None:
    worker.write_line(key)
    assert worker.read_line() == "put"


def run_once(data_dir: Path) -> None:
    """A store with one namespace whose bot has left, and a server that was stopped."""
    with PersistenceProcess(data_dir) as persistence:
        with bot(persistence) as worker:
            assert worker.read_line() == "stored"
            worker.end_input()
            assert worker.wait() == 0
        assert persistence.terminate() == 0

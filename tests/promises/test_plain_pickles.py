"""Every .pkl file is a plain pickle: any Python that can import the value types reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import protocol
from protocol.records import PendingOrder, Position, RiskState, Side, SymbolControl
from strategy_proc import connect
from tests.processes import PersistenceProcess

READ = """
import pathlib, pickle, sys
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.pkl")):
    with open(path, "rb") as file:
        value = pickle.load(file)
    assert type(value) is dict, path
    print(path.name, len(value), sorted({type(v).__name__ for v in value.values()}))
"""


def test_plain_python_reads_every_pickle_file_with_nothing_but_protocol_importable(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir) as state:
            state.map("active_positions", Position)["BTC"] = Position(
                symbol="BTC", side=Side.LONG, quantity=Decimal(1), entry_price=Decimal("61000.5")
            )
            state.map("pending_orders", PendingOrder)
            state.map("symbol_controls", SymbolControl)["BTC"] = SymbolControl(symbol="BTC")
            state.map("risk", RiskState)[("account", 1)] = RiskState(scope="account")
            state.map("plain")["k"] = {"a": [1, 2.5, Decimal("1.1")]}
        assert persistence.terminate() == 0
    lonely = data_dir / "importable"
    shutil.copytree(Path(protocol.__file__).parent, lonely / "protocol", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(lonely)!r})\n{READ}"
    argv = [sys.executable, "-P", "-c", code, str(data_dir / "bot")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "active_positions.pkl 1 ['Position']" in done.stdout
    assert "plain.pkl 1 ['dict']" in done.stdout
    assert "risk.pkl 1 ['RiskState']" in done.stdout

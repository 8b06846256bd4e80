"""What everything costs while nothing happens: the supervisor, the persistence process and ten quiet strategies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.managers import Manager, outlive
from benchmarks.measure import Contestant, contest
from benchmarks.results import Row, Table, our_row
from benchmarks.scenarios.base import Bench
from persistence_proc.tools.admin_server import Connection
from protocol.endpoints import read_endpoint_file
from protocol.errors import PersistenceUnavailable
from protocol.messages import Status, StatusReport

BOTS = 10
START = 120.0  # seconds until all of them must be there
CALM = 3.0  # seconds from then until nothing of the start is left to do
CONFIGURATION = """\
[persistence]
data_dir = "state"

[supervisor]
log_dir = "logs"
"""
BOT = """
[strategies.bot{n}]
command = [{python!r}, "-c", "from benchmarks.workers import quiet_bot; quiet_bot()"]
"""

Groups = Mapping[str, Sequence[psutil.Process]]


def idle(bench: Bench) -> Iterator[Table]:
    """What everything costs while nothing happens, with ten quiet strategies."""
    bots = (BOT.format(n=n, python=sys.executable) for n in range(BOTS))
    with bench.folder() as folder, outlive(folder, CONFIGURATION + "".join(bots)) as manager:
        _await_bots(folder)
        time.sleep(bench.pick(CALM, 0.5))
        everyone = _everyone(manager)
        rows = {group: our_row(group) for group in everyone}
        shares = Contestant(Row(name="all"), lambda: _shares(everyone, rows, bench.pick(10.0, 1.0)))
        contest([shares], bench.pick(3, 1))
    title = f"a supervisor, a persistence process and {BOTS} strategies that do nothing"
    units = {"cpu": "% of a core", "memory": "MiB of their own"}
    yield Table(name="idle", title=title, units=units, lead="cpu", rows=list(rows.values()))


def _await_bots(folder: str) -> None:
    """Until every bot has its session."""
    deadline = time.monotonic() + START
    while _sessions(f"{folder}/state") < BOTS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the quiet bots have not started within {START} s")
        time.sleep(0.2)


def _sessions(data_dir: str) -> int:
    found = read_endpoint_file(data_dir) if Path(data_dir).is_dir() else None
    if found is None:
        return 0
    try:
        report = Connection(found.address).ask(Status(), 5.0)
    except PersistenceUnavailable:
        return 0
    assert isinstance(report, StatusReport)
    return sum(namespace.session == "open" for namespace in report.namespaces)


def _everyone(supervisor: Manager) -> Groups:
    children = supervisor.family()
    persistence = [child for child in children if "persistence_proc" in child.cmdline()]
    bots = [child for child in children if child not in persistence]
    groups = {"supervisor": [supervisor.process], "persistence process": persistence, f"{BOTS} strategies": bots}
    return {**groups, "all": [process for group in groups.values() for process in group]}


def _shares(everyone: Groups, rows: Mapping[str, Row], seconds: float) -> dict[str, float]:
    """Watch them for a while, and fill in their rows."""
    before = {name: _cpu(group) for name, group in everyone.items()}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    for name, group in everyone.items():
        memory = sum(process.memory_full_info().uss for process in group) / 2**20
        rows[name].rounds.append({"cpu": 100 * (_cpu(group) - before[name]) / passed, "memory": memory})
    return {}


def _cpu(group: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in group]
    return sum(used.user + used.system for used in times)


SCENARIOS = [idle]

"""From SIGKILL of a strategy to its first accepted put, under each manager and under none."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import psutil

from benchmarks import managers
from benchmarks.child import ROOT
from benchmarks.managers import COMMAND, Bot, Manager
from benchmarks.measure import Contestant, contest, no_background, quantile
from benchmarks.peers import Promise
from benchmarks.results import Row, Table, our_row
from benchmarks.scenarios.base import Bench
from supervisor.control import Command, RunDir, SupervisorStatus, ask

SMALL, LARGE = "10 records", "10,000 records"
RECORDS, QUICK_RECORDS = {SMALL: 10, LARGE: 10_000}, {SMALL: 10}
PLAIN, FLOOR = "Outlive without a spare", "no manager"
KILLS, QUICK_KILLS = {SMALL: 32, LARGE: 12}, 3
CHECK_DELAY = 0.1  # seconds; circus's own is 5
REST = 1.5  # seconds that each worker has lived when it is killed: longer than the `startsecs` (1) of supervisord
START = 60.0  # seconds until a worker must have put
LOOK = 0.05  # seconds between two looks at a spare
CONFIGURATION = f"""\
[persistence]
data_dir = "state"

[restart]
stable_after = {REST / 2}  # a worker is killed so often that it would be waited for
limit = 100_000
"""


class Life(NamedTuple):
    """A worker that has put."""

    process: psutil.Process
    accepted: int
    """When, in ns of `time.monotonic_ns`."""


class Notes:
    """Where the worker of one row says that it has put."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(START)
        self._socket.bind(path)

    def life(self, since: int = 0) -> Life:
        """The next one that put later than `since`."""
        while True:
            pid, accepted = map(int, self._socket.recv(100).split())
            if accepted > since:
                return Life(psutil.Process(pid), accepted)

    def close(self) -> None:
        self._socket.close()


class Killed:
    """The worker of one row: killed, and waited for. `revive` starts it again where nobody does."""

    def __init__(self, row: Row, bot: Bot, stack: ExitStack) -> None:
        self.row, self.bot = row, bot
        self.settle: Callable[[], None] = no_background
        self.revive: Callable[[], int] | None = None
        self.notes = Notes(bot.notes)
        stack.callback(self.notes.close)

    def await_first(self, manager: Manager | None) -> None:
        try:
            self._life = self.notes.life()
        except TimeoutError:
            said = manager.said() if manager else ""
            raise RuntimeError(f"{self.row.label}: no put within {START} s\n{said}") from None

    def turn(self) -> dict[str, float]:
        """One kill; in ms."""
        time.sleep(max(0.0, REST - (time.monotonic_ns() - self._life.accepted) / 1e9))
        began = time.monotonic_ns()
        self._life.process.kill()
        if self.revive is not None:
            began = self.revive()
        try:
            self._life = self.notes.life(since=began)
        except TimeoutError:
            raise RuntimeError(f"{self.row.label}: killed, and no put within {START} s") from None
        return {"p50": (self._life.accepted - began) / 1e6}


def restart(bench: Bench) -> Iterator[Table]:
    """How soon a killed strategy puts again: with a spare, without, under circus and supervisord."""
    rows: list[Row] = []
    with bench.folder() as folder, _cast(bench, folder) as (killed, missing):
        for group in bench.pick(RECORDS, QUICK_RECORDS):
            mine = [one for one in killed if one.row.group == group]
            contest([Contestant(one.row, one.turn, one.settle) for one in mine], bench.pick(KILLS[group], QUICK_KILLS))
            found = [one.row for one in mine]
            add_figures(found)
            rows += found + [row for row in missing if row.group == group]
    units = {"p50": "ms", "p99": "ms", "max": "ms", "beyond": "ms more than no manager"}
    title = "from SIGKILL of a worker to its first accepted put after recovery; no manager: from its start"
    yield Table(name="restart", title=title, units=units, rows=rows)


def add_figures(rows: Sequence[Row]) -> None:
    """Each round has one kill: the tail is that of all of them, "beyond" is taken within each round."""
    floor = next(row for row in rows if row.kind == "floor")
    for row in rows:
        times = sorted(figures["p50"] for figures in row.rounds)
        for figures, alone in zip(row.rounds, floor.rounds, strict=True):
            figures["beyond"] = figures["p50"] - alone["p50"]
            figures |= {"p99": quantile(times, 0.99), "max": times[-1]}


@contextmanager
def _cast(bench: Bench, folder: str) -> Iterator[tuple[list[Killed], list[Row]]]:
    """Every worker, alive; and the rows of who is not here. All have one persistence process: our supervisor's."""
    data_dir, groups = os.path.join(folder, "state"), bench.pick(RECORDS, QUICK_RECORDS)
    with ExitStack() as stack:

        def worker(row: Row) -> Killed:
            name = f"bot{len(killed)}"
            killed.append(Killed(row, Bot(name, groups[row.group], os.path.join(folder, name)), stack))
            return killed[-1]

        killed: list[Killed] = []
        missing: list[Row] = []
        spares = [worker(our_row(group)) for group in groups]
        plain = [worker(our_row(group, PLAIN)) for group in groups]
        tables = [managers.strategy(one.bot, one in spares) for one in [*spares, *plain]]
        ours = stack.enter_context(managers.outlive(folder, CONFIGURATION + "".join(tables)))
        for one in [*spares, *plain]:
            one.await_first(ours)
        for one in spares:
            one.settle = _until_spare(data_dir, one.bot.name)
        for row, absent, start in _others(data_dir):
            if absent:
                row.missing = absent
                missing.append(row)
            else:
                one = worker(row)
                one.await_first(stack.enter_context(start(stack.enter_context(bench.folder()), one.bot)))
        for group in groups:
            row = Row(name=FLOOR, group=group, kind="floor", promise=Promise.KILL)
            stack.enter_context(_alone(worker(row), data_dir))
        for one in spares:
            one.settle()
        yield killed, missing


def _others(data_dir: str) -> Iterator[tuple[Row, str, Callable[[str, Bot], Manager]]]:
    """Their rows, why they are not here, how they start. What they do does not depend on the records."""

    def row(name: str) -> Row:
        return Row(name=name, group=SMALL, promise=Promise.KILL)

    absent = managers.no_circus()
    yield row("circus"), absent, lambda folder, bot: managers.circus(folder, bot, data_dir)
    tuned = f"circus, check_delay {CHECK_DELAY}"
    yield row(tuned), absent, lambda folder, bot: managers.circus(folder, bot, data_dir, CHECK_DELAY)
    absent = managers.no_supervisord()
    yield row("supervisord"), absent, lambda folder, bot: managers.supervisord(folder, bot, data_dir)


@contextmanager
def _alone(one: Killed, data_dir: str) -> Iterator[None]:
    """The worker without a manager: its restart is timed from its start, when the one before has left."""
    process: subprocess.Popen[bytes] | None = None
    env = managers.plain_env(one.bot.full_env(data_dir))

    def end() -> None:
        if process is not None:
            process.kill()
            process.wait()

    def start() -> int:
        nonlocal process
        end()
        began = time.monotonic_ns()
        process = subprocess.Popen(COMMAND, cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
        return began

    try:
        start()
        one.await_first(None)
        one.revive = start
        yield
    finally:
        end()


def _until_spare(data_dir: str, name: str) -> Callable[[], None]:
    """Wait until the next process is ready, so that its imports disturb nobody."""
    run_dir = RunDir(os.path.join(data_dir, "supervisor.d"))

    def is_ready() -> bool:
        status = ask(run_dir, Command(verb="status"))
        assert isinstance(status, SupervisorStatus)
        return any(program.name == name and program.spare == "ready" for program in status.programs)

    def settle() -> None:
        deadline = time.monotonic() + START
        while not is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} has no spare within {START} s")
            time.sleep(LOOK)

    return settle


SCENARIOS = [restart]

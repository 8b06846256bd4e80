"""The budget: what each figure may be, beside what. Ratios are taken in one run and within each round of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.results import Results, Row, ratio
from benchmarks.show import figure

Who = tuple[str, str]
"""A row: its name and group."""

OURS, SYNCED = ("Outlive", ""), ("Outlive + sync()", "")
LMDB = ("LMDB nosync", "")
FLOOR = ("floor: pwrite + fdatasync", "")
KILLED = ("Outlive", "10 records")
MILLION = "1,000,000 records"
SLOW = "64 writers, 1 ms more a sync"


class Line(NamedTuple):
    """One line of the budget."""

    work: str
    table: str
    """scenario, or scenario/kind."""
    of: Who
    metric: str
    against: Who | None
    """None: the limit is the figure itself."""
    limit: float
    sense: Literal["at most", "at least"] = "at most"
    against_metric: str = ""
    """If not the same."""
    usual: float = 0.0
    """What full runs find where the limit is not met: the guard goes by it."""

    @property
    def scenario(self) -> str:
        return self.table.partition("/")[0]

    @property
    def reference(self) -> str:
        if self.against is None:
            return ""
        name = ", ".join(part for part in self.against if part)
        return f"{name}, {self.against_metric}" if self.against_metric else name


class Found(NamedTuple):
    """A line, and what a run found."""

    line: Line
    value: float | None
    """None: it was not measured."""

    @property
    def is_met(self) -> bool:
        """Whether it was measured and is within its limit."""
        return self.value is not None and self.within(self.line.limit)

    def within(self, limit: float) -> bool:
        if self.value is None:
            return False
        return self.value <= limit if self.line.sense == "at most" else self.value >= limit


def _troubled(state: str) -> Line:
    group = ("Outlive", f"process {state}")
    work = f"p99.9 of a put while the process is {state}"
    return Line(work, "put_disturbed", group, "p99.9", group, 3.0, against_metric="p99")


BUDGET = [
    Line("put, 8-field dict, 20 µs apart: p50", "put_20us/dict", OURS, "p50", LMDB, 0.75),
    Line("put, 8-field dict, 20 µs apart: p99", "put_20us/dict", OURS, "p99", LMDB, 0.4),
    Line("put, Position: p50", "put_20us/position", OURS, "p50", LMDB, 1.0),
    Line("transaction of two changes", "transaction", ("Outlive", "2 changes"), "p50", ("Outlive", "1 put"), 1.5),
    Line("read", "read", OURS, "p50", ("dict", ""), 1.0),
    Line("put + sync(): p50", "put_sync/dict", SYNCED, "p50", FLOOR, 1.25),
    Line("put to durable, 10,000 puts/s: p50, µs", "put_durable", ("Outlive", "put to durable"), "p50", None, 5_000),
    Line("put to durable, 10,000 puts/s: p99, µs", "put_durable", ("Outlive", "put to durable"), "p99", None, 25_000),
    Line(
        "ingest of one server", "ingest", ("Outlive", "4 processes"), "per_second",
        ("Redis AOF everysec", "1 process"), 4.0, "at least", usual=0.84,
    ),
    Line(
        "group commit of 64 writers", "flush_writers", ("Outlive + flush()", "64 writers"), "per_second",
        ("SQLite WAL full", "64 writers"), 10.0, "at least",
    ),
    Line(
        "the same where a sync takes 1 ms more", "flush_writers", ("Outlive + flush()", SLOW), "per_second",
        ("floor: pwrite + fdatasync", SLOW), 10.0, "at least",
    ),
    Line(
        "100,000 Records back in a worker", "recovery_worker/position", ("Outlive", "100,000 records"), "seconds",
        ("pickle.load", "100,000 records"), 1.5,
    ),
    Line(
        "100,000 dicts back in a worker", "recovery_worker/dict", ("Outlive", "100,000 records"), "seconds",
        ("pickle.load", "100,000 records"), 2.5,
    ),
    Line(
        "1,000,000 records back in the process", "recovery_server", ("Outlive", MILLION), "seconds",
        ("pickle.load", MILLION), 2.0,
    ),
    Line("its memory, above 40 MB", "recovery_server", ("Outlive", MILLION), "overhead", None, 2.0),
    Line("a killed strategy's first put, with a spare: p50, ms", "restart", KILLED, "p50", None, 40),
    Line("a killed strategy's first put, with a spare: p99, ms", "restart", KILLED, "p99", None, 150),
    Line(
        "the same without a spare: ms more than the worker's own start", "restart",
        ("Outlive without a spare", "10 records"), "beyond", None, 30,
    ),
    Line(
        "a change in a map of 1,000,000", "growth_keys", ("Outlive", "1,000,000 keys"), "p50",
        ("Outlive", "1,000 keys"), 1.5,
    ),
    Line(
        "the same until durable", "growth_keys", ("Outlive", "1,000,000 keys"), "lag p50",
        ("Outlive", "1,000 keys"), 1.5,
    ),
    Line(
        "a change beside 199 other bots", "growth_workers", ("Outlive", "200 workers"), "p50",
        ("Outlive", "1 worker"), 1.5,
    ),
    Line(
        "the same until durable", "growth_workers", ("Outlive", "200 workers"), "lag p50",
        ("Outlive", "1 worker"), 1.5,
    ),
    _troubled("stopped"),
    _troubled("down"),
    _troubled("saving"),
    Line(
        "durable lag while a large map is saved: p99", "lag_saving", ("Outlive", "a large map saved"), "p99",
        ("Outlive", "nothing saved"), 3.0,
    ),
    Line("idle, ten strategies: % of a core", "idle", ("Outlive", "all"), "cpu", None, 1.0),
]  # fmt: skip


def judge(results: Results, lines: Iterable[Line] = BUDGET) -> list[Found]:
    """Every line with its figure in this run."""
    return [Found(line, _value(results, line)) for line in lines]


def _value(results: Results, line: Line) -> float | None:
    of = _row(results, line, line.of)
    if of is None or line.against is None:
        return of.figure(line.metric) if of is not None else None
    against = _row(results, line, line.against)
    return ratio(of, against, line.metric, line.against_metric) if against is not None else None


def _row(results: Results, line: Line, who: Who) -> Row | None:
    table = results.table(line.table)
    return table.row(*who) if table is not None else None


def show_budget(console: Console, found: Iterable[Found]) -> None:
    """Met, not met, or not measured; with the figure."""
    grid = Grid(title="Budget", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("", "beside", "found", "limit", ""):
        grid.add_column(heading, justify="right" if heading in ("found", "limit") else "left")
    for one in found:
        line, unit = one.line, "x" if one.line.against else ""
        said = "not measured" if one.value is None else "met" if one.is_met else "not met"
        value = figure(one.value) + unit if one.value is not None else ""
        style = {"met": "green", "not met": "red", "not measured": "dim"}[said]
        grid.add_row(line.work, line.reference, value, f"{line.sense} {figure(line.limit)}{unit}", said, style=style)
    console.print(grid)

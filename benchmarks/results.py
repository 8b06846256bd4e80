"""What a run has found, as JSON for machines: tables of rows, each row with the figures of every round.

A figure is the median of its rounds. A ratio is taken within each round, where both had the same weather, and then the
median of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from benchmarks.peers.base import Peer, Promise

Kind = Literal["ours", "peer", "floor"]


class Row(msgspec.Struct, kw_only=True):
    """One contestant in one table."""

    name: str
    group: str = ""
    """What it did, where a table has several loads."""
    kind: Kind = "peer"
    promise: str = ""
    setting: str = ""
    rounds: list[dict[str, float]] = []
    """Metric -> figure, of each round."""
    curve: list[tuple[float, float]] = []
    """(quantile, figure) over all rounds, where the figures are times of single calls."""
    missing: str = ""
    """Why it has no figures."""

    @property
    def label(self) -> str:
        return f"{self.name}, {self.group}" if self.group else self.name

    def figure(self, metric: str) -> float | None:
        """The median of the rounds; None where it was not measured."""
        found = [figures[metric] for figures in self.rounds if metric in figures]
        return median(found) if found else None


class Table(msgspec.Struct, kw_only=True):
    """Rows that are compared with each other."""

    name: str
    """scenario, or scenario/kind."""
    title: str
    units: dict[str, str]
    """Metric -> its unit, in the order of the columns."""
    lead: str = "p50"
    """The metric by which they are compared."""
    more_is_better: bool = False
    grows: str = ""
    """What the groups are sizes of, where the table shows growth."""
    rows: list[Row]

    @property
    def scenario(self) -> str:
        return self.name.partition("/")[0]

    def row(self, name: str, group: str = "") -> Row | None:
        """None if it did not take part."""
        return next((row for row in self.rows if (row.name, row.group) == (name, group)), None)

    def counterpart(self, row: Row) -> Row | None:
        """Outlive's row to be compared with `row`: the same load, and the same promise where we have one."""
        ours = [mine for mine in self.rows if mine.kind == "ours" and mine.group == row.group]
        same = [mine for mine in ours if mine.promise == row.promise]
        return next(iter(same or ours), None)

    def best_peer(self, ours: Row) -> Row | None:
        """The best store with the same load and promise."""
        rows = [row for row in self.rows if row.kind == "peer" and row.group == ours.group]
        rows = [row for row in rows if row.promise == ours.promise and row.figure(self.lead) is not None]
        best = max if self.more_is_better else min
        return best(rows, key=lambda row: row.figure(self.lead) or 0.0, default=None)

    def floor(self, ours: Row) -> Row | None:
        rows = [row for row in self.rows if row.kind == "floor" and row.group == ours.group]
        return next((row for row in rows if row.promise == ours.promise), None)


class Results(msgspec.Struct, kw_only=True):
    """One run."""

    machine: dict[str, str]
    quick: bool
    seconds: float = 0.0
    tables: list[Table] = []

    def table(self, name: str) -> Table | None:
        return next((table for table in self.tables if table.name == name), None)

    def rows(self) -> Iterator[tuple[Table, Row]]:
        for table in self.tables:
            for row in table.rows:
                yield table, row


def ratio(of: Row, to: Row, metric: str, to_metric: str = "") -> float | None:
    """The median of the rounds' ratios; None where one of them has no figures."""
    pairs = zip(of.rounds, to.rounds, strict=False)
    both = [(a.get(metric), b.get(to_metric or metric)) for a, b in pairs]
    ratios = [a / b for a, b in both if a is not None and b]
    return median(ratios) if ratios else None


def row_of(peer: type[Peer], group: str = "") -> Row:
    """An empty row for a contestant."""
    kind: Kind = "ours" if peer.is_ours else "floor" if peer.is_floor else "peer"
    return Row(
        name=peer.name, group=group, kind=kind, promise=peer.promise, setting=peer.setting, missing=peer.missing()
    )


def our_row(group: str = "", name: str = "Outlive", promise: str = Promise.KILL) -> Row:
    """An empty row of ours."""
    return Row(name=name, group=group, kind="ours", promise=promise)


def save_results(results: Results, path: str) -> None:
    Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def load_results(path: str) -> Results:
    """Raises OSError; `msgspec.MsgspecError` for what is no result."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Results)

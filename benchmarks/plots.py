"""Pictures of a run: how the times of calls are distributed, and how they grow."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

from benchmarks.results import Results, Row, Table

MISSING = "" if find_spec("matplotlib") else "no plots: matplotlib is not installed"
INCHES = (9, 5.5)
UNITS = {"B": 1, "kB": 1_000, "MB": 1_000_000}
WIDTHS = {"ours": 2.5, "peer": 1.2, "floor": 1.2}
LINES = {"ours": "-", "peer": "-", "floor": ":"}


def draw(results: Results, folder: str) -> list[str]:
    """The plots of all tables that can be drawn; the files made."""
    import matplotlib

    matplotlib.use("Agg")
    os.makedirs(folder, exist_ok=True)
    made = []
    for table in results.tables:
        if table.grows:
            made.append(_growth(table, folder))
        elif any(row.curve for row in table.rows):
            made.append(_distribution(table, folder))
    return made


def _distribution(table: Table, folder: str) -> str:
    """Time over the share of calls that were faster, spread out towards the slow ones."""
    figure, axes = _axes(table)
    for row in table.rows:
        if row.curve:
            xs = [1 / (1 - q) for q, _ in row.curve]
            axes.plot(xs, [value for _, value in row.curve], LINES[row.kind], lw=WIDTHS[row.kind], label=row.label)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 10, 100, 1_000, 10_000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    axes.set_xlabel("share of calls that took no longer")
    axes.set_ylabel("µs a call")
    return _save(figure, axes, table, folder)


def _growth(table: Table, folder: str) -> str:
    """The lead metric over size, a line for each contestant."""
    figure, axes = _axes(table)
    for name in dict.fromkeys(row.name for row in table.rows):
        rows = [row for row in table.rows if row.name == name and row.figure(table.lead) is not None]
        points = [(size_of(row), row.figure(table.lead)) for row in rows]
        if points:
            kind = rows[0].kind
            axes.plot(*zip(*points, strict=True), LINES[kind], marker="o", lw=WIDTHS[kind], label=name)
    axes.set_xscale("log")
    axes.set_xlabel(table.grows)
    axes.set_ylabel(f"{table.lead}, {table.units[table.lead]}")
    return _save(figure, axes, table, folder)


def size_of(row: Row) -> float:
    """The number that a growing group is named by: "1,000 keys", "10 kB"."""
    number, unit = re.fullmatch(r"([\d,]+) (\w+)", row.group).groups()  # type: ignore[union-attr]
    return float(number.replace(",", "")) * UNITS.get(unit, 1)


def _axes(table: Table) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=INCHES)
    axes.set_title(table.title, fontsize=10)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, axes: Any, table: Table, folder: str) -> str:
    from matplotlib import pyplot

    axes.legend(fontsize=7)
    path = os.path.join(folder, re.sub(r"\W+", "-", table.name) + ".png")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return path

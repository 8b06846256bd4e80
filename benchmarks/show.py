"""A table on the terminal: everyone with the figures, and what Outlive is beside each."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.results import Row, Table, ratio

WIDTH = 132  # columns where the terminal does not say
STYLES = {"ours": "bold", "floor": "italic dim", "peer": ""}


def figure(value: float | None) -> str:
    """Three digits are all that can be believed."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{figure(value)}x"


def show_table(console: Console, table: Table) -> None:
    """Everyone; then our ratio to the best peer and to the floor."""
    grid = Grid(title=f"{table.name}: {table.title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("")
    for metric, unit in table.units.items():
        grid.add_column(f"{metric.replace('_', ' ')}\n{unit}", justify="right")
    grid.add_column(f"Outlive / it\nby {table.lead.replace('_', ' ')}", justify="right")
    grid.add_column("promise")
    for row in table.rows:
        cells = [figure(row.figure(metric)) for metric in table.units] if not row.missing else [""] * len(table.units)
        grid.add_row(row.label, *cells, _beside(table, row), row.missing or row.promise, style=STYLES[row.kind])
    console.print(grid)
    for line in summary_lines(table):
        console.print(f"  {line}")


def _beside(table: Table, row: Row) -> str:
    ours = table.counterpart(row)
    return times(ratio(ours, row, table.lead)) if ours is not None and row.kind != "ours" else ""


def summary_lines(table: Table) -> list[str]:
    """For each row of ours: against the best of the same promise, and against the floor."""
    lines = []
    for ours in table.rows:
        if ours.kind == "ours":
            beside = [table.best_peer(ours), table.floor(ours)]
            said = [f"{times(ratio(ours, row, table.lead))} of {row.name}" for row in beside if row is not None]
            if said:
                lines.append(f"{ours.label}, {ours.promise}: {table.lead.replace('_', ' ')} {', '.join(said)}")
    return lines

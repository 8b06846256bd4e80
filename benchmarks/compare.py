"""`python -m benchmarks.compare A.json B.json`: what a change did, with the peers to show what the weather did."""

from __future__ import annotations

import argparse
import sys
from statistics import median

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.results import Results, Table, load_results
from benchmarks.show import WIDTH, figure, times

MANY = 1.1  # a change below this share is not coloured: two runs of the same code differ as much


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="What a change did.")
    parser.add_argument("before", metavar="A.json")
    parser.add_argument("after", metavar="B.json")
    options = parser.parse_args(arguments)
    try:
        before, after = load_results(options.before), load_results(options.after)
    except (OSError, msgspec.MsgspecError) as error:
        parser.error(str(error))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(comparison(before, after))
    return 0


def comparison(before: Results, after: Results) -> Grid:
    """Our rows of both runs. "net" is our change over that of the others in the same table."""
    grid = Grid(box=box.SIMPLE_HEAD)
    for heading in ("", "by", "A", "B", "B / A", "others B / A", "net"):
        grid.add_column(heading, justify="left" if heading in ("", "by") else "right")
    for old in before.tables:
        new = after.table(old.name)
        if new is not None:
            _compare(grid, old, new)
    return grid


def _compare(grid: Grid, old: Table, new: Table) -> None:
    others = weather(old, new)
    for row in old.rows:
        again = new.row(row.name, row.group)
        if row.kind != "ours" or again is None:
            continue
        for metric in old.units:
            a, b = row.figure(metric), again.figure(metric)
            if a and b:
                net = b / a / others[metric] if metric in others else None
                label = f"{old.name}: {row.label}"
                shown = [figure(a), figure(b), times(b / a), times(others.get(metric)), times(net)]
                grid.add_row(label, metric, *shown, style=_style(net, old.more_is_better))


def weather(old: Table, new: Table) -> dict[str, float]:
    """Metric -> the median change of everyone else, who have not been changed."""
    found: dict[str, float] = {}
    for metric in old.units:
        changes = []
        for row in old.rows:
            again = new.row(row.name, row.group)
            a = row.figure(metric) if row.kind != "ours" else None
            b = again.figure(metric) if again is not None else None
            if a and b:
                changes.append(b / a)
        if changes:
            found[metric] = median(changes)
    return found


def _style(net: float | None, more_is_better: bool) -> str:
    if net is None or 1 / MANY <= net <= MANY:
        return ""
    return "green" if (net > 1) == more_is_better else "red"


if __name__ == "__main__":
    sys.exit(main())

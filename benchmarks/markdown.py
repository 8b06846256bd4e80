"""`python -m benchmarks.markdown run.json`: what the documents show of a run: nobody copies a figure by hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.budget import judge
from benchmarks.results import Results, load_results
from benchmarks.show import figure, times

FRONT = [
    ("survives kill -9 when it returns", {
        "put_20us/dict": "dict of 8 fields, 50,000 a second",
        "put_20us/position": "Position, 50,000 a second",
        "put_1ms/position": "Position, one every ms",
    }),
    ("survives a power cut when it returns", {
        "put_sync/dict": "dict of 8 fields",
        "put_sync/position": "Position",
    }),
]  # fmt: skip
"""Tables that are shown side by side: heading -> table -> what its line is called."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.markdown", description="A run, for the documents.")
    parser.add_argument("run", metavar="RUN.json")
    options = parser.parse_args(arguments)
    try:
        results = load_results(options.run)
    except (OSError, msgspec.MsgspecError) as error:
        parser.error(str(error))
    print(", ".join(f"{name} {value}" for name, value in results.machine.items()), end="\n\n")
    for heading, lines in FRONT:
        print(side_by_side(results, heading, lines))
    print(budget(results))
    return 0


def side_by_side(results: Results, heading: str, lines: dict[str, str]) -> str:
    """p50 / p99 of everyone, a line for each table; who has no figures in any of them is left out."""
    tables = [(said, found) for name, said in lines.items() if (found := results.table(name)) is not None]
    names = list(dict.fromkeys(row.name for _, table in tables for row in table.rows if row.rounds))
    body = []
    for said, table in tables:
        rows = [table.row(name) for name in names]
        cells = [f"{figure(r.figure('p50'))} / {figure(r.figure('p99'))}" if r and r.rounds else "" for r in rows]
        body.append([said, *cells])
    return _grid([f"{heading}: p50 / p99, µs", *names], body)


def budget(results: Results) -> str:
    """Each line of the budget, with what the run found."""
    body = []
    for one in judge(results):
        unit = "x" if one.line.against else ""
        found = "not measured" if one.value is None else times(one.value) if unit else figure(one.value)
        limit = f"{one.line.sense} {figure(one.line.limit)}{unit}"
        body.append([one.line.work, one.line.reference, found, limit, "met" if one.is_met else "**not met**"])
    return _grid(["", "beside", "found", "limit", ""], body)


def _grid(heading: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.check`: has something become much slower? A guard for a noisy machine, not a measurement.

Every figure is a ratio within one run (or a time with much room), and its limit is the budget's times a generous
margin. A scenario with a line over its limit gets one more try: a slow minute does not come twice, a slow program does.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.budget import BUDGET, Found, Line, judge
from benchmarks.run import default_folder, run
from benchmarks.show import WIDTH, figure

GUARDED = ["put_20us", "transaction", "read", "put_sync", "put_durable", "ingest"]
"""Scenarios that are quick enough, and whose lines say something about every change of the code."""
MARGINS = {"p50": 3.0, "p99": 10.0, "p99.9": 10.0}
"""How often the limit (or the usual) a figure may be: the tails are the machine's more than ours."""
MARGIN = 3.0
"""Of every other metric."""
TRIES = 2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description="Has something become slower?")
    parser.add_argument("--folder", default=default_folder(), help="where everyone writes (default: %(default)s)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    names = GUARDED
    for _ in range(TRIES):
        slow = too_slow(judge(run(console, names, False, options.folder), guarded(names)))
        names = [name for name in names if any(found.line.scenario == name for found in slow)]
        if not names:
            console.print("nothing has become much slower", style="green")
            return 0
        for found in slow:
            said = f"{found.line.work}: {figure(found.value)}, the guard is at {figure(guard(found.line))}"
            console.print(said, style="yellow", highlight=False)
    console.print(f"much slower than the budget, in {TRIES} runs: {', '.join(names)}", style="bold red")
    return 1


def guarded(names: Sequence[str]) -> list[Line]:
    return [line for line in BUDGET if line.scenario in names]


def guard(line: Line) -> float:
    """The limit, or what is usual instead, with its margin."""
    margin, basis = MARGINS.get(line.metric, MARGIN), line.usual or line.limit
    return basis * margin if line.sense == "at most" else basis / margin


def too_slow(found: Sequence[Found]) -> list[Found]:
    """What is over its guard. A line that could not be measured, as a peer is not installed, is not."""
    return [one for one in found if one.value is not None and not one.within(guard(one.line))]


if __name__ == "__main__":
    sys.exit(main())

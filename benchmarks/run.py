"""`python -m benchmarks`: run the scenarios, show the tables and the budget, keep the figures."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time

from rich.console import Console

from benchmarks import plots
from benchmarks.budget import BUDGET, judge, show_budget
from benchmarks.machine import IN_MEMORY, facts, file_system
from benchmarks.results import Results, save_results
from benchmarks.scenarios import SCENARIOS, Bench, meaning
from benchmarks.show import WIDTH, show_table


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with-blocks end what they started
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if options.list:
        for name, scenario in SCENARIOS.items():
            console.print(f"{name:<18}{meaning(scenario)}", highlight=False)
        return 0
    names = options.only or list(SCENARIOS)
    results = run(console, names, options.quick, options.folder)
    if lines := [line for line in BUDGET if line.scenario in names]:
        show_budget(console, judge(results, lines))
    if options.json:
        save_results(results, options.json)
    if options.plots:
        console.print(plots.MISSING or f"{len(plots.draw(results, options.plots))} plots in {options.plots}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Outlive beside its peers.")
    parser.add_argument("--quick", action="store_true", help="see that everything works; the figures mean little")
    parser.add_argument("--only", action="append", metavar="NAME", choices=list(SCENARIOS), help="may be repeated")
    parser.add_argument("--json", metavar="FILE", help="keep the figures here")
    parser.add_argument("--plots", metavar="DIR", help="draw the plots (PNG) here")
    parser.add_argument("--folder", default=default_folder(), help="where everyone writes (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the scenarios, and what each means")
    return parser.parse_args(arguments)


def default_folder() -> str:
    """Temporary files on a disk: what is kept in memory has no sync to measure."""
    return "/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir()


def run(console: Console, names: list[str], quick: bool, folder: str) -> Results:
    """The scenarios, one behind the other, each shown when it is done."""
    results = Results(machine=facts(folder), quick=quick)
    console.print(", ".join(f"{name} {value}" for name, value in results.machine.items()), highlight=False)
    if file_system(folder) in IN_MEMORY:
        console.print(f"{folder} is kept in memory: whatever waits for a disk is not measured", style="red")
    if quick:
        console.print("quick: everything is tried, no figure means anything", style="yellow")
    began = time.monotonic()
    for name in names:
        console.print(f"\n[bold]{name}[/]  {meaning(SCENARIOS[name])}")
        started = time.monotonic()
        for table in SCENARIOS[name](Bench(folder, quick)):
            results.tables.append(table)
            show_table(console, table)
        console.print(f"  {time.monotonic() - started:.0f} s", style="dim")
    results.seconds = time.monotonic() - began
    return results


if __name__ == "__main__":
    sys.exit(main())

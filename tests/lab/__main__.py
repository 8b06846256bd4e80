"""Run the whole laboratory to its long bounds, two parts at a time, and print what was tried.

    python -m tests.lab                     everything, from a new seed (make prove)
    python -m tests.lab --seed 7            everything again from that seed
    python -m tests.lab --part crash        one part

Exit 1 if any part is red; its output is printed whole. With `--table FILE` the numbers go there too, as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LANES = 2
KILLS = 1000


class Part(NamedTuple):
    """One part: what it is about, and the arguments behind `python -m`. `SEED`, `TALLY`, `TABLE` are filled in."""

    name: str
    about: str
    arguments: tuple[str, ...]


def _pytest(name: str, about: str) -> Part:
    options = ("--far", "--seed", "SEED", "--hypothesis-seed", "SEED", "--tally", "TALLY", "-p", "no:cacheprovider")
    return Part(name, about, ("pytest", *options, f"tests/{name}"))


PARTS = [  # the longest first, so that both lanes end at about the same time
    Part(
        "chaos",
        "real processes, SIGKILL at any time and at named points",
        ("tests.chaos", "--kills", str(KILLS), "--seed", "SEED", "--tally", "TALLY"),
    ),
    Part(
        "mutants",
        "the code broken in one place at a time",
        ("tests.mutants", "--lanes", "1", "--tally", "TALLY", "--table", "TABLE"),
    ),
    _pytest("resources", "full disks, no descriptors, clock jumps, an hour's traffic"),
    _pytest("model", "every interleaving of the protocol, within bounds"),
    _pytest("crash", "a disk that forgets, at every call"),
    _pytest("damage", "every file cut, flipped, swapped, deleted"),
    _pytest("faults", "an error at the n-th call, for every n"),
    _pytest("stateful", "random operations against a dict"),
    _pytest("hostile", "hostile bytes, pickles, peers and keys"),
]


class Outcome(NamedTuple):
    part: Part
    code: int
    seconds: float
    counted: Counter[str]
    output: str


class Runner:
    """Runs parts as child processes, and ends them all when it is interrupted."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._children: list[subprocess.Popen[bytes]] = []

    def run(self, part: Part) -> Outcome:
        tally, output = self._folder / f"{part.name}.tally", self._folder / f"{part.name}.log"
        filled = {"SEED": str(self._seed), "TALLY": str(tally), "TABLE": str(self._folder / f"{part.name}.md")}
        command = [sys.executable, "-m", *(filled.get(word, word) for word in part.arguments)]
        began = time.monotonic()
        with open(output, "wb") as log:
            child = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            self._children.append(child)
            code = child.wait()
        seconds = time.monotonic() - began
        outcome = Outcome(part, code, seconds, read_tally(tally), output.read_text(errors="replace"))
        print(f"{'green' if code == 0 else 'RED  '} {part.name:10} {seconds:6.0f} s  {counts(outcome)}", flush=True)
        if code != 0:  # at once: the other parts take a while yet
            print(f"\n{'=' * 20} {part.name} {'=' * 20}\n{outcome.output}", flush=True)
        return outcome

    def end(self) -> None:
        """Kill what still runs, each with the session that it leads."""
        for child in self._children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def read_tally(path: Path) -> Counter[str]:
    """The sum of what the tests of a part have counted."""
    total: Counter[str] = Counter()
    for line in path.read_text().splitlines() if path.exists() else ():
        total.update(json.loads(line)["n"])
    return total


def counts(outcome: Outcome) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in sorted(outcome.counted.items()))


def table(seed: int, outcomes: Sequence[Outcome]) -> str:
    """Markdown: per part, what was tried and what became of it."""
    lines = [f"Seed {seed}.", "", "| part | tried | red | seconds |", "|---|---|---|---|"]
    for one in outcomes:
        red = "none" if one.code == 0 else f"exit {one.code}"
        lines.append(f"| {one.part.name}: {one.part.about} | {counts(one)} | {red} | {one.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--part", action="append", choices=[part.name for part in PARTS])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with what it started
    parts = [part for part in PARTS if not options.part or part.name in options.part]
    print(f"seed {options.seed}: again with  python -m tests.lab --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        outcomes = list(_run_all(Runner(options.seed, Path(folder)), parts))
        if options.table:  # with those of the parts that have one of their own
            tables = [table(options.seed, outcomes), *(one.read_text() for one in sorted(Path(folder).glob("*.md")))]
            options.table.write_text("\n".join(tables))
    red = [one.part.name for one in outcomes if one.code != 0]
    print(f"\nseed {options.seed}: " + (f"RED: {', '.join(red)}" if red else f"all {len(outcomes)} parts green"))
    return 1 if red else 0


def _run_all(runner: Runner, parts: Sequence[Part]) -> Iterator[Outcome]:
    with ThreadPoolExecutor(LANES) as lanes:
        try:
            yield from lanes.map(runner.run, parts)
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            runner.end()
            raise


if __name__ == "__main__":
    sys.exit(main())

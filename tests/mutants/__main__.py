"""Run the mutants: each in a copy of the tree, two at a time. Exit 1 if any survives."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import psutil

from tests.mutants.tables import ALL_MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("protocol", "strategy_proc", "persistence_proc", "supervisor", "demo", "benchmarks", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "Makefile", "CHANGELOG.md")
TIME_LIMIT = 600  # seconds for the tests of one mutant: a hang is a death too, and says so
_RED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


class Verdict(NamedTuple):
    """What became of one mutant: `killer` is the first test that went red; empty if none did."""

    mutant: Mutant
    killer: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that are asked for, print the table, and say whether all were killed."""
    options = _parser().parse_args(arguments)
    chosen = [mutant for mutant in ALL_MUTANTS if options.only in mutant.name]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.lanes):
            trees.put(copy_tree(Path(folder) / str(number)))
        with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
            verdicts = [one.result() for one in [pool.submit(_run, trees, mutant) for mutant in chosen]]
        innocent = _red_without_mutant(trees.get(), sorted({verdict.killer for verdict in verdicts} - {""}))
    survivors = [verdict for verdict in verdicts if not verdict.killer]
    print(f"\n{len(verdicts)} mutants, {len(survivors)} survived")
    for verdict in survivors:
        print(f"  SURVIVED  {verdict.mutant.at}: {verdict.mutant.name}")
    if innocent:
        print(f"red without any mutant, so what it says of them counts for nothing:\n{innocent}")
    if options.table:
        options.table.write_text(table(verdicts))
    if options.tally:
        with open(options.tally, "a") as file:
            n = {"mutants tried": len(verdicts), "mutants survived": len(survivors)}
            file.write(json.dumps({"part": "mutants", "test": "python -m tests.mutants", "n": n}) + "\n")
    return 1 if survivors or innocent or not verdicts else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name contains this")
    parser.add_argument("--lanes", type=int, default=min(4, os.cpu_count() or 1), help="how many at a time")
    parser.add_argument("--table", type=Path, help="write the table, in Markdown, to this file")
    parser.add_argument("--tally", type=Path, help="append the numbers to this file")
    return parser


def copy_tree(target: Path) -> Path:
    """The project's own files, to be broken."""
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
    return target


def _run(trees: SimpleQueue[Path], mutant: Mutant) -> Verdict:
    tree = trees.get()
    try:
        path = tree / mutant.at
        original = path.read_text()
        path.write_text(broken(original, mutant))
        try:
            verdict = Verdict(mutant, _first_red(tree, mutant.tests))
        finally:
            path.write_text(original)
    finally:
        trees.put(tree)
    print(f"{'killed   ' if verdict.killer else 'SURVIVED '} {mutant.name}\n           {verdict.killer}", flush=True)
    return verdict


def broken(text: str, mutant: Mutant) -> str:
    """The file's text with the mutant in it. Raises ValueError if the place is not there exactly once."""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.at} has {text.count(mutant.old)} places for: {mutant.name}")
    return text.replace(mutant.old, mutant.new)


def _first_red(tree: Path, tests: Sequence[str]) -> str:
    """The first test that fails, in order; empty if none does."""
    for target in tests:
        try:
            done = _pytest(tree, [target])
        except subprocess.TimeoutExpired:
            return f"{target} (hangs)"
        if done.returncode == 1:
            red = _RED.search(done.stdout)
            return red.group(1) if red else f"{target} (red)"
        if done.returncode != 0:
            return f"{target} (does not even run)" if "Error" in done.stdout else _give_up(target, done)
    return ""


def _red_without_mutant(tree: Path, killers: Sequence[str]) -> str:
    """The tests that killed, run on the code as it is: what pytest says if any of them is red, else nothing."""
    if not killers:
        return ""
    done = _pytest(tree, sorted({re.split(r" \(|\[", killer)[0] for killer in killers}))
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]


def _pytest(tree: Path, targets: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a tree. Raises subprocess.TimeoutExpired."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", *targets]
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=TIME_LIMIT)
    finally:
        _end_leftovers(tree)


def _end_leftovers(tree: Path) -> None:
    """Kill what runs the code of `tree`: where supervision is broken, its tests leave processes behind."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PYTHONPATH") == str(tree):
                process.kill()


def _give_up(target: str, done: subprocess.CompletedProcess[str]) -> str:
    raise RuntimeError(f"{target}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: what was broken, the promise at stake, and the test that went red."""
    lines = ["| the code that ... | promise | goes red |", "|---|---|---|"]
    for mutant, killer in verdicts:
        test = f"`{killer.removeprefix('tests/').partition('[')[0]}`" if killer else "**nothing: it survived**"
        lines.append(f"| {mutant.name} (`{mutant.at}`) | {mutant.promise} | {test} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

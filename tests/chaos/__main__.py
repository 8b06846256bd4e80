"""`python -m tests.chaos [--kills N] [--seed N] [--tally FILE]`: kill processes until something is lost, or N died.

The episodes run in some processes of their own beside each other, and the demo with its trading oracle beside them.
The seed gives the strikes; a failure prints the command that replays its episode, and keeps the directory.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.episodes import EpisodeFailed, run_episode, run_lane
from tests.chaos.kill_points import POINTS
from tests.chaos.lives import ROOT, Arsenal
from tests.chaos.oracle import Lost
from tests.chaos.trading import demo_run, kills_survived

LANES = 3  # on two cores: one is nearly always waiting
MISSING_SECONDS = 180.0  # how long it goes on for points that have not fired when the kills are done


def main() -> int:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    print(f"chaos: seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ol-chaos-") as folder:
        try:
            if options.episode is not None:
                counted: Counter[str] = Counter()
                run_episode(options.seed, options.episode, Path(folder), counted)
                print(f"nothing lost: {_told(counted)}")
            elif options.lane is not None:
                fired = Path(options.fired)
                share = -(-options.kills // LANES)
                counted = run_lane(options.seed, options.lane, LANES, share, MISSING_SECONDS, fired)
                (fired / f"lane-{options.lane}.json").write_text(json.dumps(counted))
            else:
                return _run(options, Path(folder))
        except (EpisodeFailed, Lost) as error:
            print(f"chaos: {error}", file=sys.stderr)
            return 1
    return 0


def _leave(number: int, _: object) -> None:
    """An end like any other: what was started is ended."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill, at least (default: 1000)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the strikes (default: random)")
    parser.add_argument("--tally", type=Path, help="append what was counted to this file, as JSON")
    parser.add_argument("--episode", type=int, help="run this episode only")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fired", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(options: argparse.Namespace, folder: Path) -> int:
    """Everything: the lanes and the demo, the tally, and whether every kill point has fired."""
    began = time.monotonic()
    with ExitStack() as stack:
        demo = stack.enter_context(demo_run(options.seed, folder / "demo"))
        lanes = [stack.enter_context(_Lane(options, number, folder)) for number in range(LANES)]
        if not _all_well([lane.process for lane in lanes]):
            return 1
        counted = Counter({"trading runs": 1, "kills": kills_survived(demo, options.seed)})
        counted["kills in the demo"] = counted["kills"]
    for number in range(LANES):
        counted.update(json.loads((folder / f"lane-{number}.json").read_text()))
    arsenal = Arsenal(folder, "", random.Random())
    fired = arsenal.fired()
    counted["kills at kill points"] = fired.total()
    counted["kill points that fired"] = len(fired)
    for name in POINTS:
        print(f"{fired[name]:6} {name}")
    print(f"chaos: {_told(counted)}; {time.monotonic() - began:.0f} s")
    if options.tally is not None:
        line = {"part": "chaos", "test": "python -m tests.chaos", "seed": options.seed, "n": counted}
        with options.tally.open("a") as file:
            file.write(json.dumps(line) + "\n")
    if missing := arsenal.missing():
        print(f"chaos: these kill points never fired: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing or counted["kills"] < options.kills else 0


def _all_well(lanes: list[subprocess.Popen[bytes]]) -> bool:
    """Wait for all lanes, or for the first that fails."""
    while True:
        codes = [lane.poll() for lane in lanes]
        if any(codes) or None not in codes:
            return not any(codes)
        time.sleep(0.2)


class _Lane:
    """A lane in a process of its own, told to leave if we do."""

    def __init__(self, options: argparse.Namespace, number: int, folder: Path) -> None:
        arguments = ["--lane", str(number), "--fired", str(folder), "--kills", str(options.kills)]
        command = [sys.executable, "-m", "tests.chaos", *arguments, "--seed", str(options.seed)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def __enter__(self) -> _Lane:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.items())


if __name__ == "__main__":
    sys.exit(main())

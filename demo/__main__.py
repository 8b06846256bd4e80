"""The demo: `python -m demo`. Two bots on twenty years of prices, killed at random, and a verdict.

Exit code 0 only if every line of the verdict holds.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from demo.bot import STRATEGIES
from demo.chaos import Chaos, Kill
from demo.client import VenueError, VenueTimeout
from demo.observe import Observer, Sight
from demo.options import OptionParser
from demo.scene import RUN_DIR, Scene
from demo.verdict import Run, judge, show_verdict, stored_run, undisturbed_run
from demo.view import View, make_view
from protocol.errors import OutliveError
from supervisor.config import PERSISTENCE

PLAIN_WIDTH = 120  # columns, where there is no terminal that has a width
LOOK_EVERY = 0.25  # seconds
LONGEST = 86_400.0  # seconds that a replay may take
GRACE = 180.0  # seconds beyond the planned end after which a run that has not ended has failed


def main() -> int:
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        run(options, console)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except (OutliveError, VenueError, VenueTimeout, subprocess.SubprocessError, RuntimeError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _leave(number: int, _: object) -> None:
    """An end like any other: what was started is stopped."""
    sys.exit(128 + number)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most {LONGEST:.0f}")
    return seconds


def _options() -> argparse.Namespace:
    parser = OptionParser(prog="python -m demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=_seconds, default=50.0, help="how long the replay takes (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills: when, and who (default: 1)")
    parser.add_argument("--no-chaos", action="store_true", help="kill nobody")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a run that went well")
    parser.add_argument("--dir", type=Path, default=Path(RUN_DIR), help=f"directory of the run (default: {RUN_DIR})")
    return parser.parse_args()


def run(options: argparse.Namespace, console: Console) -> None:
    """The whole demo. Raises `RuntimeError` when the verdict does not hold."""
    chaos = None if options.no_chaos else Chaos(options.seed, [PERSISTENCE, *STRATEGIES])
    with Scene(options.dir, options.keep) as scene:
        console.print("First the run that nobody disturbs, to know how it must end ...")
        undisturbed = {name: undisturbed_run(name) for name in STRATEGIES}
        for name, expected in undisturbed.items():
            console.print(_told(name, expected), highlight=False)
        how = "and kill -9 ..." if chaos else "..."
        console.print(f"Now the same with real processes, in {scene.folder} {how}", markup=False)
        scene.start_exchange()
        scene.start_supervisor(options.seconds)
        with make_view(console) as view:
            last = _watch(scene, chaos, view, options.seconds + GRACE)
        restarts = {program.name: program.restarts for program in last.status.programs} if last.status else {}
        if code := scene.stop_supervisor():
            raise RuntimeError(f"the supervisor left with {code}: {scene.last_words()}")
        runs = {name: stored_run(name, scene.venue(name), scene.state) for name in STRATEGIES}
        kills = chaos.kills if chaos is not None else []
        if not show_verdict(judge(runs, undisturbed, kills, restarts), console):
            raise RuntimeError(f"the verdict does not hold; everything is kept in {scene.folder}")


def _watch(scene: Scene, chaos: Chaos | None, view: View, limit: float) -> Sight:
    """Look, show and kill until both replays are over. Raises `RuntimeError` after `limit` seconds."""
    observer, started = Observer(scene), time.monotonic()
    kills: list[Kill] = chaos.kills if chaos is not None else []
    while True:
        scene.check_supervisor()
        sight = observer.look()
        now = time.monotonic() - started
        view.show(now, sight, kills)
        if sight.finished:
            return sight
        if now > limit:
            raise RuntimeError(f"the replay is not over after {now:.0f} s; see {scene.folder / 'logs'}")
        if chaos is not None and chaos.is_due(now) and (fresh := scene.status()) is not None:
            chaos.strike(now, fresh.programs)
        time.sleep(LOOK_EVERY)


def _told(name: str, run: Run) -> str:
    account = run.maps["account"][name]
    books = run.books
    return f"  {name}: {books.orders} orders, {len(books.trades)} trades, equity {account.equity:,.0f}"


if __name__ == "__main__":
    sys.exit(main())

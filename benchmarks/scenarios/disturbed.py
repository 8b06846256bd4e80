"""The strategy's thread while the persistence process is away, stands still, or saves a map of 1,000,000 keys."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.child import Child
from benchmarks.measure import Contestant, contest, paced
from benchmarks.ours import Outlive
from benchmarks.results import Table, our_row
from benchmarks.scenarios.base import MICROSECONDS, Bench
from benchmarks.scenarios.power import durable_lags
from benchmarks.values import items, order_dict
from benchmarks.workers import keep_large_map
from persistence_proc.paths import TEMPORARY_SUFFIX, current_path

PAUSE = 20_000  # ns between two puts
SLICES = 50  # turns of a loop that go on while a save is not done
LARGE = "large"

Slice = Callable[[], Sequence[int]]


class LargeMap:
    """A map of many keys in the same persistence process, kept by a bot of its own."""

    def __init__(self, child: Child, folder: str) -> None:
        self._child = child
        self._path = current_path(os.path.join(folder, LARGE), "kept")

    def while_saved(self, measure: Slice) -> array[int]:
        """Measure again and again until the whole map was written; the figures from when it was begun."""
        before = self._file()
        self._child.go()
        self._child.result()
        found = array("q")
        for _ in range(SLICES):  # it may rest from the save before
            times = measure()
            done = self._file() != before
            if done or self._is_begun():
                found.extend(times)
            if done:
                return found
        raise RuntimeError(f"the large map was not saved within {SLICES} turns")

    def _is_begun(self) -> bool:
        return any(name.endswith(TEMPORARY_SUFFIX) for name in os.listdir(os.path.dirname(self._path)))

    def _file(self) -> int:
        return os.stat(self._path).st_ino if os.path.exists(self._path) else 0


@contextmanager
def beside_a_large_map(bench: Bench) -> Iterator[tuple[Outlive, LargeMap]]:
    """Our session, and the other bot's map."""
    with bench.opened([Outlive]) as ((_, ours),):
        assert isinstance(ours, Outlive)
        folder = ours.server.folder
        with Child(keep_large_map, folder=folder, namespace=LARGE, count=bench.pick(1_000_000, 20_000)) as child:
            child.await_ready()
            large = LargeMap(child, folder)
            large.while_saved(lambda: _pause(ours))
            yield ours, large


def _pause(ours: Outlive) -> Sequence[int]:
    """Something to do until the first save is done."""
    return paced(ours.put, items(order_dict, 100), 10 * 1_000_000, 1.0)


def put_disturbed(bench: Bench) -> Iterator[Table]:
    """What a put costs while the persistence process is stopped, down, or saving."""
    puts = itertools.cycle(items(order_dict, 10_000))
    seconds = bench.pick(1.0, 0.1)
    with beside_a_large_map(bench) as (ours, large):

        def turn() -> array[int]:
            return paced(ours.put, puts, PAUSE, seconds)

        def after_a_halt() -> None:
            ours.server.go_on()
            ours.settle()

        def after_a_kill() -> None:
            ours.server.start()
            ours.settle()

        contestants = [
            Contestant(our_row("process up"), turn, ours.settle),
            Contestant(our_row("process stopped"), _first(ours.server.halt, turn), after_a_halt),
            Contestant(our_row("process down"), _first(ours.server.kill, turn), after_a_kill),
            Contestant(our_row("process saving"), lambda: large.while_saved(turn), ours.settle),
        ]
        try:
            rows = contest(contestants, bench.pick(3, 1))
        finally:
            ours.server.go_on()
    title = "put, one every 20 µs, while the persistence process is up, stopped, down, saving a large map"
    yield Table(name="put_disturbed", title=title, units=MICROSECONDS, rows=rows)


def _first(trouble: Callable[[], None], turn: Slice) -> Slice:
    def troubled() -> Sequence[int]:
        trouble()
        return turn()

    return troubled


def lag_saving(bench: Bench) -> Iterator[Table]:
    """How soon changes are durable while a map of 1,000,000 keys is saved."""
    puts = items(order_dict, bench.pick(10_000, 1_000))
    seconds = bench.pick(1.0, 0.1)
    with beside_a_large_map(bench) as (ours, large):

        def turn() -> array[int]:
            return durable_lags(ours, puts, seconds)

        contestants = [
            Contestant(our_row("nothing saved"), turn, ours.settle),
            Contestant(our_row("a large map saved"), lambda: large.while_saved(turn), ours.settle),
        ]
        rows = contest(contestants, bench.pick(3, 1))
    title = "from a put's return until it is durable, 10,000 puts a second, while a large map is saved"
    yield Table(name="lag_saving", title=title, units=MICROSECONDS, rows=rows)


SCENARIOS = [put_disturbed, lag_saving]

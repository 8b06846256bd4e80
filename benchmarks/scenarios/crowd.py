"""Whether a change costs the same beside many other bots of one persistence process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.child import Child
from benchmarks.measure import Contestant, contest
from benchmarks.ours import Outlive
from benchmarks.results import Table, our_row
from benchmarks.scenarios.base import Bench
from benchmarks.scenarios.growth import COST_AND_LAG, change
from benchmarks.values import items, order_dict
from benchmarks.workers import hold_sessions

WORKERS, QUICK_WORKERS = (1, 20, 200), (1, 4)
PROCESSES = 8  # that the others' sessions are spread over
LOAD = 1_000  # changes a second of all others together, where they are busy
CALM = 0.5  # seconds from the last connect or close until what it left to do is done


class Crowd:
    """The other bots of a persistence process: a few processes with many sessions."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._count = 0

    def have(self, count: int) -> None:
        """Connect or close until there are so many."""
        if count == self._count:
            return
        for child, share in zip(self._children, shares(count, len(self._children)), strict=True):
            child.go(sessions=share)
        self._await()
        self._count = count
        time.sleep(CALM)

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        """They make their changes for so long, and the block does not end before."""
        pause = 1_000_000_000 * len(self._children) // LOAD
        for child in self._children:
            child.go(pause=pause, seconds=seconds)
        yield
        self._await()

    def _await(self) -> None:
        for child in self._children:
            child.result()


def shares(count: int, among: int) -> list[int]:
    """As equal as it goes."""
    return [count // among + (n < count % among) for n in range(among)]


@contextmanager
def _crowd(folder: str) -> Iterator[Crowd]:
    with ExitStack() as stack:
        started = [Child(hold_sessions, folder=folder, name=f"other{n}") for n in range(PROCESSES)]
        children = [stack.enter_context(child) for child in started]
        for child in children:
            child.await_ready()
        yield Crowd(children)


def growth_workers(bench: Bench) -> Iterator[Table]:
    """What a change costs, durable lag included, beside 0, 19 and 199 other bots of one server."""
    contestants = []
    with bench.opened([Outlive]) as ((_, ours),):
        assert isinstance(ours, Outlive)
        with _crowd(ours.server.folder) as crowd:
            for count in bench.pick(WORKERS, QUICK_WORKERS):
                for is_busy in (False, True)[: 1 if count == 1 else 2]:
                    contestants.append(_contestant(bench, ours, crowd, count, is_busy))
            rows = contest(contestants, bench.pick(3, 1))
    title = "one key changed every ms, and how soon 10,000 changes a second are durable, beside other bots"
    yield Table(name="growth_workers", title=title, units=COST_AND_LAG, grows="workers", rows=rows)


def _contestant(bench: Bench, ours: Outlive, crowd: Crowd, count: int, is_busy: bool) -> Contestant:
    puts = items(order_dict, bench.pick(20_000, 500))

    def turn() -> dict[str, float]:
        crowd.have(count - 1)
        if not is_busy:
            return change(ours, puts, bench)
        with crowd.busy(bench.pick(2.5, 0.3)):  # longer than the change is measured
            return change(ours, puts, bench)

    name = "Outlive, the others busy" if is_busy else "Outlive"
    return Contestant(our_row(_workers(count), name), turn, ours.settle)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


SCENARIOS = [growth_workers]

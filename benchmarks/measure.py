"""How a time is taken: loops with the clock around one call, and rounds in which everyone has a turn.

The clock is `perf_counter_ns`. The garbage collector runs as it does in a bot, from a heap that was collected before
each round; the benchmark's own objects are frozen out of it. That is the same for everyone.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.results import Row

Call = Callable[[Any, Any], object]
"""What is timed: `peer.put`, mostly."""

SLEEP_FROM = 50_000  # ns; a shorter pause can't be slept, so the loop spins, as a busy strategy does
CATCH_UP = 10  # pauses that a loop may be late before it lets them go: one stall is one stall, not a burst after it
QUANTILES = [n / 100 for n in range(1, 100)] + [0.995, 0.999, 0.9995, 0.9999]


def tight(call: Call, items: Iterable[tuple[Any, Any]], seconds: float) -> array[int]:
    """Call for each item, one behind the other, but not longer than `seconds`. The ns of each call."""
    times = array("q")
    note, clock = times.append, time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    for key, value in items:
        start = clock()
        call(key, value)
        now = clock()
        note(now - start)
        if now > end:
            break
    return times


def paced(call: Call, items: Iterable[tuple[Any, Any]], pause: int, seconds: float) -> array[int]:
    """As `tight`, with a call every `pause` ns."""
    times = array("q")
    note, clock = times.append, time.perf_counter_ns
    due = clock()
    end = due + int(seconds * 1e9)
    for key, value in items:
        due = max(due + pause, clock() - CATCH_UP * pause)
        wait_until(due)
        start = clock()
        call(key, value)
        now = clock()
        note(now - start)
        if now > end:
            break
    return times


def wait_until(due: int) -> None:
    """Sleep or spin until the clock says `due`."""
    clock = time.perf_counter_ns
    left = due - clock()
    if left >= SLEEP_FROM:
        time.sleep(left / 1e9)
    else:
        while clock() < due:
            pass


Turn = Callable[[], "Sequence[float] | dict[str, float]"]
"""One turn: gives the ns of each call, or figures where that is not what is measured."""


def no_background() -> None:
    """For a contestant that leaves nothing to settle."""


class Contestant(NamedTuple):
    """Who has a turn in each round. `settle` ends what goes on behind it."""

    row: Row
    turn: Turn
    settle: Callable[[], None] = no_background


def contest(contestants: Sequence[Contestant], rounds: int) -> list[Row]:
    """Let everyone have a turn in every round, each round beginning with another one; fill in their rows."""
    gathered: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds):
        for step in range(len(contestants)):
            n = (number + step) % len(contestants)
            contestant = contestants[n]
            collect()
            found = contestant.turn()
            contestant.settle()
            if isinstance(found, dict):
                contestant.row.rounds.append(found)
            else:
                contestant.row.rounds.append(summary(found))
                gathered[n].extend(found)
    gc.unfreeze()
    for contestant, times in zip(contestants, gathered, strict=True):
        contestant.row.curve = curve(times)
    return [contestant.row for contestant in contestants]


def collect() -> None:
    """A heap without garbage, whose present objects the collector need not walk again."""
    gc.collect()
    gc.freeze()


def quantile(ordered: Sequence[float], q: float) -> float:
    """The value at `q` of a sorted sequence."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def summary(times: Sequence[float]) -> dict[str, float]:
    """The figures of one round, in microseconds."""
    ordered = sorted(times)
    at = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: quantile(ordered, q) / 1e3 for name, q in at.items()} if ordered else {}


def curve(times: Sequence[float]) -> list[tuple[float, float]]:
    """The distribution of all rounds, for a plot: (quantile, microseconds)."""
    ordered = sorted(times)
    return [(q, quantile(ordered, q) / 1e3) for q in QUANTILES] if ordered else []

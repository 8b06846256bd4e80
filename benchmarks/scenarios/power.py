"""What it costs until a change survives a power cut: for the thread that waits, and for one that does not."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.child import Child
from benchmarks.measure import Contestant, contest, paced, tight
from benchmarks.ours import PATIENCE, DurableWatch, Outlive, OutliveFlushed, OutliveSynced
from benchmarks.peers import POWER, Peer, Promise
from benchmarks.peers.floor import SlowlySyncedFile, SyncedFile
from benchmarks.results import Row, Table, our_row, row_of
from benchmarks.scenarios.base import MICROSECONDS, Bench
from benchmarks.scenarios.latency import contest_of
from benchmarks.server import Server
from benchmarks.values import KINDS, Item, items, order_dict
from benchmarks.workers import committing_threads, flushing_bot, summary_of

PAUSE = 100_000  # ns: 10,000 puts a second
WRITERS = (1, 8, 64)
MOST_BOTS = 8  # processes; more writers than that are threads in them


def put_sync(bench: Bench) -> Iterator[Table]:
    """What a change costs a thread that waits until it is safe from a power cut."""
    for value, make in KINDS.items():
        puts = items(make, bench.pick(2_000, 30))
        with bench.opened([OutliveSynced, *POWER]) as peers:
            rows = contest_of(peers, puts, lambda call, load: tight(call, load, bench.pick(0.5, 0.1)), bench.rounds)
        title = f"put, safe from a power cut on return: {value}"
        yield Table(name=f"put_sync/{value}", title=title, units=MICROSECONDS, rows=rows)


def put_durable(bench: Bench) -> Iterator[Table]:
    """How soon a change that nobody waits for is safe, at 10,000 a second."""
    puts = items(order_dict, bench.pick(20_000, 1_000))
    seconds = bench.pick(2.0, 0.1)
    with bench.opened([Outlive, SyncedFile]) as ((_, ours), (_, floor)):
        assert isinstance(ours, Outlive)
        assert isinstance(floor, SyncedFile)
        rows = [our_row("put to durable", promise=Promise.POWER), row_of(SyncedFile, "one put")]
        mine = Contestant(rows[0], lambda: durable_lags(ours, puts, seconds), ours.settle)
        contest([mine, Contestant(rows[1], lambda: paced(floor.put, puts, PAUSE, seconds))], bench.rounds)
    title = "from a put's return until it is durable in the journal, 10,000 puts a second"
    yield Table(name="put_durable", title=title, units=MICROSECONDS, rows=rows)


def durable_lags(ours: Outlive, puts: Sequence[Item], seconds: float) -> array[int]:
    """The ns until each of the puts, one every `PAUSE`, was durable."""
    done, clock = array("q"), time.perf_counter_ns

    def put(key: str, value: Any) -> None:
        ours.map[key] = value
        done.append(clock())

    watch = DurableWatch(ours.state)
    try:
        paced(put, puts, PAUSE, seconds)
        ours.state.flush(PATIENCE)
    finally:
        watch.stop()
    return watch.lags(done)


def flush_writers(bench: Bench) -> Iterator[Table]:
    """How many commits a second 1, 8 and 64 writers get that each wait for theirs; also where syncs take longer."""
    rows = []
    for writers in bench.pick(WRITERS, WRITERS[:2]):
        group = "1 writer" if writers == 1 else f"{writers} writers"
        with ExitStack() as stack:
            contestants = [_bots(bench, stack, group, writers, "persistence_proc")]
            for kind in POWER:
                row = row_of(kind, group)
                if row.missing:
                    rows.append(row)
                else:
                    contestants.append(_one_store(bench, stack, row, kind, writers))
            contest(contestants, bench.pick(3, 1))
            rows += [contestant.row for contestant in contestants]
    writers = bench.pick(WRITERS[-1], 8)
    group = f"{writers} writers, 1 ms more a sync"
    with ExitStack() as stack:
        slow = [
            _bots(bench, stack, group, writers, "benchmarks.slow_disk"),
            _one_store(bench, stack, row_of(SyncedFile, group), SlowlySyncedFile, writers),
        ]
        rows += contest(slow, bench.pick(3, 1))
    units = {"per_second": "commits/s", "p50": "µs", "p99": "µs"}
    title = "writers that each wait until their own put is safe from a power cut"
    yield Table(name="flush_writers", title=title, units=units, lead="per_second", more_is_better=True, rows=rows)


def _bots(bench: Bench, stack: ExitStack, group: str, writers: int, module: str) -> Contestant:
    """Up to eight bots with as many threads as it takes."""
    folder = stack.enter_context(bench.folder())
    stack.enter_context(Server(folder, module))
    bots = min(writers, MOST_BOTS)
    children = [
        Child(flushing_bot, folder=folder, namespace=f"bot{n}", threads=writers // bots, seconds=_seconds(bench))
        for n in range(bots)
    ]
    return Contestant(row_of(OutliveFlushed, group), _turn(stack, children, _seconds(bench)))


def _one_store(bench: Bench, stack: ExitStack, row: Row, kind: type[Peer], writers: int) -> Contestant:
    folder = stack.enter_context(bench.folder())
    child = Child(committing_threads, name=kind.name, folder=folder, threads=writers, seconds=_seconds(bench))
    return Contestant(row, _turn(stack, [child], _seconds(bench)))


def _turn(stack: ExitStack, children: list[Child], seconds: float) -> Callable[[], dict[str, float]]:
    for child in children:
        stack.enter_context(child)
    for child in children:
        child.await_ready()

    def turn() -> dict[str, float]:
        for child in children:
            child.go()
        times = [ns for child in children for ns in child.result()]
        return summary_of(times, seconds)

    return turn


def _seconds(bench: Bench) -> float:
    return bench.pick(1.0, 0.2)


SCENARIOS = [put_sync, put_durable, flush_writers]

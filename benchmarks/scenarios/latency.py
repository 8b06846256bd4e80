"""What a change, a read and a transaction cost the thread that makes them."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.measure import Call, Contestant, contest, paced, tight
from benchmarks.ours import Outlive
from benchmarks.peers import KILL, SIMPLE, Peer, Promise, stores
from benchmarks.results import Row, Table, row_of
from benchmarks.scenarios.base import MICROSECONDS, Bench
from benchmarks.values import KINDS, Item, batches, items, order_dict

Loop = Callable[[Call, Iterable[tuple[Any, Any]]], "array[int]"]

SLOW_SHARE = 20  # a slow one gets so many times fewer puts
READS = 200  # reads that are timed together: one alone is shorter than the clock
SIZES = (1, 2, 10)


def put_20us(bench: Bench) -> Iterator[Table]:
    """What one change costs the strategy's thread when it makes 50,000 a second."""
    yield from _puts(bench, "put_20us", "put, one every 20 µs", _every(20_000, bench), [Outlive, *KILL])


def put_1ms(bench: Bench) -> Iterator[Table]:
    """The same for a thread that sleeps between its changes, so that its caches are cold."""
    yield from _puts(bench, "put_1ms", "put, one every ms", _every(1_000_000, bench), [Outlive, *KILL])


def put_tight(bench: Bench) -> Iterator[Table]:
    """The same in a loop that does nothing else, with the simple stores beside it."""
    def loop(call: Call, puts: Iterable[tuple[Any, Any]]) -> array[int]:
        return tight(call, puts, bench.pick(0.5, 0.1))

    yield from _puts(bench, "put_tight", "put, one behind the other", loop, [Outlive, *KILL, *SIMPLE])


def _every(pause: int, bench: Bench) -> Loop:
    seconds = bench.pick(0.4, 0.05)

    def loop(call: Call, puts: Iterable[tuple[Any, Any]]) -> array[int]:
        return paced(call, puts, pause, seconds)

    return loop


def _puts(bench: Bench, name: str, title: str, loop: Loop, kinds: Sequence[type[Peer]]) -> Iterator[Table]:
    for kind, make in KINDS.items():
        puts = items(make, bench.pick(20_000, 1_000))
        with bench.opened(kinds) as peers:
            rows = contest_of(peers, puts, loop, bench.rounds)
        yield Table(name=f"{name}/{kind}", title=f"{title}: {kind}", units=MICROSECONDS, rows=rows)


def contest_of(
    peers: Sequence[tuple[type[Peer], Peer | None]], puts: Sequence[Item], loop: Loop, rounds: int
) -> list[Row]:
    """The same puts to everyone; the rows of all, also of who is missing, in the order given."""
    rows, contestants = [row_of(kind) for kind, _ in peers], []
    for row, (kind, peer) in zip(rows, peers, strict=True):
        if peer is not None:
            mine = puts[: max(1, len(puts) // SLOW_SHARE)] if kind.slow else puts
            ready = [(key, peer.prepare(value)) for key, value in mine]
            contestants.append(Contestant(row, partial(loop, peer.put, ready), peer.settle))
    contest(contestants, rounds)
    return rows


def read(bench: Bench) -> Iterator[Table]:
    """What reading a key costs, against a dict and against stores that unpickle."""
    puts = items(order_dict, 1_000)
    with bench.opened([Outlive, *stores(KILL)]) as peers:
        plain = Row(name="dict", kind="floor", promise=Promise.KILL, setting="nothing is kept")
        rows = [plain, *(row_of(kind) for kind, _ in peers)]
        contestants = [Contestant(plain, _reading(dict(puts), puts, bench))]
        for row, (_, peer) in zip(rows[1:], peers, strict=True):
            if peer is not None:
                for key, value in puts:
                    peer.put(key, value)
                mapping = peer.map if isinstance(peer, Outlive) else peer
                contestants.append(Contestant(row, _reading(mapping, puts, bench), peer.settle))
        contest(contestants, bench.rounds)
    yield Table(name="read", title="read of an 8-field dict", units=MICROSECONDS, rows=rows)


def _reading(mapping: Any, puts: Sequence[Item], bench: Bench) -> Callable[[], Sequence[float]]:
    """Turns of reads; each figure is the mean of a few hundred."""
    keys = list(itertools.islice(itertools.cycle(key for key, _ in puts), READS))
    turns, seconds = bench.pick(2_000, 100), bench.pick(0.4, 0.05)

    def turn() -> Sequence[float]:
        times, clock = array("d"), time.perf_counter_ns
        end = clock() + int(seconds * 1e9)
        for _ in range(turns):
            start = clock()
            for key in keys:
                mapping[key]
            now = clock()
            times.append((now - start) / READS)
            if now > end:
                break
        return times

    return turn


def transaction(bench: Bench) -> Iterator[Table]:
    """What 2 and 10 changes that belong together cost, against one change alone."""
    puts = items(order_dict, bench.pick(10_000, 500))
    kinds: list[type[Peer]] = [Outlive, *stores(KILL)]
    with bench.opened(kinds) as peers:
        rows, contestants = [], []
        for size in SIZES:
            for kind, peer in peers:
                rows.append(row_of(kind, _changes(size)))
                if peer is not None:
                    contestants.append(Contestant(rows[-1], _transactions(peer, puts, size, bench), peer.settle))
        contest(contestants, bench.rounds)
    title = "transaction of 8-field dicts, one behind the other"
    yield Table(name="transaction", title=title, units=MICROSECONDS, rows=rows)


def _changes(size: int) -> str:
    return "1 put" if size == 1 else f"{size} changes"


def _transactions(peer: Peer, puts: Sequence[Item], size: int, bench: Bench) -> Callable[[], Sequence[int]]:
    seconds = bench.pick(0.3, 0.05)
    if size == 1:
        return lambda: tight(peer.put, puts, seconds)
    together = [(None, batch) for batch in batches(puts, size)]
    return lambda: tight(lambda _, batch: peer.put_many(batch), together, seconds)


SCENARIOS = [put_20us, put_1ms, put_tight, read, transaction]

"""Whether a change costs the same in a large map as in a small one, and what larger values cost."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.measure import Contestant, contest, paced, summary, tight
from benchmarks.ours import Outlive
from benchmarks.peers import KILL, Peer
from benchmarks.peers.lmdb import LmdbNosync
from benchmarks.peers.sqlite import SqliteOff
from benchmarks.results import Row, Table, row_of
from benchmarks.scenarios.base import MICROSECONDS, Bench
from benchmarks.scenarios.power import durable_lags
from benchmarks.values import SIZES, Item, blob, items, key_names, order_dict, records

KEYS, QUICK_KEYS = (1_000, 100_000, 1_000_000), (1_000, 10_000)
PAUSE = 1_000_000  # ns between the puts whose cost is compared
COST_AND_LAG = {"p50": "µs", "p99": "µs", "lag p50": "µs until durable", "lag p99": "µs until durable"}
VALUES_AT_ONCE = 8 * 2**20  # bytes of different values of one size


def growth_keys(bench: Bench) -> Iterator[Table]:
    """What a change costs, durable lag included, as the map grows to 1,000,000 keys."""
    kinds: list[type[Peer]] = [Outlive, LmdbNosync, SqliteOff]
    sizes = bench.pick(KEYS, QUICK_KEYS)
    contestants, rows = [], []
    with bench.opened([kind for kind in kinds for _ in sizes]) as peers:
        for (kind, peer), count in zip(peers, sizes * len(kinds), strict=True):
            rows.append(row_of(kind, f"{count:,} keys"))
            if peer is not None:
                _fill(peer, count)
                contestants.append(Contestant(rows[-1], partial(change, peer, _changes(bench, count), bench)))
        contest(contestants, bench.rounds)
    title = "one of the map's keys changed every ms, and how soon 10,000 changes a second are durable"
    yield Table(name="growth_keys", title=title, units=COST_AND_LAG, grows="keys", rows=rows)


def _fill(peer: Peer, count: int) -> None:
    load = list(records("dict", count).items())
    if isinstance(peer, Outlive):
        for key, value in load:  # one by one: a transaction has a limit
            peer.put(key, value)
    else:
        peer.put_many(load)
    peer.settle()


def _changes(bench: Bench, count: int) -> list[Item]:
    """Puts of keys that are there, anywhere in the map."""
    names = random.Random(count).choices(key_names(count), k=bench.pick(20_000, 500))
    return [(name, order_dict(n)) for n, name in enumerate(names)]


def change(peer: Peer, puts: Sequence[Item], bench: Bench) -> dict[str, float]:
    """What a put costs, and how soon puts are durable where that can be seen."""
    found = summary(paced(peer.put, puts, PAUSE, bench.pick(1.0, 0.1)))
    peer.settle()
    if isinstance(peer, Outlive):
        lags = summary(durable_lags(peer, puts, bench.pick(1.0, 0.1)))
        peer.settle()
        found |= {"lag p50": lags["p50"], "lag p99": lags["p99"]}
    return found


def growth_values(bench: Bench) -> Iterator[Table]:
    """What a change costs as its value grows from 100 B to 1 MB."""
    rows: list[Row] = []
    for group, size in SIZES.items():
        puts = items(blob(size), bench.pick(5_000, 100), keys=50, different=max(2, min(512, VALUES_AT_ONCE // size)))
        kinds: list[type[Peer]] = [Outlive, *KILL]
        with bench.opened(kinds) as peers:
            mine = [row_of(kind, group) for kind in kinds]
            contestants = [
                Contestant(row, _puts(peer, puts, bench), peer.settle)
                for row, (_, peer) in zip(mine, peers, strict=True)
                if peer is not None
            ]
            contest(contestants, bench.pick(5, 1))
            rows += mine
    title = "put of values that don't compress, one behind the other"
    yield Table(name="growth_values", title=title, units=MICROSECONDS, grows="bytes", rows=rows)


def _puts(peer: Peer, puts: Sequence[Item], bench: Bench) -> Callable[[], array[int]]:
    ready = [(key, peer.prepare(value)) for key, value in puts]
    return lambda: tight(peer.put, ready, bench.pick(0.2, 0.05))


SCENARIOS = [growth_keys, growth_values]

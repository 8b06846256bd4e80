"""How much reaches the disk when one key is changed again and again."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.child import call
from benchmarks.machine import counts_bytes
from benchmarks.measure import Contestant, contest
from benchmarks.ours import Outlive
from benchmarks.peers import KILL, Peer, stores
from benchmarks.peers.sqlite import SqliteFull
from benchmarks.results import Row, Table, row_of
from benchmarks.scenarios.base import Bench
from benchmarks.values import dump, order_dict
from benchmarks.workers import update_one_key

PAUSE = 1_000_000  # ns: a thousand changes a second


def coalescing(bench: Bench) -> Iterator[Table]:
    """How many bytes reach the disk when one key changes a thousand times a second."""
    kinds: list[type[Peer]] = [Outlive, *stores(KILL), SqliteFull]
    rows = [row_of(kind) for kind in kinds]
    with bench.folder() as folder:
        if not counts_bytes(folder):
            for row in rows:
                row.missing = "this system does not count the bytes of a disk"
    here = [(row, kind) for row, kind in zip(rows, kinds, strict=True) if not row.missing]
    contest([_contestant(bench, row, kind) for row, kind in here], 1)
    title = f"a thousand changes a second of one key (a pickle of {len(dump(order_dict(0)))} bytes)"
    units = {"bytes": "on the disk/change", "total": "MiB"}
    yield Table(name="coalescing", title=title, units=units, lead="bytes", rows=rows)


def _contestant(bench: Bench, row: Row, kind: type[Peer]) -> Contestant:
    def turn() -> dict[str, float]:
        with bench.folder() as folder:
            found = call(update_one_key, name=kind.name, folder=folder, pause=PAUSE, seconds=bench.pick(10.0, 0.3))
        return {"bytes": found["bytes"] / found["puts"], "total": found["bytes"] / 2**20}

    return Contestant(row, turn)


SCENARIOS = [coalescing]

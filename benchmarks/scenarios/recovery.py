"""How fast everything is back: in the persistence process that was started again, and in a restarted worker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial

from benchmarks.child import call
from benchmarks.measure import Contestant, contest
from benchmarks.ours import PATIENCE
from benchmarks.peers import KILL, Peer, Promise, stores
from benchmarks.results import Row, Table, our_row, row_of
from benchmarks.scenarios.base import Bench
from benchmarks.server import Server
from benchmarks.values import dump, records
from benchmarks.workers import fill, fill_store, load_pickle, reload_store, restart, save_pickle
from strategy_proc import connect

SIZES, QUICK_SIZES = (1_000, 100_000, 1_000_000), (1_000, 10_000)
WITH_PEERS = 100_000  # records with which the other stores are compared, too
OWN_MEMORY = 40e6  # bytes that the process has without any state
NAMESPACE = "bench"


def recovery_server(bench: Bench) -> Iterator[Table]:
    """How long the persistence process takes to have 1,000 to 1,000,000 records back."""
    rows: list[Row] = []
    for count in bench.pick(SIZES, QUICK_SIZES):
        with bench.folder() as folder, bench.folder() as empty, bench.folder() as reference:
            rows += _server_rows(bench, folder, empty, reference, count)
    units = {"seconds": "s", "start": "s from its start to ready", "memory": "MiB", "overhead": "x its data"}
    title = "records (dicts) back in the persistence process; seconds without those of an empty start"
    yield Table(
        name="recovery_server", title=title, units=units, lead="seconds", grows="records", rows=rows
    )


def _server_rows(bench: Bench, folder: str, empty: str, reference: str, count: int) -> list[Row]:
    group = _records(count)
    path = os.path.join(reference, "all.pkl")
    call(save_pickle, path=path, kind="dict", count=count)
    size = sum(len(key) + len(dump(value)) for key, value in records("dict", count).items())
    Server(empty).stop()
    killed = our_row(group, name="Outlive after SIGKILL")
    server = _filled(folder, "dict", count)
    server.kill()
    contest([Contestant(killed, partial(_start, folder, empty, size))], 1)
    saved, plain = our_row(group), _reference(group)
    contest([
        Contestant(saved, partial(_start, folder, empty, size)),
        Contestant(plain, lambda: {"seconds": call(load_pickle, path=path)}),
    ], bench.pick(3, 1))  # fmt: skip
    return [saved, killed, plain]


def _start(folder: str, empty: str, size: int) -> dict[str, float]:
    """Start it on its data, and on none; both are stopped again, which saves everything."""
    with Server(empty) as other:
        nothing = other.ready_after
    with Server(folder) as server:
        seconds, memory = server.ready_after, server.memory
    overhead = max(0.0, memory - OWN_MEMORY) / size
    return {"seconds": max(0.0, seconds - nothing), "start": seconds, "memory": memory / 2**20, "overhead": overhead}


def recovery_worker(bench: Bench) -> Iterator[Table]:
    """How long a restarted worker takes to have its map back."""
    for kind in ("dict", "position"):
        rows: list[Row] = []
        for count in bench.pick(SIZES, QUICK_SIZES):
            rows += _worker_rows(bench, kind, count)
        title = f"records back in a restarted worker, from connect() on: {kind}"
        units = {"seconds": "s"}
        name = f"recovery_worker/{kind}"
        yield Table(name=name, title=title, units=units, lead="seconds", grows="records", rows=rows)


def _worker_rows(bench: Bench, kind: str, count: int) -> list[Row]:
    group = _records(count)
    ours, plain = our_row(group), _reference(group)
    peers = stores(KILL) if count == bench.pick(WITH_PEERS, QUICK_SIZES[-1]) else []
    rows = [row_of(peer, group) for peer in peers]
    with bench.folder() as folder, bench.folder() as others:
        path = os.path.join(others, "all.pkl")
        call(save_pickle, path=path, kind=kind, count=count)
        with _filled(folder, kind, count):
            contestants = [
                Contestant(ours, lambda: {"seconds": call(restart, folder=folder, namespace=NAMESPACE)}),
                Contestant(plain, lambda: {"seconds": call(load_pickle, path=path)}),
            ]
            for row, peer in zip(rows, peers, strict=True):
                if not row.missing:
                    contestants.append(_reader(row, peer, others, kind, count))
            contest(contestants, bench.pick(5 if count <= WITH_PEERS else 2, 1))
    return [ours, plain, *rows]


def _reader(row: Row, peer: type[Peer], folder: str, kind: str, count: int) -> Contestant:
    home = os.path.join(folder, peer.name.replace(" ", "-"))
    shutil.rmtree(home, ignore_errors=True)
    os.mkdir(home)
    call(fill_store, name=peer.name, folder=home, kind=kind, count=count)
    return Contestant(row, lambda: {"seconds": call(reload_store, name=peer.name, folder=home)})


def _filled(folder: str, kind: str, count: int) -> Server:
    """A persistence process with `count` values; the bot that put them has left."""
    server = Server(folder)
    try:
        with connect(NAMESPACE, data_dir=folder, timeout=PATIENCE) as state:
            fill(state, kind, count)
    except BaseException:
        server.stop()
        raise
    return server


def _reference(group: str) -> Row:
    setting = "of the same values as one dict"
    return Row(name="pickle.load", group=group, kind="floor", promise=Promise.KILL, setting=setting)


def _records(count: int) -> str:
    return f"{count:,} records"


SCENARIOS = [recovery_server, recovery_worker]

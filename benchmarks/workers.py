"""What runs in processes of its own (`benchmarks.child`): bots, restarted workers, readers with an empty heap."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from benchmarks.machine import bytes_written
from benchmarks.measure import collect, paced, quantile, tight
from benchmarks.ours import PATIENCE, Outlive, OutliveFlushed, OutliveSynced
from benchmarks.peers import PEERS, Peer
from benchmarks.peers.floor import SlowlySyncedFile
from benchmarks.peers.redis import RedisClient, command
from benchmarks.values import KINDS, dump, items, order_dict, records
from protocol.records import Position
from strategy_proc import Session, connect

OURS: list[type[Peer]] = [Outlive, OutliveSynced, OutliveFlushed]
STORES: list[type[Peer]] = [*OURS, *PEERS, SlowlySyncedFile]
BY_NAME = {kind.name: kind for kind in STORES}
Put = Callable[[str, Any], None]
PIPELINE = 1_000  # SETs on their way at once
INGEST_KEYS = 10_000


# Ingest


def ingest_ours(folder: str, namespace: str, seconds: float) -> Iterator[Any]:
    """Puts as fast as they go, until all of them are durable; gives their number."""
    puts = items(order_dict, INGEST_KEYS, keys=INGEST_KEYS)
    with connect(namespace, data_dir=folder, timeout=PATIENCE) as state:
        found = state.map("kept")
        yield None
        while True:
            done, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                for key, value in puts[:PIPELINE]:
                    found[key] = value
                puts = puts[PIPELINE:] + puts[:PIPELINE]
                done += PIPELINE
            state.flush(PATIENCE)
            yield done


def ingest_redis(path: str, namespace: str, seconds: float) -> Iterator[Any]:
    """The same puts as pipelined SETs."""
    puts = [(f"{namespace}:{key}".encode(), value) for key, value in items(order_dict, INGEST_KEYS, keys=INGEST_KEYS)]
    client = RedisClient(path)
    yield None
    while True:
        done, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.pipeline(command(b"SET", key, dump(value)) for key, value in puts[:PIPELINE])
            puts = puts[PIPELINE:] + puts[:PIPELINE]
            done += PIPELINE
        yield done


# Group commit


def flushing_bot(folder: str, namespace: str, threads: int, seconds: float) -> Iterator[Any]:
    """Threads of one bot, each waiting for its own flush; gives the ns of each."""
    with connect(namespace, data_dir=folder, timeout=PATIENCE) as state:
        found = state.map("kept")

        def put(key: str, value: Any) -> None:
            found[key] = value
            state.flush(PATIENCE)

        yield None
        while True:
            yield _threads([put] * threads, seconds)


def committing_threads(name: str, folder: str, threads: int, seconds: float) -> Iterator[Any]:
    """Threads that put into one store; where it is not made for that, one after the other."""
    store = BY_NAME[name](folder)
    puts: list[Put] = [store.put, *(store.twin().put for _ in range(threads - 1))]
    if not store.is_shared:
        puts = [_one_by_one(threading.Lock(), store.put)] * threads
    try:
        yield None
        while True:
            yield _threads(puts, seconds)
    finally:
        store.close()


def _one_by_one(lock: threading.Lock, put: Put) -> Put:
    def locked(key: str, value: Any) -> None:
        with lock:
            put(key, value)

    return locked


def _threads(puts: list[Put], seconds: float) -> list[int]:
    """Each put in a thread of its own, again and again; the ns of all calls."""
    times: list[list[int]] = [[] for _ in puts]
    load = items(order_dict, 4_000) * 25  # never what is there already
    together = threading.Barrier(len(puts))

    def work(n: int) -> None:
        mine = ((f"{n}-{key}", value) for key, value in load)
        together.wait()
        times[n] = list(tight(puts[n], mine, seconds))

    running = [threading.Thread(target=work, args=(n,)) for n in range(len(puts))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [ns for found in times for ns in found]


# Bytes


def update_one_key(name: str, folder: str, pause: int, seconds: float) -> dict[str, float]:
    """One key, changed again and again: the bytes that the disk was given meanwhile."""
    store = BY_NAME[name](folder)
    try:
        puts = [("the-key", value) for _, value in items(order_dict, int(seconds * 1e9 / pause))]
        store.put(*puts[0])
        store.settle()
        os.sync()
        before = bytes_written(folder)
        done = len(paced(store.put, puts, pause, seconds * 2))
        store.settle()
        os.sync()
        return {"bytes": bytes_written(folder) - before, "puts": done}
    finally:
        store.close()


# Recovery


def save_pickle(path: str, kind: str, count: int) -> None:
    """The reference: all values as one dict in one pickle."""
    with open(path, "wb") as file:
        pickle.dump(records(kind, count), file, 5)


def load_pickle(path: str) -> float:
    """Seconds."""
    _warm_up()
    collect()
    began = time.perf_counter()
    with open(path, "rb") as file:
        pickle.load(file)
    return time.perf_counter() - began


def restart(folder: str, namespace: str) -> float:
    """Seconds from `connect` until the map is there."""
    _warm_up()
    collect()
    began = time.perf_counter()
    with connect(namespace, data_dir=folder, timeout=PATIENCE) as state:
        state.map("kept", Position)
        return time.perf_counter() - began


def fill_store(name: str, folder: str, kind: str, count: int) -> None:
    """Store `count` values and leave."""
    store = BY_NAME[name](folder)
    try:
        store.put_many(list(records(kind, count).items()))
    finally:
        store.close()


def reload_store(name: str, folder: str) -> float:
    """Seconds until everything is a dict again; the store itself is open."""
    _warm_up()
    store = BY_NAME[name](folder)
    try:
        collect()
        began = time.perf_counter()
        store.load()
        return time.perf_counter() - began
    finally:
        store.close()


def _warm_up() -> None:
    """Every class that a pickle names is imported before the clock starts."""
    for make in KINDS.values():
        pickle.loads(dump(make(0)))


def fill(state: Session, kind: str, count: int) -> None:
    """`count` values in a map, durable."""
    found = state.map("kept", Position)
    for key, value in records(kind, count).items():
        found[key] = value
    state.flush(PATIENCE)


def keep_large_map(folder: str, namespace: str, count: int) -> Iterator[Any]:
    """A bot with a large map, of which it changes one key when it is told to."""
    with connect(namespace, data_dir=folder, timeout=PATIENCE) as state:
        fill(state, "dict", count)
        yield None
        n = 0
        while True:
            n += 1
            state.map("kept")["the-key"] = order_dict(n)
            state.flush(PATIENCE)
            yield n


# Many bots


def hold_sessions(folder: str, name: str) -> Generator[int, dict[str, Any], None]:
    """A process of several bots: as many sessions as it is told to have, and changes spread over them.

    A step is told either `sessions`, or `pause` (ns between two changes) and `seconds`.
    """
    held: list[Session] = []
    try:
        wanted = yield 0
        while True:
            while len(held) > wanted.get("sessions", len(held)):
                held.pop().close(PATIENCE)
            for n in range(len(held), wanted.get("sessions", len(held))):
                held.append(connect(f"{name}-{n}", data_dir=folder, timeout=PATIENCE))
                held[-1].map("kept")["started"] = order_dict(n)
                held[-1].flush(PATIENCE)
            if "pause" in wanted and held:
                load = ((held[n % len(held)].map("kept"), order_dict(n)) for n in itertools.count())
                paced(lambda kept, value: kept.__setitem__("key", value), load, wanted["pause"], wanted["seconds"])
            wanted = yield len(held)
    finally:
        for state in held:
            state.close(PATIENCE)


# Quiet


def quiet_bot() -> None:
    """A bot that waits for its market, under the supervisor."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with connect() as state:
        state.map("kept")["started"] = order_dict(0)
        while True:
            time.sleep(3600)


def summary_of(times: list[int], seconds: float) -> dict[str, float]:
    """Figures of calls that went on at once."""
    ordered = sorted(times)
    return {
        "per_second": len(times) / seconds,
        "p50": quantile(ordered, 0.5) / 1e3,
        "p99": quantile(ordered, 0.99) / 1e3,
    }

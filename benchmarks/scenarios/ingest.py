"""How many changes a second one persistence process takes in, from one bot and from many, until they are durable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil

from benchmarks.child import Child
from benchmarks.measure import Contestant, contest
from benchmarks.ours import Outlive
from benchmarks.peers.redis import RedisEverysec
from benchmarks.results import Row, Table, row_of
from benchmarks.scenarios.base import Bench
from benchmarks.server import Server
from benchmarks.workers import ingest_ours, ingest_redis

PROCESSES = (1, 4, 16)


def ingest(bench: Bench) -> Iterator[Table]:
    """How many changes a second one server takes in from 1, 4 and 16 processes."""
    rows = []
    for count in bench.pick(PROCESSES, PROCESSES[:2]):
        group = "1 process" if count == 1 else f"{count} processes"
        with ExitStack() as stack:
            contestants = [stack.enter_context(_ours(bench, row_of(Outlive, group), count))]
            redis = row_of(RedisEverysec, group)
            if not redis.missing:
                contestants.append(stack.enter_context(_redis(bench, redis, count)))
            contest(contestants, bench.pick(5, 1))
            rows += [contestants[0].row, redis]
    units = {"per_second": "changes/s", "server": "µs/change of the server's CPU"}
    title = "8-field dicts, put as fast as it goes, until all are durable; Redis: SETs, 1,000 on their way"
    yield Table(name="ingest", title=title, units=units, lead="per_second", more_is_better=True, rows=rows)


@contextmanager
def _ours(bench: Bench, row: Row, count: int) -> Iterator[Contestant]:
    with bench.folder() as folder, Server(folder) as server, ExitStack() as stack:
        children = [
            stack.enter_context(Child(ingest_ours, folder=folder, namespace=f"bot{n}", seconds=_seconds(bench)))
            for n in range(count)
        ]
        yield Contestant(row, _turn(children, server.pid))


@contextmanager
def _redis(bench: Bench, row: Row, count: int) -> Iterator[Contestant]:
    with bench.opened([RedisEverysec]) as ((_, peer),), ExitStack() as stack:
        assert isinstance(peer, RedisEverysec)
        children = [
            stack.enter_context(
                Child(ingest_redis, path=peer.server.path, namespace=f"bot{n}", seconds=_seconds(bench))
            )
            for n in range(count)
        ]
        yield Contestant(row, _turn(children, *peer.pids()))


def _turn(children: list[Child], pid: int) -> Callable[[], dict[str, float]]:
    for child in children:
        child.await_ready()

    def turn() -> dict[str, float]:
        before, began = _cpu(pid), time.perf_counter()
        for child in children:
            child.go()
        puts = sum(child.result() for child in children)
        seconds = time.perf_counter() - began
        return {"per_second": puts / seconds, "server": (_cpu(pid) - before) / puts * 1e6}

    return turn


def _cpu(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def _seconds(bench: Bench) -> float:
    return bench.pick(2.0, 0.2)


SCENARIOS = [ingest]

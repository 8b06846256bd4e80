"""P5: an absent persistence process costs a bounded amount of memory and disk, and no put waits for it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from strategy_proc import connect
from tests.processes import PersistenceProcess
from tests.waiting import wait_until

MIB = 2**20


def outbox_sizes(data_dir: Path) -> list[int]:
    folder = data_dir / "bot" / "outbox"
    sizes = [0]
    for name in os.listdir(folder):
        try:
            sizes.append((folder / name).stat().st_size)
        except FileNotFoundError:
            pass
    return sizes


def outbox_bytes(data_dir: Path) -> int:
    return sum(outbox_sizes(data_dir))


def test_a_stopped_persistence_process_costs_what_the_live_keys_cost(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        m = state.map("m")
        for n in range(5_000):
            m[f"k{n % 1000}"] = {"n": n, "text": "x" * 80}
        state.flush(20)
        persistence.stop()
        rss = psutil.Process().memory_info().rss
        most = 0
        for n in range(600_000):  # 30 s at 20,000 puts/s on 1,000 keys: about 100 MB of records
            m[f"k{n % 1000}"] = {"n": n, "text": "x" * 80}
            if n % 10_000 == 0:
                most = max(most, outbox_bytes(data_dir))
        assert most < 48 * MIB
        wait_until(lambda: outbox_bytes(data_dir) < 24 * MIB, what="the outbox is folded")
        assert psutil.Process().memory_info().rss - rss < 64 * MIB
        persistence.cont()
        state.flush(60)
        expected = m.snapshot()
        persistence.restart()
    with PersistenceProcess(data_dir), connect("bot", data_dir=data_dir) as state:
        assert list(state.map("m").items()) == list(expected.items())


def test_unique_keys_that_come_and_go_during_an_outage_leave_nothing(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        orders = state.map("orders")
        orders["before"] = 1
        state.flush(20)
        persistence.kill()
        for n in range(150_000):
            orders[f"order-{n}"] = {"n": n, "text": "x" * 80}
            del orders[f"order-{n}"]
        wait_until(lambda: outbox_bytes(data_dir) < 24 * MIB, what="the outbox is folded")
        persistence.start()
        state.flush(60)
        assert orders == {"before": 1}
    with PersistenceProcess(data_dir), connect("bot", data_dir=data_dir) as state:
        assert state.map("orders") == {"before": 1}


def test_a_value_larger_than_a_segment_is_kept(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir) as state:
            state.map("m")["big"] = bytes(10 * MIB)
            state.map("m")["small"] = 1
            state.flush(30)
            persistence.restart()
        with connect("bot", data_dir=data_dir, timeout=20) as state:
            assert state.map("m") == {"big": bytes(10 * MIB), "small": 1}


def test_values_up_to_the_limit_and_a_backlog_far_above_it_become_durable(data_dir: Path) -> None:
    """A backlog is folded to one record, which is then larger than any change may be."""
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir) as state:
            m = state.map("m")
            m["big"] = bytes(60 * MIB)
            m["small"] = 1
            state.flush(60)
            persistence.kill()
            for n in range(5):
                m[n] = bytes([n]) * (30 * MIB)
            m["big"] = 2
            wait_until(lambda: max(outbox_sizes(data_dir)) > 64 * MIB, what="the backlog is folded")
            persistence.start()
            state.flush(60)
            persistence.restart()
        with connect("bot", data_dir=data_dir, timeout=60) as state:
            assert state.map("m") == {"big": 2, "small": 1} | {n: bytes([n]) * (30 * MIB) for n in range(5)}

"""Outlive as one more store in the comparison, with a real persistence process behind it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.server import Server
from benchmarks.values import Item
from protocol.records import Position
from strategy_proc import Session, connect

PATIENCE = 120.0  # seconds for a flush or a recovery of the largest load


class Outlive(Peer):
    """`m[key] = value`."""

    name = "Outlive"
    promise = Promise.KILL
    setting = "m[key] = value"
    is_ours = is_shared = True

    def __init__(self, folder: str, namespace: str = "bench") -> None:
        self.server = Server(folder)
        try:
            self.state = connect(namespace, data_dir=folder, timeout=PATIENCE)
        except BaseException:
            self.server.stop()
            raise
        self.map = self.state.map("kept", Position)

    def put(self, key: str, value: Any) -> None:
        self.map[key] = value

    def put_many(self, items: Sequence[Item]) -> None:
        with self.state.transaction():
            for key, value in items:
                self.map[key] = value

    def __getitem__(self, key: str) -> Any:
        return self.map[key]

    def load(self) -> dict[str, Any]:
        return dict(self.map)

    def settle(self) -> None:
        self.state.flush(PATIENCE)

    def pids(self) -> list[int]:
        return [self.server.pid]

    def close(self) -> None:
        try:
            self.state.close(PATIENCE)
        finally:
            self.server.stop()


class OutliveSynced(Outlive):
    """`m[key] = value` and `state.sync()`; a transaction with `durable=True`."""

    name = "Outlive + sync()"
    promise = Promise.POWER
    setting = "m[key] = value; state.sync()"

    def put(self, key: str, value: Any) -> None:
        self.map[key] = value
        self.state.sync()

    def put_many(self, items: Sequence[Item]) -> None:
        with self.state.transaction(durable=True):
            for key, value in items:
                self.map[key] = value


class OutliveFlushed(Outlive):
    """`m[key] = value` and `state.flush()`: durable in the journal of the persistence process."""

    name = "Outlive + flush()"
    promise = Promise.POWER
    setting = "m[key] = value; state.flush()"

    def put(self, key: str, value: Any) -> None:
        self.map[key] = value
        self.state.flush(PATIENCE)


class DurableWatch:
    """When each change became durable in the journal, as its session learns it. In ns of `perf_counter_ns`.

    It looks over the shoulder of the one method through which the pump tells the session, so it costs the strategy's
    thread nothing and asks the persistence process for nothing.
    """

    def __init__(self, state: Session) -> None:
        self._state = state
        self._first = state._outbox.seq + 1
        self._told = state._note_durable
        self._seqs, self._times = array("q"), array("q")
        state._note_durable = self._note  # type: ignore[method-assign]

    def _note(self, durable: int) -> None:
        self._seqs.append(durable)
        self._times.append(time.perf_counter_ns())
        self._told(durable)

    def stop(self) -> None:
        del self._state._note_durable

    def lags(self, done: Sequence[int]) -> array[int]:
        """From the return of each put since the watch began to its durability."""
        lags, at = array("q"), 0
        for seq, put in enumerate(done, self._first):
            while at < len(self._seqs) and self._seqs[at] < seq:
                at += 1
            if at == len(self._seqs):
                break
            lags.append(max(0, self._times[at] - put))
        return lags

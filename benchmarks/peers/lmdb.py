"""LMDB, one write transaction a put."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import Item, dump, load

MAP_BYTES = 4 * 2**30  # of address space; the file is sparse


class _Lmdb(Peer):
    needs = "lmdb"
    is_shared = True
    _flags: dict[str, bool]

    def __init__(self, folder: str) -> None:
        self._db = self.module().open(folder, map_size=MAP_BYTES, **self._flags)

    def put(self, key: str, value: Any) -> None:
        with self._db.begin(write=True) as transaction:
            transaction.put(key.encode(), dump(value))

    def put_many(self, items: Sequence[Item]) -> None:
        with self._db.begin(write=True) as transaction:
            for key, value in items:
                transaction.put(key.encode(), dump(value))

    def __getitem__(self, key: str) -> Any:
        with self._db.begin(buffers=True) as transaction:
            data = transaction.get(key.encode())
            if data is None:
                raise KeyError(key)
            return load(data)

    def load(self) -> dict[str, Any]:
        with self._db.begin(buffers=True) as transaction:
            return {str(key, "utf-8"): load(data) for key, data in transaction.cursor()}

    def close(self) -> None:
        self._db.close()


class LmdbNosync(_Lmdb):
    name = "LMDB nosync"
    promise = Promise.KILL
    setting = "sync=False, writemap=True"
    _flags = {"sync": False, "metasync": False, "writemap": True}  # noqa: RUF012 (never changed)


class LmdbSync(_Lmdb):
    name = "LMDB sync"
    promise = Promise.POWER
    setting = "the default: sync=True"
    _flags = {}  # noqa: RUF012 (never changed)


class LmdbBytes(LmdbNosync):
    """Without the pickling, which is done before the clock starts: a second floor, below what a bot can have."""

    name = "LMDB nosync, already pickled"
    setting = "sync=False, writemap=True; pickling not counted"
    is_floor = True
    has_transactions = False

    def prepare(self, value: Any) -> Any:
        return dump(value)

    def put(self, key: str, value: Any) -> None:
        with self._db.begin(write=True) as transaction:
            transaction.put(key.encode(), value)

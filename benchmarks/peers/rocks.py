"""RocksDB through rocksdict, with and without a sync of its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import Item, dump, load


class _Rocks(Peer):
    needs = "rocksdict"
    is_shared = True
    _sync: bool

    def __init__(self, folder: str) -> None:
        rocksdict = self.module()
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self._db = rocksdict.Rdict(folder, options)
        how = rocksdict.WriteOptions()
        how.sync = self._sync
        self._db.set_write_options(how)
        self._how, self._batch = how, rocksdict.WriteBatch

    def put(self, key: str, value: Any) -> None:
        self._db[key.encode()] = dump(value)

    def put_many(self, items: Sequence[Item]) -> None:
        batch = self._batch(raw_mode=True)
        for key, value in items:
            batch.put(key.encode(), dump(value))
        self._db.write(batch, self._how)

    def __getitem__(self, key: str) -> Any:
        return load(self._db[key.encode()])

    def load(self) -> dict[str, Any]:
        return {key.decode(): load(data) for key, data in self._db.items()}

    def close(self) -> None:
        self._db.close()


class RocksNosync(_Rocks):
    name = "RocksDB"
    promise = Promise.KILL
    setting = "rocksdict, WriteOptions.sync = False"
    _sync = False


class RocksSync(_Rocks):
    name = "RocksDB sync"
    promise = Promise.POWER
    setting = "rocksdict, WriteOptions.sync = True"
    _sync = True

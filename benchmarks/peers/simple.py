"""What one finds first when a dict shall outlive its process. Each as its manual shows it."""

from __future__ import annotations

import os
import pickle
import shelve
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import PROTOCOL


class _Mapping(Peer):
    """A peer that is a mapping and pickles by itself."""

    promise = Promise.SIMPLE
    slow = True
    has_transactions = False
    _db: Any

    def put(self, key: str, value: Any) -> None:
        self._db[key] = value

    def __getitem__(self, key: str) -> Any:
        return self._db[key]

    def load(self) -> dict[str, Any]:
        return dict(self._db.items())

    def close(self) -> None:
        self._db.close()


class Shelve(_Mapping):
    name = "shelve"
    setting = "sync() after each put"

    def __init__(self, folder: str) -> None:
        self._db = shelve.open(os.path.join(folder, "kept"), protocol=PROTOCOL)  # noqa: SIM115 (closed by close)

    def put(self, key: str, value: Any) -> None:
        self._db[key] = value
        self._db.sync()


class Sqlitedict(_Mapping):
    name = "sqlitedict"
    setting = "autocommit=True"
    needs = "sqlitedict"

    def __init__(self, folder: str) -> None:
        self._db = self.module().SqliteDict(os.path.join(folder, "kept.sqlite"), autocommit=True)


class Diskcache(_Mapping):
    name = "diskcache"
    setting = "Cache, eviction_policy='none'"
    needs = "diskcache"

    def __init__(self, folder: str) -> None:
        self._db = self.module().Cache(folder, eviction_policy="none", size_limit=2**40)

    def load(self) -> dict[str, Any]:
        return {key: self._db[key] for key in self._db}


class WholeDict(Peer):
    """The whole dict, pickled into a new file that takes the old one's place."""

    name = "whole-dict pickle"
    promise = Promise.SIMPLE
    setting = "fsync, rename, after each put"
    slow = True

    def __init__(self, folder: str) -> None:
        self._folder, self._path = folder, os.path.join(folder, "kept.pkl")
        self._items: dict[str, Any] = {}
        if os.path.exists(self._path):
            with open(self._path, "rb") as file:
                self._items = pickle.load(file)

    def put(self, key: str, value: Any) -> None:
        self.put_many([(key, value)])

    def put_many(self, items: Any) -> None:
        self._items.update(items)
        with open(self._path + ".tmp", "wb") as file:
            pickle.dump(self._items, file, PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        os.rename(self._path + ".tmp", self._path)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def load(self) -> dict[str, Any]:
        return dict(self._items)

    def close(self) -> None:
        self._items = {}

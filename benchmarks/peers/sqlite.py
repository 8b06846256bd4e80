"""SQLite with a write-ahead log: one table of keys and pickles, one commit a put."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import Item, dump, load

PUT = "INSERT INTO kept VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class _Sqlite(Peer):
    _synchronous: str

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, "kept.sqlite")
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._db.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def put(self, key: str, value: Any) -> None:
        self._db.execute(PUT, (key, dump(value)))

    def put_many(self, items: Sequence[Item]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(PUT, [(key, dump(value)) for key, value in items])
        self._db.execute("COMMIT")

    def __getitem__(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return load(row[0])

    def load(self) -> dict[str, Any]:
        return {key: load(data) for key, data in self._db.execute("SELECT key, value FROM kept")}

    def close(self) -> None:
        self._db.close()


class SqliteOff(_Sqlite):
    name = "SQLite WAL off"
    promise = Promise.KILL
    setting = "journal_mode=WAL, synchronous=OFF"
    _synchronous = "OFF"


class SqliteFull(_Sqlite):
    name = "SQLite WAL full"
    promise = Promise.POWER
    setting = "journal_mode=WAL, synchronous=FULL"
    _synchronous = "FULL"

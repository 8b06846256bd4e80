"""Everyone that Outlive is measured against, by what a put of theirs has survived when it returns."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.peers.base import Peer, Promise
from benchmarks.peers.floor import MappedFile, SyncedFile
from benchmarks.peers.lmdb import LmdbBytes, LmdbNosync, LmdbSync
from benchmarks.peers.redis import RedisAlways, RedisEverysec
from benchmarks.peers.rocks import RocksNosync, RocksSync
from benchmarks.peers.simple import Diskcache, Shelve, Sqlitedict, WholeDict
from benchmarks.peers.sqlite import SqliteFull, SqliteOff

__all__ = ["KILL", "PEERS", "POWER", "SIMPLE", "Peer", "Promise", "stores"]

KILL: list[type[Peer]] = [MappedFile, LmdbBytes, LmdbNosync, RocksNosync, SqliteOff, RedisEverysec]
POWER: list[type[Peer]] = [SyncedFile, LmdbSync, RocksSync, SqliteFull, RedisAlways]
SIMPLE: list[type[Peer]] = [Shelve, Sqlitedict, Diskcache, WholeDict]
PEERS = [*KILL, *POWER, *SIMPLE]


def stores(kinds: Iterable[type[Peer]]) -> list[type[Peer]]:
    """Without the floors."""
    return [kind for kind in kinds if not kind.is_floor]

"""What the journal says: commits, and catalogs that sum up everything before them.

* The LSN of a frame orders everything. A map's incarnation is the LSN of the frame that created it, so a name that
  was dropped and used again is another map, and a file of the former one is told apart.
* Applying every commit since a catalog to that catalog gives the next one (generations aside: those are facts about
  files, and only ever grow while an incarnation lives).
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from protocol.changes import DROP, Change

MAX_OPENERS = 64
"""Identities remembered per namespace: more hosts than that do not take turns."""
MAX_DROPPED = 1000
"""Drops remembered. Forgetting one costs a clearer message in recovery, never data."""

MapKey: TypeAlias = tuple[str, str]
"""(namespace, map)"""


class Generation(msgspec.Struct, frozen=True):
    """One pickle file: the LSN that its contents belong to, and the CRC-32 at its end."""

    lsn: int
    crc: int


class NamespaceEntry(msgspec.Struct):
    """What is known of one namespace after a commit."""

    name: str
    epoch: int = 0
    applied: int = 0
    """Newest seq in the state."""
    identity: bytes = b""
    """Outbox identity of the newest session."""
    since: int = 0
    """Epoch since which that identity has opened without a break."""
    openers: dict[str, tuple[int, int]] = {}
    """Hex identity -> (life, attempt) of its newest open; at most `MAX_OPENERS`, newest last."""
    closed: bool = False
    ts_last: int = 0
    """When the newest change arrived, ns UTC; 0 if none has, or all were forgotten."""
    boot_id: str = ""
    """Of the newest session's machine; empty if unknown."""


class MapEntry(msgspec.Struct):
    """What is known of one map. `current` and `previous` are the files known to be durable."""

    namespace: str
    name: str
    incarnation: int
    last_change: int
    current: Generation | None = None
    previous: Generation | None = None

    @property
    def key(self) -> MapKey:
        return self.namespace, self.name

    def is_past(self, lsn: int) -> bool:
        """Whether no generation of this map needs frames up to and including `lsn`, so that they may go."""
        needed = min(lsn, self.last_change)
        return all(g is not None and g.lsn >= needed for g in (self.current, self.previous))


class Catalog(msgspec.Struct, tag="catalog"):
    """First frame of each segment: everything that must exist, so that older segments may go."""

    store_id: bytes
    namespaces: list[NamespaceEntry]
    maps: list[MapEntry]
    dropped: list[tuple[str, str, int]]
    """(namespace, map, incarnation) of dropped maps, newest last; at most `MAX_DROPPED`."""


class Section(msgspec.Struct, array_like=True):
    """One namespace's part of a commit. `entry` is its state afterwards."""

    entry: NamespaceEntry
    changes: list[Change]


class Commit(msgspec.Struct, tag="commit"):
    """One group commit: recovery sees all of it or none of it."""

    sections: list[Section]


class Books:
    """The running summary: a catalog that commits are applied to. Holds no items of maps."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.namespaces: dict[str, NamespaceEntry] = {}
        self.maps: dict[MapKey, MapEntry] = {}
        self.dropped: deque[tuple[str, str, int]] = deque(maxlen=MAX_DROPPED)
        if catalog is not None:
            self.read(catalog)

    def read(self, catalog: Catalog) -> None:
        """Start from `catalog`."""
        self.namespaces = {entry.name: entry for entry in catalog.namespaces}
        self.maps = {entry.key: entry for entry in catalog.maps}
        self.dropped = deque(catalog.dropped, maxlen=MAX_DROPPED)

    def apply(self, lsn: int, commit: Commit) -> None:
        """Note what the frame `lsn` did."""
        for section in commit.sections:
            self.namespaces[section.entry.name] = section.entry
            for op, name, _, _ in section.changes:
                self.note(lsn, section.entry.name, name, op)

    def note(self, lsn: int, namespace: str, name: str, op: int) -> None:
        """Note one change of a map."""
        key = namespace, name
        entry = self.maps.get(key)
        if op == DROP:
            if entry is not None:
                del self.maps[key]
                self.dropped.append((namespace, name, entry.incarnation))
        elif entry is None:
            self.maps[key] = MapEntry(namespace, name, incarnation=lsn, last_change=lsn)
        else:
            entry.last_change = lsn

    def catalog(self, store_id: bytes) -> Catalog:
        """The summary as a frame. Shares the entries: encode it before they change."""
        return Catalog(store_id, list(self.namespaces.values()), list(self.maps.values()), list(self.dropped))

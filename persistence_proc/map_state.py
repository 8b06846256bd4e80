"""One map in the memory of the persistence process: encoded items, and how far its files are.

* Starting a save is O(1): the dict becomes a frozen base that the checkpointer may read, changes go to an overlay,
  and after the save the overlay is merged into the base in slices. A copy of a million items would hold the GIL for
  40 ms at each save.
* `base`, `_merging` and `_overlay` are layers, the last one newest; a merged entry may stand in `_merging` too, which
  is harmless, because it says the same.
* Ops are normalized against what memory holds (a REPLACE of an absent key is an INSERT), so that a fold of them gives
  the same order as applying them one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from persistence_proc.catalog import Generation, MapEntry
from protocol.changes import DELETE, INSERT, REPLACE, apply_change
from protocol.folding import Fold

NOTHING_NEEDED = 2**62
"""`MapState.needs` when the files hold everything: above any LSN."""


class MapState:
    """Items of one map, owned by the server's thread. LSNs; `incarnation` 0 until its first commit is sealed."""

    def __init__(self, entry: MapEntry | None = None, items: dict[bytes, bytes] | None = None) -> None:
        self.base: dict[bytes, bytes] = {} if items is None else items
        self.count = len(self.base)
        self.incarnation = entry.incarnation if entry else 0
        self.last_change = entry.last_change if entry else 0
        self.current: Generation | None = entry.current if entry else None
        self.previous: Generation | None = entry.previous if entry else None
        self.previous_used = False
        self.dropped = False
        self.saved_at = 0.0  # monotonic seconds of the end of its last save in this process
        self.file_bytes = 0
        self.journal_mark = 0  # journal bytes ever written when its last save was frozen
        self._overlay: Fold | None = None
        self._merging: dict[bytes, tuple[int, bytes, bool]] | None = None
        self._to_merge: Iterator[tuple[bytes, tuple[int, bytes, bool]]] = iter(())

    # Items

    def __len__(self) -> int:
        return self.count

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        if self._overlay is None:
            return self.base.get(key)
        entry = self._overlay.entries.get(key)
        if entry is None and not self._overlay.cleared and self._merging is not None:
            entry = self._merging.get(key)
        if entry is not None:
            return None if entry[0] == DELETE else entry[1]
        return None if self._overlay.cleared else self.base.get(key)

    def apply(self, op: int, key: bytes, value: bytes) -> tuple[int, bool]:
        """Apply INSERT, REPLACE or DELETE; returns what it came to: the op, 0 if redundant, and whether `key` is new.

        Redundant is judged against memory, that is durable state plus the batch in flight plus what is pending;
        against durable state alone a delete behind an unwritten put would be lost.
        """
        old = self.get(key)
        if op == REPLACE and old is not None:
            if old == value:
                return 0, False
            if self._overlay is None:  # nearly always
                self.base[key] = value
                return op, False
        elif op == DELETE:
            if old is None:
                return 0, False
            self.count -= 1
        elif old is None:
            self.count += 1
            op = INSERT
        new = old is None
        if self._overlay is None:
            apply_change(self.base, op, key, value)
        else:
            self._overlay.add(op, key, value, new)
        return op, new

    def clear(self, op: int) -> None:
        """Remove all items, by `op` CLEAR or DROP."""
        self.count = 0
        if self._overlay is None:
            self.base = {}
        else:
            self._overlay.add(op, b"", b"", False)

    def as_dict(self) -> dict[bytes, bytes]:
        """All items in order. Not to be changed, and not to be kept over the next change."""
        while self._merging is not None and not self.merge(NOTHING_NEEDED):
            pass
        return self.base if self._overlay is None else dict(self._layered(self._overlay))

    def _layered(self, overlay: Fold) -> Iterator[tuple[bytes, bytes]]:
        entries = overlay.entries
        for key, value in () if overlay.cleared else self.base.items():
            entry = entries.get(key)
            if entry is None:
                yield key, value
            elif entry[0] == REPLACE:
                yield key, entry[1]
        for key, (op, value, _) in entries.items():
            if op == INSERT:
                yield key, value

    # Saving

    @property
    def is_frozen(self) -> bool:
        """Whether a save is reading the base, or its changes are still being merged."""
        return self._overlay is not None

    @property
    def is_dirty(self) -> bool:
        """Whether its newest file lacks something."""
        return self.current is None or self.current.lsn < self.last_change

    def freeze(self) -> dict[bytes, bytes]:
        """Freeze the items as they are, in O(1), until `thaw`. The result is not to be changed."""
        assert self._overlay is None
        self._overlay = Fold()
        return self.base

    def thaw(self) -> None:
        """The frozen items are free again: begin to merge what was changed meanwhile."""
        assert self._overlay is not None
        assert self._merging is None
        self._next_layer(self._overlay)

    def merge(self, limit: int) -> bool:
        """Merge up to `limit` changes into the base; true when nothing is left to merge."""
        if self._merging is None:
            return True
        base = self.base
        taken = 0
        for key, (op, value, _) in islice(self._to_merge, limit):
            apply_change(base, op, key, value)
            taken += 1
        if taken == limit:
            return False
        self._merging = None
        assert self._overlay is not None
        if self._overlay:
            self._next_layer(self._overlay)
            return False
        self._overlay = None
        return True

    def _next_layer(self, overlay: Fold) -> None:
        if overlay.cleared:
            self.base = {}
        self._merging = overlay.entries
        self._to_merge = iter(overlay.entries.items())
        self._overlay = Fold()

    def saved(self, generation: Generation) -> None:
        """A new file of this map has its name."""
        self.previous, self.current = self.current, generation

    def needs(self) -> int:
        """The oldest LSN whose frame recovery may need for this map.

        A generation that is newer than the last change needs nothing, however old it is; so an idle map holds no
        segment. A generation that is not there needs everything since the map was created.
        """
        if self.incarnation == 0:
            return NOTHING_NEEDED
        return entry_needs(self.entry("", ""))

    def entry(self, namespace: str, name: str) -> MapEntry:
        """What the catalog says of it."""
        return MapEntry(
            namespace=namespace,
            name=name,
            incarnation=self.incarnation,
            last_change=self.last_change,
            current=self.current,
            previous=self.previous,
        )


def entry_needs(entry: MapEntry) -> int:
    """`MapState.needs`, of a map's entry in the catalog."""
    lowest = NOTHING_NEEDED
    for generation in (entry.current, entry.previous):
        if generation is None:
            lowest = min(lowest, entry.incarnation)
        elif generation.lsn < entry.last_change:
            lowest = min(lowest, generation.lsn + 1)
    return lowest

"""Fold changes of one map: the newest per key, in an order that gives the same map.

* Applying a fold to the state before its changes equals applying the changes one by one, dict order included.
* Applying it again, or to a state that already holds a first part of its changes, gives the same: a resend is
  harmless. That is why a key that was inserted inside the fold is an INSERT (pop, then put), also after updates.
* A delete vanishes only together with an insert that nobody can have seen (`unseen`), or behind a CLEAR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change

_Entry = tuple[int, bytes, bool]  # op, value, unseen: the state below this fold certainly lacks the key


class Fold:
    """The folded changes of one map."""

    __slots__ = ("cleared", "dropped", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, _Entry] = {}
        self.cleared = False
        self.dropped = False

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        return bool(self.entries) or self.cleared

    def add(self, op: int, key: bytes, value: bytes, unseen: bool) -> None:
        """Fold one change in. `unseen`: an INSERT whose key the state below this fold can't hold.

        Cost is O(1).
        """
        entries = self.entries
        if op == REPLACE:
            old = entries.get(key)
            if old is None:
                entries[key] = (INSERT, value, True) if self.cleared else (REPLACE, value, False)
            elif old[0] == DELETE:
                del entries[key]
                entries[key] = (INSERT, value, False)
            else:
                entries[key] = (old[0], value, old[2])
        elif op == INSERT:
            old = entries.pop(key, None)
            entries[key] = (INSERT, value, self.cleared or (unseen if old is None else old[2]))
        elif op == DELETE:
            old = entries.pop(key, None)
            if not (self.cleared or (old is not None and old[2])):
                entries[key] = (DELETE, b"", False)
        else:
            entries.clear()
            self.cleared = True
            self.dropped = self.dropped or op == DROP

    def changes(self, name: str) -> Iterator[Change]:
        """The folded changes of map `name`, in the order in which to apply them."""
        if self.cleared:
            yield (DROP if self.dropped else CLEAR, name, b"", b"")
        for key, (op, value, _) in self.entries.items():
            yield (op, name, key, value)


def fold_changes(folds: dict[str, Fold], changes: Iterable[Change], unseen: bool) -> None:
    """Fold `changes` of any maps into one fold per map."""
    for op, name, key, value in changes:
        fold = folds.get(name)
        if fold is None:
            fold = folds[name] = Fold()
        fold.add(op, key, value, unseen)

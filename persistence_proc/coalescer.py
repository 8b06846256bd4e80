"""Fold what arrives while the disk is busy.

* The pending changes of a namespace cover an unbroken run of its sequence numbers, ending at `applied`.
* Folding keeps the newest change per key, so applying a commit equals applying the run that it covers.
* A commit becomes one journal frame: recovery sees all of it or none of it, so a transaction stays whole.
"""

from __future__ import annotations

from collections.abc import Container

from persistence_proc.catalog import Commit, NamespaceEntry, Section
from protocol.changes import CLEAR, Change
from protocol.folding import Fold


class Coalescer:
    """The pending batch of all namespaces, owned by the server's thread."""

    def __init__(self) -> None:
        self._folds: dict[str, dict[str, Fold]] = {}
        self.since: float | None = None
        """Monotonic time at which the oldest pending change arrived."""

    def __bool__(self) -> bool:
        return bool(self._folds)

    def touch(self, namespace: str, now: float) -> dict[str, Fold]:
        """The folds of a namespace whose entry (epoch, applied ...) has changed; to add changes to."""
        folds = self._folds.get(namespace)
        if folds is None:
            folds = self._folds[namespace] = {}
            if self.since is None:
                self.since = now
        return folds

    def touches(self, namespace: str) -> bool:
        """Whether anything of this namespace is pending."""
        return namespace in self._folds

    def pending(self, namespace: str) -> int:
        """How many folded changes of a namespace are pending."""
        return sum(len(fold) for fold in self._folds.get(namespace, {}).values())

    def take(self) -> dict[str, dict[str, Fold]]:
        """Everything that is pending, which then is not any more."""
        folds, self._folds, self.since = self._folds, {}, None
        return folds


def folded_changes(folds: dict[str, Fold], existing: Container[str]) -> list[Change]:
    """The changes of a namespace's folds, map by map. `existing` names the maps that are there afterwards.

    A map that was dropped and made anew without items would look dropped only; an explicit CLEAR makes it.
    """
    changes: list[Change] = []
    for name, fold in folds.items():
        changes.extend(fold.changes(name))
        if fold.dropped and not fold.entries and name in existing:
            changes.append((CLEAR, name, b"", b""))
    return changes


def commit_of(sections: list[tuple[NamespaceEntry, list[Change]]]) -> Commit:
    """One frame's payload."""
    return Commit(sections=[Section(entry=entry, changes=changes) for entry, changes in sections])

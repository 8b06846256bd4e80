"""Fold the unacknowledged records of an outbox, so that an outage costs live keys and not its length.

The result is at most two records, split at what was ever handed to a socket:

* What was shipped may have been applied, in whole or in part. There a delete stays, whatever came before it.
* What was never shipped nobody has seen. A key that was inserted there was absent before, so its delete vanishes
  together with the insert. This is what bounds the churn of unique keys.

A key that was deleted and inserted again (its place in the order moved) is written as both, so that the next fold
does not take its insert for that of an absent key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from protocol.changes import DELETE, INSERT, Change, decode_changes, encode_changes
from protocol.folding import Fold, fold_changes
from protocol.frames import Record


def fold_records(records: Iterable[Record], shipped: int) -> list[Record]:
    """An unbroken run of records -> one record of what begins below `shipped` and one of the rest, where not empty."""
    halves = groupby(records, key=lambda record: record.base >= shipped)
    return [_fold(half, unseen) for unseen, half in halves]


def _fold(records: Iterator[Record], unseen: bool) -> Record:
    folds: dict[str, Fold] = {}
    first: Record | None = None
    for record in records:
        first = first or record
        fold_changes(folds, decode_changes(record.payload), unseen)
    assert first is not None
    payload = encode_changes([change for name, fold in folds.items() for change in _changes(name, fold, unseen)])
    return Record(record.seq, record.epoch, record.seq - first.base, payload)


def _changes(name: str, fold: Fold, unseen: bool) -> Iterator[Change]:
    for change in fold.changes(name):
        op, _, key, _ = change
        if unseen and op == INSERT and not fold.entries[key][2]:
            yield (DELETE, name, key, b"")
        yield change

"""A block of changes that is recovered whole or not at all.

* The session's lock is held for the whole block: other threads' changes and snapshots wait for its end. Their plain
  reads take no lock, and may see half of it, as those of the block itself do.
* The block belongs to its thread and asyncio task; a change from another task of the thread is refused.
* Changes show in the dicts at once and are recorded as one record when the block ends; an exception undoes them,
  last one first. A deleted key's place in the order is restored from the order at the first delete.
"""

from __future__ import annotations

import asyncio
from typing import Any

from protocol.changes import CLEAR, DELETE, Change

MISSING: Any = object()
"""Stands for "there is none" where None may be a value."""

_get = dict.get
_Map = Any  # a PersistentMap, which stands above this module
_Undo = tuple[_Map, Any, Any, Any]


def current_task() -> object:
    """The asyncio task that runs in this thread; None where no loop runs, which is told without an exception."""
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


class Transaction:
    """The changes of one open block, and how to undo them. `before`: the last change recorded before it."""

    def __init__(self, before: int) -> None:
        self.before = before
        self.task = current_task()
        self.changes: list[Change] = []
        self.doing: tuple[object, Change] | None = None  # the half and the change that are being made
        self._undo: list[_Undo] = []
        self._orders: dict[int, tuple[_Map, list[Any]]] = {}
        self._reordered: list[tuple[dict[Any, Any], dict[Any, Any]]] | None = None

    def keep(self, change: Change, half: tuple[Any, ...]) -> None:
        """Record a change of the block, behind a note of what it changes."""
        target, key, op = half[0], half[1], change[0]
        if op == CLEAR:
            self._remember_all(target)
        else:
            if op == DELETE and id(target) not in self._orders:
                self._orders[id(target)] = (target, list(target))
            self._undo.append((target, key, _get(target, key, MISSING), target._recorded.get(key, MISSING)))
        self.doing = (half, change)
        self.changes.append(change)

    def holds(self, half: object) -> bool:
        """Whether the change of `half`, the newest one, got as far as being recorded."""
        return self.doing is not None and self.doing[0] is half and self.changes[-1:] == [self.doing[1]]

    def _remember_all(self, target: _Map) -> None:
        """Note everything, before a clear."""
        if id(target) not in self._orders:
            self._orders[id(target)] = (target, list(target))
        recorded = target._recorded
        self._undo += [(target, key, value, recorded.get(key, MISSING)) for key, value in dict.items(target)]

    def roll_back(self) -> None:
        """Make the dicts what they were before the block. Struck in the middle, it can be done again from the start.

        Nothing is cleared before all that comes back is at hand for good.
        """
        if self._reordered is None:
            for target, key, value, data in reversed(self._undo):
                _put_back(target, key, value)
                _put_back(target._recorded, key, data)
            self._reordered = [
                (mapping, {key: mapping[key] for key in order if key in mapping})
                for target, order in self._orders.values()
                for mapping in (target, target._recorded)
            ]
        for mapping, items in self._reordered:
            dict.clear(mapping)
            dict.update(mapping, items)


def _put_back(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    if value is MISSING:
        dict.pop(mapping, key, None)
    else:
        dict.__setitem__(mapping, key, value)

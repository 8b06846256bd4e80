"""A block of changes that is recovered whole or not at all.

* The session's lock is held for the whole block: other threads wait, and nobody sees half of it.
* The block belongs to its thread and asyncio task; a change from another task of the thread is refused.
* Changes show in the dicts at once and are recorded as one record when the block ends; an exception undoes them,
  last one first. A deleted key's place in the order is restored from the order at the first delete.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from protocol.changes import Change

MISSING: Any = object()
"""Stands for "there is none" where None may be a value."""

_Map = Any  # a PersistentMap, which stands above this module
_Undo = tuple[_Map, Any, Any, Any]


def current_owner() -> tuple[int, object]:
    """The thread, and the asyncio task if one runs in it."""
    try:
        task: object = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), task


class Transaction:
    """The changes of one open block, and how to undo them."""

    def __init__(self) -> None:
        self.owner = current_owner()
        self.changes: list[Change] = []
        self.doing: tuple[object, Change] | None = None  # the half and the change that are being made
        self._undo: list[_Undo] = []
        self._orders: dict[int, tuple[_Map, list[Any]]] = {}

    def remember(self, target: _Map, key: Any, deletes: bool) -> None:
        """Note what `target` holds under `key` before it changes."""
        if deletes and id(target) not in self._orders:
            self._orders[id(target)] = (target, list(target))
        self._undo.append((target, key, dict.get(target, key, MISSING), target._recorded.get(key, MISSING)))

    def add(self, change: Change, half: object) -> None:
        """Record a change of the block."""
        self.doing = (half, change)
        self.changes.append(change)

    def holds(self, half: object) -> bool:
        """Whether the change of `half`, the newest one, got as far as being recorded."""
        return self.doing is not None and self.doing[0] is half and self.changes[-1:] == [self.doing[1]]

    def remember_all(self, target: _Map) -> None:
        """Note everything, before a clear."""
        for key in list(target):
            self.remember(target, key, deletes=True)

    def roll_back(self) -> None:
        """Make the dicts what they were before the block."""
        for target, key, value, data in reversed(self._undo):
            _put_back(target, key, value)
            _put_back(target._recorded, key, data)
        for target, order in self._orders.values():
            for mapping in (target, target._recorded):
                items = [(key, mapping[key]) for key in order if key in mapping]
                dict.clear(mapping)
                dict.update(mapping, items)


def _put_back(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    if value is MISSING:
        dict.pop(mapping, key, None)
    else:
        dict.__setitem__(mapping, key, value)

"""What one namespace is told to do, and the state after each of its records: the oracle of what may come back."""

from __future__ import annotations

import random
from collections.abc import Sequence

from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change
from tests.persistence_proc.raw_session import clear, delete, insert, replace

Maps = dict[str, dict[bytes, bytes]]


class Bot:
    """`states[n]` is the state after n records; `acknowledged` of them somebody was told to be durable."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: list[Maps] = [{}]
        self.acknowledged = 0

    @property
    def applied(self) -> int:
        return len(self.states) - 1

    def do(self, changes: Sequence[Change]) -> None:
        """One record: all of it or nothing."""
        state = {name: dict(items) for name, items in self.states[-1].items()}
        for op, name, key, value in changes:
            if op == DROP:
                state.pop(name, None)
            elif op != DELETE or name in state:
                apply_change(state.setdefault(name, {}), op, key, value)
        self.states.append(state)

    def change(self, chance: random.Random) -> list[Change]:
        """The next record: a put, a transaction over maps, a drop ..."""
        changes = [self._one(chance) for _ in range(chance.choice((1, 1, 2, 5)))]
        self.do(changes)
        return changes

    def _one(self, chance: random.Random) -> Change:
        name, key = chance.choice(("a", "a", "b", "c")), chance.randrange(12)
        value = b"%d." % len(self.states) * chance.choice((1, 1, 100))
        kind = chance.choices((INSERT, REPLACE, DELETE, CLEAR, DROP), (8, 8, 4, 1, 1))[0]
        if kind == DELETE:
            return delete(name, key)
        if kind in (CLEAR, DROP):
            return kind, *clear(name)[1:]
        return insert(name, key, value) if kind == INSERT else replace(name, key, value)

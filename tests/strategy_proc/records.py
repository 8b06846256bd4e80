"""Types that the tests store: a module of its own, as a bot's records are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from protocol.records import Record


class Level(Record):
    price: float
    size: float = 1.0


@dataclass
class Note:
    text: str


class Mood(Enum):
    GOOD = 1


class Rewritten:
    """Pickles fine, but comes back different."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __reduce__(self):
        return Rewritten, (self.n + 1,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rewritten) and other.n == self.n

    def __hash__(self) -> int:
        return self.n

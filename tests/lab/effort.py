"""How far a laboratory test goes, from which seed, and what it has counted.

`make test` runs each part briefly from a fixed seed, `make prove` goes far from a new one. A test takes the fixture
`lab`; when it fails, the command that replays it is printed below the failure.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TypeVar

T = TypeVar("T")

DEFAULT_SEED = 1


class Effort:
    """What one test may spend, and its tally for the report."""

    def __init__(self, far: bool, seed: int, part: str, test: str) -> None:
        self.far, self.seed, self.part, self.test = far, seed, part, test
        self.counted: Counter[str] = Counter()

    def pick(self, near: T, far: T) -> T:
        """`near` in `make test`, `far` in `make prove`."""
        return far if self.far else near

    def chance(self, *names: object) -> random.Random:
        """Randomness of this run's seed, of its own for each test and `names`."""
        return random.Random("/".join(map(str, (self.seed, self.test, *names))))

    def count(self, what: str, number: int = 1) -> None:
        """Add to the tally, a plural noun: `lab.count("crash states", 812)`."""
        self.counted[what] += number

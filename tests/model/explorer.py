"""Every state that a world can reach, breadth-first: so the scenario that breaks a promise is a shortest one.

A world is a tuple of parts. Each part is kept once, and a state is the numbers of its parts packed into one integer:
exact (no two states are ever taken for one), small, and quick to look up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Label = tuple[Any, ...]
"""A format string and what goes into it: a sentence is made only for the scenarios that are shown."""
Step = tuple[Label, Any]

PART_BITS = 24
LONGEST_END = 200
"""Steps after which a continuation without faults counts as one without end."""


class Broken(Exception):
    """Raised by a step that breaks a promise: which one, and what was lost."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(promise, what)  # both: so it comes back whole from another process
        self.promise, self.what = promise, what

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


class Found(NamedTuple):
    """How a search ended."""

    states: int
    broken: Broken | None
    scenario: list[str]
    """The steps that lead to it, in words."""
    is_exhausted: bool
    """Whether every state within the bounds was visited, or the search was over for another reason."""
    seconds: float
    """Of this process's own work."""

    def __str__(self) -> str:
        if self.broken is None:
            return f"{self.states} states, " + ("all of them" if self.is_exhausted else "CUT OFF, nothing found")
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.scenario, 1))
        return f"{self.broken} (after {self.states} states)\n{steps}"


class Rules(NamedTuple):
    """What the explorer needs of a model. `fair(world)`: what happens next when nothing fails any more, or None."""

    first: tuple[Any, ...]
    steps: Callable[[Any], Iterator[Step]]
    fair: Callable[[Any], Step | None]
    check_end: Callable[[Any], None]


class _Parts:
    """World <-> packed number."""

    def __init__(self, kind: Callable[[Iterable[Any]], Any], width: int) -> None:
        self._kind = kind
        self._numbers: list[dict[Any, int]] = [{} for _ in range(width)]
        self._parts: list[list[Any]] = [[] for _ in range(width)]

    def pack(self, world: tuple[Any, ...]) -> int:
        packed = 0
        for part, numbers, parts in zip(world, self._numbers, self._parts, strict=True):
            number = numbers.get(part)
            if number is None:
                number = numbers[part] = len(parts)
                parts.append(part)
            packed = packed << PART_BITS | number
        return packed

    def unpack(self, packed: int) -> Any:
        found = []
        for parts in reversed(self._parts):
            found.append(parts[packed & (1 << PART_BITS) - 1])
            packed >>= PART_BITS
        return self._kind(reversed(found))


def explore(rules: Rules, seconds: float = float("inf"), states: int = 2**62) -> Found:
    """Search until a promise is broken, everything is visited, or the bounds on time or states are reached."""
    return _Search(rules).run(seconds, states)


class _Search:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.parts = _Parts(type(rules.first)._make, len(rules.first))  # type: ignore[attr-defined]
        first = self.parts.pack(rules.first)
        self.parents: dict[int, int] = {first: first}
        self.settled: set[int] = set()
        self.began = time.process_time()

    def run(self, seconds: float, states: int) -> Found:
        queue, parents, pack, steps = deque(self.parents), self.parents, self.parts.pack, self.rules.steps
        while queue:
            if len(parents) >= states or time.process_time() - self.began > seconds:
                return self._found(None, [], False)
            packed = queue.popleft()
            world = self.parts.unpack(packed)
            before: Label = ("",)
            try:
                for before, following in steps(world):  # noqa: B007
                    mark = pack(following)
                    if mark not in parents:
                        parents[mark] = packed
                        queue.append(mark)
            except Broken as broken:
                return self._found(broken, [*self._scenario(packed), _last(before)], False)
            ending: list[str] = []
            try:
                self._settle(packed, world, ending)
            except Broken as broken:
                tail = ["and then, with no more faults: " + "; ".join(ending[-5:])]
                return self._found(broken, self._scenario(packed) + tail, False)
        return self._found(None, [], True)

    def _settle(self, packed: int, world: Any, told: list[str]) -> None:
        """Go on without faults, fairly: everything that was returned becomes durable, and nobody waits for ever."""
        path: set[int] = set()
        while packed not in self.settled:
            if packed in path or len(path) > LONGEST_END:
                raise Broken("liveness", "without faults it goes on and on")
            path.add(packed)
            step = self.rules.fair(world)
            if step is None:
                self.rules.check_end(world)
                break
            label, world = step
            told.append(render(label))
            packed = self.parts.pack(world)
        self.settled |= path

    def _scenario(self, packed: int) -> list[str]:
        found = []
        while (parent := self.parents[packed]) != packed:
            found.append(self._label(parent, packed))
            packed = parent
        return found[::-1]

    def _label(self, parent: int, packed: int) -> str:
        for label, following in self.rules.steps(self.parts.unpack(parent)):
            if self.parts.pack(following) == packed:
                return render(label)
        return "?"

    def _found(self, broken: Broken | None, scenario: list[str], is_exhausted: bool) -> Found:
        return Found(len(self.parents), broken, scenario, is_exhausted, time.process_time() - self.began)


def _last(before: Label) -> str:
    """The step that breaks a promise raises instead of having a label: it is the one behind `before`."""
    return "one more step" + (f", listed behind '{render(before)}'" if before[0] else "")


def render(label: Label) -> str:
    return str(label[0]).format(*label[1:])

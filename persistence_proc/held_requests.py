"""Requests that wait for an answer, and which of them to look at again.

A turn of the loop looks at those for which something may have happened, not at all of them: with two hundred quiet
bots there are two hundred long polls.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from persistence_proc.namespaces import Namespace
from protocol.messages import Close, Confirm, Forget, Open

NO_DEADLINE = float("inf")


class Held(NamedTuple):
    """A request that waits. `deadline` in monotonic seconds; `epoch` is that of the session that waits."""

    address: bytes
    request: Open | Confirm | Close | Forget
    namespace: Namespace
    epoch: int
    deadline: float


class HeldRequests:
    """One request per address at most. Those without a deadline are few, and looked at every time."""

    def __init__(self) -> None:
        self._held: dict[bytes, Held] = {}
        self._addresses: dict[str, set[bytes]] = {}  # of each namespace; where nobody waits, there is no entry
        self._endless: set[bytes] = set()
        self._deadlines: list[tuple[float, int, Held]] = []  # a heap; also of requests that are answered meanwhile
        self._order = count()

    def add(self, held: Held) -> None:
        """Hold a request. What its peer asked before is forgotten."""
        before = self._held.get(held.address)
        if before is not None:
            self.remove(before)
        self._held[held.address] = held
        self._addresses.setdefault(held.namespace.name, set()).add(held.address)
        if held.deadline == NO_DEADLINE:
            self._endless.add(held.address)
        else:
            heapq.heappush(self._deadlines, (held.deadline, next(self._order), held))

    def remove(self, held: Held) -> None:
        """It is answered."""
        del self._held[held.address]
        self._endless.discard(held.address)
        name = held.namespace.name
        waiting = self._addresses[name]
        waiting.remove(held.address)
        if not waiting:
            del self._addresses[name]

    def all(self) -> list[Held]:
        return list(self._held.values())

    def due(self, stirred: Iterable[str], now: float) -> list[Held]:
        """Those to look at: of these namespaces, without a deadline, or behind theirs."""
        addresses = self._endless.copy()
        for name in stirred:
            addresses |= self._addresses.get(name, set())
        found = [self._held[address] for address in addresses]
        while self._deadlines and self._deadlines[0][0] <= now:
            held = heapq.heappop(self._deadlines)[2]
            if self._held.get(held.address) is held and held.address not in addresses:
                found.append(held)
        return found

    def wait(self, now: float) -> float | None:
        """Seconds until the next deadline; None if there is none."""
        while self._deadlines and self._held.get(self._deadlines[0][2].address) is not self._deadlines[0][2]:
            heapq.heappop(self._deadlines)
        return max(0.0, self._deadlines[0][0] - now) if self._deadlines else None

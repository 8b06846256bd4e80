"""What a scenario is, and what it is given: folders of its own, how long to try, and everyone who is here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from benchmarks.peers.base import Peer
from benchmarks.results import Table

T = TypeVar("T")

MICROSECONDS = {"p50": "µs", "p99": "µs", "p99.9": "µs", "max": "µs"}
"""The columns of a table of latencies."""


class Bench:
    """One run: `quick` shows that everything works, its figures mean little."""

    def __init__(self, folder: str, quick: bool) -> None:
        self._folder = folder
        self.quick = quick
        self.rounds = 2 if quick else 5
        """Turns that everyone has in a table."""

    def pick(self, full: T, quick: T) -> T:
        """One of the two."""
        return quick if self.quick else full

    @contextmanager
    def folder(self) -> Iterator[str]:
        """A new private folder with a short path, gone with the block."""
        with tempfile.TemporaryDirectory(prefix="ol-", dir=self._folder) as path:
            yield path

    @contextmanager
    def opened(self, kinds: Sequence[type[Peer]]) -> Iterator[list[tuple[type[Peer], Peer | None]]]:
        """Everyone, each in a folder of its own; None for who is not installed."""
        with ExitStack() as stack:
            found: list[tuple[type[Peer], Peer | None]] = []
            for kind in kinds:
                peer = None
                if not kind.missing():
                    peer = kind(stack.enter_context(self.folder()))
                    stack.callback(peer.close)
                found.append((kind, peer))
            yield found


Scenario = Callable[[Bench], Iterator[Table]]
"""Something that is measured: its name is the function's, its meaning the one line of the docstring."""


def meaning(scenario: Scenario) -> str:
    return (scenario.__doc__ or "").strip()

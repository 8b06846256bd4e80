"""The rules for a `RealWorld`."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.stateful.changes import Block, Change, changes, inside
from tests.stateful.machine import namespaces
from tests.stateful.real_world import RealWorld


class RealMachine(RuleBasedStateMachine):
    """See `RealWorld`. `tally` sums up what all examples did."""

    tally: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.world = RealWorld()

    def teardown(self) -> None:
        self.count("histories of real processes")
        self.world.end()

    def count(self, what: str, number: int = 1) -> None:
        self.tally[what] = self.tally.get(what, 0) + number

    @rule(namespace=namespaces, these=changes)
    def change(self, namespace: str, these: list[Change | Block]) -> None:
        for one in these:
            self.world.change(namespace, one)
        self.count("changes", len(these))

    @rule(namespace=namespaces, size=st.sampled_from([100, 30_000]))
    def burst(self, namespace: str, size: int) -> None:
        """Enough to fill segments of the usual size."""
        for n in range(60):
            self.world.change(namespace, Change("put", "b", f"n{n % 7}", "." * size + str(n)))
        self.count("changes", 60)

    @rule(namespace=namespaces)
    def sync(self, namespace: str) -> None:
        self.world.sync(namespace)

    @rule(namespace=namespaces)
    def flush(self, namespace: str) -> None:
        self.world.flush(namespace)

    @rule(namespace=namespaces)
    def close(self, namespace: str) -> None:
        self.world.close(namespace)

    @rule(namespace=namespaces)
    def kill(self, namespace: str) -> None:
        self.world.kill(namespace)
        self.count("kills")

    @rule(namespace=namespaces, late=st.lists(inside, max_size=3))
    def take_over(self, namespace: str, late: list[Change | Block]) -> None:
        self.world.take_over(namespace, late)
        self.count("zombies")

    @rule()
    def kill_persistence(self) -> None:
        self.world.kill_persistence()
        self.count("kills")

    @rule()
    def end_persistence(self) -> None:
        self.world.end_persistence()

    @precondition(lambda self: not self.world.paused)
    @rule()
    def pause_persistence(self) -> None:
        self.world.pause()

    @rule()
    def serve(self) -> None:
        self.world.serve()

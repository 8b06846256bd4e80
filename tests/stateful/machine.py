"""The rules: what may happen next in a `World`, drawn by hypothesis."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.stateful.changes import Block, Change, changes, inside
from tests.stateful.hosts import Clock
from tests.stateful.server import Persistence, small_files
from tests.stateful.strategy import small_segments
from tests.stateful.world import NAMESPACES, World

namespaces = st.sampled_from(NAMESPACES)
hosts = st.sampled_from(["here", "there"])
seeds = st.integers(0, 2**32)
indexes = st.integers(0, 20)
soon = st.one_of(st.none(), st.none(), st.integers(0, 40))  # calls of a disk until a process is killed
cuts = st.one_of(st.none(), seeds)  # the power goes when the process does
troubles = st.lists(st.sampled_from(["", "lost", "reply lost", "late", "killed"]), max_size=2)
WEATHER = ["lose", "duplicate", "delay", "arrive_late"]
SHIPPED = ["pump", "deliver", "turn"]
steps = st.one_of(
    st.lists(
        st.sampled_from(["pump", "pump", "deliver", "turn", "turn", "write", "save", *WEATHER]), min_size=1, max_size=8
    ),
    st.sampled_from([[*SHIPPED, "save"], [*SHIPPED, "save", "write"], ["pump", "lose", "pump"], ["pump", "delay"]]),
)
"""Turns of a pump and of the persistence process; the short runs are orders that a crash likes."""


def a_life(name: str) -> Any:
    """Precondition: somebody lives."""
    return precondition(lambda self: getattr(self.world, name))


class OutliveMachine(RuleBasedStateMachine):
    """See `World`. `tally` sums up what all examples did."""

    tally: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Clock())
        self._patches = ExitStack()
        self._patches.enter_context(small_files())
        self._patches.enter_context(small_segments(self.world.clock))

    @initialize()
    def begin(self) -> None:
        self.world.start_persistence()
        for name in NAMESPACES:
            self.world.connect(name, "here")

    def teardown(self) -> None:
        self.world.end()
        self._patches.close()
        for what, number in self.world.counted.items():
            self.tally[what] = self.tally.get(what, 0) + number
        self.tally["histories"] = self.tally.get("histories", 0) + 1

    def _live(self, namespace: str) -> bool:
        """Whether it has a session; else one is started, if that is possible."""
        if namespace not in self.world.live:
            self.world.connect(namespace, self.world.histories[namespace].owner or "here")
        return namespace in self.world.live

    # Strategies

    @rule(namespace=namespaces, these=changes)
    def change(self, namespace: str, these: list[Change | Block]) -> None:
        if self._live(namespace):
            for one in these:
                if not self.world.change(namespace, one):
                    break

    @rule(namespace=namespaces, count=st.integers(5, 40), size=st.sampled_from([10, 300]), churn=st.booleans())
    def burst(self, namespace: str, count: int, size: int, churn: bool) -> None:
        """Enough to fill segments; with `churn` of keys that come and go."""
        if not self._live(namespace):
            return
        for n in range(count):
            key, value = f"n{n}" if churn else f"k{n % 3}", f"{n}".ljust(size, ".")
            kind = "pop or" if churn and n % 2 else "put"
            if not self.world.change(namespace, Change(kind, "b", f"n{n - 1}" if kind == "pop or" else key, value)):
                return

    @rule(namespace=namespaces)
    def sync(self, namespace: str) -> None:
        if self._live(namespace):
            self.world.sync(namespace)

    @rule(namespace=namespaces)
    def flush(self, namespace: str) -> None:
        if self._live(namespace):
            self.world.flush(namespace)

    @rule(namespace=namespaces)
    def close(self, namespace: str) -> None:
        if self._live(namespace):
            self.world.close(namespace)

    @a_life("live")
    @rule(namespace=namespaces)
    def kill_worker(self, namespace: str) -> None:
        if namespace in self.world.live:
            self.world.kill_worker(namespace)

    @a_life("live")
    @rule(namespace=namespaces, calls=st.integers(0, 60))
    def kill_worker_soon(self, namespace: str, calls: int) -> None:
        if namespace in self.world.live:
            self.world.live[namespace].disk.calls_left = calls

    @rule(namespace=namespaces, these=troubles, calls=soon, cut=cuts)
    def reconnect(self, namespace: str, these: list[str], calls: int | None, cut: int | None) -> None:
        """A new life after a kill, on the same host, with troubles; it may be struck in the middle."""
        if namespace in self.world.live:
            self.world.refuse_second(namespace)
            self.world.kill_worker(namespace)
        self.world.connect(namespace, self.world.histories[namespace].owner or "here", False, these, calls)
        if namespace not in self.world.live:
            self._cut(self.world.histories[namespace].owner, cut)

    # Zombies

    @precondition(lambda self: self.world.persistence is not None and self.world.live and not self.world.zombies)
    @rule(namespace=namespaces, these=troubles)
    def take_over(self, namespace: str, these: list[str]) -> None:
        if namespace in self.world.live:
            self.world.take_over(namespace, [one for one in these if one != "killed"])

    @precondition(lambda self: self.world.persistence is not None and not self.world.zombies)
    @rule(namespace=namespaces, these=changes, those=changes, steps=steps)
    def there_and_back(
        self, namespace: str, these: list[Change | Block], those: list[Change | Block], steps: list[str]
    ) -> None:
        """The other host goes on from what was shipped; then the first one is back, with what it never shipped."""
        self.change(namespace, these)
        for more in (those, these):
            if namespace in self.world.live and self.world.persistence is not None:
                self.world.take_over(namespace, [])
                self.world.bury(self.world.zombies[0])
                self.change(namespace, more)
                self.work(namespace, steps)

    @a_life("zombies")
    @rule(index=indexes, these=st.lists(inside, max_size=3))
    def wake_zombie(self, index: int, these: list[Change | Block]) -> None:
        self.world.wake_zombie(index, these)

    @a_life("zombies")
    @rule(index=indexes)
    def kill_zombie(self, index: int) -> None:
        self.world.bury(self.world.zombies[index % len(self.world.zombies)])

    # The persistence process

    def _up(self) -> bool:
        if self.world.persistence is None:
            self.world.start_persistence()
        return self.world.persistence is not None

    @rule(namespace=namespaces, steps=steps)
    def work(self, namespace: str, steps: list[str]) -> None:
        """A pump and the persistence process take turns, as the scheduler likes."""
        if self._live(namespace) and self._up():
            for step in steps:
                if step in WEATHER:
                    getattr(self.world.network, step)(0)
                elif step != "pump":
                    self.world.at_server(getattr(Persistence, step))
                elif namespace in self.world.live:
                    self.world.step(namespace)

    @rule(namespace=namespaces, these=changes, steps=steps, then=st.sampled_from(["flush", "close", "kill", "cut"]))
    def change_and_work(self, namespace: str, these: list[Change | Block], steps: list[str], then: str) -> None:
        """Everything in one go, with a look at what came of it before anything else can mend it."""
        self.change(namespace, these)
        self.work(namespace, steps)
        if then == "cut":
            self.cut_power("here", len(these) + len(steps))
        elif then == "kill" and self.world.persistence is not None:
            self.world.kill_persistence()
        elif then != "kill" and namespace in self.world.live:
            getattr(self.world, then)(namespace)

    @rule(namespace=namespaces, these=changes)
    def change_away_from_persistence(self, namespace: str, these: list[Change | Block]) -> None:
        """The pump finds nobody: everything piles up in the outbox, and is folded there."""
        if self.world.persistence is not None:
            self.world.kill_persistence()
        self.burst(namespace, 15, 300, churn=True)
        self.change(namespace, these)
        for _ in range(3):
            if namespace in self.world.live:
                self.world.step(namespace)

    @a_life("persistence")
    @rule()
    def kill_persistence(self) -> None:
        self.world.kill_persistence()

    @a_life("persistence")
    @rule(calls=st.integers(0, 60))
    def kill_persistence_soon(self, calls: int) -> None:
        assert self.world.persistence is not None
        self.world.persistence.disk.calls_left = calls

    @a_life("persistence")
    @rule()
    def stop_persistence(self) -> None:
        self.world.stop_persistence()

    @precondition(lambda self: self.world.persistence is None)
    @rule(calls=soon, cut=cuts)
    def start_persistence(self, calls: int | None, cut: int | None) -> None:
        """It may be struck while it recovers."""
        self.world.start_persistence(calls)
        if self.world.persistence is None:
            self._cut("here", cut)

    def _cut(self, host: str, seed: int | None) -> None:
        if host and seed is not None:
            self.world.cut_power(host, random.Random(seed))

    # Network, time, power

    @rule(kind=st.sampled_from(WEATHER), index=indexes)
    def weather(self, kind: str, index: int) -> None:
        getattr(self.world.network, kind)(index)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)

    @rule(host=hosts, seed=seeds)
    def cut_power(self, host: str, seed: int) -> None:
        self.world.cut_power(host, random.Random(seed))

    @invariant()
    def maps_are_their_models(self) -> None:
        self.tally["steps"] = self.tally.get("steps", 0) + 1
        self.world.check()

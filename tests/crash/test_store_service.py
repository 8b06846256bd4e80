"""A real service with its threads, left at some of its calls: what was acknowledged comes back, as a prefix.

Every run is a seed; the calls at which the disk is left, what the bots do and what a cut leaves follow from it (how
the threads interleave does not).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from persistence_proc import checkpoints, journal, writer
from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access
from persistence_proc.service import Service
from tests.crash.store_history import Found, History, Kept, check, outcomes
from tests.crash.store_world import FOLDER, NAMESPACES
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk, Moment
from tests.persistence_proc.raw_session import open_request
from tests.waiting import wait_until

STEPS = 300
"""Calls to the disk in one run, about."""
MOMENTS = 10


@pytest.fixture(autouse=True)
def _everything_happens_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 16384)
    monkeypatch.setattr(writer, "ROTATE_BYTES", 4096)
    monkeypatch.setattr(checkpoints, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "REST_SHARE", 0.0)
    monkeypatch.setattr(checkpoints, "TRIM_INTERVAL", 0.0)


class Threaded:
    """A service on a memory disk, and some moments of it with what was acknowledged by then."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.histories = [History(name) for name in NAMESPACES]
        self.moments: list[tuple[Moment, list[Kept]]] = []
        self._disk, self._steps = MemoryDisk(), itertools.count()
        self._wanted = set(chance.sample(range(STEPS), MOMENTS))
        self._disk.on_call = self._on_call
        self.mailbox: Mailbox[object] = Mailbox()
        recovered = recover(self._disk, FOLDER)
        self.service = Service(
            self._disk, Paths(FOLDER), recovered, "i", Access(), self.mailbox, lambda address, parts: None
        )

    def _on_call(self, name: str, path: str) -> None:
        if next(self._steps) in self._wanted:
            kept = [history.kept for history in self.histories]  # first: it may grow at any time
            self.moments.append((self._disk.moment(), kept))

    def turn(self) -> None:
        for report in self.mailbox.take():
            self.service.note(report)
        self.service.turn()
        for history in self.histories:
            if history.name in self.service.store.namespaces:
                history.note(acknowledged=self.service.store.namespaces[history.name].durable)

    def live(self, changes: int) -> None:
        """Open, change, now and then wait for everything; then stop as the server does."""
        for history in self.histories:
            self.service.requests.handle(b"", "", open_request(history.name), self.service._clock())
        for _ in range(changes):
            history = self.chance.choice(self.histories)
            self.service.receive_delta(history.message(1, history.change(self.chance)), "")
            self.turn()
            if self.chance.random() < 0.1:
                wait_until(self._all_durable)
        wait_until(self._is_saved)

    def _all_durable(self) -> bool:
        self.turn()
        return all(history.kept.acknowledged == history.applied for history in self.histories)

    def _is_saved(self) -> bool:
        self.turn()
        self.service.checkpoints.step(self.service._clock(), hurry=True)
        return self.service.is_saved

    def stop(self) -> None:
        self.service.stop()
        self.mailbox.close()


def recovered(disk: MemoryDisk, world: Threaded, kept: list[Kept]) -> Found:
    """Recover: nothing refused, nothing acknowledged lost, and each namespace a prefix of what was done to it."""
    one = recover(disk, FOLDER)
    one.journal.close()
    found = outcomes(one)
    for history, told in zip(world.histories, kept, strict=True):
        check(history, told, found.get(history.name))
    return found


def recover_and_cut_again(disk: MemoryDisk, world: Threaded, kept: list[Kept]) -> Iterator[str]:
    """A recovery on `disk`, the power cut at one of its calls too, and what comes back then."""
    moments: list[Moment] = []
    steps, at = itertools.count(), world.chance.randrange(40)
    disk.on_call = lambda name, path: moments.append(disk.moment()) if next(steps) == at else None
    once = recovered(disk, world, kept)
    yield "recoveries"
    for moment in moments:
        recovered(moment.after_power_cut(world.chance), world, kept)
        yield "recoveries"
    disk.on_call = lambda name, path: None
    assert recovered(disk.moment().after_power_cut(world.chance), world, kept) == once, "twice is not once"
    yield "recoveries"


def test_kills_and_power_cuts_at_any_call_lose_nothing_acknowledged(lab: Effort) -> None:
    for seed in range(lab.pick(4, 60)):
        world = Threaded(lab.chance("service", seed))
        try:
            world.live(changes=100)
        finally:
            world.stop()
        lab.count("services with threads")
        for moment, kept in world.moments:
            lab.count("kills")
            lab.count("power cuts", lab.pick(3, 10))
            cuts = [moment.after_power_cut(world.chance) for _ in range(lab.pick(3, 10))]
            for left in (moment.after_kill(), *cuts):
                for what in recover_and_cut_again(left, world, kept):
                    lab.count(what)

"""An error at the N-th call of the disk, for every N, while an outbox starts, fills, syncs, folds and leaves.

What a put or a sync has said stays true through the error, a kill and a power cut behind it; what fails has a name.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from protocol.errors import OutboxFull, SyncFailed
from tests.crash.outbox_world import World, small_segments
from tests.lab.effort import Effort
from tests.lab.memory_disk import ShortWrite

__all__ = ["small_segments"]
pytestmark = pytest.mark.usefixtures("small_segments")

WRITES = ("write", "pwrite", "zero_fill")
ROOM = (*WRITES, "open", "mkdir", "preallocate", "map", "replace")
"""Calls that a full disk may refuse."""
LOOKS = ("read_file",)


class Fault:
    """Fails the N-th call that it concerns, once or from then on."""

    def __init__(self, kind: str, at: int, for_ever: bool) -> None:
        self.kind, self.at, self.for_ever = kind, at, for_ever
        self.seen = self.struck = 0

    def __repr__(self) -> str:
        return f"{self.kind} at call {self.at} {'and ever after' if self.for_ever else 'once'}"

    def __call__(self, name: str, path: str) -> None:
        if not self._concerns(name):
            return
        self.seen += 1
        if self.seen == self.at or (self.for_ever and self.seen > self.at):
            self.struck += 1
            raise self._error(name, path)

    def _concerns(self, name: str) -> bool:
        if self.kind == "EIO":
            return True
        return name in WRITES if self.kind == "short write" else name in ROOM

    def _error(self, name: str, path: str) -> OSError:
        if self.kind == "short write":
            return ShortWrite(errno.ENOSPC, 7)
        number = errno.EIO if self.kind == "EIO" else errno.ENOSPC
        return OSError(number, os.strerror(number), path)


KINDS = ("EIO", "ENOSPC", "short write")

Step = Callable[[World], None]


def put(world: World) -> None:
    before = world.returned, world.outbox and world.outbox.seq
    try:
        world.put(chance_size(world))
    except OutboxFull:
        assert (world.returned, world.outbox and world.outbox.seq) == before, "a refused put has been recorded"


def chance_size(world: World) -> int:
    return world.chance.choice((40, 700, 700, 1800))  # the last needs a segment of its own


def sync(world: World) -> None:
    with suppress(SyncFailed):
        world.sync()


WORK: dict[str, tuple[Step, ...]] = {
    "putting": (put,) * 8,
    "syncing": (put, sync, put, sync, put, put, put, sync, put, sync),
    "housekeeping": (put, put, put, World.maintain, put, put, World.acknowledge, put, sync, World.maintain, put),
    "recycling": (put, put, put, put, World.acknowledge, put, put, World.acknowledge, World.maintain, put, sync),
    "compaction": (World.compact, put, sync, put, put, World.compact, sync, put),
    "compaction of what a socket had": (put, put, World.ship, put, World.compact, World.acknowledge, put, sync),
    "sync first, then compaction": (put, sync, put, put, put, sync, World.compact, sync, put, sync),
}
"""Each goes on after an error, as a bot would."""


def faults() -> Iterator[tuple[str, bool]]:
    return itertools.product(KINDS, (False, True))


@pytest.mark.parametrize("work", WORK)
def test_an_error_at_any_call_makes_nothing_untrue(lab: Effort, work: str) -> None:
    for kind, for_ever in faults():
        for at in itertools.count(1):
            fault = Fault(kind, at, for_ever)
            world = World(lab.chance(kind, for_ever, at))
            world.start()
            world.before_call = fault
            explained(fault, lambda world=world: do(world, WORK[work]))  # type: ignore[misc]
            if not fault.struck:
                break
            lab.count("outbox faults")
            explained(fault, lambda world=world: read_back(lab, world))  # type: ignore[misc]


def do(world: World, steps: tuple[Step, ...]) -> None:
    for step in steps:
        with suppress(OutboxFull):
            step(world)


def read_back(lab: Effort, world: World) -> None:
    """P1 after a kill, P2 after a cut; then the disk is well again, and so is the outbox, in this life and the next."""
    leave(lab, world)
    world.before_call = lambda name, path: None
    sync(world)  # tells of what had failed before, once
    world.sync()
    assert world.synced == world.returned
    leave(lab, world)
    world.maintain()
    world.put(700)
    world.put(700)
    world.put(700)
    world.acknowledge()
    leave(lab, world)
    world.cut()
    world.put()
    leave(lab, world)


def leave(lab: Effort, world: World) -> None:
    moment = world.disk.moment()
    world.check(moment.after_kill(), power_cut=False)
    lab.count("outbox kills behind a fault")
    for left in moment.after_power_cuts(lab.pick(6, 60), world.chance):
        world.check(left, power_cut=True)
        lab.count("outbox power cuts behind a fault")


def explained(fault: Fault, work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        error.add_note(repr(fault))
        raise

"""An error at the N-th call of the disk, for every N, while an outbox starts, fills, syncs, folds and leaves.

What a put or a sync has said stays true through the error, and a kill or a power cut behind it; what fails has a name;
no file whose sync has failed is synced again; no descriptor is left open.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from protocol.errors import OutboxFull, SyncFailed
from tests.crash.outbox_world import BIG, SMALL, World, small_segments
from tests.faults.disk_faults import BROKEN, FAILED_SYNC, FULL, FULL_SHORT, Fault, Faults, WatchedDisk
from tests.lab.effort import Effort

__all__ = ["small_segments"]
pytestmark = pytest.mark.usefixtures("small_segments")

ROOM = {"preallocate", "map"}
FAULTS = [
    BROKEN._replace(kinds=BROKEN.kinds | ROOM | {"sync_map"}),
    FULL._replace(kinds=FULL.kinds | ROOM),
    FULL_SHORT,
    FAILED_SYNC._replace(kinds=FAILED_SYNC.kinds | {"sync_map"}),
]
HUGE = 1800  # bytes of a value that needs a segment of its own

Step = Callable[[World], None]


def put(world: World) -> None:
    before = world.returned, world.seq
    try:
        world.put(world.chance.choice((SMALL, BIG, BIG, HUGE)))
    except OutboxFull:
        assert (world.returned, world.seq) == before, "a refused put has been recorded"


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
    "compaction of what was synced": (put, sync, put, put, put, sync, World.compact, sync, put, sync),
}
"""Each goes on after an error, as a bot would."""


def each_fault(lab: Effort, begin: Callable[[World], None], work: Callable[[World], None]) -> Iterator[World]:
    """Worlds in which one call of `work`, each in its turn, has failed: once, for ever (far: and with the next one)."""
    for fault, times in itertools.product(FAULTS, lab.pick((1, None), (1, 2, None))):
        at = 0
        while True:
            faults = Faults(fault.lasting(times), ("main", at))
            world = World(lab.chance(fault.name, times, at), disk=WatchedDisk())
            begin(world)
            with explained(fault, times, at):
                world.before_call = faults
                work(world)
                world.before_call = lambda name, path: None
                if not faults.struck:
                    break
                lab.count("faults")
                yield world
            at = faults.struck[0].number + 1


@pytest.mark.parametrize("work", WORK)
def test_an_error_at_any_call_makes_nothing_untrue(lab: Effort, work: str) -> None:
    for world in each_fault(lab, World.start, lambda world: go_on(world, WORK[work])):
        disk = world.disk
        assert isinstance(disk, WatchedDisk)
        leave(lab, world)
        world.sync_twice()
        leave(lab, world)
        assert not disk.synced_again, "a file whose sync has failed was synced again"
        works_again(lab, world)


def go_on(world: World, steps: tuple[Step, ...]) -> None:
    for step in steps:
        with suppress(OutboxFull):
            step(world)


def works_again(lab: Effort, world: World) -> None:
    """The disk is well, and so is the outbox, in this life and the next."""
    world.maintain()
    for _ in range(3):
        world.put(BIG)
    world.acknowledge()
    leave(lab, world)
    world.close()
    world.cut()
    world.put()
    leave(lab, world)


def test_an_error_at_any_call_of_a_start_loses_nothing(lab: Effort) -> None:
    def begin(world: World) -> None:
        world.start()
        world.roll()
        world.put()
        world.sync()
        world.put()

    def work(world: World) -> None:
        with suppress(OSError):  # `connect` gives it a name
            world.kill()

    for world in each_fault(lab, begin, work):
        leave(lab, world)
        world.kill()
        works_again(lab, world)


def leave(lab: Effort, world: World) -> None:
    moment = world.disk.moment()
    world.check(moment.after_kill(), power_cut=False)
    lab.count("kills behind a fault")
    for left in moment.after_power_cuts(lab.pick(2, 30), world.chance):
        world.check(left, power_cut=True)
        lab.count("power cuts behind a fault")


@contextmanager
def explained(fault: Fault, times: int | None, at: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"{fault.lasting(times)}, from call {at} on")
        raise

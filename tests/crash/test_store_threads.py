"""The writer's work inside the saver's, at each of its calls; and what a segment that goes was still needed for."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

from tests.crash.store_judge import Judge
from tests.crash.store_world import FOLDER, Entropy, World, entropy, lived_in
from tests.lab.effort import Effort

__all__ = ["entropy"]

ACTS: dict[str, Callable[[World], object]] = {
    "a commit": lambda world: (world.insert(), world.commit()),
    "a batch in flight": lambda world: (world.insert(), world.service.turn()),
    "a drop in flight": lambda world: (world.drop(), world.service.turn()),
    "a drop": lambda world: (world.drop(), world.commit()),
    "a drop and another life": lambda world: (world.drop(), world.insert(), world.commit()),
    "a rotation": lambda world: world.rotate(),
    "a failed sync": lambda world: (world.fail_sync(), world.commit()),
}


def test_whatever_the_writer_does_at_any_call_of_a_save_no_cut_breaks_it(lab: Effort, entropy: Entropy) -> None:
    """Two generations, two segments, two namespaces; a save of a map that changes meanwhile."""

    def begin() -> World:
        world = lived_in(entropy, "both", "save", "transaction", "rotate", "save", "transaction")
        world.insert()
        world.service.turn(hurry=True)
        return world

    judge = Judge(lab, entropy, lab.pick(64, 4096))
    for act in ACTS.values():
        at_each_call(lab, judge, begin, act, World.save_while)


def test_a_drop_that_is_not_durable_still_needs_the_segments_of_its_map(lab: Effort, entropy: Entropy) -> None:
    """The cut brings the map back: what it needs must not have gone. Nor if the process ends before the drop lasts."""

    def save(world: World, at: int, act: Callable[[], object]) -> int:
        return world.save_beside_a_drop(world.drop, at, act)

    judge = Judge(lab, entropy, lab.pick(64, 4096))
    for act in (put_in_flight, put_in_flight_and_end):
        at_each_call(lab, judge, lambda: pinned_by_a_map_without_a_file(entropy), act, save)


def at_each_call(
    lab: Effort,
    judge: Judge,
    begin: Callable[[], World],
    act: Callable[[World], object],
    save: Callable[[World, int, Callable[[], object]], int],
) -> None:
    """The same save again and again, `act` before its first call, before its second and so on, and behind it."""
    for at in itertools.count(step=lab.pick(3, 1)):
        world = begin()
        judge.watch(world)
        calls = save(world, at, functools.partial(act, world))
        world.settle()
        judge.judge(world)
        lab.count("interleavings")
        if at >= calls:
            return


def test_segments_that_nothing_needs_go_one_after_the_other(lab: Effort, entropy: Entropy) -> None:
    """Two at once under one sync of the directory might leave the older: a hole in the journal."""
    judge = Judge(lab, entropy, lab.pick(64, 4096))
    world = lived_in(entropy, "insert", "rotate")
    world.rotate()
    assert len(world.writer.journal.segments) == 3
    judge.watch(world)
    world.do("save")
    world.do("save")
    judge.judge(world)
    assert len(world.writer.journal.segments) == 1


def pinned_by_a_map_without_a_file(entropy: Entropy) -> World:
    """Two segments, the first only for a map that no file holds: as soon as its drop lasts, the segment goes."""
    world = lived_in(entropy, "both", "rotate")
    for _ in range(2):
        world.save_beside_a_drop(world.insert)
    assert not world.disk.exists(f"{FOLDER}/bot")
    assert len(world.writer.journal.segments) == 2
    return world


def put_in_flight(world: World) -> None:
    """What waited for the batch in flight is sealed, and not yet written."""
    world.writer.work()
    world.service.turn()


def put_in_flight_and_end(world: World) -> None:
    put_in_flight(world)
    world.saver.hurry()

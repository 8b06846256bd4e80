"""The outbox on every disk that a kill or a power cut may leave, at each of its calls and behind each put.

P1: after a kill everything that returned is there. P2: after a cut everything that was synced. P3: what is there is
a first part of the changes, in order, and nothing of a lost future. P4: a record whole or not at all. And a crash is
never called damage.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from protocol.outbox_files import read_outbox
from tests.crash.outbox_world import FOLDER, World, boot_name, small_segments
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk
from tests.strategy_proc.outboxes import NAMESPACE

__all__ = ["small_segments"]
pytestmark = pytest.mark.usefixtures("small_segments")

STEPS = (
    "put", "transaction", "sync", "roll", "compact", "acknowledge", "lose", "ship", "keep", "forget", "maintain",
    "kill", "cut", "leave",
)  # fmt: skip


class Watch:
    """Leaves the disk at every instant, in as many ways as it is told."""

    def __init__(self, lab: Effort, chance: random.Random, cuts: int, next_lives: float = 0) -> None:
        self._lab, self._chance, self._cuts, self._next_lives = lab, chance, cuts, next_lives

    def __call__(self, world: World) -> None:
        moment = world.disk.moment()
        self._check(world, moment.after_kill(), power_cut=False)
        for left in moment.after_power_cuts(self._cuts, self._chance):
            self._check(world, left, power_cut=True)

    def _check(self, world: World, left: MemoryDisk, power_cut: bool) -> None:
        self._lab.count("outbox power cuts" if power_cut else "outbox kills")
        world.check(left, power_cut)
        if self._chance.random() < self._next_lives:
            self._live_on(world.fork(left), power_cut)

    def _live_on(self, world: World, power_cut: bool) -> None:
        """The next life, itself left at every instant; then loaded once more."""
        self._lab.count("outbox lives begun on a crash state")
        world.look = Watch(self._lab, self._chance, min(self._cuts, 10))
        world.live_again(world.disk, power_cut)
        world.put()
        world.look = None
        once = world.check(world.disk.moment().after_kill(), power_cut=False).records
        world.kill()
        twice = world.check(world.disk.moment().after_kill(), power_cut=False).records
        once = [r._replace(epoch=world.epoch) for r in once if r.seq > world.applied]
        assert once == twice, "loading twice is not loading once"


def run(world: World, steps: tuple[str, ...], watch: Watch) -> None:
    """All steps, and watch the last one: those before it are watched as the last of a shorter run."""
    if not steps:
        world.look = watch
    world.start()
    for number, step in enumerate(steps, 1):
        world.look = watch if number == len(steps) else None
        getattr(world, step)()
    watch(world)
    world.look = None


def runs(lab: Effort) -> Iterator[tuple[tuple[str, ...], bool]]:
    for length in range(1, lab.pick(2, 3) + 1):
        for steps in itertools.product(STEPS, repeat=length):
            either = lab.chance("busy", *steps).random() < 0.5
            for busy in lab.pick((either,), (False, True)):
                yield steps, busy


def test_the_first_start_can_be_cut_at_any_call(lab: Effort) -> None:
    run(World(lab.chance("world")), (), Watch(lab, lab.chance("cuts"), lab.pick(40, 1000), lab.pick(0.05, 0.1)))


def test_every_short_run_keeps_its_promises_wherever_it_is_left(lab: Effort) -> None:
    """All runs of up to three steps (near: two), alone or with another thread that puts at every call."""
    for steps, busy in runs(lab):
        chance = lab.chance(*steps, busy)
        watch = Watch(lab, chance, lab.pick(3, 6), lab.pick(0.002, 0.001))
        explained(World(chance, busy), steps, watch)
        lab.count("outbox runs")


def test_keeping_house_loses_nothing_that_was_synced_before(lab: Effort) -> None:
    """P2 while segments are folded, reused and replaced, or begun anew: with full ones that a sync has covered."""
    before = ("roll", "roll", "sync"), ("roll", "sync", "roll", "roll")
    for prefix, step, busy in itertools.product(before, STEPS, (False, True)):
        chance = lab.chance(*prefix, step, busy)
        steps = (*prefix, step)
        explained(World(chance, busy), steps, Watch(lab, chance, lab.pick(10, 150), lab.pick(0, 0.01)))
        lab.count("outbox runs")


def test_long_runs_by_chance_keep_their_promises_wherever_they_are_left(lab: Effort) -> None:
    for number in range(lab.pick(15, 400)):
        chance = lab.chance(number)
        steps = tuple(chance.choices(STEPS, k=chance.randint(3, 14)))
        explained(World(chance, busy=chance.random() < 0.5), steps, Watch(lab, chance, lab.pick(5, 12), 0.01))
        lab.count("outbox runs")


def explained(world: World, steps: tuple[str, ...], watch: Watch) -> None:
    try:
        run(world, steps, watch)
    except AssertionError as error:
        error.add_note(f"steps {steps}, {'with' if world.busy else 'without'} another thread")
        raise


def test_reading_changes_nothing(lab: Effort) -> None:
    """P6: what is looked at stays as it is, whoever looks (`outlive show` does, beside a live session)."""
    chance = lab.chance()
    world = World(chance)
    run(world, ("roll", "sync", "put", "kill", "transaction"), Watch(lab, chance, 1))
    for left in world.disk.moment().after_power_cuts(lab.pick(20, 200), chance):
        calls: list[str] = []
        left.on_call = lambda name, path, calls=calls: calls.append(name)  # type: ignore[misc]
        first = read_outbox(left, FOLDER, NAMESPACE, boot_name(2))
        assert first == read_outbox(left, FOLDER, NAMESPACE, boot_name(2))
        assert set(calls) == {"read_file"}

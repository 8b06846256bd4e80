"""Every short workload of the persistence process, left at every call to the disk in every way that a real one may be.

P2: what was acknowledged is there after any power cut. P3: each namespace is as after some prefix of its changes,
order included. P4: no half transaction. P6: nothing is refused or degraded for a mere cut or kill. P7: no epoch is
handed out twice. Recovering twice gives what recovering once does, and recovery itself is cut short as well.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from persistence_proc.recovery import recover
from tests.crash.store_judge import Judge, Lost
from tests.crash.store_world import FOLDER, Entropy, World, entropy, lived_in
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk

__all__ = ["entropy"]

CHANGES = ("insert", "replace", "delete", "clear", "drop", "transaction", "both", "reopen")
MAINTENANCE = ("save", "rotate", "fail_sync", "stop", "kill")
STEPS = CHANGES + MAINTENANCE


def run(steps: Sequence[str], judge: Judge, entropy: Entropy) -> None:
    """A new store, `steps`, and the last of them judged; without any, the store's creation is."""
    world = World(entropy)
    try:
        if steps:
            world = lived_in(entropy, *steps[:-1])
        judge.watch(world)
        world.do(steps[-1]) if steps else world.begin()
        assert world.failure is None, f"the writer gave up: {world.failure!r}"
        judge.judge(world)
    except (AssertionError, Lost) as error:
        error.add_note(f"steps: {', '.join(steps) or 'creation'}")
        raise


def test_every_workload_of_up_to_three_steps_loses_nothing_acknowledged(lab: Effort, entropy: Entropy) -> None:
    judge = Judge(lab, entropy, lab.pick(64, 4096))
    chance = lab.chance("workloads")
    for length in range(4):
        for steps in itertools.product(STEPS, repeat=length):
            if length < lab.pick(3, 4) or chance.random() < 0.01:
                run(steps, judge, entropy)
                lab.count("workloads")


LIVES = ((), ("insert",), ("both",), ("save",), ("rotate",), ("fail_sync",), ("transaction", "drop"), ("save", "save"),
         ("save", "rotate"), ("save", "drop"), ("drop", "stop"))  # fmt: skip


def test_a_recovery_cut_short_at_any_call_and_the_one_after_it_too_lose_nothing(lab: Effort, entropy: Entropy) -> None:
    """What is left of a workload is recovered, that is cut short at every call, recovered, and cut short again."""
    judge = Judge(lab, entropy, lab.pick(16, 512), lives=lab.pick(1, 2))
    for steps in LIVES[: lab.pick(5, len(LIVES))]:
        run(steps, judge, entropy)
        lab.count("workloads")


def test_two_failed_syncs_end_the_process_and_whatever_is_left_is_recovered(lab: Effort, entropy: Entropy) -> None:
    """The frame is read back after the kill, and may be gone after a cut: nothing that is derived from it may last
    longer than it does."""
    judge = Judge(lab, entropy, lab.pick(64, 4096), lives=lab.pick(1, 2))
    for steps in (("save",), ())[: lab.pick(1, 2)]:
        world = lived_in(entropy, *steps)
        judge.watch(world)
        world.failing_syncs = 2
        world.insert()
        world.commit()
        judge.judge(world)
        assert isinstance(world.failure, OSError)
        lab.count("workloads")


def test_at_rest_one_damaged_file_costs_nothing(lab: Effort, entropy: Entropy) -> None:
    """Behind every workload: a map's older generation and the journal still hold all of it."""
    for steps in itertools.product(STEPS, repeat=lab.pick(2, 3)):
        world = lived_in(entropy, *steps, "save")
        moment = world.disk.moment()
        for history in world.histories:
            for name, _ in history.kept.saved_twice:
                left = moment.after_kill()
                damage(left, f"/state/{history.name}/{name}.pkl")
                entropy.restart(b"damage")
                recovered = recover(left, FOLDER)
                assert not recovered.refused, recovered.refused
                assert recovered.maps[history.name, name].previous_used
                items = recovered.maps[history.name, name].items
                assert list(items.items()) == list(history.states[-1][name].items()), f"{steps}: {name} is not whole"
                lab.count("damaged files")


def damage(disk: MemoryDisk, path: str) -> None:
    fd = disk.open(path, os.O_RDWR)
    disk.pwrite(fd, b"\xff", 20)
    disk.close(fd)

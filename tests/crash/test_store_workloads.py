"""Every short workload of the persistence process, left at every call to the disk in every way that a real one may be.

P2: what was acknowledged is there after any power cut. P3: each namespace is as after some prefix of its changes,
order included. P4: no half transaction. P6: nothing is refused or degraded for a mere cut or kill. P7: no epoch is
handed out twice. Recovering twice gives what recovering once does, and recovery itself is cut short as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.crash.store_judge import Judge, Lost
from tests.crash.store_world import Entropy, World, entropy
from tests.lab.effort import Effort

__all__ = ["entropy"]

CHANGES = ("insert", "replace", "delete", "clear", "drop", "transaction", "both", "reopen")
MAINTENANCE = ("save", "rotate", "fail_sync", "stop", "kill")
STEPS = CHANGES + MAINTENANCE


def run(steps: Sequence[str], judge: Judge, entropy: Entropy) -> None:
    """A new store, `steps`, and the last of them judged; without any, the store's creation is."""
    world = World(entropy)
    try:
        if not steps:
            judge.watch(world)
        world.begin()
        for number, step in enumerate(steps, 1):
            if number == len(steps):
                judge.watch(world)
            getattr(world, step)()
            world.settle()
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
            if length < lab.pick(3, 4) or chance.random() < 0.02:
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

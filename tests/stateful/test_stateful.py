"""Any order of changes, kills, power cuts, lost messages and zombies, against plain dicts.

Promises P1 to P4 and P7, and what `state.recovered` says. One machine moves everything step by step in one thread, on
disks in memory; the other has pump threads, ZeroMQ, files and a persistence process that is really killed.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.lab.effort import Effort
from tests.stateful.changes import KEYS, Change
from tests.stateful.hosts import Clock
from tests.stateful.machine import OutliveMachine
from tests.stateful.real_machine import RealMachine
from tests.stateful.server import small_files
from tests.stateful.strategy import small_segments
from tests.stateful.world import World


def run(lab: Effort, machine: type[OutliveMachine | RealMachine], histories: int, steps: int) -> None:
    """Run a state machine and count what it did. The seed is hypothesis's own (`--hypothesis-seed`)."""
    machine.tally.clear()
    quiet = settings(
        max_examples=histories, stateful_step_count=steps, suppress_health_check=list(HealthCheck), database=None
    )
    assert issubclass(machine, RuleBasedStateMachine)
    run_state_machine_as_test(machine, settings=quiet)
    for what, number in machine.tally.items():
        lab.count(what, number)


def test_sessions_are_their_models_through_kills_and_power_cuts(lab: Effort) -> None:
    run(lab, OutliveMachine, lab.pick(40, 1200), lab.pick(40, 50))


def test_sessions_are_their_models_with_real_threads_sockets_and_processes(lab: Effort) -> None:
    run(lab, RealMachine, lab.pick(1, 10), lab.pick(15, 25))


def test_a_power_cut_at_any_call_of_a_start_loses_nothing_that_was_synced(lab: Effort) -> None:
    for calls in range(0, 45, lab.pick(3, 1)):
        for number in range(lab.pick(3, 40)):
            if not cut_a_start(calls, lab.chance(calls, number)):
                return  # it had connected by then: there is no later call
            lab.count("starts cut short")


def cut_a_start(calls: int, chance: random.Random) -> bool:
    """Three synced changes, a kill, and a start that ends with the power at a call of its disk. False: too late."""
    world = World(Clock())
    with small_files(), small_segments(world.clock):
        world.start_persistence()
        world.connect("bot", "here")
        for key in KEYS[:3]:
            world.change("bot", Change("put", "a", key, 1))
        world.sync("bot")
        world.kill_worker("bot")
        world.connect("bot", "here", calls=calls)
        cut = "bot" not in world.live
        world.cut_power("here", chance)
        world.start_persistence()
        world.connect("bot", "here")
        world.end()
    return cut

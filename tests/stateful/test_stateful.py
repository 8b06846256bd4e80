"""Any order of changes, kills, power cuts, lost messages and zombies, against plain dicts.

Promises P1 to P4 and P7, and what `state.recovered` says. One machine moves everything step by step in one thread, on
disks in memory; the other has pump threads, ZeroMQ, files and a persistence process that is really killed.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.lab.effort import Effort
from tests.stateful.machine import OutliveMachine
from tests.stateful.real_machine import RealMachine


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
    run(lab, OutliveMachine, lab.pick(40, 1000), lab.pick(40, 60))


def test_sessions_are_their_models_with_real_threads_sockets_and_processes(lab: Effort) -> None:
    run(lab, RealMachine, lab.pick(2, 20), lab.pick(12, 25))

"""Everything in one thread, moved step by step: any order of changes, kills, power cuts and lost messages.

Promises P1 to P4 and P7, and what `state.recovered` says.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lab.effort import Effort
from tests.stateful.machine import OutliveMachine


def test_sessions_are_their_models_through_kills_and_power_cuts(lab: Effort) -> None:
    OutliveMachine.tally = {}
    run_state_machine_as_test(
        OutliveMachine,
        settings=settings(
            settings.default,
            max_examples=lab.pick(60, 1500),
            stateful_step_count=lab.pick(40, 60),
            suppress_health_check=list(HealthCheck),
        ),
    )
    for what, number in OutliveMachine.tally.items():
        lab.count(what, number)

"""SIGHUP: take over a changed configuration, and touch only what changed.

A program that is new is started, one that is gone is stopped, one whose settings differ is restarted with the new
ones, and tried again at once if it was waiting for its next try. Every spare is renewed: a library may have changed.
What has the name or the namespace of another that is still leaving waits until that has left: a program that was
renamed, or two that have changed places.
What concerns everybody keeps its old settings until everything is started anew: strategies told of another data
directory would look for their state where nobody serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from supervisor.config import Config
from supervisor.lifecycle import Event, State
from supervisor.programs import Program
from supervisor.unit import Unit


def what_can_change(running: Config, wanted: Config) -> tuple[Config, list[str]]:
    """(`wanted` with the settings of `running` that concern everybody, a line for each of them that differs)."""
    shared = {name: getattr(running, name) for name in ("persistence", "supervisor", "restart")}
    notes = [
        f"the settings of {name} have changed: they take effect when everything is started anew"
        for name, settings in shared.items()
        if getattr(wanted, name) != settings
    ]
    return msgspec.structs.replace(wanted, **shared), notes


def take_over(
    stages: list[list[Unit]], wanted: list[list[Program]], make_unit: Callable[[Program], Unit], started: int
) -> list[str]:
    """Change `stages` (of which the first `started` run) into `wanted`; what was done, for people."""
    done: list[str] = []
    for number, (units, programs) in enumerate(zip(stages, wanted, strict=True)):
        known = {unit.program.name: unit for unit in units}
        for program in programs:
            unit = known.pop(program.name, None)
            if unit is None:
                units.append(make_unit(program))
                done.append(f"{program.name} is new")
                if number < started:
                    units[-1].happens(Event.START)
            elif unit.program != program or unit.retired:
                _change(unit, program)
                done.append(f"{program.name} has changed")
        for unit in units:
            unit.spare.renew()
        for name, unit in known.items():
            if not unit.retired:
                unit.retired = True
                unit.happens(Event.STOP)
                done.append(f"{name} is gone")
    return done or ["nothing has changed"]


def in_the_way(unit: Unit, units: Iterable[Unit]) -> Unit | None:
    """Who of `units` has a process that was started under the name or the namespace of `unit`."""
    name, namespace = unit.program.name, unit.program.namespace
    for other in units:
        has = other.runs_as
        if other is not unit and other.alive and (has.name == name or (namespace and has.namespace == namespace)):
            return other
    return None


def drop_retired(stages: list[list[Unit]]) -> None:
    """Forget those that are gone and have left."""
    for units in stages:
        for unit in [unit for unit in units if unit.retired and not unit.has_process]:
            unit.output.log.close()
            units.remove(unit)


def _change(unit: Unit, program: Program) -> None:
    """One that is still leaving comes back as what is wanted now: two of a name would be two owners of its state."""
    unit.program, unit.retired = program, False
    if unit.alive or unit.state in (State.BACKOFF, State.FATAL):
        unit.forgive()
        unit.happens(Event.RESTART)

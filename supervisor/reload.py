"""SIGHUP: take over a changed configuration, and touch only what changed.

A program that is new is started, one that is gone is stopped, one whose settings differ is restarted with the new
ones. Persistence keeps its old settings until everything is restarted: the strategies would lose it under way.
"""

from __future__ import annotations

from collections.abc import Callable

from supervisor.lifecycle import Event
from supervisor.programs import Program
from supervisor.unit import Unit


def take_over(
    stages: list[list[Unit]], wanted: list[list[Program]], make_unit: Callable[[Program], Unit], started: int
) -> list[str]:
    """Change `stages` (of which the first `started` run) into `wanted`; what was done, for people."""
    done: list[str] = []
    for number, (units, programs) in enumerate(zip(stages, wanted, strict=True)):
        known = {unit.program.name: unit for unit in units if not unit.retired}
        for program in programs:
            unit = known.pop(program.name, None)
            if unit is None:
                units.append(make_unit(program))
                done.append(f"{program.name} is new")
                if number < started:
                    units[-1].happens(Event.START)
            elif unit.program != program:
                done.append(_change(unit, program))
        for name, unit in known.items():
            unit.retired = True
            unit.happens(Event.STOP)
            done.append(f"{name} is gone")
    return done or ["nothing has changed"]


def drop_retired(stages: list[list[Unit]]) -> None:
    """Forget those that are gone and have left."""
    for units in stages:
        for unit in [unit for unit in units if unit.retired and not unit.alive]:
            unit.output.log.close()
            units.remove(unit)


def _change(unit: Unit, program: Program) -> str:
    if program.kind == "persistence":
        return "the settings of persistence have changed: they take effect when everything is started anew"
    unit.program = program
    if unit.alive:
        unit.happens(Event.RESTART)
    return f"{program.name} has changed"

"""What a person may ask of one program over the control socket."""

from __future__ import annotations

from supervisor.config import PERSISTENCE
from supervisor.control import Answer, Done, Refused
from supervisor.lifecycle import Event
from supervisor.unit import Unit


def order(unit: Unit, verb: str, stopping: bool) -> Answer:
    """Do what is asked of one program, if it can be; `stopping`: everything is on its way out."""
    name = unit.program.name
    if stopping:
        return Refused(message="everything is being stopped")
    if verb == "kill":
        if not unit.alive:
            return Refused(message=f"{name} is {unit.state}, there is nothing to kill")
        unit.happens(Event.KILL)
    elif unit.retired:
        return Refused(message=f"{name} is no longer in the configuration, and is leaving")
    elif verb == "stop":
        if name == PERSISTENCE:
            return Refused(message="the strategies need persistence; stop everything, or restart it")
        unit.happens(Event.STOP)
    else:
        unit.forgive()
        unit.happens(Event.RESTART)
    return Done(message=f"{name}: {unit.state}")

"""What is told of everything that happens: lines for people, events for machines, the newest few for `outlive status`.

The supervisor's own log (outlive.log) has every line; a program's log has those that concern it; the console all.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable

from supervisor.config import SUPERVISOR, Config
from supervisor.console import Console
from supervisor.control import Happening
from supervisor.events import FILE_NAME, Event, code_and_signal, encode, event_name, iso
from supervisor.lifecycle import State
from supervisor.log_files import LogFile
from supervisor.unit import Unit

_HAPPENINGS = 500


class Chronicle:
    """The loop's. `offer` is handed each event, for hooks."""

    def __init__(self, config: Config, console: Console, offer: Callable[[Event], None]) -> None:
        settings = config.supervisor
        self._console, self._offer = console, offer
        self._log = LogFile(log_path(config, SUPERVISOR), settings.log_bytes, settings.log_files)
        self._events = LogFile(os.path.join(config.log_dir, FILE_NAME), settings.log_bytes, settings.log_files)
        self.happenings: collections.deque[Happening] = collections.deque(maxlen=_HAPPENINGS)
        self._number = 0
        self._persistence_died = False

    def report(self, unit: Unit, what: str, detail: str) -> None:
        """Something happened to a program."""
        program, pid = unit.program, unit.child.pid if unit.child else None
        code, by_signal = code_and_signal(unit.last_exit if what == "ended" else None)
        event = self._event(
            event=event_name(what, unit.starts),
            name=program.name,
            kind=program.kind,
            pid=pid,
            code=code,
            signal=by_signal,
            reason=unit.last_reason if what == "started" else "",
            detail=detail,
        )
        self.happenings.append(
            Happening(number=event.number, ts=event.ts, name=program.name, what=what, pid=pid, detail=detail)
        )
        line = f"{program.name} {what}{f' (pid {pid})' if pid else ''}{f': {detail}' if detail else ''}"
        unit.output.say(line)
        self.say(line)
        self._tell(event)
        if program.kind == "persistence" and what == "ended" and unit.state not in (State.STOPPING, State.RESTARTING):
            self._persistence_died = True
            self.note("persistence-down", f"the persistence process has died: {detail}", program.name, program.kind)
        if program.kind == "persistence" and what == "ready" and self._persistence_died:
            self._persistence_died = False
            self.note("persistence-up", "the persistence process is back", program.name, program.kind)

    def note(self, event: str, line: str, name: str = SUPERVISOR, kind: str = "supervisor") -> None:
        """Something that concerns the supervisor itself, or a program from outside."""
        self.say(line)
        self._tell(self._event(event=event, name=name, kind=kind, detail=line))

    def say(self, line: str) -> None:
        """For people only."""
        self._log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n".encode())
        self._console.line(SUPERVISOR, line)

    def close(self) -> None:
        self._log.close()
        self._events.close()

    def _event(self, **fields: object) -> Event:
        self._number += 1
        ts = time.time_ns()
        return Event(v=1, number=self._number, ts=ts, time=iso(ts), supervisor=os.getpid(), **fields)  # type: ignore[arg-type]

    def _tell(self, event: Event) -> None:
        self._events.write(encode(event))
        self._offer(event)


def log_path(config: Config, name: str) -> str:
    return os.path.join(config.log_dir, f"{name}.log")

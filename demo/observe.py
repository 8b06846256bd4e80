"""What can be seen of a run from outside: supervisor, persistence process and exchange, asked a few times a second."""

from __future__ import annotations

from typing import NamedTuple

from demo.bot import STRATEGIES
from demo.messages import Books
from demo.scene import Scene
from protocol.messages import StatusReport
from supervisor.control import SupervisorStatus
from supervisor.status_view import persistence_report

_PATIENCE = 0.2  # seconds for the persistence process; it may have been killed a moment ago


class Totals(NamedTuple):
    """Counters of the persistence process, over all its lives."""

    commits: int = 0
    saves: int = 0
    received: int = 0
    coalesced: int = 0

    def plus(self, other: Totals) -> Totals:
        return Totals(*(a + b for a, b in zip(self, other, strict=True)))


class Sight(NamedTuple):
    """One look."""

    status: SupervisorStatus | None
    report: StatusReport | None
    """None while the persistence process does not answer."""
    totals: Totals
    books: dict[str, Books]

    @property
    def finished(self) -> bool:
        """Both replays are over, and the persistence process is there."""
        if self.status is None:
            return False
        programs = self.status.programs
        strategies = [program for program in programs if program.name in STRATEGIES]
        persistence = [program for program in programs if program.name not in STRATEGIES]
        over = all(program.state == "done" for program in strategies)
        return over and all(program.state == "running" for program in persistence)


class Observer:
    """Looks, and adds up what a killed persistence process had counted (as far as it was seen)."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._lives: dict[str, Totals] = {}

    def look(self) -> Sight:
        status = self._scene.status()
        report = persistence_report(status, _PATIENCE) if status is not None else None
        if report is not None:
            self._lives[report.instance] = _counted(report)
        totals = Totals()
        for life in self._lives.values():
            totals = totals.plus(life)
        books = {name: self._scene.venue(name).statement() for name in STRATEGIES}
        return Sight(status, report, totals, books)


def _counted(report: StatusReport) -> Totals:
    return Totals(
        report.commits,
        report.saves,
        sum(namespace.received for namespace in report.namespaces),
        sum(namespace.coalesced for namespace in report.namespaces),
    )

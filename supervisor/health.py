"""Ask the persistence process how it is, now and then: what is known only to itself is worth an event.

* A thread of its own asks: an answer may take long or never come. It asks a process that it can reach, and nothing
  it learns changes what the supervisor does; a person is told.
* Silence counts only of a process that has answered before: before that it is starting, and says so itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple

import zmq

from protocol.curve import CurveKeys
from protocol.disk import check_private
from protocol.endpoints import parse_endpoint, read_endpoint_file
from protocol.errors import OutliveError
from protocol.messages import NamespaceStatus, Status, StatusReport
from protocol.requests import RequestClient
from supervisor.config import PersistenceSettings

_FIRST, _EVERY = 1.0, 5.0
"""Seconds until the first question, and between questions."""
_PATIENCE = 2.0
"""Seconds for an answer."""
_SILENT = 3
"""Questions in a row without an answer: a process that is restarted meanwhile is back before."""


class Finding(NamedTuple):
    """An event of the program or namespace `name`."""

    event: str
    name: str
    kind: str
    line: str


class Health:
    """Owns its thread."""

    def __init__(self, settings: PersistenceSettings) -> None:
        self._settings = settings
        self._judge = Judge()
        self._found: SimpleQueue[Finding] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def findings(self) -> Iterator[Finding]:
        """What was found since the last call."""
        while not self._found.empty():
            yield self._found.get()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(2 * _PATIENCE)

    def _work(self) -> None:
        settings, pause = self._settings, _FIRST
        while not self._ending.wait(pause):
            pause = _EVERY
            report = ask_persistence(settings.data_dir, settings.endpoint, settings.curve_dir, _PATIENCE)
            for finding in self._judge.learn(report):
                self._found.put(finding)


class Judge:
    """What one answer after the other means. Each thing is found once."""

    def __init__(self) -> None:
        self._silent: int | None = None  # None: it has never answered
        self._known: set[tuple[str, str]] = set()
        self._disk_full = False

    def learn(self, report: StatusReport | None) -> Iterator[Finding]:
        if report is None:
            if self._silent is not None:
                self._silent += 1
            if self._silent == _SILENT:
                line = f"the persistence process does not answer, {_SILENT} times in a row"
                yield Finding("persistence-down", "persistence", "persistence", line)
            return
        if self._silent is not None and self._silent >= _SILENT:
            yield Finding("persistence-up", "persistence", "persistence", "the persistence process answers again")
        self._silent = 0
        for namespace in report.namespaces:
            line = _what_is_wrong(namespace)
            if line and (namespace.name, line) not in self._known:
                self._known.add((namespace.name, line))
                yield Finding("degraded", namespace.name, "namespace", line)
        if report.state == "disk_full" and not self._disk_full:
            yield Finding("disk-full", "persistence", "persistence", "the disk is full: nothing becomes durable")
        self._disk_full = report.state == "disk_full"


def ask_persistence(data_dir: str, endpoint: str | None, curve_dir: str | None, timeout: float) -> StatusReport | None:
    """Its own report, or None when it does not answer."""
    try:
        found = read_endpoint_file(data_dir)
        address = endpoint or (found.address if found else None)
        if address is None:
            return None
        endpoint_there = parse_endpoint(address)
        if endpoint_there.directory is not None:
            check_private(endpoint_there.directory)
        keys = CurveKeys(curve_dir) if curve_dir is not None else None
        with zmq.Context() as context:
            client = RequestClient(context, endpoint_there, keys)
            try:
                answer = client.ask(Status(), timeout)
            finally:
                client.abandon()
    except (OutliveError, OSError, ValueError, zmq.ZMQError):
        return None
    return answer[0] if answer is not None and isinstance(answer[0], StatusReport) else None


def _what_is_wrong(namespace: NamespaceStatus) -> str:
    if namespace.refused:
        return f"the state of {namespace.name} is refused: {namespace.refused}"
    if not namespace.degraded:
        return ""
    maps = ", ".join(namespace.degraded)
    return f"{namespace.name} came back degraded: the generation before was used for {maps}; nothing is lost"

"""What people are told: the status report, and malformed messages once per peer and minute."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

from persistence_proc.service import Service
from protocol.errors import MalformedMessage
from protocol.messages import StatusReport

log = logging.getLogger("persistence")

_LOG_INTERVAL = 60.0  # seconds between two lines about one peer
_MAX_PEERS = 1000  # remembered; a stranger must not grow our memory


class Malformed:
    """Counts malformed messages."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._logged: dict[str, float] = {}

    def count(self, peer: str, error: MalformedMessage) -> None:
        """One more, from `peer`."""
        self.total += 1
        now = self._clock()
        if now - self._logged.get(peer, -_LOG_INTERVAL) >= _LOG_INTERVAL:
            if len(self._logged) >= _MAX_PEERS:
                self._logged.clear()
            self._logged[peer] = now
            log.warning("malformed message from %s, ignored: %s", peer, error)


def status_report(
    service: Service | None, instance: str, data_dir: str, started: float, stopping: bool, malformed: int
) -> StatusReport:
    """How the process is. `service` is None while recovering; `started` in monotonic seconds."""
    now = time.monotonic()
    store = service.store if service else None
    lags = sorted(store.lags) if store else []
    times = tuple(service.writer.times) if service else ()  # in one step: the writer goes on
    return StatusReport(
        instance=instance,
        pid=os.getpid(),
        data_dir=data_dir,
        state=_state(service, stopping),
        uptime=now - started,
        lsn=store.last_lsn if store else 0,
        commits=store.commits if store else 0,
        saves=store.saves if store else 0,
        journal_bytes=service.writer.journal.total_bytes if service else 0,
        lag_last=store.lags[-1] if store and store.lags else 0.0,
        lag_p99=_p99(lags),
        fsync_last=times[-1] if times else 0.0,
        fsync_p99=_p99(sorted(times)),
        disk_free=_disk_free(data_dir),
        unsaved=service.checkpoints.unsaved if service else 0,
        failed_saves=service.checkpoints.failures if service else 0,
        stale_refused=store.stale_refused if store else 0,
        malformed=malformed,
        namespaces=[store.report(n, now) for n in store.namespaces.values()] if store else [],
    )


def _p99(ascending: Sequence[float]) -> float:
    return ascending[int(0.99 * (len(ascending) - 1))] if ascending else 0.0


def _disk_free(path: str) -> int:
    """-1 where the system does not tell."""
    try:
        found = os.statvfs(path)
    except OSError:
        return -1
    return found.f_bavail * found.f_frsize


def _state(service: Service | None, stopping: bool) -> str:
    if service is None:
        return "recovering"
    if service.disk_full is not None:
        return "disk_full"
    return "stopping" if stopping else "serving"

"""A recovered store being served: what the loop does with messages and reports, without knowing sockets or signals.

* Deltas are applied at once; a batch is sealed whenever the writer is idle and something is pending.
* A save may begin only right after a seal, or when nothing is pending: then memory equals a sealed batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from persistence_proc.catalog import Books, Catalog
from persistence_proc.checkpointer import Checkpointer, Removed, SaveAbandoned, Saved
from persistence_proc.checkpoints import Checkpoints
from persistence_proc.mailbox import Mailbox
from persistence_proc.map_state import MapState
from persistence_proc.namespaces import Namespace
from persistence_proc.paths import Paths
from persistence_proc.recovery import Recovered
from persistence_proc.requests import Requests
from persistence_proc.security import Access
from persistence_proc.store import Store
from persistence_proc.writer import DiskFull, Idle, Writer, WriterFailed, Written
from protocol.disk import Disk
from protocol.errors import OutliveError
from protocol.messages import decode_delta

log = logging.getLogger("persistence")

MAX_FAILED_SAVES = 5
"""At the end: then the process leaves with an error; the journal holds everything."""


class CannotKeep(OutliveError):
    """Raised when nothing can be made durable any more: the process ends, the outboxes still hold everything."""


class Service:
    """One store and its threads. `clock` in monotonic seconds."""

    def __init__(
        self,
        disk: Disk,
        paths: Paths,
        recovered: Recovered,
        instance: str,
        access: Access,
        mailbox: Mailbox[object],
        send: Callable[[bytes, list[bytes]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = _store_of(recovered)
        self._access, self._clock = access, clock
        self.writer = Writer(disk, paths.journal, recovered.store_id, recovered.journal, _books_of(recovered), mailbox)
        self._checkpointer = Checkpointer(disk, paths, recovered.store_id, mailbox)
        self._checkpointer.durable(self.store.last_lsn)
        self.checkpoints = Checkpoints(self.store, self.writer, self._checkpointer)
        self.checkpoints.note_changed(key for key, one in recovered.maps.items() if one.needs_save)
        self.requests = Requests(self.store, instance, access, send)
        self.disk_full: OSError | None = None
        self.writer.start()
        self._checkpointer.start()
        self._checkpointer.do(lambda: self.writer.journal.prepare_spare())

    # Messages

    def receive_delta(self, parts: Sequence[bytes], user: str) -> None:
        """Apply one delta message, whole or not at all. Raises `MalformedMessage`."""
        delta = decode_delta(parts[0])
        namespace = self.store.namespaces.get(delta.namespace)
        if (
            namespace is None or namespace.refused or not self._access.allows(user, delta.namespace)
            or not namespace.is_session(delta.epoch, delta.identity)
        ):  # fmt: skip
            self.store.stale_refused += 1
            return
        namespace.receive(delta, parts[1:], self.store.pending, self._clock(), time.time_ns())
        self.store.stirred.add(delta.namespace)

    # Reports of the threads

    def note(self, report: object) -> None:
        """Raises `CannotKeep` when the writer has given up."""
        match report:
            case Written():
                self._written(report)
            case Idle():
                self._checkpointer.durable(report.last_lsn)  # a rotation's catalog is synced, and counts as an LSN
                self.store.idle(report)
                if report.rotated:
                    self.checkpoints.rotated()
            case DiskFull():
                if self.disk_full is None:
                    log.error("disk full, nothing is acknowledged until there is space: %s", report.error)
                self.disk_full = report.error
            case Saved():
                if report.error is not None and not isinstance(report.error, SaveAbandoned):
                    log.warning("%s/%s could not be saved: %s", *report.job.key, report.error)
                self.checkpoints.finished(report, self._clock())
            case Removed():
                self.store.removing.subtract(namespace for namespace, _ in report.keys)
            case WriterFailed():
                raise CannotKeep(f"the journal can't be written any more: {report.error!r}") from report.error

    def _written(self, report: Written) -> None:
        if report.lsn != report.batch.lsn:
            log.error("a sync of the journal failed; going on in a new segment from LSN %d", report.batch.lsn)
        if self.disk_full is not None:
            log.info("there is space again")
            self.disk_full = None
        self.store.written(report, self._clock())
        self._checkpointer.durable(report.lsn)

    # The turns of the loop

    def turn(self, hurry: bool = False) -> None:
        """Seal, save, answer: whatever can be done now."""
        now = self._clock()
        self._seal()
        self.checkpoints.step(now, hurry)
        self.requests.answer(now)
        self._seal()  # a close may have made something pending
        self.checkpoints.merge()

    def _seal(self) -> None:
        if self.store.pending and self.store.in_flight is None:
            batch = self.store.seal()
            if batch.dropped:
                self._checkpointer.remove(batch.dropped, batch.lsn)
            self.checkpoints.note_changed(batch.changed)
            self.writer.write(batch)

    def wait(self) -> float | None:
        """Seconds until `turn` has something to do without any message; None: never."""
        if self.checkpoints.is_merging:
            return 0.0
        now = self._clock()
        waits = [w for w in (self.requests.wait(now), self.checkpoints.wait(now)) if w is not None]
        return min(waits, default=None)

    # The end

    @property
    def is_saved(self) -> bool:
        """Whether everything applied is durable, and every map's file is fresh."""
        store = self.store
        return not store.pending and store.in_flight is None and self.checkpoints.is_clean

    @property
    def gives_up(self) -> bool:
        """Whether saving fails again and again."""
        return self.checkpoints.failures >= MAX_FAILED_SAVES

    def stop(self) -> None:
        """Give everybody a last word, and end the threads."""
        self.requests.answer(self._clock(), last_word=True)
        self._checkpointer.stop()
        self.writer.stop()


def _store_of(recovered: Recovered) -> Store:
    store = Store(recovered.store_id, recovered.next_lsn - 1)
    for entry in recovered.namespaces.values():
        store.add(Namespace(entry))
    for (namespace, name), one in recovered.maps.items():
        state = store.namespaces[namespace].maps[name] = MapState(one.entry, one.items)
        state.previous_used = one.previous_used
    for namespace, reason in recovered.refused.items():
        store.namespaces[namespace].refused = reason
    for carried in recovered.refused_maps.values():
        store.namespaces[carried.namespace].carried.append(carried)
    return store


def _books_of(recovered: Recovered) -> Books:
    maps = [one.entry for one in recovered.maps.values()] + list(recovered.refused_maps.values())
    return Books(Catalog(recovered.store_id, list(recovered.namespaces.values()), maps, recovered.dropped))

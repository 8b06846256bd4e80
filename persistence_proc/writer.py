"""The writer thread: one sealed batch at a time becomes one frame, is synced, and only then reported.

* The next batch is sealed when this one is reported, so everything that arrives meanwhile is one commit.
* Full disk: the batch is kept and tried again; nothing is acknowledged, and workers go on.
* A failed sync is never retried on that file. The segment ends before the frame that failed: a new segment begins
  with a catalog under that frame's LSN, and the batch follows it. If that fails too, the process has to end.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import NamedTuple

from persistence_proc.catalog import Books, Commit, Generation, MapKey
from persistence_proc.journal import SEGMENT_BYTES, Journal
from persistence_proc.mailbox import Mailbox
from protocol.disk import Disk

ROTATE_BYTES = SEGMENT_BYTES * 3 // 4  # the rest is room for the frames of a burst
ROTATE_CATALOGS = 2  # a catalog of 100,000 maps fills a segment: then commits of its size come before the next
RETRY_SECONDS = 0.2  # on a full disk
TIMES_KEPT = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk, of a quota, of RLIMIT_FSIZE


class Batch(NamedTuple):
    """A sealed commit, and what the server wants to know again when it is durable."""

    lsn: int
    commit: Commit
    saves: list[tuple[MapKey, int, Generation]]
    """(map, incarnation, generation) of the files saved since the last batch, for the next catalog."""
    marks: dict[str, tuple[int, int]]
    """Namespace -> (epoch, applied) after it."""
    changed: list[MapKey]
    dropped: list[MapKey]
    needs: int
    """Oldest LSN that the dropped maps need until it is durable."""
    since: float
    """Monotonic arrival of its oldest change."""


class Written(NamedTuple):
    """The batch is durable under `lsn`; that is not `batch.lsn` if the segment had to be left."""

    batch: Batch
    lsn: int


class Idle(NamedTuple):
    """The writer can take the next batch, with LSN `last_lsn` + 1."""

    last_lsn: int
    rotated: bool
    written_bytes: int
    """Of frames, since the process started."""


class DiskFull(NamedTuple):
    """The batch is kept, and will be tried again."""

    error: OSError


class WriterFailed(NamedTuple):
    """Nothing can be made durable any more."""

    error: BaseException


WriterReport = Written | Idle | DiskFull | WriterFailed


class Writer:
    """Owns its thread and the journal. Reports go to the mailbox."""

    def __init__(
        self,
        disk: Disk,
        folder: str,
        store_id: bytes,
        journal: Journal,
        books: Books,
        mailbox: Mailbox[object],
    ) -> None:
        self.journal = journal
        self._disk, self._folder, self._store_id = disk, folder, store_id
        self._books = books
        self._mailbox = mailbox
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._written_bytes = 0
        self.times: deque[float] = deque(maxlen=TIMES_KEPT)
        """Seconds that each of the newest batches took to append and sync; read by others as a whole."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Hand over a batch; the one before must have been reported `Idle`."""
        self._batches.put(batch)

    def stop(self) -> None:
        """End the thread, giving up a batch that waits for space, and close the journal."""
        self._stopping.set()
        self._batches.put(None)
        self._thread.join()
        self.journal.close()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                lsn = self._commit(batch)
                self._mailbox.post(Written(batch, lsn))
                last = self._rotate_if_full(lsn)
                self._mailbox.post(Idle(last, last > lsn, self._written_bytes))
            except Exception as error:  # whatever it is: nothing may be acknowledged any more
                self._mailbox.post(WriterFailed(error))
                return

    def _commit(self, batch: Batch) -> int:
        lsn, began = batch.lsn, time.monotonic()
        for key, incarnation, generation in batch.saves:
            self._note_saved(key, incarnation, generation)
        try:
            self._append(lsn, batch.commit)
            self.journal.sync()
        except OSError as error:
            if self._stopping.is_set():
                raise
            lsn = self._leave_segment(lsn, batch.commit, error)
        self.times.append(time.monotonic() - began)
        self._books.apply(lsn, batch.commit)
        return lsn

    def _append(self, lsn: int, commit: Commit) -> None:
        while True:
            try:
                before = self.journal.used
                self.journal.append(lsn, commit)
                self._written_bytes += self.journal.used - before
                return
            except OSError as error:
                if error.errno not in _FULL or self.journal.poisoned:
                    raise
                self._mailbox.post(DiskFull(error))
                if self._stopping.wait(RETRY_SECONDS):
                    raise

    def _leave_segment(self, lsn: int, commit: Commit, cause: OSError) -> int:
        """Begin a new segment at the LSN that failed, and write the batch there. Raises OSError."""
        self.journal.close()
        try:
            catalog = self._books.catalog(self._store_id)
            self.journal = Journal.start(self._disk, self._folder, self._store_id, catalog, lsn)
            self.journal.append(lsn + 1, commit)
            self.journal.sync()
        except OSError as error:
            raise error from cause
        return lsn + 1

    def _rotate_if_full(self, lsn: int) -> int:
        if self.journal.used <= max(ROTATE_BYTES, ROTATE_CATALOGS * self.journal.catalog_bytes):
            return lsn
        try:
            self.journal.rotate(lsn + 1, self._books.catalog(self._store_id))
        except OSError:
            if self.journal.poisoned:
                raise
            return lsn  # no room for a segment: the present one goes on, and grows
        return lsn + 1

    def _note_saved(self, key: MapKey, incarnation: int, generation: Generation) -> None:
        entry = self._books.maps.get(key)
        if entry is not None and entry.incarnation == incarnation:
            entry.previous, entry.current = entry.current, generation

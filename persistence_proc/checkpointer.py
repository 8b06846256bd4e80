"""The checkpointer thread: saves one frozen map at a time, and does the journal's housekeeping.

* A save belongs to a sealed batch; its file gets its name only after that batch's sync has returned (`durable`).
* Jobs are done in order, so the files of a dropped map are gone before its successor's first save begins.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from persistence_proc.catalog import MapKey
from persistence_proc.mailbox import Mailbox
from persistence_proc.map_state import MapState
from persistence_proc.paths import Paths
from persistence_proc.pickle_file import SavedFile, Trailer, save_map
from protocol.disk import Disk
from protocol.errors import OutliveError

log = logging.getLogger("persistence")

WORTH_A_REST, LONGEST_REST = 0.0005, 0.05  # seconds for a piece of a file, and between two


class SaveJob(NamedTuple):
    """Save `items` (frozen) as of the sealed batch `lsn`."""

    key: MapKey
    state: MapState
    items: dict[bytes, bytes]
    incarnation: int
    lsn: int


class Saved(NamedTuple):
    """How a `SaveJob` went: the file, or the error. Seconds of work, without rests and the wait for the batch."""

    job: SaveJob
    file: SavedFile | None
    error: Exception | None
    seconds: float


class Removed(NamedTuple):
    """The files of these dropped maps are gone."""

    keys: list[MapKey]


class SaveAbandoned(OutliveError):
    """Raised inside a save whose map was dropped, or whose process is ending; its file never gets a name."""


class Checkpointer:
    """Owns its thread. Results go to the mailbox as `Saved` and `Removed`."""

    def __init__(self, disk: Disk, paths: Paths, store_id: bytes, mailbox: Mailbox[object]) -> None:
        self._disk, self._paths, self._store_id = disk, paths, store_id
        self._mailbox = mailbox
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._durable = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._folders: set[str] = set()
        self._waited = self._piece_began = 0.0
        self.rests = True
        """Whether a save leaves time to others between the pieces of its file."""
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits for nothing, give up the rest, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._jobs.put(None)
        self._thread.join()

    def durable(self, lsn: int) -> None:
        """Batches up to `lsn` are durable; saves that wait for it go on."""
        with self._changed:
            self._durable = lsn
            self._changed.notify_all()

    # Jobs

    def save(self, job: SaveJob) -> None:
        self._jobs.put(lambda: self._save(job))

    def remove(self, keys: list[MapKey], lsn: int) -> None:
        """Delete the files of dropped maps, once the drop in batch `lsn` is durable; then report `Removed`."""
        self._jobs.put(lambda: self._remove(keys, lsn))

    def do(self, work: Callable[[], None]) -> None:
        """Housekeeping of the journal; a failure is not serious, it will be asked for again."""
        self._jobs.put(work)

    def _run(self) -> None:
        while (work := self._jobs.get()) is not None:
            try:
                work()
            except Exception as error:  # whatever it is: a thread that is silently gone would save nothing any more
                log.warning("housekeeping failed: %r", error)

    def _save(self, job: SaveJob) -> None:
        began = self._piece_began = time.monotonic()
        self._waited = 0.0
        file, error = None, None
        try:
            file = self._save_file(job)
        except Exception as caught:
            error = caught.with_traceback(None)  # its frames hold the map, and this one would hold it: a cycle
            self._folders.clear()  # perhaps a person moved them
        self._mailbox.post(Saved(job, file, error, time.monotonic() - began - self._waited))

    def _save_file(self, job: SaveJob) -> SavedFile:
        namespace, name = job.key
        folder = self._paths.namespace(namespace)
        if folder not in self._folders:
            self._disk.mkdir(folder)
            self._disk.fsync_dir(self._paths.data_dir)
            self._folders.add(folder)
        trailer = Trailer(self._store_id, namespace, name, job.incarnation, job.lsn)
        return save_map(
            self._disk,
            folder,
            name,
            job.items.items(),
            len(job.items),
            trailer,
            before_rename=lambda: self._await_batch(job),
            between_pieces=self._rest,
        )

    def _rest(self) -> None:
        """Leave about as much time to others as the piece took: they share an interpreter and a disk with it."""
        worked = time.monotonic() - self._piece_began
        if self.rests and not self._stopping and worked >= WORTH_A_REST:
            time.sleep(min(worked, LONGEST_REST))
            self._waited += time.monotonic() - self._piece_began - worked
        self._piece_began = time.monotonic()

    def _await_batch(self, job: SaveJob) -> None:
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._durable >= job.lsn or self._stopping)
            self._waited += time.monotonic() - began
            if job.state.dropped or job.state.incarnation != job.incarnation or self._durable < job.lsn:
                raise SaveAbandoned(f"{job.key[1]}: dropped, or the process ends")

    def _remove(self, keys: list[MapKey], lsn: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._durable >= lsn or self._stopping)
            if self._durable < lsn:
                return
        try:
            self._unlink(keys)
        finally:
            self._mailbox.post(Removed(keys))

    def _unlink(self, keys: list[MapKey]) -> None:
        folders = set()
        for namespace, name in keys:
            for path in (self._paths.current(namespace, name), self._paths.previous(namespace, name)):
                if self._disk.exists(path):
                    self._disk.unlink(path)
                    folders.add(os.path.dirname(path))
        for folder in folders:
            self._disk.fsync_dir(folder)

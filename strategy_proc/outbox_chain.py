"""The segments of an outbox in use, and what keeps them in order: syncing, spares, reuse, folding.

What holds at every moment:

* `tail` = (segment, offset behind the last record, its seq) is replaced in one store, after the bytes are in. So a
  reader sees whole records only, and an exception in the middle of an append has either recorded or not.
* The sealed segments and the tail's cover an unbroken run of seqs that begins at or below `acked`.
* A rename counts at once, also when the sync behind it fails: what a file holds is what its segment maps.
* A segment disappears only when a segment that stays says *durably* that its last record is acknowledged.
* A segment whose sync has failed is never synced again: what is needed is copied out of it.
* Locks are taken in this order: put lock, `_files_lock`, names. An assignment takes none but the first.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from protocol.disk import Disk
from protocol.errors import SyncFailed
from protocol.frames import Record
from protocol.limits import MAX_FOLD_BYTES
from protocol.segments import ACKED_AT, RECORDS_AT, SYNCED_AT
from strategy_proc.compaction import fold_records
from strategy_proc.outbox_segment import Marks, OpenSegment, OutboxFolder

COMPACT_AT = 8 * 2**20
"""Unacknowledged bytes in sealed segments that make a fold worth its work."""
COMPACT_BUSY_AT = 16 * 2**20
"""The same while there is progress: to fold a change costs several times what it costs to ship it."""


class SegmentChain:
    """See the module. `Outbox` adds what the caller and the pump do with it."""

    _files: OutboxFolder
    tail: tuple[OpenSegment, int, int]

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk, self.folder = disk, folder
        self.put_lock = threading.RLock()
        """The session's lock around (dict, seq, append); the session puts its own in place."""
        self.acked = self.shipped = self.synced = 0
        self.full_disk: OSError | None = None
        """Why there is no spare segment; None while all is well."""
        self._files_lock = threading.Lock()  # sync, and all that replaces files; no assignment takes it
        self._sealed: list[OpenSegment] = []
        self._spare: OpenSegment | None = None
        self._out_of_use: list[OpenSegment] = []  # replaced by `sync`; closed by the pump, which may be reading
        self._acked_durably = 0
        self._folded_bytes = 0
        self._obsolete: list[str] = []  # files whose contents stand in a newer one, whose name may not be durable yet
        self._in_use = False

    def _older(self, active: OpenSegment) -> list[OpenSegment]:
        """The sealed segments. Their copy is taken after `active` was read, so none before it is missing."""
        return [segment for segment in self._sealed.copy() if segment is not active]

    def _switch(self, segment: OpenSegment) -> None:
        """Go on in `segment`. Called under the put lock; asks no disk."""
        old, end, seq = self.tail
        old.end, old.last = end, seq
        if not self._sealed or self._sealed[-1] is not old:  # it is, when Ctrl-C struck right here before
            self._sealed.append(old)  # first: who sees the new tail must find what is before it
        segment.base = segment.last = seq
        self.tail = (segment, RECORDS_AT, seq)

    # Syncing

    def sync(self) -> None:
        """Everything recorded before the call is on the medium when it returns. Raises `SyncFailed`.

        A failure is told once for what it concerns: the next call copies that to new files, and syncs them.
        """
        try:
            if self.tail[0].poisoned:
                self._leave_poisoned()
            with self._files_lock:
                if not self._in_use:
                    raise OSError("the session was closed meanwhile")
                self._replace_poisoned()
                if not self._files.names_are_durable:  # what was put over another file, now or by a fold
                    self._files.sync()
                self._sync_segments()
        except OSError as error:
            what = f"changes are recorded in {self.folder}, but not safe from a power cut: {error}"
            raise SyncFailed(what) from error

    def _sync_segments(self) -> None:
        active, end, seq = self.tail
        if seq == self.synced:
            return
        for segment, upto in [*((s, s.end) for s in self._older(active)), (active, end)]:
            if segment.synced_end < upto:
                self._sync_one(segment)
                segment.note_synced(upto)
        self.synced = seq
        active.mark(self._disk, SYNCED_AT, seq)

    def _sync_one(self, segment: OpenSegment) -> None:
        if segment.poisoned:
            raise OSError(f"{segment.path} failed to sync before")
        try:
            self._disk.sync_map(segment.fd, segment.mapping)
        except OSError:
            segment.poisoned = True
            raise

    def _leave_poisoned(self) -> None:
        with self._files_lock:
            self._prepare_spare()
        with self.put_lock, self._files_lock:
            active = self.tail[0]
            if active.poisoned:
                if self._spare is None:
                    raise OSError(f"{active.path} failed to sync, and there is no spare")
                segment, self._spare = self._spare, None
                self._switch(segment)

    def _replace_poisoned(self) -> None:
        for old in [s for s in self._older(self.tail[0]) if s.poisoned]:
            self._put_over([old], [r for r in old.records() if r.seq > self.acked])

    def _put_over(self, olds: list[OpenSegment], records: Sequence[Record]) -> None:
        """Let one synced segment with `records` stand for `olds`, a run of sealed ones."""
        fresh = self._files.create(records, Marks(self.acked, self.shipped))
        if not records:
            fresh.base = fresh.last = olds[-1].last
        self._files.put_over(fresh, olds[-1])
        at = self._sealed.index(olds[0])
        self._sealed[at : at + len(olds)] = [fresh]
        self._out_of_use += olds
        self._obsolete += [old.path for old in olds[:-1]]
        self._remove_obsolete()

    def _remove_obsolete(self) -> None:
        """Remove what newer files stand for, once their names are durable."""
        if self._obsolete:
            self._files.sync()
            while self._obsolete:
                self._disk.unlink(self._obsolete[-1])
                self._obsolete.pop()

    # Keeping house: the pump

    def maintain(self, progress: bool = False) -> None:
        """Prepare a spare, remove what is acknowledged, fold what has piled up. A full disk shows in `full_disk`.

        `progress`: changes are being acknowledged, so what has piled up may well go by itself.
        """
        if self._spare is not None and not (self._sealed or self._out_of_use or self._obsolete):
            self.full_disk = None
            return
        with self._files_lock:
            while self._out_of_use:
                self._out_of_use.pop().close(self._disk)
            try:
                self._prepare_spare()
                self.full_disk = None
            except OSError as error:
                self.full_disk = error
            try:
                self._remove_obsolete()
                self._retire_acked()
                self._compact(progress)
            except OSError as error:
                self.full_disk = self.full_disk or error

    def _prepare_spare(self) -> None:
        if self._spare is not None:
            return
        acked = self.acked
        segment = self._files.spare(Marks(acked, self.shipped))
        self._files.warm(segment)
        try:
            while self._spare is None:
                number = self._files.name(segment)
                self._files.sync()
                with self._files.names:
                    if number == self._files.newest:  # else a large segment has just taken a number behind it
                        self._spare = segment
        except OSError:
            self._files.give_up(segment)
            raise
        self._acked_durably = acked

    def _retire_acked(self) -> None:
        active, acked = self.tail[0], self.acked
        sealed = self._older(active)
        waiting = sum(self._acked_durably < s.last <= acked for s in sealed)
        # One is usual: it waits for the next spare, which says it. On a full disk it is the next spare.
        if waiting > (0 if self.full_disk else 1) and not active.poisoned:
            active.mark(self._disk, ACKED_AT, acked)
            self._sync_one(active)
            self._acked_durably = acked
        for segment in sealed:
            if segment.last > self._acked_durably:
                break
            try:
                self._files.retire(segment)
            except FileNotFoundError:  # somebody has deleted it
                segment.close(self._disk)
            self._sealed.remove(segment)  # behind it: what could not be retired is tried again

    def _compact(self, progress: bool) -> None:
        waiting = [s for s in self._older(self.tail[0]) if s.last > self.acked]
        used = sum(s.end - RECORDS_AT for s in waiting)
        worth = 0 if self.full_disk else COMPACT_BUSY_AT if progress else COMPACT_AT
        if len(waiting) < 2 or used <= max(worth, 2 * self._folded_bytes):
            return
        at = self._sealed.index(waiting[0])
        records = (r for s in waiting for r in s.records() if r.seq > self.acked)
        folded = fold_records(records, self.shipped)
        if any(len(record.payload) > MAX_FOLD_BYTES for record in folded):  # no server would take it
            self._folded_bytes = used
            return
        self._put_over(waiting, folded)
        self._folded_bytes = self._sealed[at].end - RECORDS_AT

"""The outbox of a namespace: every change is appended to a mapped file, and so survives the process.

Three parties work on it; each keeps to its own side:

* The caller (`append`, under the session's put lock): stores a record through the mapping, no system call. It
  switches to the prepared spare when a segment is full.
* The pump (`unshipped`, `mark_*`, `maintain`; one thread): reads what is published, keeps a spare ready, reuses or
  removes what is acknowledged, folds what an absent persistence process has not taken.
* `sync` (any thread): makes durable what is recorded.

What holds at every moment:

* `_tail` = (segment, offset behind the last record, its seq) is replaced in one store, after the bytes are in.
* `_sealed` + the tail's segment cover an unbroken run of seqs that begins at or below `acked`.
* A segment disappears only when a segment that stays says *durably* that its last record is acknowledged.
* Locks are taken in this order: put lock, `_files_lock`, names. An assignment takes none but the first, except for
  a record too large for a regular segment.
"""

from __future__ import annotations

import mmap
import os
import threading
import uuid
from collections.abc import Sequence
from zlib import crc32

from protocol.changes import decode_changes, encode_changes
from protocol.disk import Disk
from protocol.errors import OutboxFull, SyncFailed
from protocol.frames import BODY, CRC, HEADER_BYTES, Record, record_bytes
from protocol.outbox_files import (
    IDENTITY_FILE,
    SEGMENT_SUFFIX,
    Identity,
    OutboxContents,
    encode_identity,
    read_outbox,
    segment_number,
)
from protocol.segments import (
    ACKED_AT,
    RECORDS_AT,
    SEGMENT_BYTES,
    SHIPPED_AT,
    SYNCED_AT,
    SegmentHead,
    boot_mark,
    write_mark,
)
from strategy_proc.compaction import fold_records
from strategy_proc.outbox_lock import OutboxLock
from strategy_proc.outbox_reader import OutboxReader
from strategy_proc.outbox_segment import Marks, OpenSegment, OutboxFolder

__all__ = ["COMPACT_AT", "Outbox", "OutboxLock"]

COMPACT_AT = 8 * 2**20
"""Unacknowledged bytes in sealed segments that make a fold worth its work."""

_pack_body, _pack_crc = BODY.pack, CRC.pack


class Outbox:
    """See the module. `load`, then `begin`; before `begin` there is nothing to append to."""

    # What is appended to: the hot path reads these one by one, everybody else reads `_tail`.
    _segment: OpenSegment
    _mapping: mmap.mmap
    _end: int
    _tail: tuple[OpenSegment, int, int]

    _files: OutboxFolder
    _epoch: int

    def __init__(self, disk: Disk, folder: str, boot_id: str, contents: OutboxContents, identity: Identity) -> None:
        self._disk, self.folder, self._boot_id = disk, folder, boot_id
        self.contents, self.identity = contents, identity
        self.put_lock = threading.RLock()
        """The session's lock around (dict, seq, append); the session puts its own in place before `begin`."""
        self.seq = 0
        """Last recorded."""
        self.acked = self.shipped = self.synced = 0
        self.full_disk: OSError | None = None
        """Why there is no spare segment; None while all is well."""
        self._files_lock = threading.Lock()  # sync, and all that replaces files; no assignment takes it
        self._sealed: list[OpenSegment] = []
        self._spare: OpenSegment | None = None
        self._out_of_use: list[OpenSegment] = []  # replaced by `sync`; closed by the pump, which may be reading
        self._reader = OutboxReader()
        self._acked_durably = 0
        self._folded_bytes = 0
        self._capacity = 0  # while there is no segment

    @classmethod
    def load(cls, disk: Disk, folder: str, namespace: str, boot_id: str) -> Outbox:
        """Read the outbox and start a new life of it. Raises `Damaged` or `ForeignStore`; OSError."""
        parent = os.path.dirname(folder)
        disk.mkdir(parent)
        disk.mkdir(folder)
        for name in disk.listdir(folder):
            if name.endswith(".tmp"):
                disk.unlink(os.path.join(folder, name))
        contents = read_outbox(disk, folder, namespace, boot_id)
        old = contents.identity
        if old is None:
            identity = Identity(namespace, uuid.uuid4().bytes, 1)
        else:
            identity = Identity(namespace, old.identity, old.life + 1, old.store_id)
        outbox = cls(disk, folder, boot_id, contents, identity)
        outbox._write_identity()
        for path in (folder, parent, os.path.dirname(parent)):  # on every start: a killed one may not have got here
            disk.fsync_dir(path)
        return outbox

    def skip_life(self, number: int) -> None:
        """Be newer than life `number`, which the server has seen of this outbox (its folder was restored)."""
        old = self.identity
        self.identity = Identity(old.namespace, old.identity, max(old.life, number) + 1, old.store_id)
        self._write_identity()

    def begin(self, store_id: bytes, epoch: int, applied: int, leftovers: list[Record]) -> None:
        """Start appending behind `leftovers` (the records that the store at `applied` lacks; their spans are kept).

        They are copied into a first segment of this life, which takes the place of all former ones. Raises OSError.
        """
        identity = self.identity
        self.identity = Identity(identity.namespace, identity.identity, identity.life, store_id)
        self._write_identity()
        head = SegmentHead(
            store_id, identity.identity, boot_mark(self._boot_id), identity.life, epoch, 0, identity.namespace
        )
        old = [os.path.join(self.folder, n) for n in self._disk.listdir(self.folder) if n.endswith(SEGMENT_SUFFIX)]
        self._files = OutboxFolder(self._disk, self.folder, head, max(map(segment_number, old), default=0))
        self._epoch = epoch
        self.seq = leftovers[-1].seq if leftovers else applied
        self.acked = self._acked_durably = applied
        self.shipped = min(max(self.contents.shipped, applied), self.seq)
        self.synced = self.seq
        first = self._files.create(leftovers, Marks(applied, self.shipped), _room(leftovers))
        self._files.name(first)
        self._files.sync()
        for path in old:
            self._disk.unlink(path)
        first.base = leftovers[0].base if leftovers else applied
        self._append_to(first, first.end)
        with self._files_lock:
            self._prepare_spare()

    # The caller's side

    def append(self, payload: bytes) -> int:
        """Record one change and return its seq. Raises `OutboxFull`, nothing recorded, when there is no room."""
        seq = self.seq + 1
        length = len(payload)
        start = self._end
        end = start + ((length + 31) & -8)  # record_bytes(length)
        if end > self._capacity:
            self._make_room(end - start)
            return self.append(payload)
        body = _pack_body(length, seq, self._epoch, 1) + payload
        self._mapping[start : start + HEADER_BYTES + length] = _pack_crc(crc32(body)) + body
        self._end = end
        self._tail = (self._segment, end, seq)
        self.seq = seq
        return seq

    def _append_to(self, segment: OpenSegment, end: int) -> None:
        self._segment, self._mapping, self._capacity, self._end = segment, segment.mapping, segment.capacity, end
        self._tail = (segment, end, self.seq)

    def _make_room(self, size: int) -> None:
        if RECORDS_AT + size > SEGMENT_BYTES:
            segment = self._large(size)
        elif self._spare is not None:
            segment, self._spare = self._spare, None
        else:
            raise OutboxFull(f"no outbox segment could be prepared in {self.folder}: {self.full_disk or 'too fast'}")
        self._switch(segment)

    def _switch(self, segment: OpenSegment) -> None:
        old = self._segment
        old.end, old.last = self._end, self.seq
        self._sealed.append(old)  # first: a reader that sees the new tail must find what is before it
        segment.base = segment.last = self.seq
        self._append_to(segment, RECORDS_AT)

    def _large(self, size: int) -> OpenSegment:
        """A segment for one record, made by the caller itself: the exception to "never asks for a disk"."""
        segment = None
        try:
            segment = self._files.create((), Marks(self.acked, self.shipped), size)
            self._files.name(segment)
            if self._spare is not None:
                self._files.name(self._spare)  # numbers are the order: it comes behind the large one now
            self._disk.fsync_dir(self.folder)
        except OSError as error:
            if segment is not None:
                self._files.delete(segment)
            what = f"no outbox segment of {size} bytes could be made in {self.folder}: {error}"
            raise OutboxFull(what) from error
        return segment

    # Syncing

    def sync(self) -> None:
        """Everything recorded before the call is on the medium when it returns. Raises `SyncFailed`.

        A segment whose sync failed is never synced again: the next call copies what is needed out of it.
        """
        try:
            if self._segment.poisoned:
                self._leave_poisoned()
            with self._files_lock:
                self._replace_poisoned()
                self._sync_segments()
        except OSError as error:
            what = f"changes are recorded in {self.folder}, but not safe from a power cut: {error}"
            raise SyncFailed(what) from error

    def _sync_segments(self) -> None:
        active, end, seq = self._tail
        if seq == self.synced:
            return
        runs = [(s, s.end) for s in list(self._sealed) if s is not active] + [(active, end)]
        for segment, upto in runs:
            if segment.synced_end < upto:
                if segment.poisoned:
                    raise OSError(f"{segment.path} failed to sync before")
                self._sync_one(segment)
                segment.synced_end = upto
        self.synced = seq
        write_mark(active.view, SYNCED_AT, seq)

    def _sync_one(self, segment: OpenSegment) -> None:
        try:
            self._disk.sync_map(segment.fd, segment.mapping)
        except OSError:
            segment.poisoned = True
            raise

    def _leave_poisoned(self) -> None:
        with self._files_lock:
            self._prepare_spare()
        with self.put_lock, self._files_lock:
            if self._segment.poisoned:
                if self._spare is None:
                    raise OSError(f"{self._segment.path} failed to sync, and there is no spare")
                segment, self._spare = self._spare, None
                self._switch(segment)

    def _replace_poisoned(self) -> None:
        for old in [s for s in list(self._sealed) if s.poisoned]:
            needed = [r for r in old.records() if r.seq > self.acked]
            self._put_over([old], needed)

    def _put_over(self, olds: list[OpenSegment], records: Sequence[Record]) -> None:
        """Let one synced segment with `records` stand for `olds`, a run of sealed ones."""
        fresh = self._files.create(records, Marks(self.acked, self.shipped))
        if not records:
            fresh.base = fresh.last = olds[-1].last
        self._files.put_over(fresh, olds[-1])
        at = self._sealed.index(olds[0])
        self._sealed[at : at + len(olds)] = [fresh]
        for old in olds[:-1]:
            self._disk.unlink(old.path)
        self._out_of_use += olds

    # The pump's side

    def unshipped(self, from_seq: int, max_bytes: int) -> tuple[int, int, list[bytes]] | None:
        """The run of whole records behind `from_seq`: (base, upto, their bytes in parts), or None if there is none.

        At most `max_bytes`, but at least one record. `from_seq` inside a fold's span gives the fold with its own base.
        Raises LookupError when those records are no longer here. Cost is O(1) + the bytes where the last call ended.
        """
        tail = self._tail
        return self._reader.read(tail, list(self._sealed), from_seq, max_bytes)

    def mark_shipped(self, seq: int) -> None:
        """Before it is handed to a socket: from now on everything up to `seq` may have been seen."""
        if seq > self.shipped:
            self.shipped = seq
            write_mark(self._tail[0].view, SHIPPED_AT, seq)

    def mark_acked(self, seq: int) -> None:
        """Everything up to `seq` is durable in the persistence process."""
        if seq > self.acked:
            self.acked = seq
            write_mark(self._tail[0].view, ACKED_AT, seq)

    def maintain(self) -> None:
        """Prepare a spare, remove what is acknowledged, fold what has piled up. A full disk shows in `full_disk`."""
        with self._files_lock:
            for segment in self._out_of_use:
                segment.close(self._disk)
            self._out_of_use.clear()
            try:
                self._prepare_spare()
                self.full_disk = None
            except OSError as error:
                self.full_disk = error
            try:
                self._retire_acked()
                self._compact()
            except OSError as error:
                self.full_disk = self.full_disk or error

    def _prepare_spare(self) -> None:
        if self._spare is not None:
            return
        acked = self.acked
        segment = self._files.spare(Marks(acked, self.shipped))
        try:
            while self._spare is None:
                number = self._files.name(segment)
                self._files.sync()
                with self._files.names:
                    if number == self._files.newest:  # else a large segment has just taken a number behind it
                        self._spare = segment
        except OSError:
            self._files.delete(segment)
            raise
        self._acked_durably = acked

    def _retire_acked(self) -> None:
        sealed = list(self._sealed)
        active, acked = self._tail[0], self.acked
        waiting = sum(self._acked_durably < s.last <= acked for s in sealed)
        if waiting > 1 and not active.poisoned:  # one is usual: it waits for the next spare, which says it
            write_mark(active.view, ACKED_AT, acked)
            self._sync_one(active)
            self._acked_durably = acked
        for segment in sealed:
            if segment.last > self._acked_durably:
                break
            self._sealed.remove(segment)
            self._files.retire(segment)

    def _compact(self) -> None:
        waiting = [s for s in list(self._sealed) if s.last > self.acked]
        used = sum(s.end - RECORDS_AT for s in waiting)
        worth = 0 if self.full_disk else COMPACT_AT
        if len(waiting) < 2 or used <= max(worth, 2 * self._folded_bytes):
            return
        records = (r for s in waiting for r in s.records() if r.seq > self.acked)
        self._put_over(waiting, fold_records(records, self.shipped))
        at = next(i for i, s in enumerate(self._sealed) if s.last > self.acked)
        self._folded_bytes = self._sealed[at].end - RECORDS_AT

    def replace_all(self, base: int, payload: bytes | Sequence[bytes]) -> None:
        """Let one record (base, seq + 1] of these changes stand for everything recorded so far. Raises OSError.

        For a person's decision that our state is the right one. Called by the pump, under the put lock.
        """
        if not isinstance(payload, bytes):
            payload = encode_changes([change for part in payload for change in decode_changes(part)])
        with self._files_lock:
            seq = max(self.seq, base) + 1
            records = [Record(seq, self._epoch, seq - base, payload)]
            segment = self._files.create(records, Marks(base, base), _room(records))
            self._files.name(segment)
            old, self._sealed = [*self._sealed, self._segment], []
            self.seq = self.synced = seq
            self.acked = self.shipped = self._acked_durably = base
            self._reader.forget()
            self._folded_bytes = 0
            self._append_to(segment, segment.end)
            spare, self._spare = self._spare, None
            for gone in [*old, *([spare] if spare else [])]:  # the spare says what was acknowledged before, too
                self._disk.unlink(gone.path)
            self._out_of_use += [*old, *([spare] if spare else [])]
            self._files.sync()
            self._prepare_spare()

    # Leaving

    def close(self) -> None:
        """Unmap everything. The files stay, for the next life."""
        with self._files_lock:
            self.drop_in_child()

    def drop_in_child(self) -> None:
        """In a forked child: close descriptors and mappings (which have no pages here), take no lock."""
        if not self._capacity:
            return
        spare = [self._spare] if self._spare else []
        for segment in [*self._sealed, *self._out_of_use, *spare, self._segment]:
            segment.close(self._disk)
        self._files.close()
        self._sealed, self._out_of_use, self._spare = [], [], None
        self._capacity = 0

    def _write_identity(self) -> None:
        self._disk.replace_file(os.path.join(self.folder, IDENTITY_FILE), encode_identity(self.identity))


def _room(records: Sequence[Record]) -> int:
    """What is left of a regular segment behind `records`."""
    return max(0, SEGMENT_BYTES - RECORDS_AT - sum(record_bytes(len(r.payload)) for r in records))

